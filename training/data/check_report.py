"""What `whet data check` finds, as its JSON, its page and its table read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict


class RejectedLine(TypedDict):
    """A line that is not a training row."""

    line: int
    unit: str  # what is counted: line | row
    found: str
    expected: str


class Notice(TypedDict):
    """What was done to rows when they were read."""

    found: str
    rows: int  # 0 for what is said of the whole file


class FindingJson(TypedDict):
    """A `training.data.finding.Finding` as plain data."""

    code: str
    severity: str  # error | warning
    count: int
    found: str
    do: str
    lines: Sequence[int] | Sequence[Sequence[int]]


class Piece(TypedDict):
    """A run of tokens of a row that are all learned, or all only seen."""

    text: str
    trained: bool


class Preview(TypedDict):
    """A row as the base sees it."""

    line: int
    pieces: list[Piece]


class Median(TypedDict, total=False):
    """Tokens of a row; empty without rows."""

    median: int
    longest: int


# Rows with `from` to `to` tokens.
Bin = TypedDict("Bin", {"from": int, "to": int, "rows": int})


class RowFigures(TypedDict):
    """Counts of rows and tokens."""

    rows: int
    rejected: list[RejectedLine]
    rejected_lines: int
    empty_lines: int
    notices: list[Notice]
    ignored_columns: dict[str, int]
    kinds: dict[str, int]
    tasks: dict[str, int]
    origins: dict[str, int]
    with_checks: int
    with_context: int
    tokens: int
    tokens_learned: int
    tokens_per_row: Median
    truncated: int
    too_long: int
    without_learned_token: int
    end_of_turn_learned: int
    text_windows: NotRequired[int]  # of long plain texts, where a row is one
    histogram: list[Bin]
    test_rejected: NotRequired[list[RejectedLine]]


class CheckReport(RowFigures):
    """All that `whet data check` says of a file."""

    longest_allowed: int
    duplicates: int
    near_duplicates: int
    conflicting_answers: int
    languages: dict[str, int]
    labels: dict[str, dict[str, int]]
    errors: int
    warnings: int
    findings: list[FindingJson]
    preview: list[Piece]
    previews: list[Preview]
    base: str
    template: str
