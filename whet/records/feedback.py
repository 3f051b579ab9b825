"""What the JSON columns of feedback's tables hold."""

from __future__ import annotations

from whet.json_types import JsonObject
from whet.records.shape import JsonShape, Record


class ImportedFile(Record):
    """A file that rows of a dataset version came from."""

    name: str
    sha256: str | None = None  # of its bytes; None for a folder
    rows: int = 0


class ImportedFiles(Record):
    """Where the rows of an imported dataset version come from."""

    files: list[ImportedFile] = []


class ErasureReceipt(Record):
    """What an erasure removed, and what still holds rows of the user."""

    id: str
    subject_hash: str = ""  # keyed hash of the user's name, never the name
    erased: dict[str, int] = {}
    datasets_that_still_hold_rows: list[str] = []
    adapters_trained_on_them: list[str] = []
    left_to_other_packages: list[str] = []


RULE_PEOPLE = JsonShape[list[str]]("review_rules.people", list[str])
OPINION_LABELS = JsonShape[list[str]]("review_opinions.labels", list[str])
REVIEW_LABELS = JsonShape[list[str] | None]("reviews.labels", list[str] | None)
REVIEW_PASSAGES = JsonShape[list[str] | None]("reviews.passage_ids", list[str] | None)
EXAMPLE_ROW = JsonShape[JsonObject]("examples.row", JsonObject)  # docs/training-data.md tells it
DATASET_ROWS = JsonShape[dict[str, int]]("datasets.rows", dict[str, int])  # part → how many
DATASET_PARENTS = JsonShape[list[str]]("datasets.parents", list[str])
DATASET_EXAMPLES = JsonShape[list[str]]("datasets.example_ids", list[str])
DATASET_IMPORTED = JsonShape[ImportedFiles | None]("datasets.imported", ImportedFiles | None)
REQUEST_RECIPE = JsonShape[JsonObject]("training_requests.recipe", JsonObject)  # overrides
ERASURE_RECEIPT = JsonShape[ErasureReceipt]("erasures.receipt", ErasureReceipt)
