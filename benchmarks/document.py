"""Documents that carry a table written by a command."""

from __future__ import annotations

from benchmarks.errors import BenchmarkError


def put_between_markers(document: str, text: str, begin: str, end: str) -> str:
    """`document` with what stands between the markers replaced.

    Raises BenchmarkError when they are not there, once each, in order.
    """
    before, first, rest = document.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last or begin in rest or end in after:
        raise BenchmarkError(
            f"The document does not hold {begin!r} and {end!r} once each, in this order."
        )
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"
