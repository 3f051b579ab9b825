"""Rows of the tables that training reads and writes, as its queries return them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

from sqlalchemy import Row

from training.store.evaluation_types import EvaluationRow
from whet.json_types import Json, JsonObject
from whet.records.shape import JsonShape
from whet.records.training import RUN_CURVE, RUN_ESTIMATE, RUN_PROGRESS, RUN_RECIPE


class AnswerSamples(TypedDict):
    """Answers to a few held-out questions, written while the run trains."""

    questions: list[str]
    answers: list[Sequence[object]]  # [step, an answer to each question]


class Progress(TypedDict, total=False):
    """How far a run is. Only the stage is always there."""

    stage: str
    done: int  # of a stage before the training itself, of `total`
    total: int
    step: int
    steps: int
    loss: float
    tokens_per_s: int
    eta_s: float
    validation: list[list[float]]  # [step, loss]
    signs: list[str]  # what is wrong with the run, in sentences
    samples: AnswerSamples
    answered: int  # of `to_answer` held-out questions
    to_answer: int
    folder: str  # of a result that is no version, with what was found of it
    verdict: str
    reason: str


class Measured(TypedDict, total=False):
    """What a run took."""

    seconds: float
    tokens_per_s: float
    peak_memory_bytes: int


class Estimate(TypedDict, total=False):
    """What was expected of a run before its first step, and what it took."""

    rows: int
    tokens: int
    trained_tokens: int
    steps: int
    tokens_per_s: float
    seconds: float
    peak_memory_bytes: int
    memory: dict[str, int]  # by part, in bytes
    cost: float
    refit_seconds: float  # of the training on all rows afterwards
    measured: Measured
    error: dict[str, float]  # share by which the estimate was too high


Curve = list[list[float]]  # [step, loss, seconds, learning rate]


class RunRecipe(TypedDict, total=False):
    """The recipe of a run as it is stored, with its rows' place; of its fields, those that are read
    (`training.recipes.recipe.Recipe` has all)."""

    method: str
    dataset_path: str
    dataset_name: str
    rows: dict[str, int]  # by part
    into: str  # folder of a result that is no version


class RunRow(TypedDict):
    """A row of `training_runs`."""

    id: str
    request_id: str | None
    alias: str
    dataset_digest: str
    base_digest: str
    recipe: RunRecipe
    state: str
    progress: Progress
    curve: Curve
    estimate: Estimate
    adapter_digest: str | None
    error: str | None
    attempt: int
    worker: str
    cancel_requested_by: str | None
    started_at: int
    heartbeat_at: int
    finished_at: int | None


class ShownRun(RunRow):
    """A run with what pages and `whet train show` say of it beside its row."""

    label: NotRequired[str]  # of the version that it made
    adapter_href: NotRequired[str]
    gate: NotRequired[str]
    spark: NotRequired[str]  # SVG path of the loss
    silent: NotRequired[bool]
    evaluations: NotRequired[list[EvaluationRow]]


class RequestRow(TypedDict):
    """A row of `training_requests`."""

    id: str
    alias: str
    dataset_digest: str
    recipe: JsonObject  # overrides
    reason: str
    requested_by: str
    attempt: int
    created_at: int


class OpenRequest(RequestRow):
    """A request with its unfinished run."""

    run_id: str | None


class WaitingRequest(RequestRow):
    """A request that no worker has taken up, with its dataset's name."""

    name: str | None
    version: int | None


class PlacedRequest(RequestRow):
    """A request with the place of its rows."""

    dataset_path: str
    dataset_name: str


class DatasetRow(TypedDict):
    """A row of `datasets`."""

    digest: str
    name: str
    version: int
    path: str
    rows: dict[str, int]
    parents: list[str]
    example_ids: list[str]
    note: str | None
    created_by: str
    created_at: int
    imported: Json


def run_row(row: Row[*tuple[object, ...]]) -> ShownRun:
    """Return a row of `training_runs`; its columns are those of the type."""
    return cast(ShownRun, dict(row._mapping))


def request_row(row: Row[*tuple[object, ...]]) -> RequestRow:
    """Return a row of `training_requests`."""
    return cast(RequestRow, dict(row._mapping))


def dataset_row_of(row: Row[*tuple[object, ...]]) -> DatasetRow:
    """Return a row of `datasets`."""
    return cast(DatasetRow, dict(row._mapping))


def evaluation_row(row: Row[*tuple[object, ...]]) -> EvaluationRow:
    """Return a row of `evaluations`."""
    return cast(EvaluationRow, dict(row._mapping))


_SHAPES: dict[str, JsonShape[Any]] = {
    "recipe": RUN_RECIPE,
    "progress": RUN_PROGRESS,
    "curve": RUN_CURVE,
    "estimate": RUN_ESTIMATE,
}


def encode_run(values: Mapping[str, object]) -> dict[str, object]:
    """Return values of columns of `training_runs`, JSON as its record writes it."""
    return {
        name: _SHAPES[name].encode(_SHAPES[name].decode(value)) if name in _SHAPES else value
        for name, value in values.items()
    }
