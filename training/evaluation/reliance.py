"""Ask models whose passage says otherwise than the original: do they follow it, or their weights?

Fine-tuning can lower a model's reliance on its context (Goyal et al., "Context-Parametric
Inversion", ICLR 2025, arXiv 2410.10796). Each question is asked twice: with its own passages, and
with passages in which one key fact is another one (`training/data/counterfactual.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from training.data.counterfactual import MADE_BY, Counterfactual, make_counterfactual, manner_of
from training.data.datasets import Dataset
from training.data.passages import has_default, load_passages, retrieves, with_passages
from training.data.rows import Row
from training.evaluation.answers import Answer
from training.evaluation.gate import Finding, Thresholds
from training.evaluation.intervals import paired_means
from training.evaluation.reliance_gate import ReliancePair, judge_reliance
from training.models.encode import Encoder
from training.store.evaluation_types import Measure
from whet.context import Context
from whet.database import reading

# Another one makes other passages: figures before and after do not compare
SEED = "whet-reliance-1"
# A version that answers one in five otherwise than the other, half of them better, passes with
# these.
MOST_QUESTIONS = 60
FOLLOWS = "follows the passage where it says otherwise"
KEEPS = "says what the passage no longer says"
SAMPLES = "reliance.json"
TRUE_PASSAGE = "states the fact of its own passage"


@dataclass(frozen=True)
class RelianceQuestions:
    """What an alias that retrieves is asked; empty where nothing can be made to say otherwise."""

    cases: tuple[Counterfactual, ...]
    held_out: int  # of these, cases made of rows that training does not have

    @property
    def otherwise(self) -> list[Row]:
        """The rows with passages that say otherwise: what the gate asks."""
        return [case.row for case in self.cases]

    @property
    def own(self) -> list[Row]:
        """The same rows with their own passages: what the report asks too."""
        return [case.original for case in self.cases]

    def first(self, share: float) -> RelianceQuestions:
        """Return a share (0 to 1) of them."""
        return replace(self, cases=self.cases[: math.ceil(share * len(self.cases))])


@dataclass(frozen=True)
class RelianceAnswers:
    """The questions with two models' answers, by the ids of `questions.otherwise`."""

    questions: RelianceQuestions
    ours: Mapping[str, Answer]
    theirs: Mapping[str, Answer]


def reliance_questions(
    context: Context, alias: str, dataset: Dataset, encoder: Encoder
) -> RelianceQuestions | None:
    """Return what a version of `alias` is asked; None where the alias answers without passages.

    Held-out and reviewed rows come first, rows of training fill up. Where fewer have passages of
    their own than are wanted, rows without are given those of the alias's default collection.
    """
    held_out = [*dataset.test, *dataset.regression]
    with reading(context.database) as connection:
        by_default = has_default(connection, alias)
        if not retrieves([*held_out, *dataset.train], by_default=by_default):
            return None
        texts = load_passages(connection, alias) if by_default else []
    manner = manner_of([*held_out, *dataset.train])
    asked: dict[str, Counterfactual] = {}
    sizes = []
    for rows in (held_out, dataset.train):
        for some in (rows, with_passages(rows, texts, manner) if texts else []):
            _add(asked, some, encoder, manner)
        sizes.append(len(asked))
    return RelianceQuestions(tuple(asked.values()), sizes[0])


def _add(
    asked: dict[str, Counterfactual],
    rows: Sequence[Row],
    encoder: Encoder,
    manner: frozenset[str],
) -> None:
    """Add cases of rows, drawn by the seed, until there are enough; each question is asked once."""
    usable = [row for row in rows if row.context and row.raw.get("made_by") != MADE_BY]
    for row in random.Random(SEED).sample(usable, len(usable)):
        if len(asked) >= MOST_QUESTIONS:
            return
        question = " ".join(str(m["content"]) for m in row.messages[:-1]).casefold()
        if question in asked:
            continue
        # Two files may both have a row 1, and answers are kept by id.
        case = make_counterfactual(replace(row, id=f"{len(asked)}:{row.id}"), SEED, manner)
        if case and encoder.takes(case.row) and encoder.takes(case.original):
            asked[question] = case


def find_reliance(
    questions: RelianceQuestions,
    ours: Mapping[str, Answer],
    theirs: Mapping[str, Answer],
    limits: Thresholds,
    *,
    against: str,
) -> Finding:
    """Return the gate's finding.

    `ours` and `theirs` hold answers by the ids of `questions.otherwise`.
    """
    pairs = [
        ReliancePair(
            case.follows(ours[case.row.id].text),
            case.follows(theirs[case.row.id].text),
            case.keeps(ours[case.row.id].text),
            case.keeps(theirs[case.row.id].text),
        )
        for case in questions.cases
    ]
    finding = judge_reliance(pairs, limits, against=against)
    finding.metrics["held_out"] = questions.held_out
    return finding


_Test = Callable[[Counterfactual, Mapping[str, Answer]], bool]


def reliance_measures(
    questions: RelianceQuestions, sides: Mapping[str, Mapping[str, Answer]]
) -> list[Measure]:
    """Return the report's measures. `sides`: name -> answers by row id, the candidate first."""

    def share(test: _Test) -> dict[str, list[float]]:
        return {
            side: [float(test(case, found)) for case in questions.cases]
            for side, found in sides.items()
        }

    if not questions.cases:
        return []
    return [
        paired_means(
            FOLLOWS, "higher", share(lambda case, found: case.follows(found[case.row.id].text))
        ),
        paired_means(
            KEEPS, "lower", share(lambda case, found: case.keeps(found[case.row.id].text))
        ),
        paired_means(
            TRUE_PASSAGE,
            "higher",
            share(lambda case, found: case.keeps(found[case.original.id].text)),
        ),
    ]


def keep_samples(
    context: Context,
    samples_path: str,
    questions: RelianceQuestions,
    sides: Mapping[str, Mapping[str, Answer]],
) -> None:
    """Store each case beside the evaluation's answers: passages, fact, and every side's answers."""
    found = [
        {
            "id": case.original.id,
            "question": str(case.original.messages[-2]["content"]),
            "kind": case.fact.kind,
            "fact": case.fact.text,
            "replacement": case.replacement,
            "passages": list(case.original.context),
            "answers": {
                side: {
                    "own_passages": answers[case.original.id].text,
                    "other_passages": answers[case.row.id].text,
                }
                for side, answers in sides.items()
            },
        }
        for case in questions.cases
    ]
    context.store.put_json(str(PurePosixPath(samples_path).with_name(SAMPLES)), found)
