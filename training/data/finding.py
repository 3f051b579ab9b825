"""Findings of `whet data check`: what to decide about rows, with their lines and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data.bad_lines import ranges

ERROR, WARNING = "error", "warning"
_COUNTED = ("duplicates", "near_duplicates")  # of which the count says enough
_GROUPS_SHOWN = _RANGES_SHOWN = 20  # that a sentence lists; --verbose and --json have all


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the rows that somebody should decide on."""

    code: str
    severity: str  # error: a run refuses it | warning: a run goes on with it
    count: int
    found: str  # what, in a sentence
    do: str  # what to do about it
    # Line numbers, or lists of them that belong together.
    lines: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, *, verbose: bool = False) -> str:
        """Return the finding for people. Rows that repeat each other are listed on request alone:
        there may be as many as rows."""
        if not self.lines or (self.code in _COUNTED and not verbose):
            return f"{self.severity}: {self.found} {self.do}"
        if any(isinstance(line, list) for line in self.lines):
            names = ["+".join(map(str, group)) for group in self.lines]
            shown = names if verbose else names[:_GROUPS_SHOWN]
            lines = ", ".join(shown) + (", …" if len(shown) < len(names) else "")
        else:
            lines = ranges(self.lines, most=len(self.lines) if verbose else _RANGES_SHOWN)
        return f"{self.severity}: {self.found} Lines {lines}. {self.do}"


def warned(code: str, lines: Sequence[Any], found: str, do: str) -> list[Finding]:
    """A warning about these lines; none where there are none."""
    return [Finding(code, WARNING, len(lines), found, do, list(lines))] if lines else []
