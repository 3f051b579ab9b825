"""Figures of a file of rows: counts, tokens, and the rows as the base sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.data.bad_lines import BadLine
from training.data.check_report import Bin, Piece, RowFigures
from training.data.rows import Reading, Row
from training.models.encode import NOTHING_TO_LEARN, Encoder
from training.models.encoded import Encoded

_BINS = 12


def figures(
    reading: Reading,
    encoded: Sequence[Encoded],
    kept: Sequence[Row],
    refused: Sequence[BadLine],
    stop_ids: frozenset[int],
) -> RowFigures:
    lengths = sorted(len(row.ids) for row in encoded)
    bad = sorted([*reading.bad, *refused], key=lambda line: line.line)
    found: RowFigures = {
        "rows": len(kept),
        "rejected": [line.as_json() for line in bad],
        "rejected_lines": len(bad),
        "empty_lines": len(reading.blank),
        "notices": [{"found": what, "rows": rows} for what, rows in reading.notices.items()],
        "ignored_columns": reading.unknown_fields,
        "kinds": dict(Counter(row.kind for row in kept)),
        "tasks": dict(Counter(row.task for row in kept if row.task)),
        "origins": dict(Counter(row.origin for row in kept)),
        "with_checks": sum(bool(row.checks) for row in kept),
        "with_context": sum(bool(row.context) for row in kept),
        "tokens": sum(lengths),
        "tokens_learned": sum(row.trained_tokens for row in encoded),
        "tokens_per_row": (
            {"median": lengths[len(lengths) // 2], "longest": lengths[-1]} if lengths else {}
        ),
        "truncated": 0,  # rows are refused, never cut: what is learned is what is served
        "too_long": sum(" tokens" in line.found for line in refused),
        "without_learned_token": sum(line.found == NOTHING_TO_LEARN for line in refused),
        "end_of_turn_learned": sum(
            {row.line: learns_to_stop(row, stop_ids) for row in encoded}.values()
        ),
        "histogram": _histogram(lengths),
    }
    if any(row.is_text for row in kept):
        found["text_windows"] = sum(row.prompt_tokens == 0 for row in encoded)
    return found


def first_windows(encoded: Sequence[Encoded], count: int) -> list[tuple[int, Encoded]]:
    """Return (line, what is learned) of the first rows; of a long text its first window."""
    found: dict[int, Encoded] = {}
    for tokens in encoded:
        if len(found) == count and tokens.line not in found:
            break
        found.setdefault(tokens.line, tokens)
    return list(found.items())


def learns_to_stop(row: Encoded, stop_ids: frozenset[int]) -> bool:
    return row.trained[-1] and row.ids[-1] in stop_ids


def _histogram(lengths: Sequence[int]) -> list[Bin]:
    if not lengths:
        return []
    width = max(1, -(-(lengths[-1] + 1 - lengths[0]) // _BINS))
    counts = Counter((length - lengths[0]) // width for length in lengths)
    return [
        {
            "from": lengths[0] + width * number,
            "to": lengths[0] + width * (number + 1) - 1,
            "rows": counts[number],
        }
        for number in range(max(counts) + 1)
    ]


def pieces(encoder: Encoder, row: Encoded) -> list[Piece]:
    """The row's text in runs of learned and unlearned tokens, control tokens included."""
    found: list[Piece] = []
    start = 0
    for end in range(1, len(row.ids) + 1):
        if end == len(row.ids) or row.trained[end] != row.trained[start]:
            found.append(
                {
                    "text": encoder.decode_whole(list(row.ids[start:end])),
                    "trained": row.trained[start],
                }
            )
            start = end
    return found
