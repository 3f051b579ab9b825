"""How far reviewers agree: shares with Wilson's interval, and Cohen's kappa. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from zlib import crc32

SECOND_PERCENT = 10  # of the decisions get a second opinion
_Z = 1.959964  # standard normal quantile of a 95 % interval


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of verdicts, right or wrong, on the same answers."""

    both_right: int = 0
    both_wrong: int = 0
    only_first: int = 0  # the first reviewer found it right, the second did not
    only_second: int = 0

    @property
    def n(self) -> int:
        return self.both_right + self.both_wrong + self.only_first + self.only_second

    @property
    def agreed(self) -> int:
        return self.both_right + self.both_wrong

    @property
    def share(self) -> float | None:
        return self.agreed / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the share (1927); None without pairs."""
        if not self.n:
            return None
        share, square = self.agreed / self.n, _Z * _Z
        middle = share + square / (2 * self.n)
        width = _Z * sqrt(share * (1 - share) / self.n + square / (4 * self.n * self.n))
        return (middle - width) / (1 + square / self.n), (middle + width) / (1 + square / self.n)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa (1960): agreement beyond chance, 1 at most.

        None without pairs, and where both say the same of every answer: chance agrees then too.
        """
        if not self.n:
            return None
        first = (self.both_right + self.only_first) / self.n
        second = (self.both_right + self.only_second) / self.n
        chance = first * second + (1 - first) * (1 - second)
        return None if chance == 1 else (self.agreed / self.n - chance) / (1 - chance)


def count_agreement(pairs: Iterable[tuple[bool, bool]]) -> Agreement:
    """Count pairs of (the first reviewer found it right, the second did)."""
    found = list(pairs)
    return Agreement(
        both_right=found.count((True, True)), both_wrong=found.count((False, False)),
        only_first=found.count((True, False)), only_second=found.count((False, True)),
    )  # fmt: skip


def is_drawn(item_id: str, percent: int = SECOND_PERCENT) -> bool:
    """Whether an item is of the share that gets a second opinion: chosen by its id alone."""
    return crc32(item_id.encode()) % 100 < percent
