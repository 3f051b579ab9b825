"""What a file of rows amounts to for the base in use: the figures of `whet data check` and `whet data stats`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from training.base_model import open_base, quiet_environment
from training.encode import Encoded, Encoder
from training.rows import Row, read_file
from whet.context import Context

_BINS = 12


def inspect(context: Context, file: Path) -> dict[str, Any]:
    """All findings as plain data. Raises InputError when the file cannot be read, ConfigurationError when the base cannot."""
    quiet_environment()
    reading = read_file(file)
    base = open_base(context.settings)
    encoder = Encoder(base, min(base.max_positions, context.settings.engine_max_model_len))
    encoded, kept, refused = encoder.encode_all(reading.rows)
    lengths = sorted(len(row.ids) for row in encoded)
    bad = sorted([*reading.bad, *refused], key=lambda line: line.line)
    return {
        "rows": len(kept),
        "rejected": [line.as_json() for line in bad],
        "rejected_lines": len(bad),
        "empty_lines": len(reading.blank),
        "unknown_fields": reading.unknown_fields,
        "kinds": dict(Counter(row.kind for row in kept)),
        "tasks": dict(Counter(row.task for row in kept if row.task)),
        "origins": dict(Counter(row.origin for row in kept)),
        "with_checks": sum(bool(row.checks) for row in kept),
        "with_context": sum(bool(row.context) for row in kept),
        "tokens": sum(lengths),
        "tokens_learned": sum(row.trained_tokens for row in encoded),
        "tokens_per_row": {"median": lengths[len(lengths) // 2], "longest": lengths[-1]} if lengths else {},
        "longest_allowed": encoder.max_length,
        "truncated": 0,  # rows are refused, never cut: what is learned is what is served
        "too_long": sum(" tokens" in line.found for line in refused),
        "without_learned_token": sum(row.trained_tokens == 0 for row in encoded),
        "end_of_turn_learned": sum(_learns_to_stop(row, base.stop_ids) for row in encoded),
        "duplicates": _repeated([row.digest for row in kept]),
        "conflicting_answers": _conflicting(kept),
        "histogram": _histogram(lengths),
        "preview": _pieces(encoder, encoded[0]) if encoded else [],
        "base": base.name,
        "template": base.template_digest[:8],
    }


def _learns_to_stop(row: Encoded, stop_ids: frozenset[int]) -> bool:
    return row.trained[-1] and row.ids[-1] in stop_ids


def _repeated(digests: list[str]) -> int:
    """Rows that say again what an earlier row said."""
    return len(digests) - len(set(digests))


def _conflicting(rows: list[Row]) -> int:
    """Questions to which the rows give more than one answer."""
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row.prompt_digest, set()).add(row.answer.strip())
    return sum(len(given) > 1 for given in answers.values())


def _histogram(lengths: list[int]) -> list[dict[str, int]]:
    if not lengths:
        return []
    width = max(1, -(-(lengths[-1] + 1 - lengths[0]) // _BINS))
    counts = Counter((length - lengths[0]) // width for length in lengths)
    return [{"from": lengths[0] + width * number, "to": lengths[0] + width * (number + 1) - 1, "rows": counts[number]} for number in range(max(counts) + 1)]


def _pieces(encoder: Encoder, row: Encoded) -> list[dict[str, Any]]:
    """The row's text in runs of learned and unlearned tokens, control tokens included."""
    pieces: list[dict[str, Any]] = []
    start = 0
    for end in range(1, len(row.ids) + 1):
        if end == len(row.ids) or row.trained[end] != row.trained[start]:
            pieces.append({"text": encoder.base.tokenizer.decode(list(row.ids[start:end]), skip_special_tokens=False), "trained": row.trained[start]})
            start = end
    return pieces
