"""The table of traffic figures by time, from which the console draws its charts."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Integer, String

from whet.table_definition import define_table as _table

traffic_buckets = _table(
    "serving",
    "traffic_buckets",  # counts of interactions by time and version; nothing of a person
    Column("width_ms", Integer, primary_key=True),  # 300,000 or 3,600,000
    Column("start_at", BigInteger, primary_key=True),  # ms since 1970 UTC, a multiple of the width
    Column("alias", String(64), primary_key=True),  # "": the base or an exact version was asked for
    Column("adapter", String(64), primary_key=True),  # "": the base answered
    Column("version", Integer, primary_key=True),  # 0: the base answered
    Column("requests", Integer, nullable=False),
    Column("failed", Integer, nullable=False),  # `whet.outcomes.service_failed`
    Column("rated", Integer, nullable=False),  # answers, not ratings
    Column("thumbs_up", Integer, nullable=False),  # rated, and by nobody down
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    # {"index of `whet.ttft_histogram`": answers}
    Column("ttft", JSON, nullable=False),
)
