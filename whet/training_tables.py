"""What training writes: runs, evaluations, votes, versions. `whet.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, Integer, String, Text, UniqueConstraint

from whet.table_definition import define_table as _table
from whet.table_definition import instant as _at

training_runs = _table(
    "training",
    "training_runs",
    Column("id", String(40), primary_key=True),
    Column("request_id", String(40), unique=True),  # null: started by hand
    Column("alias", String(64), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("base_digest", String(64), nullable=False),
    Column("recipe", JSON, nullable=False),  # complete, as run
    Column("state", String(16), nullable=False),  # running | succeeded | failed | cancelled
    # {"stage","step","steps","loss","tokens_per_s","eta_s"}
    Column("progress", JSON, nullable=False),
    # [[step, loss, seconds], …], thinned to at most 500 points
    Column("curve", JSON, nullable=False),
    Column("estimate", JSON, nullable=False),  # what was expected before the first step
    Column("adapter_digest", String(64)),
    Column("error", Text),
    Column("attempt", Integer, nullable=False),
    Column("worker", String(128), nullable=False),
    Column("cancel_requested_by", String(64)),
    _at("started_at"),
    _at("heartbeat_at"),
    _at("finished_at", nullable=True),
    Index(None, "alias", "started_at"),
)

evaluations = _table(
    "training",
    "evaluations",
    Column("id", String(40), primary_key=True),
    Column("run_id", String(40), index=True),
    Column("adapter_digest", String(64), nullable=False, index=True),
    Column("against_digest", String(64)),  # null: compared with the base
    Column("dataset_digest", String(64), nullable=False),
    # {"group": {"n","candidate","against","difference","low","high"}}
    Column("metrics", JSON, nullable=False),
    # Pass | fail | inconclusive | signed: a person answers for what an earlier one found
    Column("verdict", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("thresholds", JSON, nullable=False),
    # JSONL in the store: prompt, reference, both answers, scores
    Column("samples_path", String(400)),
    # {"verdict","sentence","voted"} of the votes so far; null without any
    Column("people", JSON(none_as_null=True)),
    _at("created_at"),
)

answer_votes = _table(
    "training",
    # Which answer a person found better, not knowing whose it was; one per person and row
    "answer_votes",
    # The first evaluation with these answers: a signature repeats them
    Column("evaluation_id", String(40), primary_key=True),
    Column("row_id", Text, primary_key=True),
    Column("voter", String(64), primary_key=True),
    Column("choice", String(16), nullable=False),  # candidate | against | base | tie | none
    Column("places", JSON, nullable=False),  # whose answer stood first, second, third
    _at("created_at"),
)

adapters = _table(
    "training",
    "adapters",
    Column("digest", String(64), primary_key=True),  # of weights and configuration
    Column("name", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("path", String(400), nullable=False),  # folder in the store
    Column("base_digest", String(64), nullable=False),
    Column("template_digest", String(64), nullable=False),
    Column("dataset_digest", String(64)),  # null: imported
    Column("run_id", String(40)),
    Column("rank", Integer, nullable=False),
    Column("gate", String(16), nullable=False),  # pass | fail | inconclusive | none
    Column("card", JSON, nullable=False),
    _at("created_at"),
    _at("removed_at", nullable=True),
    UniqueConstraint("name", "version"),
)
