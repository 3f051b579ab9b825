"""The benchmarks' own error."""

from __future__ import annotations

from whet.errors import WhetError


class BenchmarkError(WhetError):
    """A run that cannot start or whose figures would mean nothing."""

    code = "benchmark_failed"
