"""What the JSON columns of monitoring's tables hold."""

from __future__ import annotations

from whet.records.shape import JsonShape, Record

# (signal, part, adapter, value, standard error, level, values behind it)
StoredPoint = tuple[str, str, str, float, float, float, int]
# (signal, part, adapter, slice, value, standard error, level, values behind it)
StoredSlicePoint = tuple[str, str, str, str, float, float, float, int]
# (signal, part, adapter, category → rows)
StoredCounts = tuple[str, str, str, dict[str, int]]
# (signal, part, adapter, up, down, since when up, since when down)
StoredSum = tuple[str, str, str, float, float, int | None, int | None]

# (signal, part, adapter, first hour, strength, before, now, sentence, sides, values behind it)
StoredCrossing = tuple[str, str, str, int, float, float, float, str, int, int]
# As earlier hours were stored, without the number of values.
ShortCrossing = tuple[str, str, str, int, float, float, float, str, int]


class MoveRecord(Record):
    """What moved with a declared change (monitoring.detector.changes.Move)."""

    signal: str = ""
    label: str = ""
    before: float = 0.0
    now: float = 0.0
    n_before: int = 0
    n_now: int = 0
    difference: float = 0.0
    low: float = 0.0
    high: float = 0.0
    is_clear: bool
    sentence: str


class ComparisonRecord(Record):
    """What is new beside another (monitoring.detector.changes.ComparedArms)."""

    other: str = ""
    heading: str
    when: str = ""  # same days | days before
    rows_other: int = 0
    rows_new: int = 0
    moves: list[MoveRecord]


class DeclaredChangeRecord(Record):
    """A version, template or document set that is new (monitoring.detector.changes)."""

    kind: str = ""
    name: str
    other: str = ""
    first_day: str = ""
    last_day: str = ""
    rows: int = 0
    sentences: list[str]
    comparisons: list[ComparisonRecord]


class DayRecord(Record):
    """A day's or an hour's statistics (monitoring.detector.daily.DayStatistics)."""

    day: int  # since 1970-01-01
    rows: int
    sampled: int
    points: list[StoredPoint]
    counts: list[StoredCounts]
    templates: dict[str, int]
    # What days that were stored earlier do not have.
    has_users: bool = True
    low_scores: dict[str, float] = {}
    documents: dict[str, int] = {}
    slices: dict[str, dict[str, int]] = {}
    slice_points: list[StoredSlicePoint] = []
    changes: list[DeclaredChangeRecord] = []  # of days alone


class HourOutcome(Record):
    """What an hour's judgement left behind (monitoring.detector.hours.RememberedHour)."""

    noise: float | None
    sums: list[StoredSum]
    evidence: list[StoredCrossing | ShortCrossing]


class WordShare(Record):
    """A word that became more or less frequent."""

    word: str
    reference_share: float | None = None
    window_share: float | None = None


class ReportSignal(Record):
    """One signal of a drift report (monitoring.verdict.Finding)."""

    name: str
    kind: str = ""
    label: str = ""
    unit: str = ""
    shape: str = ""
    state: str = ""  # drift | no_drift | not_enough_data
    drifted: bool = False
    n_reference: int = 0
    n_window: int = 0
    test: str | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    effect: float | None = None
    reference: float | None = None
    window: float | None = None
    since_at: int | None = None
    words: list[WordShare] = []
    sentence: str = ""
    series: list[list[float]] = []


class AlertSignal(Record):
    """What an incident's page needs of a signal."""

    name: str = ""
    label: str = ""
    unit: str = ""
    shape: str = ""
    sentence: str = ""
    reference: float | None = None
    window: float | None = None
    effect: float | None = None
    adjusted_p_value: float | None = None
    series: list[list[float]] = []


class EvidenceRecord(Record):
    """One chart of an incident (monitoring.detector.incidents.Evidence)."""

    signal: str = ""
    label: str = ""  # absent from incidents of early versions
    part: str = ""
    adapter: str = ""
    slice: str = ""
    detected_on: str = ""
    first_day: str = ""
    detected_at: str = ""  # of an hour; empty: a day was judged
    first_hour: str = ""
    direction: str = ""  # up | down
    before: float | None = None
    now: float | None = None
    relative_change: float | None = None
    n: int = 0
    strength: float = 0.0
    sentence: str = ""
    unit: str = ""
    share: bool = False


class SliceRecord(Record):
    """A slice of the requests that carries a change."""

    column: str
    value: str
    share_of_change: float = 0.0
    share_before: float = 0.0
    share_now: float = 0.0


class TopicRecord(Record):
    """A topic whose questions became more, or that carries a change."""

    words: list[str] = []
    share_before: float = 0.0
    share_now: float = 0.0
    share_of_change: float = 0.0  # 0: not known
    examples: list[str] = []


class GapRecord(Record):
    """A cluster of questions that find nothing."""

    words: list[str] = []
    questions: int = 0
    share: float = 0.0  # of the searches
    examples: list[str] = []


class CauseRecord(Record):
    """Why questions find nothing (monitoring.detector.cause.Cause)."""

    kind: str = ""
    sentence: str
    share_before: float = 0.0
    share_now: float = 0.0
    new_questions: float = 0.0
    gaps: list[GapRecord] = []
    documents_changed_on: str | None = None


class Explanation(Record):
    """Where an incident's change is, from the conversations that are kept."""

    slices: list[SliceRecord] | None = None  # None: no conversations of it are kept
    topics: list[TopicRecord] = []
    examples: list[str] = []  # ids of conversations, most telling first
    cause: CauseRecord | None = None
    topic_names: dict[str, list[str]] = {}  # number of a topic → its words


class IncidentRecord(Explanation):
    """An incident of days or hours (monitoring.detector.incidents.Incident)."""

    id: str
    alias: str = ""
    state: str = "open"  # open | resolved | expected
    signal: str = ""
    slice: str = ""
    signals: list[str] = []
    detected_on: str = ""
    first_day: str = ""
    closed_on: str | None = None
    detected_at: str = ""  # of an hour; empty: found when a day was over
    first_hour: str = ""
    summary: str = ""
    quality_moved: bool = False
    hint: str = ""
    evidence: list[EvidenceRecord] = []  # the lead first


class CountedRecord(Record):
    """Wrong answers of some."""

    bad: int = 0
    n: int = 0
    rate: float | None = None
    low: float | None = None
    high: float | None = None


class QualityFigureRecord(Record):
    """One source of quality, before an incident and since (monitoring.quality)."""

    source: str = ""
    label: str = ""
    verdict: str = ""
    sentence: str = ""
    before: CountedRecord | None = None
    now: CountedRecord | None = None
    difference_low: float | None = None
    difference_high: float | None = None


class QualityRecord(Record):
    """What quality did since an incident began."""

    verdict: str = "not known"
    sentence: str = ""
    figures: list[QualityFigureRecord] = []


class AlertDetail(Record):
    """What an alert rests on; which fields there are depends on what opened it."""

    signals: list[AlertSignal] = []
    words: list[WordShare] = []
    interaction_ids: list[str] = []
    since_at: int | None = None  # ms since 1970
    since_is_exact: bool = False
    resolution: str = ""  # why it was closed
    quality: QualityRecord | None = None
    # Of two windows that were compared.
    drift_report_id: str = ""
    reports: list[str] = []
    stable_digest: str | None = None
    quiet_runs: int = 0
    reopened: int = 0  # times that it came back after it had resolved itself
    reference_from: int | None = None
    reference_to: int | None = None
    window_from: int | None = None
    window_to: int | None = None
    # Of days and hours.
    incident: IncidentRecord | None = None
    # Of the audit: its week's Monday, in days since 1970-01-01.
    week: int = 0
    # Of a version without effect, or on trial.
    adapter_digest: str | None = None


REPORT_SIGNALS = JsonShape[list[ReportSignal]]("drift_reports.signals", list[ReportSignal])
DAY_STATISTICS = JsonShape[DayRecord]("drift_days.statistics", DayRecord)
DAY_CONFIRMED = JsonShape[list[list[str]]]("drift_days.confirmed", list[list[str]])
HOUR_STATISTICS = JsonShape[DayRecord | None]("drift_hours.statistics", DayRecord | None)
HOUR_OUTCOME = JsonShape[HourOutcome]("drift_hours.outcome", HourOutcome)
AUDIT_POPULATION = JsonShape[dict[str, dict[str, int]]](
    "audit_weeks.population", dict[str, dict[str, int]]
)
GAP_WORDS = JsonShape[list[str]]("retrieval_gaps.words", list[str])
GAP_MEMBERS = JsonShape[list[str]]("retrieval_gaps.members", list[str])
# Alerts of early versions may have no detail at all.
ALERT_DETAIL = JsonShape[AlertDetail | None]("alerts.detail", AlertDetail | None)
