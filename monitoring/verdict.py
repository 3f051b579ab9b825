"""From two samples of conversations to a verdict: pure, deterministic, and calibrated so that quiet
days stay quiet.

All signals are tested together: Holm's correction keeps the chance of *any* false drift in a run at
`alpha`, effect floors keep trifles out, users' resemblance is corrected for, and a signal without
enough values says so instead of guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from monitoring.compare import Comparison, Sample, compare
from monitoring.rows import Row
from monitoring.signals import KIND_TITLES, SIGNALS, Kind, Signal, values_of
from monitoring.statistics import holm
from monitoring.text import words_of
from whet.records.monitoring import ReportSignal, WordShare

State = Literal["drift", "no_drift", "not_enough_data"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a verdict rests on."""

    # Chance of any false drift in one run; runs repeat all day on windows that overlap, so 5 %
    # would be too much
    alpha: float = 0.01
    min_rows: int = 50  # values of a signal needed on each side
    # Ratings needed on each side: they are rare, and exact tests hold at this size
    min_rated: int = 20
    seed: int = 0  # of the relabellings and folds: the same data give the same verdict


@dataclass(frozen=True)
class Finding:
    """One signal's part of the verdict."""

    signal: Signal
    state: State
    n_reference: int
    n_window: int
    sentence: str
    adjusted_p: float | None = None
    comparison: Comparison | None = None

    def record(self) -> ReportSignal:
        """Return what `drift_reports.signals` holds of it."""
        found = self.comparison
        return ReportSignal(
            name=self.signal.name,
            kind=self.signal.kind,
            label=self.signal.label,
            unit=self.signal.unit,
            shape=self.signal.shape,
            state=self.state,
            drifted=self.state == "drift",
            n_reference=self.n_reference,
            n_window=self.n_window,
            test=found.test if found else None,
            p_value=found.p_value if found else None,
            adjusted_p_value=self.adjusted_p,
            effect=found.effect if found else None,
            reference=found.reference if found else None,
            window=found.window if found else None,
            since_at=found.since_at if found else None,
            words=[
                WordShare(
                    word=word.word,
                    reference_share=word.reference_share,
                    window_share=word.window_share,
                )
                for word in (found.words if found else ())
            ],
            sentence=self.sentence,
            series=found.series if found and self.state == "drift" else [],
        )


@dataclass(frozen=True)
class Verdict:
    """What a run says about one alias."""

    state: State
    summary: str
    findings: list[Finding] = field(default_factory=list)

    def drifted(self, kind: Kind) -> list[Finding]:
        """The drifted signals of one kind: those that name words first, then the surest."""
        found = [
            finding
            for finding in self.findings
            if finding.signal.kind == kind and finding.state == "drift"
        ]
        return sorted(found, key=_telling)

    @property
    def kinds(self) -> list[Kind]:
        """Kinds with drift, in the order in which people should hear of them."""
        order: tuple[Kind, ...] = ("quality", "questions", "retrieval", "answers", "service")
        return [kind for kind in order if self.drifted(kind)]


def _telling(finding: Finding) -> tuple[bool, bool, float, str]:
    found = finding.comparison
    return (
        not (found and found.words),
        finding.signal.shape != "words",
        found.p_value if found else 1.0,
        finding.signal.name,
    )


def judge(reference: Sequence[Row], window: Sequence[Row], rules: Rules | None = None) -> Verdict:
    """Compare `window` with `reference`, both oldest first.

    Samples below `min_rows`, or that share a conversation, give `not_enough_data`.
    """
    rules = rules or Rules()
    if min(len(reference), len(window)) < rules.min_rows:
        found = f"{len(reference)} earlier and {len(window)} recent conversations"
        return Verdict(
            "not_enough_data", f"Not enough data: {found}, {rules.min_rows} of each are needed."
        )
    shared = {row.id for row in reference} & {row.id for row in window}
    if shared:
        return Verdict(
            "not_enough_data",
            f"Not enough data: {len(shared)} conversations are in both samples, so they cannot be"
            " compared.",
        )
    try:
        findings = [
            _examine(signal, before, after, rules)
            for signal, before, after in _samples(reference, window)
        ]
    finally:
        words_of.cache_clear()  # people's texts are not kept in memory between runs
    return _assemble(findings, rules, len(window))


def _samples(
    reference: Sequence[Row], window: Sequence[Row]
) -> list[tuple[Signal, Sample, Sample]]:
    before, after = values_of(list(reference)), values_of(list(window))
    pairs = [
        (one, Sample.of(reference, before[one.name]), Sample.of(window, after[one.name]))
        for one in SIGNALS
    ]
    return [pair for pair in pairs if not pair[0].is_optional or len(pair[1]) or len(pair[2])]


def _examine(signal: Signal, reference: Sample, window: Sample, rules: Rules) -> Finding:
    needed = rules.min_rated if signal.kind == "quality" else rules.min_rows
    if min(len(reference), len(window)) < needed:
        label = signal.label[:1].upper() + signal.label[1:]
        sentence = (
            f"{label}: not enough data ({len(window)} recent and {len(reference)} earlier values,"
            f" {needed} of each are needed)."
        )
        return Finding(signal, "not_enough_data", len(reference), len(window), sentence)
    found = compare(signal, reference, window, np.random.default_rng(rules.seed))
    return Finding(
        signal, "no_drift", len(reference), len(window), found.sentence, comparison=found
    )


def _assemble(findings: list[Finding], rules: Rules, n_window: int) -> Verdict:
    tested = [finding for finding in findings if finding.comparison]
    adjusted = dict(
        zip(
            (f.signal.name for f in tested),
            holm([f.comparison.p_value for f in tested if f.comparison]),
            strict=True,
        )
    )
    judged = [_decide(finding, adjusted.get(finding.signal.name), rules) for finding in findings]
    verdict = Verdict(
        "drift" if any(f.state == "drift" for f in judged) else "no_drift", "", judged
    )
    if not verdict.kinds:
        return Verdict(
            "no_drift",
            f"Nothing changed: {len(tested)} signals of the {n_window} newest conversations are as"
            " before.",
            judged,
        )
    titles = ", ".join(KIND_TITLES[kind] for kind in verdict.kinds)
    leads = [verdict.drifted(kind)[0].sentence for kind in verdict.kinds]
    return Verdict("drift", f"{titles[:1].upper()}{titles[1:]}. {' '.join(leads)}", judged)


def _decide(finding: Finding, adjusted: float | None, rules: Rules) -> Finding:
    found = finding.comparison
    if found is None or adjusted is None:
        return finding
    drifted = adjusted < rules.alpha and found.large_enough
    return Finding(
        finding.signal,
        "drift" if drifted else "no_drift",
        finding.n_reference,
        finding.n_window,
        found.sentence,
        adjusted,
        found,
    )
