"""What the spool holds: one JSON line per record, tagged with its kind.

Fields of a record are columns of its table (`whet.tables.interactions`, `whet.tables.ratings`).
Columns of type JSON travel as raw bytes that are never parsed again on their way to the database.
"""

from __future__ import annotations

import re
from typing import TypeGuard

import msgspec

from whet.store import digest_json

NULL = msgspec.Raw(b"null")  # a JSON column without a value; it becomes NULL
BEGUN = "begun"  # status of a stream's first record; it becomes a row only if no other follows


class InteractionRecord(
    msgspec.Struct, tag="interaction", tag_field="kind", omit_defaults=True, kw_only=True
):
    """One row of `interactions`."""

    id: str
    request_id: str
    created_at: int
    completed_at: int | None = None
    api_key_id: str
    end_user: str | None = None
    route: str
    model: str
    alias: str | None = None
    adapter: str | None = None
    version: int | None = None
    adapter_digest: str | None = None
    arm: str | None = None
    rollout_generation: int | None = None
    replica: str | None = None
    stream: bool
    status: str
    http_status: int
    retry: int | None = None
    error: str | None = None
    finish_reason: str | None = None
    request: msgspec.Raw
    response: msgspec.Raw = NULL
    response_text: str | None = None
    response_sha256: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    retrieved: msgspec.Raw = NULL
    retrieval: msgspec.Raw = NULL
    metadata: msgspec.Raw = NULL


class RatingRecord(
    msgspec.Struct, tag="rating", tag_field="kind", omit_defaults=True, kw_only=True
):
    """One row of `ratings`."""

    id: str
    interaction_id: str
    api_key_id: str
    rating: int
    comment: str | None = None
    correction: str | None = None
    labels: msgspec.Raw = NULL
    created_at: int


Record = InteractionRecord | RatingRecord

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """One line with its newline. JSON never holds a raw newline, so a line is a record."""
    return _encoder.encode(record) + b"\n"


def decode(line: bytes) -> Record:
    """Raises msgspec.DecodeError for a line that a killed process left unfinished."""
    found: Record = _decoder.decode(line)
    return found


def is_begun(record: Record) -> TypeGuard[InteractionRecord]:
    """True for the first record of a stream, which another of the same interaction follows."""
    return isinstance(record, InteractionRecord) and record.status == BEGUN


def rating_id(interaction_id: str, api_key_id: str, content: dict[str, object]) -> str:
    """The same call twice has the same id, so it becomes one row."""
    return "rat_" + digest_json([interaction_id, api_key_id, content])[:48]


_NUL_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def without_nul(raw: bytes) -> bytes:
    """JSON text with U+FFFD in the place of the escaped NUL character, which PostgreSQL cannot
    store."""
    return _NUL_ESCAPE.sub(rb"\1\\ufffd", raw) if b"\\u0000" in raw else raw
