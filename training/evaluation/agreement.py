"""Agreement between two who choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from training.evaluation.intervals import MIN_ROWS


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa (1960): agreement beyond chance, -1 to 1.

    None with fewer than ten rows, or when both sides always say the same one thing.
    """
    if len(pairs) < MIN_ROWS or len({word for pair in pairs for word in pair}) < 2:
        return None
    count = len(pairs)
    ours, theirs = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    by_chance = sum(ours[word] * theirs[word] for word in ours) / count**2
    return round((fmean(one == other for one, other in pairs) - by_chance) / (1 - by_chance), 3)
