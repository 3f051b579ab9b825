"""What `whet data check` says: one thing about the rows that somebody should decide on, with its lines and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ERROR, WARNING = "error", "warning"
_COUNTED = ("duplicates", "near_duplicates")  # of which the count says enough
_LINES_SHOWN = 20  # line numbers that a sentence lists; --verbose and --json have all


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the rows that somebody should decide on."""

    code: str
    severity: str  # error: a run refuses it | warning: a run goes on with it
    count: int
    found: str  # what, in a sentence
    do: str  # what to do about it
    lines: list[Any] = field(default_factory=list)  # line numbers, or lists of them that belong together

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, *, verbose: bool = False) -> str:
        """Return the finding for people. Rows that repeat each other are listed on request alone:
        there may be as many as rows."""
        if not self.lines or (self.code in _COUNTED and not verbose):
            return f"{self.severity}: {self.found} {self.do}"
        names = [
            "+".join(map(str, line)) if isinstance(line, list) else str(line) for line in self.lines
        ]
        shown = names if verbose else names[:_LINES_SHOWN]
        more = ", …" if len(shown) < len(names) else ""
        return f"{self.severity}: {self.found} Lines {', '.join(shown)}{more}. {self.do}"


def warned(code: str, lines: Sequence[Any], found: str, do: str) -> list[Finding]:
    """A warning about these lines; none where there are none."""
    return [Finding(code, WARNING, len(lines), found, do, list(lines))] if lines else []
