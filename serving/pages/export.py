"""Hits of a search as a file: JSONL or Parquet, read in pages and written as they come."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO, Any

from sqlalchemy import Connection, Engine, select

from serving.pages import reading, search
from serving.pages.search_filters import Filters
from serving.search_index.entries import session_of
from whet.clock import iso
from whet.database import reading as reads
from whet.errors import ConfigurationError
from whet.tables import interactions

FORMATS = ("jsonl", "parquet")
MOST_ROWS = 100_000
_BLOCK = 500


def export_record(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a file holds of a row of `interactions`, the same in both formats."""
    return {
        "id": row["id"],
        "created_at": iso(row["created_at"]),
        "alias": row["alias"],
        "adapter": row["adapter"],
        "version": row["version"],
        "status": row["status"],
        "end_user": row["end_user"],
        "session": session_of(row["metadata"]) or None,
        "question": reading.question(row["request"]),
        "answer": row["response_text"],
        "error": row["error"],
        "prompt_tokens": row["prompt_tokens"],
        "completion_tokens": row["completion_tokens"],
        "ttft_ms": row["ttft_ms"],
        "duration_ms": row["duration_ms"],
        "metadata": row["metadata"],
        "request": row["request"],
        "response": row["response"],
    }


def found_rows(
    database: Engine, filters: Filters, now: int, most: int = MOST_ROWS
) -> Iterator[dict[str, Any]]:
    """Yield the hits of a search in its order, `most` of them; each page is read by itself."""
    given, cursor = 0, ""
    while given < most:
        with reads(database) as connection:
            found = search.search(
                connection, replace(filters, before=cursor), now, page_rows=_BLOCK, with_total=False
            )
        yield from found.rows[: most - given]
        given += len(found.rows)
        cursor = found.next
        if not cursor:
            return


def chosen_rows(connection: Connection, ids: list[str]) -> list[dict[str, Any]]:
    """Return the interactions with these ids, in the same order; those that are gone are left
    out."""
    rows = connection.execute(select(interactions).where(interactions.c.id.in_(ids))).mappings()
    by_id = {row["id"]: dict(row) for row in rows}
    return [by_id[one] for one in ids if one in by_id]


def as_jsonl(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield one line for each row."""
    for row in rows:
        yield json.dumps(export_record(row), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def write_parquet(rows: Iterable[dict[str, Any]], file: IO[bytes]) -> int:
    """Write rows as Parquet, nested values as JSON text; returns how many.

    Raises ConfigurationError where pyarrow is not installed.
    """
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Parquet needs pyarrow, which is not installed here.",
            hint="Export JSONL, or install the extra `training`, which has it.",
        ) from None
    kinds = {"version": arrow.int64(), "prompt_tokens": arrow.int64(),
             "completion_tokens": arrow.int64(), "ttft_ms": arrow.float64(),
             "duration_ms": arrow.float64()}  # fmt: skip
    names = list(export_record(_EMPTY))
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in names])
    count = 0
    with parquet.ParquetWriter(file, schema) as writer:
        block: list[dict[str, Any]] = []
        for row in rows:
            record = export_record(row)
            for name in ("metadata", "request", "response"):
                record[name] = json.dumps(record[name]) if record[name] is not None else None
            block.append(record)
            count += 1
            if len(block) == _BLOCK:
                writer.write_table(arrow.Table.from_pylist(block, schema=schema))
                block = []
        if block:
            writer.write_table(arrow.Table.from_pylist(block, schema=schema))
    return count


def parquet_chunks(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield a Parquet file in pieces; it is written to a temporary file first."""
    with tempfile.TemporaryFile() as file:
        write_parquet(rows, file)
        file.seek(0)
        while piece := file.read(1 << 16):
            yield piece


_EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in interactions.columns) | {
    "created_at": 0
}
