"""What evaluations store and pages read: answers, measures, reports, opinions and votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NotRequired, TypedDict

from whet.json_types import JsonObject

Role = Literal["candidate", "against", "base"]
CANDIDATE: Final = "candidate"
OTHER: Final = "against"
BASE: Final = "base"


class ScoreJson(TypedDict):
    """A `training.data.scoring.Score`: both from 0 to 1."""

    correct: float
    f1: float


class AnswerJson(TypedDict):
    """A `training.evaluation.answers.Answer`."""

    text: str
    tokens: int
    stopped: bool  # by an end-of-turn token, not by the limit
    score: ScoreJson


class Turn(TypedDict):
    """A message of a question: calls of tools are written as people read them."""

    role: str
    content: str


class Sample(TypedDict):
    """One row of an evaluation with its stored answers."""

    id: str
    groups: list[str]
    prompt: list[Turn]
    reference: str
    candidate: AnswerJson
    against: AnswerJson
    base: NotRequired[AnswerJson]  # where the base was asked beside both


class TaskCounts(TypedDict):
    """Rows, and how many of them each side answers right."""

    n: int
    candidate: float
    against: float


class SliceCounts(TaskCounts):
    """The same of the rows about one word."""

    slice: str


class QuestionFacts(TypedDict, total=False):
    """What is known about the questions of a group; empty without rows."""

    questions: int
    patterns: int
    known_patterns: float  # share of the rows whose pattern training has
    nearest: float  # median similarity to the nearest training question, 0 to 1


class GroupMetrics(QuestionFacts, total=False):
    """What the gate measured in one group; no figure where it has no rows."""

    n: int
    measure: str
    candidate: float | None
    against: float | None
    difference: float | None
    low: float | None
    high: float | None
    broken: int
    fixed: int
    candidate_f1: float
    against_f1: float
    candidate_low: float | None
    candidate_high: float | None
    against_low: float
    against_high: float
    broken_ids: list[str]  # of reviewed conversations
    candidate_stopped: float
    against_stopped: float
    candidate_tokens: float
    against_tokens: float
    tasks: dict[str, TaskCounts]
    worse_slices: list[SliceCounts]
    # Of plain texts
    candidate_bits_per_byte: float
    against_bits_per_byte: float
    candidate_perplexity: float
    against_perplexity: float
    # Of context reliance
    candidate_keeps: float
    against_keeps: float
    held_out: int


Metrics = dict[str, GroupMetrics]


class Signature(TypedDict):
    """Who answers for reviewed conversations that a version breaks."""

    by: str
    reason: str
    evaluation: str
    conversations: list[str]


class Signing(Signature):
    """A signature as it was just stored."""

    id: str
    adapter: str


class ThresholdsJson(TypedDict):
    """What the gate asked for (`training.evaluation.gate.Thresholds`)."""

    margin: float
    confidence: float
    kept: float
    kept_all_below: int
    reliance_margin: float
    reliance_min_rows: int
    min_rows: int
    few_correct: float
    rows_available: NotRequired[dict[str, int]]  # by group, before sampling
    failed: NotRequired[list[str]]
    signed: NotRequired[Signature]


class NewEvaluation(TypedDict):
    """A row of `evaluations` without id, adapter_digest and created_at."""

    run_id: str | None
    against_digest: str | None
    dataset_digest: str
    metrics: Metrics
    verdict: str
    reason: str
    thresholds: ThresholdsJson
    samples_path: str | None
    people: NotRequired[PeopleSay | None]


class JudgedVersion(TypedDict):
    """What `whet eval run` found."""

    id: str
    adapter: str
    against: str
    verdict: str
    reason: str
    metrics: Metrics
    samples_path: str | None
    left_out: list[str]  # ids of held-out rows that the base and the engine do not take


class PeopleSay(TypedDict):
    """What the votes on an evaluation come to."""

    verdict: str
    sentence: str
    voted: int


class EvaluationRow(NewEvaluation):
    """A row of `evaluations`."""

    id: str
    adapter_digest: str
    created_at: int


class Comparison(TypedDict):
    """The candidate less another side, with a 95 % interval and its verdict."""

    difference: float
    low: float
    high: float
    differ: int  # rows on which the two differ
    verdict: str


class Measure(TypedDict):
    """One figure of a report."""

    name: str
    n: int
    better: str  # higher | lower | "" where neither is better
    values: dict[str, float]  # by side
    against: dict[str, Comparison]
    difference_in: NotRequired[str]  # the unit, where it is not the values'


class ProbeFigures(TypedDict):
    """What the probe sets say."""

    seed: str
    forgetting: list[Measure]
    bias: list[Measure]
    safety: list[Measure]
    refused_by_category: dict[str, dict[str, int]]


class GateJson(TypedDict):
    """The gate's decision in a report."""

    verdict: str
    reason: str
    metrics: Metrics
    thresholds: ThresholdsJson
    failed: list[str]


class Agreement(TypedDict):
    """How far two say the same; kappa is None where there are too few rows."""

    n: int
    same: NotRequired[int]
    voters: NotRequired[int]
    kappa: float | None


class FirstPlace(TypedDict):
    """How often the answer that stood first was taken."""

    chosen: int
    of: int
    by_chance: NotRequired[float]


class JudgeModel(TypedDict):
    """Which model is asked, and where."""

    endpoint: NotRequired[str]
    model: str


class OpinionSummary(TypedDict):
    """What another model says about the answers."""

    adapter: NotRequired[str]
    model: NotRequired[str]
    endpoint: NotRequired[str]
    asked: int
    alike: int
    candidate: int
    against: int
    tie: int
    no_verdict: int
    preference: Comparison
    first_place: FirstPlace
    agreement: Agreement
    rows: NotRequired[dict[str, str]]  # row → vote; not in opinions of before there were votes
    sentence: str
    votes: NotRequired[Agreement]  # with people's


class VotePair(TypedDict):
    """People's votes on the candidate and one other; wins are the candidate's."""

    name: str
    wins: int
    losses: int
    ties: int
    none: int
    preference: Comparison


class VotesCount(TypedDict):
    """What the votes come to."""

    rows: int
    differ: int
    alike: int
    voted: int
    votes: int
    voters: int
    pairs: dict[str, VotePair]  # by role
    first_place: FirstPlace


class VotesVerdict(VotesCount):
    """The same with its verdict in words."""

    verdict: str
    sentence: str


class VotesSummary(VotesVerdict):
    """The same with the agreement between people."""

    agreement: Agreement
    evaluation: NotRequired[str]
    judge: NotRequired[Agreement]  # of the model that was asked
    said_agreement: NotRequired[str]


class Report(TypedDict):
    """All that was measured about a version."""

    format: int
    against: str
    base: str
    gate: GateJson
    measures: dict[str, list[Measure]]
    probes: ProbeFigures
    earlier: str
    harness: NotRequired[list[HarnessResult]]  # added when it is printed
    reliance: NotRequired[list[Measure]]
    asked_share: NotRequired[float]
    # Added when it is read
    adapter: NotRequired[str]
    evaluation: NotRequired[str]
    at: NotRequired[int]
    opinion: NotRequired[OpinionSummary]
    votes: NotRequired[VotesSummary]


class TableLine(TypedDict):
    """One comparison as a page shows it."""

    measure: str
    rows: str
    candidate: str
    value: str
    difference: str
    verdict: str
    together: bool
    places: list[float]


class ReportTable(TypedDict):
    """A table of comparisons with the reach of its picture's axis, in points."""

    reach: str
    lines: list[TableLine]


class TaskScoreJson(TypedDict):
    """A `training.evaluation.harness.TaskScore`."""

    task: str
    metric: str
    questions: int
    candidate: float
    candidate_error: float | None
    base: float | None
    base_error: float | None


class HarnessResult(TypedDict):
    """What lm-evaluation-harness found of a version."""

    adapter: NotRequired[str]
    at: int
    harness: str
    chat_template: bool
    examples: int | None
    shots: JsonObject | None
    scores: list[TaskScoreJson]


Samples = Sequence[Sample]
