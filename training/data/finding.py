"""What `whet data check` says: one thing about the rows that somebody should decide on, with its lines and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ERROR, WARNING = "error", "warning"
_LINES_SHOWN = 20  # line numbers that a finding's sentence lists; --json has all


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
        shown = ", ".join("+".join(map(str, line)) if isinstance(line, list) else str(line) for line in self.lines[:_LINES_SHOWN])
        where = f" Lines {shown}{', …' if len(self.lines) > _LINES_SHOWN else ''}." if self.lines else ""
        return f"{self.severity}: {self.found}{where} {self.do}"


def warned(code: str, lines: Sequence[Any], found: str, do: str) -> list[Finding]:
    """A warning about these lines; none where there are none."""
    return [Finding(code, WARNING, len(lines), found, do, list(lines))] if lines else []
