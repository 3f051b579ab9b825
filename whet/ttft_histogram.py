"""A histogram of times with fixed bounds, from which percentiles are read.

Bounds are powers of 2^(1/8) ms, so every histogram can be added to every other, and a percentile
is read as the geometric middle of its bucket: at most 4.5 % off, between 1 ms and 17 min.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

_PER_OCTAVE = 8
_BUCKETS = 20 * _PER_OCTAVE  # to 2^20 ms
RELATIVE_ERROR = 2 ** (1 / (2 * _PER_OCTAVE)) - 1


def bucket_index(ms: float) -> int:
    """Return the bucket of a time; what lies outside the bounds counts in the outermost one."""
    if ms < 1:
        return 0
    return min(_BUCKETS - 1, int(_PER_OCTAVE * math.log2(ms)))


def add_histograms(histograms: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum of histograms: index as text, as JSON has it → count."""
    total: dict[str, int] = {}
    for histogram in histograms:
        for index, count in histogram.items():
            total[index] = total.get(index, 0) + count
    return total


def percentile(histogram: Mapping[str, int], share: float) -> float | None:
    """Return the time (ms) that at least `share` of the times do not exceed."""
    rank = math.ceil(share * sum(histogram.values()) - 1e-9)
    reached = 0
    for index in sorted(map(int, histogram)):
        reached += histogram[str(index)]
        if reached >= max(1, rank):
            return float(2 ** ((index + 0.5) / _PER_OCTAVE))
    return None
