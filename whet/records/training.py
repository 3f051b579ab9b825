"""What the JSON columns of training's tables hold."""

from __future__ import annotations

from whet.json_types import Json, JsonObject
from whet.records.shape import JsonShape, Record

Number = int | float  # a whole number is stored as one


class SampledAnswers(Record):
    """Answers to a few held-out questions, written while a run trains."""

    questions: list[str] = []
    answers: list[Json] = []  # [step, an answer to each question]


class RunProgress(Record):
    """How far a run is. Only the stage is always there."""

    stage: str = ""
    done: int = 0  # of a stage before the training itself, of `total`
    total: int = 0
    step: int = 0
    steps: int = 0
    loss: Number = 0.0
    tokens_per_s: Number = 0.0
    eta_s: Number = 0.0
    validation: list[list[Number]] = []  # [step, loss]
    signs: list[str] = []  # what is wrong with the run, in sentences
    samples: SampledAnswers | None = None
    answered: int = 0  # of `to_answer` held-out questions
    to_answer: int = 0
    folder: str = ""  # of a result that is no version, with what was found of it
    verdict: str = ""
    reason: str = ""


class RunMeasured(Record):
    """What a run took."""

    seconds: Number = 0.0
    tokens_per_s: Number = 0.0
    peak_memory_bytes: int = 0


class RunEstimate(Record):
    """What was expected of a run before its first step, and what it took."""

    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    steps: int = 0
    tokens_per_s: Number = 0.0
    seconds: Number = 0.0
    refit_seconds: Number = 0.0  # of the training on all rows afterwards
    peak_memory_bytes: int = 0
    memory: dict[str, int] = {}  # by part, in bytes
    cost: Number = 0.0
    measured: RunMeasured | None = None
    error: dict[str, Number] = {}  # share by which the estimate was too high


class RunRecipe(Record):
    """The recipe of a run with its rows' place; of its fields, those that others read
    (`training.recipes.recipe.Recipe` has all)."""

    method: str = ""
    dataset_path: str = ""
    dataset_name: str = ""
    rows: Json = None  # by part; one number in runs of before there were parts
    into: str = ""  # folder of a result that is no version


class TaskCounts(Record):
    """Rows, and how many of them each side answers right."""

    n: int = 0
    candidate: Number = 0.0
    against: Number = 0.0


class SliceCounts(TaskCounts):
    """The same of the rows about one word."""

    slice: str = ""


class GroupMetrics(Record):
    """What the gate measured in one group of held-out rows; no figure where it has no rows."""

    n: int = 0
    measure: str = ""
    candidate: Number | None = None
    against: Number | None = None
    difference: Number | None = None
    low: Number | None = None
    high: Number | None = None
    broken: int = 0
    fixed: int = 0
    candidate_low: Number | None = None
    candidate_high: Number | None = None
    broken_ids: list[str] = []  # of reviewed conversations
    questions: int = 0
    patterns: int = 0
    known_patterns: Number = 0.0  # share of the rows whose pattern training has
    nearest: Number = 0.0  # median similarity to the nearest training question
    tasks: dict[str, TaskCounts] = {}
    worse_slices: list[SliceCounts] = []


class GateSignature(Record):
    """Who answers for reviewed conversations that a version breaks."""

    by: str = ""
    reason: str = ""
    evaluation: str = ""
    conversations: list[str] = []


class GateThresholds(Record):
    """What the gate asked for (`training.evaluation.gate.Thresholds`)."""

    margin: Number = 0.0
    confidence: Number = 0.0
    kept: Number = 0.0
    kept_all_below: int = 0
    reliance_margin: Number = 0.0
    reliance_min_rows: int = 0
    min_rows: int = 0
    few_correct: Number = 0.0
    rows_available: dict[str, int] = {}  # by group, before sampling
    failed: list[str] = []
    signed: GateSignature | None = None


class VotesOutcome(Record):
    """What people's votes on an evaluation come to."""

    verdict: str = ""
    sentence: str = ""
    voted: int = 0


class VersionCard(Record):
    """What is said of a version beside its row (`training.runs.version_card`)."""

    name: str = ""
    version: int = 0
    digest: str = ""
    base: str = ""
    files: dict[str, str] = {}  # name → SHA-256
    dataset_path: str = ""
    recipe: JsonObject = {}
    training: JsonObject = {}
    evaluation: JsonObject | None = None
    left_out: list[JsonObject] = []
    libraries: dict[str, str] = {}
    python: str = ""
    fingerprint: JsonObject | None = None  # what an engine has to answer
    imported: JsonObject | None = None  # where an imported one comes from
    merged: JsonObject | None = None  # what a merged one was made of


RUN_RECIPE = JsonShape[RunRecipe]("training_runs.recipe", RunRecipe)
RUN_PROGRESS = JsonShape[RunProgress]("training_runs.progress", RunProgress)
RUN_CURVE = JsonShape[list[list[Number]]]("training_runs.curve", list[list[Number]])
RUN_ESTIMATE = JsonShape[RunEstimate]("training_runs.estimate", RunEstimate)
EVALUATION_METRICS = JsonShape[dict[str, GroupMetrics]](
    "evaluations.metrics", dict[str, GroupMetrics]
)
EVALUATION_THRESHOLDS = JsonShape[GateThresholds]("evaluations.thresholds", GateThresholds)
EVALUATION_PEOPLE = JsonShape[VotesOutcome | None]("evaluations.people", VotesOutcome | None)
VOTE_PLACES = JsonShape[list[str]]("answer_votes.places", list[str])
ADAPTER_CARD = JsonShape[VersionCard]("adapters.card", VersionCard)
