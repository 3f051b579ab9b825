"""Preference and rated rows as tokens, through the template that the engine uses."""

from __future__ import annotations

from dataclasses import dataclass, replace

from training.encode import Encoded, Encoder
from training.rows import BadLine, Row
from whet.errors import InputError


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with its better and its worse answer; ids end with the end-of-turn token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def tokens(self) -> int:
        """Of both conversations."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer that was liked, or not."""

    prompt: list[int]
    answer: list[int]
    liked: bool


def pairs(encoder: Encoder, rows: list[Row]) -> list[Pair]:
    """Raises InputError when a rejected answer cannot be encoded; the chosen ones were before."""
    found, bad = [], []
    for row in rows:
        chosen, rejected = encoder.encode(row), encoder.encode(_instead(row, str(row.raw["rejected"])))
        if isinstance(chosen, BadLine) or isinstance(rejected, BadLine):
            bad += [each for each in (chosen, rejected) if isinstance(each, BadLine)]
            continue
        found.append(Pair(*_parts(chosen), _parts(rejected)[1]))
    if bad:
        raise InputError(f"{len(bad)} answers of preference rows cannot be learned from: {bad[0]}.", hint="Correct or remove those rows.")
    return found


def rated(encoder: Encoder, rows: list[Row]) -> list[Rated]:
    """Both answers of a preference, one of a rated row. Raises InputError as `pairs` does."""
    found: list[Rated] = []
    for row in rows:
        if row.kind == "preference":
            pair = pairs(encoder, [row])[0]
            found += [Rated(pair.prompt, pair.chosen, True), Rated(pair.prompt, pair.rejected, False)]
        else:
            encoded = encoder.encode(row)
            if isinstance(encoded, Encoded):
                found.append(Rated(*_parts(encoded), rating(row) > 0))
    return found


def rating(row: Row) -> int:
    """1, -1, or 0 for a row that nobody rated. Raises InputError for anything else."""
    value = row.raw.get("rating", 0)
    if value not in (-1, 0, 1) or isinstance(value, bool):
        raise InputError(f"Row {row.id}: the rating is {value!r}; expected 1 or -1.", hint="1 is a good answer, -1 a bad one, as in POST /v1/feedback.")
    return int(value)


def _instead(row: Row, answer: str) -> Row:
    return replace(row, messages=(*row.messages[:-1], {"role": "assistant", "content": answer}))


def _parts(encoded: Encoded) -> tuple[list[int], list[int]]:
    return list(encoded.ids[: encoded.prompt_tokens]), list(encoded.ids[encoded.prompt_tokens :])
