"""Interactions as columns: what a table may hold, what is refused, and how it is cut into days and
streams.

A Table is a mapping of names to NumPy arrays of one length. Numbers and flags are float64 with NaN
for "not known", categories and texts are object arrays of str or None, `embedding` is float32 of
shape (rows, dimensions), `day` is int64 (days since 1970-01-01, UTC); `hour` (0 to 23, UTC) is
there where the rows' times of day are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ColumnKind = Literal["number", "flag", "category", "text"]

# Name → (kind, what it is). The documentation's table and the reader follow this list.
COLUMNS: dict[str, tuple[ColumnKind, str]] = {
    "id": ("text", "name of the conversation, shown as example; default: `row-` and its number in the table"),
    "user": ("category", "pseudonym of the end user: rows of one user resemble each other, and count three times a day at most"),
    "alias": ("category", "the name applications ask for; default `default`"),
    "adapter": ("category", "version that answered; a new one is a declared change for answers, not for questions"),
    "template": ("category", "version of the prompt template; a value never seen before is a declared change for every signal"),
    "route": ("category", "application or route; its four largest values are watched by themselves"),
    "prompt": ("text", "what the user asked, as text or as messages (a list, or JSON), of which the last of the user counts"),
    "answer": ("text", "what the model said, as text or as a message; `refusal`, `repetition`, `empty` and `answer_language` are read from it where their column is missing"),
    "language": ("category", "language of the question; read from `prompt` where the column is missing"),
    "answer_language": ("category", "language of the answer"),
    "prompt_tokens": ("number", "tokens of the prompt, 0 or more"),
    "completion_tokens": ("number", "tokens of the answer, 0 or more"),
    "ttft_ms": ("number", "time to the first token, ms"),
    "time_per_token_ms": ("number", "time per token after the first, ms"),
    "queue_ms": ("number", "time in the engine's queue, ms"),
    "logprob": ("number", "mean log-probability of the answer's tokens, 0 or below"),
    "logprob_min": ("number", "lowest log-probability of the answer's tokens, 0 or below"),
    "refusal": ("flag", "whether the answer refuses"),
    "schema_failure": ("flag", "whether the answer breaks the JSON, schema or tool call that was asked for; blank where none was"),
    "repetition": ("flag", "whether the answer goes round in circles"),
    "empty": ("flag", "whether the answer is empty"),
    "finish_reason": ("category", "how the answer ended: stop, length, tool_calls, cut"),
    "collection": ("category", "collection of documents that was searched; blank where nothing was"),
    "documents": (
        "category",
        "state of the collection, such as a digest; a new one is told as a change and judged as any day",
    ),
    "retrieval_score": (
        "number",
        "score of the best passage, 0 to 1; blank where nothing was searched or found",
    ),
    "retrieval_gap": ("number", "difference of the two best scores"),
    "retrieval_empty": (
        "flag", "whether the search found nothing; blank where nothing was searched"
    ),
    "retrieval_failed": ("flag", "whether the search failed; blank where nothing was searched"),
    "retrieval_miss": (
        "flag",
        "whether the question found nothing that fits; worked out of `retrieval_score` and "
        "`retrieval_empty` where it is missing",
    ),
    "retrieval_ms": ("number", "time of the search, ms"),
    "context_overlap": (
        "number",
        "share of the answer's words that occur in the passages, in runs of three or as numbers or "
        "identifiers, 0 to 1",
    ),
    "thumb": ("number", "-1, 0 or 1; blank: none given. Watched are whether one is given and the share of those that point down"),
    "regenerated": ("flag", "whether the user asked for another answer"),
    "edited": ("flag", "whether the user changed the answer"),
}  # fmt: skip
EMBEDDING = "embedding"  # one column of lists, or `embedding_0`, `embedding_1`, …
# An application's own columns: their kind follows from the beginning of the name.
PREFIXES: dict[str, ColumnKind] = {
    "rate_": "flag",
    "value_": "number",
    "category_": "category",
    "slice_": "category",
}


@dataclass(frozen=True)
class Table:
    """Columns of equal length; see the module's first lines for their types."""

    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def get(self, name: str) -> NDArray[Any] | None:
        return self.columns.get(name)

    def take(self, index: NDArray[Any]) -> Table:
        """Rows by position or by mask."""
        return Table({name: values[index] for name, values in self.columns.items()})


def concatenated(tables: Sequence[Table]) -> Table:
    """One table of all rows. A column that some tables lack is filled with "not known" for them."""
    full = [table for table in tables if len(table)]
    if not full:
        return Table({})
    names = dict.fromkeys(name for table in full for name in table.columns)
    columns = {}
    for name in names:
        like = next(table.columns[name] for table in full if name in table)
        columns[name] = np.concatenate(
            [table.columns[name] if name in table else _unknown(like, len(table)) for table in full]
        )
    return Table(columns)


def _unknown(like: NDArray[Any], rows: int) -> NDArray[Any]:
    shape = (rows, *like.shape[1:])
    return (
        np.full(shape, None, dtype=object)
        if like.dtype == object
        else np.full(shape, np.nan, dtype=like.dtype)
    )


def day_number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def date_of(day: int) -> date:
    return date.fromordinal(day + date(1970, 1, 1).toordinal())


def kind_of(name: str) -> ColumnKind | None:
    """The kind of a column by its name; None for one that is not read."""
    if name in COLUMNS:
        return COLUMNS[name][0]
    return next(
        (
            kind
            for prefix, kind in PREFIXES.items()
            if name.startswith(prefix) and len(name) > len(prefix)
        ),
        None,
    )
