"""How much of a regular expression is repetition: what an engine writes out when it compiles it."""

from __future__ import annotations

import re

# Engines differ: some take `{,64}` or spaces inside, most take leading zeros. Nothing is tried
# twice (`++`, `*+`), so that a long run of spaces or digits costs its length alone.
_QUANTIFIER = re.compile(
    r"\{\s*+(?:([0-9]++)\s*+(?:,\s*+([0-9]*+)\s*+)?|,\s*+([0-9]++)\s*+)\}", re.ASCII
)
_MAX_DIGITS = 9
_BIG = 1 << 40  # beyond every limit; keeps the numbers small


def repeated_size(pattern: str) -> int:
    """Return the atoms that quantifiers like `{1,64}` stand for, nested ones multiplied.

    `[a-z]{1,64}` has 64, `(ab{2}){10}` has 2 + 30; `a*` and `a+` are loops and have none. The
    pattern need not be valid: what is no regex is the engine's to refuse.
    """
    sizes, last, repeated = [0], 0, 0
    position = 0
    while position < len(pattern):
        character = pattern[position]
        quantifier = _QUANTIFIER.match(pattern, position) if character == "{" else None
        if quantifier:
            bound = max(1, *map(_count, quantifier.groups()))
            added = min(last * bound, _BIG)
            repeated = min(repeated + added, _BIG)
            sizes[-1] = min(sizes[-1] + added - last, _BIG)
            last, position = added, quantifier.end()
            continue
        if character == "(":
            sizes.append(0)
            last = 0
        elif character == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] = min(sizes[-1] + last, _BIG)
        elif character not in "*+?|^$":
            last = 1
            sizes[-1] += 1
            position = _end_of_atom(pattern, position)
            continue
        position += 1
    return repeated


def _count(digits: str | None) -> int:
    significant = (digits or "").lstrip("0")
    return int(significant or 0) if len(significant) <= _MAX_DIGITS else _BIG


def _end_of_atom(pattern: str, position: int) -> int:
    """The position after the atom that begins here: an escape, a class, or one character."""
    if pattern[position] == "\\":
        return position + 2
    if pattern[position] != "[":
        return position + 1
    end = position + 1
    if pattern[end : end + 1] == "^":
        end += 1
    end += 1  # a bracket that comes first belongs to the class
    while end < len(pattern) and pattern[end] != "]":
        end += 2 if pattern[end] == "\\" else 1
    return end + 1
