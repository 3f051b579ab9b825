"""Findings of `whet data check`: what to decide about rows, with their lines and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.data.bad_lines import ranges
from training.data.check_report import FindingJson

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
    lines: Sequence[int] | Sequence[Sequence[int]] = field(default_factory=list)

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, *, verbose: bool = False) -> str:
        """Return the finding for people. Rows that repeat each other are listed on request alone:
        there may be as many as rows."""
        if not self.lines or (self.code in _COUNTED and not verbose):
            return f"{self.severity}: {self.found} {self.do}"
        groups = [line for line in self.lines if not isinstance(line, int)]
        if groups:
            names = ["+".join(map(str, group)) for group in groups]
            shown = names if verbose else names[:_GROUPS_SHOWN]
            lines = ", ".join(shown) + (", …" if len(shown) < len(names) else "")
        else:
            numbers = [line for line in self.lines if isinstance(line, int)]
            lines = ranges(numbers, most=len(numbers) if verbose else _RANGES_SHOWN)
        return f"{self.severity}: {self.found} Lines {lines}. {self.do}"

    def as_json(self) -> FindingJson:
        """Return the finding as plain data."""
        return {
            "code": self.code,
            "severity": self.severity,
            "count": self.count,
            "found": self.found,
            "do": self.do,
            "lines": self.lines,
        }


def warned(
    code: str, lines: Sequence[int] | Sequence[Sequence[int]], found: str, do: str
) -> list[Finding]:
    """A warning about these lines; none where there are none."""
    return [Finding(code, WARNING, len(lines), found, do, lines)] if lines else []
