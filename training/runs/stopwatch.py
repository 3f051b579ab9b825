"""How long the stages of a run took."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stopwatch:
    """Seconds by stage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self.seconds: dict[str, float] = {}

    def part(self, stage: str, name: str, seconds: float) -> None:
        """Count some of a stage's seconds as a stage of their own."""
        if seconds:
            self.seconds[stage] = max(0.0, self.seconds[stage] - seconds)
            self.seconds[name] = seconds

    def mark(self, stage: str) -> None:
        now = self._clock()
        self.seconds[stage], self._last = now - self._last, now
