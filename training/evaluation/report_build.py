"""Build the evaluation report from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from training.data.rows import Row
from training.evaluation.answers import Questions, Side
from training.evaluation.earlier import MOST_DATASETS, MOST_ROWS
from training.evaluation.gate import Decision
from training.evaluation.measures import measure_rows, perplexity
from training.evaluation.probes import Probes
from training.evaluation.report import CANDIDATE, FORMAT, HELD_OUT, TEXTS
from training.evaluation.suites import right, summary
from training.store.evaluation_types import Measure, Report


def build(
    decision: Decision,
    asked: Questions,
    probed: Probes,
    earlier: Sequence[tuple[str, Sequence[Row]]],
    sides: Mapping[str, Side],
    *,
    against: str,
    base: str,
) -> Report:
    """The report as plain data.

    `sides`: name → what it did, the candidate first; `against` and `base` are two of the names, or
    one.
    """
    to_base = {CANDIDATE: sides[CANDIDATE], base: sides[base]}
    to_other = {CANDIDATE: sides[CANDIDATE], against: sides[against]}
    probe_figures = summary(probed, to_base)
    probe_figures["forgetting"] += [
        right(f"test rows of the earlier dataset {name}", rows, to_other) for name, rows in earlier
    ]
    # A first look may have asked nothing of a kind
    sections: tuple[Literal["forgetting", "bias", "safety"], ...] = ("forgetting", "bias", "safety")
    for section in sections:
        probe_figures[section] = [measure for measure in probe_figures[section] if measure["n"]]
    return {
        "format": FORMAT,
        "against": against,
        "base": base,
        "gate": {
            "verdict": decision.verdict,
            "reason": decision.reason,
            "metrics": decision.metrics,
            "thresholds": decision.thresholds,
            "failed": list(decision.failed),
        },
        "measures": _measures(asked, sides),
        "probes": probe_figures,
        "earlier": (
            f"Of earlier tasks the {MOST_DATASETS} newest datasets were looked at, and of each at"
            f" most {MOST_ROWS} test rows were asked; rows whose answers people replaced since are not"
            " asked."
        ),
    }


def _measures(asked: Questions, sides: Mapping[str, Side]) -> dict[str, list[Measure]]:
    """Measures by group of held-out rows; of plain texts only what they cost."""
    found = {
        name: measure_rows(rows, sides)
        for name, rows in asked.groups.items()
        if name in HELD_OUT and rows
    }
    texts = perplexity(asked.texts, sides, "perplexity per token")
    return {**found, TEXTS: texts} if texts else found
