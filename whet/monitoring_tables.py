"""What monitoring writes: days, hours, scores, alerts. `whet.tables` has them with all others."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, String, Text

from whet.table_definition import define_table as _table
from whet.table_definition import instant as _at

drift_reports = _table(
    "monitoring",
    "drift_reports",
    Column("id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),
    _at("reference_from", nullable=True),
    _at("reference_to", nullable=True),
    _at("window_from", nullable=True),
    _at("window_to", nullable=True),
    Column("n_reference", Integer, nullable=False),
    Column("n_window", Integer, nullable=False),
    Column("verdict", String(24), nullable=False),  # drift | no_drift | not_enough_data
    Column("summary", Text, nullable=False),
    # [{"name","test","p_value","effect","reference","window","drifted","sentence"}]
    Column("signals", JSON, nullable=False),
    Column("report_path", String(400)),  # Evidently's stored JSON, relative to the store
    _at("created_at"),
    Index(None, "alias", "created_at"),
)

drift_days = _table(
    "monitoring",
    "drift_days",
    Column("alias", String(64), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # days since 1970-01-01, UTC
    Column("rows", Integer, nullable=False),  # requests of the day that count
    Column("statistics", JSON, nullable=False),  # monitoring.detector.daily.DayStatistics.as_json()
    # [[signal, part, adapter]]: charts that crossed and were confirmed with that day's
    # conversations
    Column("confirmed", JSON, nullable=False),
    Column("judged", Boolean, nullable=False),  # false while there is too little history
    # Conversations kept to explain changes with, relative to the store; null when they are too old
    Column("sample_path", String(400)),
    _at("created_at"),
)

drift_hours = _table(
    "monitoring",
    "drift_hours",
    Column("alias", String(64), primary_key=True),
    Column("hour", Integer, primary_key=True, autoincrement=False),  # hours since 1970-01-01, UTC
    Column("rows", Integer, nullable=False),  # requests of the hour that count
    Column("judged", Boolean, nullable=False),  # false with too few requests or too little history
    # DayStatistics.as_json(); null with too few requests, and when they are too old
    Column("statistics", JSON),
    Column("outcome", JSON, nullable=False),  # monitoring.detector.hours.RememberedHour.as_json()
    _at("created_at"),
)

answer_scores = _table(
    "monitoring",
    "answer_scores",  # of a random sample of answers, asked of the engine afterwards
    Column("interaction_id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("adapter_digest", String(64), nullable=False),
    Column("tokens", Integer, nullable=False),  # of the answer, as the engine counted them
    # Mean natural logarithm of the tokens' probabilities by the version that answered; null: could
    # not be scored
    Column("logprob", Float),
    Column("logprob_min", Float),
    Column("base_logprob", Float),  # the same mean by the base alone
    _at("created_at"),  # of the interaction
    _at("scored_at"),
    Index(None, "alias", "created_at"),
)

audit_weeks = _table(
    "monitoring",
    "audit_weeks",  # a week's error rate, from the answers that were drawn at random and judged
    Column("alias", String(64), primary_key=True),
    # Its Monday, in days since 1970-01-01, UTC
    Column("week", Integer, primary_key=True, autoincrement=False),
    # {day: {cell of monitoring.audit.CELLS: complete answers}}
    Column("population", JSON, nullable=False),
    Column("drawn", Integer, nullable=False),  # answers in the queue by the draw, judged or not
    Column("judged", Integer, nullable=False),
    Column("wrong", Integer, nullable=False),
    Column("rate", Float),  # null while nothing is judged
    Column("low", Float),  # of the 95 % interval
    Column("high", Float),
    Column("effective", Float),  # independent judgements that the estimate amounts to
    Column("usual", Float),  # rate of the weeks before; null without any
    Column("verdict", String(16), nullable=False),  # worse | usual | better | unknown
    Column("sentence", Text, nullable=False),
    _at("changed_at"),
)

retrieval_gaps = _table(
    "monitoring",
    "retrieval_gaps",  # subjects of questions that find nothing: what somebody should write
    Column("id", String(40), primary_key=True),
    Column("alias", String(64), nullable=False),
    Column("collection", String(64), nullable=False),
    Column("words", JSON, nullable=False),  # [string], most characteristic first
    Column("members", JSON, nullable=False),  # [interaction id], most typical first, bounded
    Column("questions", Integer, nullable=False),  # of the last four weeks, estimated
    Column("share", Float, nullable=False),  # of the collection's searches in that time
    Column("recent", Integer, nullable=False),  # of the last seven days, estimated
    Column("first_day", Integer, nullable=False),  # days since 1970-01-01, UTC
    Column("last_day", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # open | dismissed
    Column("changed_by", String(64)),  # of a person's decision
    _at("changed_at", nullable=True),
    _at("updated_at"),
    Index(None, "alias"),
)

notifications = _table(
    "monitoring",
    "notifications",
    Column("alert_id", String(40), primary_key=True),
    Column("event", String(24), primary_key=True),  # open | closed
    # Hash of the address, which may hold a password
    Column("target", String(16), primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),  # of the last attempt
    _at("next_at"),
    _at("delivered_at", nullable=True),
    _at("created_at"),
)

alerts = _table(
    "monitoring",
    "alerts",
    Column("id", String(40), primary_key=True),
    Column("dedup_key", String(200), nullable=False),
    Column("alias", String(64), nullable=False),
    Column(
        "kind", String(32), nullable=False
    ),  # questions | answers | quality | service: what changed; errors: answers judged wrong; adapter: without effect; candidate: worse than the live version
    Column("severity", String(16), nullable=False),  # information | attention | bad
    Column("title", Text, nullable=False),
    # {"signals": [...], "interaction_ids": [...], "drift_report_id"}
    Column("detail", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # open | acknowledged | expected | resolved
    _at("opened_at"),
    _at("changed_at"),
    Column("changed_by", String(64)),
    Column("owner", String(64)),  # the person who looks after it
    _at("snoozed_until", nullable=True),  # nobody is reminded of it before
    # = dedup_key while open or acknowledged, null after: one open alert per key
    Column("open_marker", String(200), unique=True),
    Index(None, "alias", "opened_at"),
)
