"""Every table, with its one writer.

Readers may be anybody; a package that writes another's table is a defect.

Instants (`…_at`) are milliseconds since 1970 UTC. JSON columns hold the records that
`whet/records/` defines. A change here needs a migration in `whet/migrations/versions`.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, String, Text, UniqueConstraint

from whet.incident_tables import incident_actions
from whet.monitoring_tables import (
    alerts,
    answer_scores,
    audit_weeks,
    drift_days,
    drift_hours,
    drift_reports,
    notifications,
    retrieval_gaps,
)
from whet.process_tables import leases, scheduled_jobs
from whet.retrieval_tables import (
    blame_verdicts,
    collections,
    documents,
    passage_vectors,
    passages,
    retrieval_defaults,
)
from whet.review_tables import (
    review_adjudications,
    review_batches,
    review_comments,
    review_gold,
    review_guidelines,
    review_opinions,
    review_rules,
)
from whet.search_tables import interaction_search, saved_views
from whet.table_definition import WRITERS, metadata
from whet.table_definition import define_table as _table
from whet.table_definition import instant as _at
from whet.traffic_tables import traffic_buckets
from whet.training_tables import (
    adapters,
    answer_votes,
    evaluations,
    training_runs,
)

__all__ = [
    "WRITERS", "adapters", "alerts", "answer_scores", "answer_votes", "audit_weeks",
    "blame_verdicts", "collections", "documents", "drift_days", "drift_hours", "drift_reports",
    "evaluations", "incident_actions", "interaction_search", "leases", "metadata", "notifications",
    "passage_vectors", "passages", "retrieval_defaults", "retrieval_gaps", "review_adjudications",
    "review_batches", "review_comments", "review_gold", "review_guidelines", "review_opinions",
    "review_rules", "saved_views", "scheduled_jobs", "traffic_buckets", "training_runs",
]  # fmt: skip

# --- serving -------------------------------------------------------------------------------------------------------

interactions = _table(
    "serving",
    "interactions",
    Column("id", String(40), primary_key=True),
    Column("request_id", String(128), nullable=False),
    _at("created_at"),
    _at("completed_at", nullable=True),
    Column("api_key_id", String(40), nullable=False),
    Column("end_user", String(256)),
    Column("route", String(32), nullable=False),  # chat | completions | responses | embeddings
    Column("model", String(200), nullable=False),  # what the application asked for
    Column("alias", String(64)),  # null: the base or an exact version was asked for
    Column("adapter", String(64)),  # adapter name; null for the base
    Column("version", Integer),
    Column("adapter_digest", String(64)),
    Column("arm", String(16)),  # stable | candidate | pinned | exact | base
    Column("rollout_generation", Integer),
    Column("replica", String(200)),
    Column("stream", Boolean, nullable=False),
    Column("status", String(16), nullable=False),  # complete | cancelled | error | cut
    # As answered, or would have been; 499: the client left; 503 with `cut`: the gateway ended.
    Column("http_status", Integer, nullable=False),
    # How often the client's SDK had asked before (x-stainless-retry-count); null: it does not say.
    Column("retry", Integer),
    Column("error", Text),
    Column("finish_reason", String(32)),
    Column("request", JSON, nullable=False),  # the body as received, less `user` and `metadata`
    # Assistant message {"role","content","tool_calls"?} or {"text"} for completions
    Column("response", JSON),
    Column("response_text", Text),  # the first choice's text, for search and signals
    Column("response_sha256", String(64)),  # of the bytes sent to the client
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("ttft_ms", Float),  # time to the first byte of the answer
    Column("duration_ms", Float),
    # [serving.retrieval.records.Hit], in the order of the prompt; or null
    Column("retrieved", JSON),
    # {"collection","outcome","digest","top_k","took_ms","dropped"}; null: nothing was searched
    Column("retrieval", JSON),
    Column("metadata", JSON),
    Index(None, "created_at"),
    Index(None, "alias", "created_at"),
    Index(None, "end_user"),
)

ratings = _table(
    "serving",
    "ratings",
    # Hash of interaction, key and content: the same call twice is one row
    Column("id", String(64), primary_key=True),
    Column("interaction_id", String(40), nullable=False, index=True),
    Column("api_key_id", String(40), nullable=False),
    Column("rating", Integer, nullable=False),  # -1 | 0 | 1
    Column("comment", Text),
    Column("correction", Text),
    Column("labels", JSON),  # [string]
    _at("created_at"),
    Index(None, "created_at"),
)

rollouts = _table(
    "serving",
    "rollouts",  # append-only: the row with the highest generation of an alias is what is live
    Column("id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("stable_digest", String(64)),  # null: the base answers
    Column("candidate_digest", String(64)),
    Column("candidate_share", Float, nullable=False),  # 0 to 1
    Column("previous_digest", String(64)),  # where a rollback goes
    Column("pinned", Boolean, nullable=False),
    Column("state", String(16), nullable=False),  # canary | live | rolled_back
    Column("reason", Text, nullable=False),
    Column("actor", String(64), nullable=False),
    _at("created_at"),
    UniqueConstraint("alias", "generation"),
)

replicas = _table(
    "serving",
    "replicas",  # what the reconciler last saw of each engine
    Column("url", String(200), primary_key=True),
    Column("state", String(16), nullable=False),  # starting | ready | hung | gone
    Column("detail", Text),
    # {adapter digest, or "base": {"engine_name","proved_at","parity": {...}}}; what is not in it
    # gets no traffic there
    Column("ready", JSON, nullable=False),
    Column("refused", JSON, nullable=False),  # {adapter digest: reason}
    Column("base_digest", String(64)),
    _at("seen_at"),
    # When it became `ready`, or stopped being so; null: written before this was kept
    _at("since", nullable=True),
)

# --- feedback ------------------------------------------------------------------------------------------------------

review_items = _table(
    "feedback",
    "review_items",
    Column("id", String(40), primary_key=True),
    Column("interaction_id", String(40), nullable=False, unique=True),
    Column("alias", String(64), nullable=False),
    Column("reason", String(32), nullable=False),  # rating | correction | drift | audit | request
    Column("why", Text, nullable=False),  # one sentence for the reviewer
    Column("priority", Float, nullable=False),  # higher first
    Column("sampling_probability", Float),  # known only for random audit
    Column("alert_id", String(40)),
    Column("state", String(16), nullable=False),  # waiting | done | skipped
    Column("claimed_by", String(64)),
    _at("claimed_until", nullable=True),
    Column("assignee", String(64)),  # who is asked to decide it; null: whoever comes first
    Column("batch_id", String(40), index=True),
    _at("created_at"),
    Index(None, "state", "priority"),
)

review_left_out = _table(
    "feedback",
    "review_left_out",  # answers with feedback that the flagging job looked at and did not queue
    Column("interaction_id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("reason", String(24), nullable=False),  # a code of feedback.selection.LeftOut
    Column("sentence", Text, nullable=False),  # the same for a person
    _at("created_at"),
    _at("changed_at"),  # when the reason became this one
)

reviews = _table(
    "feedback",
    "reviews",
    Column("id", String(40), primary_key=True),
    Column("item_id", String(40), nullable=False, index=True),
    Column("interaction_id", String(40), nullable=False, index=True),
    Column("reviewer", String(64), nullable=False),
    Column("decision", String(16), nullable=False),  # approve | edit | reject | skip
    # The right answer: the original when approved, the reviewer's when edited
    Column("answer", Text),
    Column("labels", JSON),
    Column("note", Text),
    Column("seconds", Float),
    # What is said of the passages in the prompt: missing | wrong | ignored, and of which of them.
    Column("passage_verdict", String(16)),
    Column("passage_ids", JSON(none_as_null=True)),  # [passage id]
    _at("created_at"),
    _at("undone_at", nullable=True),
    Column("bulk_id", String(40), index=True),  # shared by decisions that were made in one go
    # One standing decision per item: = item_id while it stands, null once undone.
    Column("standing", String(40), unique=True),
)

examples = _table(
    "feedback",
    "examples",
    Column("id", String(40), primary_key=True),
    Column("digest", String(64), nullable=False, index=True),  # of the row's content
    Column("alias", String(64), nullable=False),
    Column("interaction_id", String(40), nullable=False),
    Column("review_id", String(40), nullable=False, unique=True),
    Column("row", JSON, nullable=False),  # one training row in the documented JSONL format
    Column("source", String(16), nullable=False),  # approved | edited
    Column("end_user", String(256)),
    _at("created_at"),
    _at("withdrawn_at", nullable=True),  # undone or erased
    Index(None, "alias", "created_at"),
)

datasets = _table(
    "feedback",
    "datasets",
    Column("digest", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    # Folder in the store: train.jsonl, validation.jsonl, test.jsonl, manifest.json
    Column("path", String(400), nullable=False),
    Column("rows", JSON, nullable=False),  # {"train": n, "validation": n, "test": n}
    Column("parents", JSON, nullable=False),  # digests of the dataset versions this one contains
    Column("example_ids", JSON, nullable=False),  # reviewed examples in it
    Column("note", Text),
    Column("created_by", String(64), nullable=False),
    _at("created_at"),
    # Of a version made of files: {"files": [{"name", "sha256", "rows"}]}; null for all others.
    Column("imported", JSON(none_as_null=True)),
    UniqueConstraint("name", "version"),
)

training_requests = _table(
    "feedback",
    # Never changed after it is written; what came of it is the run that names it
    "training_requests",
    Column("id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("recipe", JSON, nullable=False),  # overrides of the recipe; {} for the defaults
    Column("reason", Text, nullable=False),
    Column("requested_by", String(64), nullable=False),
    # Counts the requests for these rows; one follows another whose run was cancelled or failed.
    Column("attempt", Integer, nullable=False, server_default="1"),
    _at("created_at"),
    UniqueConstraint("alias", "dataset_digest", "attempt"),
)

erasures = _table(
    "feedback",
    "erasures",
    Column("id", String(40), primary_key=True),
    Column("subject_hash", String(64), nullable=False),
    Column("receipt", JSON, nullable=False),
    Column("requested_by", String(64), nullable=False),
    _at("created_at"),
)

# --- whet ----------------------------------------------------------------------------------------------------------

api_keys = _table(
    "whet",
    "api_keys",
    Column("id", String(40), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # HMAC-SHA256, installation's secret
    Column("hint", String(16), nullable=False),  # first characters, to recognise a key
    # Keys of one group may rate each other's answers; a key alone has its own id here.
    Column("group_name", String(64), nullable=False),
    Column("may_write_documents", Boolean),  # through /v1/vector_stores; null: it only reads
    _at("created_at"),
    _at("revoked_at", nullable=True),
)

users = _table(
    "whet",
    "users",
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),  # admin | operator | reviewer | viewer
    Column("password_hash", String(200), nullable=False),
    _at("created_at"),
    _at("removed_at", nullable=True),
)

audit = _table(
    "whet",
    "audit",  # append-only, each row carries the hash of the one before
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("detail", JSON, nullable=False),
    _at("created_at"),
    Column("previous_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
