"""Counts what was named against what was planted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.blame.planted import CONTROLS, DETAILS, EXPECTED, FAULTS
from serving.blame.records import Fault, Verdict


def score(found: Sequence[tuple[str, Verdict]]) -> dict[str, Any]:
    """Return shares and the confusion matrix of (what was planted, verdict)."""
    faults = [(kind, verdict) for kind, verdict in found if kind in FAULTS]
    controls = [(kind, verdict) for kind, verdict in found if kind in CONTROLS]
    with_fault = [pair for pair in faults if pair[1].fault not in (Fault.NONE, Fault.UNKNOWN)]
    return {
        "faults": len(faults),
        "named": len(with_fault),
        "named_right": _count_right(faults),
        "controls": len(controls),
        "controls_blamed": len(controls) - _count_right(controls),
        "detail_right": sum(
            verdict.fault is Fault.ADAPTER and verdict.detail == DETAILS[kind]
            for kind, verdict in faults
            if kind in DETAILS
        ),
        "detail_asked": sum(kind in DETAILS for kind, _ in faults),
        "confusion": {
            kind: dict(Counter(verdict.fault.value for each, verdict in found if each == kind))
            for kind in EXPECTED
            if any(each == kind for each, _ in found)
        },
    }


def is_named_right(kind: str, verdict: Verdict) -> bool:
    """Tell whether the verdict names what was planted."""
    return verdict.fault in EXPECTED[kind]


def _count_right(pairs: Iterable[tuple[str, Verdict]]) -> int:
    return sum(is_named_right(kind, verdict) for kind, verdict in pairs)
