"""What the full-text index keeps of one interaction. Pure: a logged row in, an index row out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.search_index.tokens import EVERY_ROW, as_tsvector, field_token, split_tokens
from whet.conversation import answer_of, history, last_question

NUMBERS_PER_MS = 16
NO_ALIAS = "(none)"
BASE = "base"
FAILED = ("error", "cut")
SESSION_KEYS = ("session_id", "session", "conversation_id", "thread_id")  # of the metadata
_TAG_KEYS = ("tag", "tags")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One row of `interaction_search` without its number."""

    interaction_id: str
    created_at: int
    ttft_ms: float | None
    duration_ms: float | None
    completion_tokens: int | None
    is_failed: bool
    turns_before: str | None
    turns_after: str | None
    tokens: list[str]

    def as_row(self, number: int, dialect: str) -> dict[str, Any]:
        """Return the row; `words` is a tsvector on PostgreSQL, words and spaces on SQLite."""
        return {
            "number": number,
            "interaction_id": self.interaction_id,
            "ttft_ms": self.ttft_ms,
            "duration_ms": self.duration_ms,
            "completion_tokens": self.completion_tokens,
            "is_failed": self.is_failed,
            "turns_before": self.turns_before,
            "turns_after": self.turns_after,
            "words": (
                as_tsvector(self.tokens) if dialect == "postgresql" else " ".join(self.tokens)
            ),
        }


def make_entry(row: Mapping[str, Any], ratings: Sequence[int] = ()) -> IndexEntry:
    """Make the index entry of a row of `interactions`. `ratings`: those that count, without 0."""
    answer = answer_of(row["request"], row["response"], row["response_text"])
    calls = " ".join(f"{call.name} {call.arguments}" for call in answer.tool_calls)
    before, after = hash_turns(row, answer.text)
    return IndexEntry(
        row["id"],
        row["created_at"],
        row["ttft_ms"],
        row["duration_ms"],
        row["completion_tokens"],
        row["status"] in FAILED,
        before,
        after,
        [
            *split_tokens(last_question(row["request"])),
            EVERY_ROW,  # so that no phrase is found across
            *split_tokens(f"{answer.text} {calls}"),
            *_field_tokens(row, ratings),
            *split_tokens(row["error"] or "", 200),
        ],
    )


def _field_tokens(row: Mapping[str, Any], ratings: Sequence[int]) -> Iterator[str]:
    yield field_token("status", row["status"])
    yield field_token("alias", row["alias"] or NO_ALIAS)
    yield field_token("version", BASE if row["adapter"] is None else str(row["version"]))
    if row["end_user"]:
        yield field_token("user", row["end_user"])
    for tag in sorted(metadata_tags(row["metadata"])):
        yield field_token("tag", tag.lower())
    session = session_of(row["metadata"])
    if session:
        yield field_token("session", session)
    if ratings:
        yield field_token("rating", "any")
        if max(ratings) > 0:
            yield field_token("rating", "up")
        if min(ratings) < 0:
            yield field_token("rating", "down")


def metadata_tags(metadata: Any) -> set[str]:
    """Return what `tag:` finds: each key, each `key=value`, and what stands under `tags`."""
    found: set[str] = set()
    if not isinstance(metadata, Mapping):
        return found
    for key, value in metadata.items():
        values = value if isinstance(value, list) else [value]
        if key in _TAG_KEYS:
            parts = (part for one in values for part in str(one).split(","))
            found.update(part.strip() for part in parts if part.strip())
        else:
            found.add(str(key))
            found.update(f"{key}={one}" for one in values if isinstance(one, str | int | float))
    return found


def session_of(metadata: Any) -> str:
    """Return the session that the application named, or ""."""
    if not isinstance(metadata, Mapping):
        return ""
    return next((str(metadata[key]) for key in SESSION_KEYS if metadata.get(key)), "")


def hash_turns(row: Mapping[str, Any], answer: str) -> tuple[str | None, str | None]:
    """Return the hashes of the turns before the question, and of all with the answer.

    Of what user and model said, under the same key and for the same user. Instructions and tools'
    results are left out, because applications change them from turn to turn.
    """
    turns = [
        (message.role, message.content.strip())
        for message in history(row["request"])
        if message.role in ("user", "assistant") and message.content.strip()
    ]
    scope = [row["api_key_id"], row["end_user"]]
    last = max((at for at, (role, _) in enumerate(turns) if role == "assistant"), default=-1)
    before = _hash([scope, turns[: last + 1]]) if last >= 0 else None
    said = answer.strip()
    after = _hash([scope, [*turns, ("assistant", said)]]) if said else None
    return before, after


def _hash(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
