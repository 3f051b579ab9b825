"""Find rows that a version was trained on after it was judged by them.

A version of a small set is judged by held-out rows and then trained on all rows (`refit`), or judged
by cross-validation (`folds`). What it answers to those rows afterwards says nothing about unseen
questions; what the models answered that had not seen them does, and is stored with its evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from training.data.rows import Row
from training.data.scoring import Score
from training.evaluation.answers import Answer, asked_messages
from training.evaluation.opinion import read_samples
from training.store.evaluation_types import AnswerJson, Sample
from training.store.requests import evaluations_of
from whet.context import Context
from whet.database import reading
from whet.registry import Adapter


@dataclass(frozen=True)
class SeenRows:
    """What both sides of an evaluation know of the rows they are asked, and what follows. Keys are
    row ids."""

    # Answers from before the candidate, or the other version, was trained on the row
    ours: Mapping[str, Answer] = field(default_factory=dict)
    theirs: Mapping[str, Answer] = field(default_factory=dict)
    # Rows that the version was trained on which the candidate goes on from
    by_start: frozenset[str] = frozenset()
    start: str = ""  # label of that version
    candidate: str = ""  # label of a version that is stored already
    is_refitted: bool = False  # the candidate will be trained on the rows that it is judged by

    def sentence(self, against: str) -> str:
        """Say which rows were trained before; empty where none was."""
        if self.by_start:
            return (
                f"{len(self.by_start)} of these questions were trained by {self.start}, which this"
                " version goes on from: they say what it kept."
            )
        found = [
            f"{label} was trained on {len(rows)} of these questions after it was judged; what it"
            " answered before that is compared."
            for label, rows in ((self.candidate, self.ours), (against, self.theirs))
            if rows
        ]
        return " ".join(found)


def seen_by_candidate(
    context: Context,
    rows: Sequence[Row],
    start: Adapter | None,
    against: Adapter | None,
    *,
    is_refitted: bool,
) -> SeenRows:
    """What is known of the rows a run is judged by; `start` is what it goes on from.

    A candidate that starts from nothing has not seen the rows, so it is compared with what the
    other version answered before it had. One that goes on from a version which has seen them is
    compared with what the other answers now.
    """
    if start is not None:
        known = frozenset(answers_before(context, start, rows))
        return SeenRows(by_start=known, start=start.label, is_refitted=is_refitted)
    theirs = answers_before(context, against, rows) if against else {}
    return SeenRows(theirs=theirs, is_refitted=is_refitted)


def seen_by_stored(
    context: Context, rows: Sequence[Row], candidate: Adapter, against: Adapter | None
) -> SeenRows:
    """What is known of the rows that two stored versions are judged by."""
    return SeenRows(
        answers_before(context, candidate, rows),
        answers_before(context, against, rows) if against else {},
        candidate=candidate.label,
    )


def answers_before(context: Context, adapter: Adapter, rows: Sequence[Row]) -> Mapping[str, Answer]:
    """What was answered to the rows before the version was trained on them; empty for a version
    that was stored as it was judged."""
    recipe = adapter.card.get("recipe") or {}
    if not (recipe.get("refit") or recipe.get("folds")):
        return {}
    with reading(context.database) as connection:
        found = [
            row
            for row in evaluations_of(connection, adapter.digest)
            if row["run_id"] == adapter.run_id and row["samples_path"]
        ]
    if not found:
        return {}
    # The first is the one by which the run was judged; later ones asked the version as it is
    samples = {
        str(sample["id"]): sample
        for sample in read_samples(context, str(found[-1]["samples_path"]))
        if set(sample["groups"]) & {"old", "new"}
    }
    return {
        row.id: _answer(samples[row.id]["candidate"])
        for row in rows
        if row.id in samples and _is_same(samples[row.id], row)
    }


def _is_same(sample: Sample, row: Row) -> bool:
    return (sample["prompt"], sample["reference"]) == (asked_messages(row), row.answer)


def _answer(stored: AnswerJson) -> Answer:
    return Answer(stored["text"], stored["tokens"], stored["stopped"], Score(**stored["score"]))
