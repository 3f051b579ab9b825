"""What is not a training row, line by line, and the same as few sentences for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.check_report import RejectedLine

_SENTENCES = 20  # that are printed; `whet data check --json` has every line
_RANGES = 8  # of line numbers that a sentence names
# What differs between lines with the same fault: quoted values, and numbers.
_VALUES = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+")


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a training row."""

    line: int  # counted from 1, as editors do
    found: str
    expected: str
    unit: str = "line"  # what is counted: lines of text, or rows where a format has no lines

    def __str__(self) -> str:
        return f"{self.unit} {self.line}: found {self.found}; expected {self.expected}"

    def as_json(self) -> RejectedLine:
        return {
            "line": self.line,
            "unit": self.unit,
            "found": self.found,
            "expected": self.expected,
        }


def sentences(bad: Sequence[BadLine], *, of: int = 0) -> list[str]:
    """Return one sentence for each fault, the most frequent first, with the lines that have it.

    `of`: rows of the file in all; a fault of all of them is said of the file.
    """
    groups: dict[tuple[str, str, str], list[BadLine]] = {}
    for line in bad:
        key = (line.unit, _VALUES.sub("…", line.found), line.expected)
        groups.setdefault(key, []).append(line)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].line))
    said = [_sentence(group, of) for group in ordered[:_SENTENCES]]
    if rest := sum(map(len, ordered[_SENTENCES:])):
        said.append(f"… and {rest:,} more with other faults; --json lists all")
    return said


def _sentence(group: Sequence[BadLine], of: int) -> str:
    first = group[0]
    if len(group) == 1:
        return str(first)
    such = "" if all(line.found == first.found for line in group) else "such as "
    lines = f" ({ranges([line.line for line in group])})" if len(group) != of else ""
    where = f"{len(group):,} {first.unit}s{lines}" if lines else f"all {of:,} {first.unit}s"
    return f"{where}: found {such}{first.found}; expected {first.expected}"


def ranges(numbers: Sequence[int], *, most: int = _RANGES) -> str:
    """Return line numbers in a short form: `1-3, 7`."""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    shown = [str(one) if one == last else f"{one}-{last}" for one, last in found[:most]]
    return ", ".join(shown) + (", …" if len(found) > most else "")
