"""Why questions find nothing: documents are missing, or nobody has written them yet.

Both raise the share of questions that find nothing. Documents that are gone leave the questions as
they were; a new subject brings questions of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import Floats, Table, date_of
from monitoring.detector.gaps import find_gaps
from monitoring.detector.incidents import Incident
from monitoring.detector.retrieval import MISS
from monitoring.detector.topics import Labels, by_likeness, by_risen_words, one_per_user, users_of
from whet.records.monitoring import CauseRecord, GapRecord

_FIND_LESS = frozenset({MISS, "retrieval_empty", "retrieval_score"})
_LEAST_ROWS = 50  # searches of each period
_ROWS = 4_000  # of each that are clustered, as for the topics of an incident
# Share of the new misses that are questions which were not asked before, from which the questions
# are the cause.
_NEW_QUESTIONS = 0.5
# Fall of the 75 % quantile of scores against that of their mean, from which all questions fell
# alike; 0.4 where a tenth of the documents is gone.
_ALIKE = 0.8
_NAMED = 3  # clusters in the incident
_EXAMPLES = 5
CauseKind = Literal["documents_missing", "subject_without_documents", "scores_fell"]
_SENTENCES: dict[CauseKind, str] = {
    "documents_missing": (
        "Documents may be missing: questions as they were asked before no longer find theirs."
    ),
    "subject_without_documents": "A new subject has no documents.",
    "scores_fell": (
        "Scores fell for all questions alike: the index or the embedder may have changed."
    ),
}


@dataclass(frozen=True)
class Cause:
    """What an incident of questions that find nothing comes from."""

    kind: CauseKind
    share_before: float  # of the searches that found nothing
    share_now: float
    new_questions: float  # share of the new misses that are questions which were not asked before
    gaps: list[GapRecord] = field(default_factory=list)
    documents_changed_on: str = ""  # day on which another state of a collection was first searched

    @property
    def sentence(self) -> str:
        """The cause in one sentence or two, with the words of the largest cluster."""
        words = next((", ".join(gap.words) for gap in self.gaps if gap.words), "")
        said = _SENTENCES[self.kind]
        if words:
            said = f"{said[:-1]}: “{words}”." if self.kind != "documents_missing" else (
                f"{said} Most: “{words}”."
            )  # fmt: skip
        changed = self.documents_changed_on
        return f"{said} The documents changed on {changed}." if changed else said

    def record(self) -> CauseRecord:
        """Return the cause as it is stored."""
        return CauseRecord(
            kind=self.kind,
            sentence=self.sentence,
            share_before=round(self.share_before, 4),
            share_now=round(self.share_now, 4),
            new_questions=round(self.new_questions, 3),
            gaps=self.gaps,
            documents_changed_on=self.documents_changed_on or None,
        )


def finds_less(incident: Incident) -> bool:
    """Tell whether questions find less since the incident."""
    return any(
        chart.signal in _FIND_LESS and one.effect.up == (chart.signal != "retrieval_score")
        for chart, one in incident.evidence.items()
    )


def find_cause(before: Table, after: Table, codebook: Codebook | None, seed: int) -> Cause | None:
    """Return the cause; None where there are too few searches, or no more misses than before."""
    before, after = (_searched(table, seed) for table in (before, after))
    if min(len(before), len(after)) < _LEAST_ROWS:
        return None
    was, now = (table.columns[MISS] == 1 for table in (before, after))
    rise = float(now.mean() - was.mean())
    if rise <= 0:
        return None
    new = min(1.0, _new_questions(before, after, was, now, codebook, seed) / rise)
    kind: CauseKind = "documents_missing"
    if new >= _NEW_QUESTIONS:
        kind = "subject_without_documents"
    elif _fell_alike(before.get("retrieval_score"), after.get("retrieval_score")):
        kind = "scores_fell"
    gaps = _gaps(after.take(now), after.take(~now), len(after), codebook, seed)
    changed = _documents_changed(before, after)
    return Cause(kind, float(was.mean()), float(now.mean()), new, gaps, changed)


def _searched(table: Table, seed: int) -> Table:
    missed = table.get(MISS)
    if missed is None:
        return Table({})
    rows = np.flatnonzero(np.isfinite(missed))
    if len(rows) > _ROWS:
        rows = np.sort(np.random.default_rng([seed, 8]).choice(rows, _ROWS, replace=False))
    return table.take(rows)


def _new_questions(
    before: Table,
    after: Table,
    was: NDArray[np.bool_],
    now: NDArray[np.bool_],
    codebook: Codebook | None,
    seed: int,
) -> float:
    """Share of the searches that are new questions and find nothing.

    Over groups of questions: as far as a group has more misses because it has more questions.
    """
    found = by_risen_words(before, after, codebook, seed)
    if found is None and (codebook is None or codebook.space is None):
        found = by_likeness(before, after, codebook, seed)
    if found is None:
        return 0.0
    old, new, groups = found.old_labels, found.new_labels, len(found.centres)
    missed_before, missed_now = old[was[found.old_rows]], new[now[found.new_rows]]
    misses = _shares(missed_now, groups, len(after)) - _shares(missed_before, groups, len(before))
    asked = _shares(new, groups, len(after)) - _shares(old, groups, len(before))
    return float(np.minimum(np.maximum(misses, 0), np.maximum(asked, 0)).sum())


def _shares(labels: Labels, groups: int, rows: int) -> Floats:
    """Rows of each group as a share of all; -1 is in no group."""
    return np.asarray(np.bincount(labels[labels >= 0], minlength=groups) / rows)


def _fell_alike(before: Floats | None, after: Floats | None) -> bool:
    if before is None or after is None:
        return False
    was, now = before[np.isfinite(before)], after[np.isfinite(after)]
    if min(len(was), len(now)) < _LEAST_ROWS:
        return False
    fall = float(was.mean() - now.mean())
    return fall > 0 and float(np.quantile(was, 0.75) - np.quantile(now, 0.75)) >= _ALIKE * fall


def _gaps(
    missed: Table, answered: Table, searches: int, codebook: Codebook | None, seed: int
) -> list[GapRecord]:
    owners = users_of(missed) if len(missed) else []
    return [
        GapRecord(
            words=gap.words,
            questions=len(gap.rows),
            share=round(len(gap.rows) / searches, 4),
            examples=one_per_user(np.array(gap.rows), owners, missed.columns["id"], _EXAMPLES),
        )
        for gap in find_gaps(missed, answered, codebook, seed)[:_NAMED]
    ]


def _documents_changed(before: Table, after: Table) -> str:
    """First day on which a state of a collection was searched that was not searched before."""
    states, earlier = after.get("documents"), before.get("documents")
    if states is None or earlier is None or "day" not in after:
        return ""
    new = set(states.tolist()) - set(earlier.tolist()) - {None}
    days = after.columns["day"][np.isin(states.astype(str), [str(one) for one in new])]
    return date_of(int(days.min())).isoformat() if len(days) else ""
