"""What the JSON columns of serving's tables hold."""

from __future__ import annotations

from whet.json_types import Json, JsonObject
from whet.records.shape import JsonShape, Record


class RetrievedPassage(Record):
    """A passage that stood in the prompt of an answer (`serving.retrieval.records.Hit`)."""

    passage_id: str
    document_id: str = ""
    collection: str = ""
    title: str = ""
    address: str = ""
    section: str = ""
    text: str = ""
    score: float = 0.0
    lexical_rank: int | None = None  # from 1; None: not among the candidates of that ranking
    vector_rank: int | None = None
    rerank_score: float | None = None
    metadata: JsonObject = {}


class QueryRewrite(Record):
    """How a follow-up question was rewritten before the search."""

    problem: str = ""
    took_ms: float = 0.0


class RetrievalLog(Record):
    """What an answer's search was, and how it ended; all of it before the answer was written."""

    outcome: str = ""  # a value of serving.gateway.retrieval.Outcome
    collection: str = ""
    digest: str = ""  # of the documents that were searched
    is_stale: bool = False
    query: str = ""
    rewritten_from: str = ""
    passages: int = 0
    dropped_by_budget: int = 0
    message: str = ""
    source: str = ""  # who named the collection
    is_follow_up: bool = False
    top_k: int = 4
    min_score: float = 0.0
    filter: JsonObject = {}
    mode: str = "hybrid"
    neighbours: int = 0
    dropped_hits: int = 0
    took_ms: float = 0.0
    cited: list[int] | None = None
    invalid_marks: int = 0
    rewrite: QueryRewrite | None = None


class EngineProof(Record):
    """That an engine serves a version as it was trained, and by which name."""

    engine_name: str
    proved_at: int = 0  # ms since 1970
    parity: JsonObject = {}  # figures of serving.parity
    max_model_len: int | None = None  # of the base: tokens of prompt and answer
    process: float | None = None  # start of the engine's process, by its clock


class ParserNotice(Record):
    """Something that was left out of a document's text."""

    code: str
    count: int = 1


class BlameReport(Record):
    """A verdict of `whet replay --matrix` and what it was made of (serving.blame.records)."""

    evidence: JsonObject
    verdict: JsonObject


INTERACTION_REQUEST = JsonShape[JsonObject]("interactions.request", JsonObject)
INTERACTION_RESPONSE = JsonShape[Json]("interactions.response", Json)
INTERACTION_RETRIEVED = JsonShape[list[RetrievedPassage] | None](
    "interactions.retrieved", list[RetrievedPassage] | None
)
INTERACTION_RETRIEVAL = JsonShape[RetrievalLog | None](
    "interactions.retrieval", RetrievalLog | None
)
INTERACTION_METADATA = JsonShape[Json]("interactions.metadata", Json)  # as the application sent it
RATING_LABELS = JsonShape[list[str] | None]("ratings.labels", list[str] | None)
REPLICA_READY = JsonShape[dict[str, EngineProof]]("replicas.ready", dict[str, EngineProof])
REPLICA_REFUSED = JsonShape[dict[str, str]]("replicas.refused", dict[str, str])
BUCKET_TTFT = JsonShape[dict[str, int]]("traffic_buckets.ttft", dict[str, int])
COLLECTION_KEYS = JsonShape[list[str] | None]("collections.allowed_keys", list[str] | None)
COLLECTION_SETTINGS = JsonShape[JsonObject]("collections.settings", JsonObject)
DOCUMENT_METADATA = JsonShape[JsonObject]("documents.metadata", JsonObject)
DOCUMENT_NOTICES = JsonShape[list[ParserNotice]]("documents.notices", list[ParserNotice])
DEFAULT_FILTER = JsonShape[JsonObject]("retrieval_defaults.filter", JsonObject)
BLAME_REPORT = JsonShape[BlameReport]("blame_verdicts.report", BlameReport)
