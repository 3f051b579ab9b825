"""One day or hour of an alias as the detector's table: a bounded sample of its answers, read in
pieces.

At a million requests a day the database hands out one key in fifty, chosen by the random end of its
id; of these, a few of each user are read in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from monitoring.detector.columns import Table
from monitoring.detector.sample import Index, capped, sample_of_day
from monitoring.detector.settings import DetectorSettings
from monitoring.rows import Row
from monitoring.signals import SIGNALS
from monitoring.signals.retrieval import RETRIEVAL
from monitoring.windows import Key, fetch_rows
from whet.access import hash_key
from whet.ids import ALPHABET, new_id
from whet.tables import answer_scores, interactions

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
# Looked at of a day: enough that a few rows of each of thousands of users remain
_MOST_KEYS = 60_000
_MOST_ROWS = 6_000  # read in full; the statistics of a day gain nothing from more
_MOST_HOUR_ROWS = 2_000  # the gross changes that hours are for show in fewer
_END_CLASSES = 1 << 10  # values of an id's last two characters, 32 each
_ID_LENGTH = len(new_id("int"))
_SHOWN_USER = 16  # characters of a user's keyed hash: enough to tell users apart, and not a name
_Span = tuple[int, int]  # ms, the end excluded

# The detector's columns and the signals of the same meaning.
_NUMBERS = {
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "ttft_ms": "ttft",
    "time_per_token_ms": "time_per_token",
}
_FLAGS = {
    "refusal": "refusal",
    "schema_failure": "broken_json",
    "repetition": "repetition",
    "empty": "empty",
}
# Of rows that searched for passages; signals of the same names.
_RETRIEVAL = tuple(signal.name for signal in RETRIEVAL)
_CATEGORIES = {
    "language": "question_language",
    "answer_language": "answer_language",
    "finish_reason": "finish_reason",
}


def next_day(connection: Connection, alias: str, since: int) -> int | None:
    """The first day from `since` on with an answer that counts; days without any are days without
    evidence.
    """
    found = _first_at(connection, alias, since * DAY_MS)
    return None if found is None else found // DAY_MS


def next_hour(connection: Connection, alias: str, since: int) -> int | None:
    """The first hour (since 1970-01-01) from `since` on with an answer that counts."""
    found = _first_at(connection, alias, since * HOUR_MS)
    return None if found is None else found // HOUR_MS


def rows_of_day(connection: Connection, alias: str, day: int) -> int:
    """Answers of a day that count: complete or cut by their limit, of any version."""
    return _rows(connection, alias, _span(day, DAY_MS))


def rows_of_hour(connection: Connection, alias: str, hour: int) -> int:
    """Answers of an hour that count."""
    return _rows(connection, alias, _span(hour, HOUR_MS))


def read_day(
    connection: Connection,
    alias: str,
    day: int,
    rows: int,
    settings: DetectorSettings,
    secret: bytes,
) -> Table:
    """The day's sample. `rows`: as `rows_of_day` says; users become keyed hashes."""
    keys = _keys(connection, alias, _span(day, DAY_MS), rows)
    found = Table(
        {"user": _texts([key.end_user or None for key in keys]), "place": np.arange(len(keys))}
    )
    chosen = sample_of_day(
        found, settings.rows_per_user, 2 * settings.min_rows, settings.seed, day
    ).columns["place"]
    return _read(
        connection,
        alias,
        _span(day, DAY_MS),
        [keys[place] for place in _at_most(chosen, _MOST_ROWS, [settings.seed, day, 4])],
        secret,
    )


def read_hour(
    connection: Connection,
    alias: str,
    hour: int,
    rows: int,
    settings: DetectorSettings,
    secret: bytes,
) -> Table:
    """The hour's sample, with at most `rows_per_user` rows of each user whoever else there is."""
    keys = _keys(connection, alias, _span(hour, HOUR_MS), rows)
    chosen = capped(
        _texts([key.end_user or None for key in keys]),
        len(keys),
        settings.rows_per_user,
        np.random.default_rng([settings.seed, hour, 6]),
    )
    return _read(
        connection,
        alias,
        _span(hour, HOUR_MS),
        [keys[place] for place in _at_most(chosen, _MOST_HOUR_ROWS, [settings.seed, hour, 7])],
        secret,
    )


def _at_most(chosen: Index, most: int, seed: list[int]) -> Index:
    return (
        chosen
        if len(chosen) <= most
        else np.sort(np.random.default_rng(seed).choice(chosen, most, replace=False))
    )


def _read(
    connection: Connection, alias: str, span: _Span, sample: list[Key], secret: bytes
) -> Table:
    """These rows in full, and those that were scored."""
    scores = _scores(connection, alias, span)
    taken = {key.id for key in sample}
    # Drawn at random too, and few
    extra = [Key(span[0], name, None) for name in scores if name not in taken]
    return table_of(fetch_rows(connection, [*sample, *extra]), span[0] // DAY_MS, secret, scores)


def table_of(
    rows: Sequence[Row],
    day: int,
    secret: bytes,
    scores: Mapping[str, tuple[float, float]] | None = None,
) -> Table:
    """Rows as the detector's columns.

    Texts are in it, to be made into vectors; what is kept of a day leaves them out.

    `scores`: id → mean and lowest log-probability of the answer's tokens, of those that were
    scored.
    """
    of = {signal.name: signal.of for signal in SIGNALS}
    columns = {
        "day": np.full(len(rows), day, dtype=np.int64),
        "id": _texts([row.id for row in rows]),
        "user": _texts(
            [hash_key(row.end_user, secret)[:_SHOWN_USER] if row.end_user else None for row in rows]
        ),
        "adapter": _texts([row.adapter for row in rows]),
        "route": _texts([row.application or None for row in rows]),
        "prompt": _texts([row.question or None for row in rows]),
        "thumb": _numbers([row.rating for row in rows]),
    }
    searched = [row.retrieval for row in rows]
    if any(searched):
        columns |= {name: _numbers([of[name](row) for row in rows]) for name in _RETRIEVAL}
        for name, attribute in (("collection", "collection"), ("documents", "digest")):
            columns[name] = _texts([getattr(one, attribute, None) or None for one in searched])
    columns |= {
        name: _numbers([of[signal](row) for row in rows])
        for name, signal in {**_NUMBERS, **_FLAGS}.items()
    }
    if scores:
        for place, name in enumerate(("logprob", "logprob_min")):
            columns[name] = _numbers(
                [scores[row.id][place] if row.id in scores else None for row in rows]
            )
    columns |= {
        name: _texts([of[signal](row) for row in rows]) for name, signal in _CATEGORIES.items()
    }
    return Table(columns)


def _scores(connection: Connection, alias: str, span: _Span) -> dict[str, tuple[float, float]]:
    """Id → mean and lowest log-probability, of the answers of a span that were scored."""
    query = select(
        answer_scores.c.interaction_id, answer_scores.c.logprob, answer_scores.c.logprob_min
    ).where(
        answer_scores.c.alias == alias,
        answer_scores.c.created_at >= span[0],
        answer_scores.c.created_at < span[1],
        answer_scores.c.logprob.is_not(None),
    )
    return {row.interaction_id: (row.logprob, row.logprob_min) for row in connection.execute(query)}


def _counts(alias: str) -> list[ColumnElement[bool]]:
    return [
        interactions.c.alias == alias,
        interactions.c.status.in_(("complete", "cut")),
        interactions.c.http_status == 200,
    ]


def _span(number: int, of_ms: int) -> _Span:
    return number * of_ms, (number + 1) * of_ms


def _within(span: _Span) -> list[ColumnElement[bool]]:
    return [interactions.c.created_at >= span[0], interactions.c.created_at < span[1]]


def _first_at(connection: Connection, alias: str, since_ms: int) -> int | None:
    found = connection.scalar(
        select(func.min(interactions.c.created_at)).where(
            *_counts(alias), interactions.c.created_at >= since_ms
        )
    )
    return None if found is None else int(found)


def _rows(connection: Connection, alias: str, span: _Span) -> int:
    return int(
        connection.scalar(
            select(func.count()).select_from(interactions).where(*_counts(alias), *_within(span))
        )
        or 0
    )


def _keys(connection: Connection, alias: str, span: _Span, rows: int) -> list[Key]:
    conditions = [*_counts(alias), *_within(span)]
    if rows > _MOST_KEYS:
        kept = max(1, _END_CLASSES * _MOST_KEYS // rows)
        end = func.substr(interactions.c.id, _ID_LENGTH - 1, 2)
        conditions.append(end.in_(_ends(kept)))
    query = (
        select(interactions.c.created_at, interactions.c.id, interactions.c.end_user)
        .where(*conditions)
        .order_by(interactions.c.created_at, interactions.c.id)
    )
    return [Key(*row) for row in connection.execute(query)]


def _ends(count: int) -> list[str]:
    """`count` of the 1024 possible ends of an id."""
    return [first + second for second in ALPHABET for first in ALPHABET][:count]


def _texts(values: Sequence[object]) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    made = np.empty(len(values), dtype=object)
    made[:] = [None if value is None else str(value) for value in values]
    return made


def _numbers(values: Sequence[object]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
