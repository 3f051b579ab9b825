"""What is measured about a version beyond its gate: the same rows by the base, probes, rows of
earlier tasks, what references cost. Ends as the report.

It takes longer than the gate, and nothing waits for it: a run stores its version first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel

from training.data.datasets import Dataset
from training.data.rows import Row
from training.evaluation import report, report_build
from training.evaluation.answering import answer_rows
from training.evaluation.answers import Answer, Questions, Side
from training.evaluation.ballots import keep_base
from training.evaluation.earlier import earlier_rows
from training.evaluation.judge import BASE, Judgement, Tally, answering_as
from training.evaluation.nll import reference_nll
from training.evaluation.probes import Probes, probes
from training.evaluation.reliance import RelianceAnswers, keep_samples, reliance_measures
from training.models.encode import Encoder
from whet.context import Context


def survey(
    context: Context,
    model: nn.Module,
    encoder: Encoder,
    dataset: Dataset,
    judgement: Judgement,
    *,
    name: str,
    on_batch: Callable[[int, int], None],
    base: Callable[[], PreTrainedModel] | None = None,
    most_answers: int | None = None,
) -> None:
    """Store the report of a judged version of `name` beside its answers.

    `model` and `base` as in `training.evaluation.judge.compare`; without a decision nothing happens.

    `most_answers`: about how many the models may write for probes and rows of earlier tasks, both
    together; None: no limit.
    """
    decision, asked, other = judgement.decision, judgement.asked, judgement.against_name
    if decision is None or judgement.samples_path is None:
        return
    plan = _Plan(
        asked,
        probes(asked.held_out, encoder.takes),
        _fitting(earlier_rows(context, name, dataset), encoder),
    )
    share = plan.share_within(most_answers)
    plan = plan.first(share)
    follow = _Reliance(encoder, judgement.reliance, share)
    answers = plan.count(with_production=judgement.against is not None)
    tally = Tally(on_batch, answers + follow.count(with_production=judgement.against is not None))
    follow.ask(report.CANDIDATE, model, tally, follow.ours)
    rounds = [plan.probes.answered, plan.earlier_rows]
    sides = {report.CANDIDATE: _side(model, encoder, judgement.ours, rounds, plan.costed, tally)}
    if judgement.against is not None:
        with answering_as(context, model, judgement.against, base) as production:
            follow.ask(other, production, tally, follow.theirs)
            sides[other] = _other_side(production, encoder, judgement, plan, tally)
    with answering_as(context, model, None, base) as plain:
        sides[BASE] = _base_side(plain, encoder, judgement, plan, follow, tally)
    if judgement.against is not None:
        base_answers = sides[BASE].answers
        keep_base(
            context,
            judgement.samples_path,
            {row.id: base_answers[row.id] for row in asked.held_out},
        )
    found = report_build.build(
        decision, asked, plan.probes, plan.earlier, sides, against=other, base=BASE
    )
    if follow.questions:
        found["reliance"] = reliance_measures(follow.questions, follow.sides)
        keep_samples(context, judgement.samples_path, follow.questions, follow.sides)
    if share < 1:
        found["asked_share"] = round(share, 3)
    context.store.put_json(report.report_path(judgement.samples_path), found)


def _other_side(
    model: nn.Module, encoder: Encoder, judgement: Judgement, plan: _Plan, tally: Tally
) -> Side:
    """What the version in production did, which the gate has asked of held-out rows already."""
    costed = [*plan.asked.held_out, *plan.asked.texts]
    return _side(model, encoder, judgement.theirs, [plan.earlier_rows], costed, tally)


def _base_side(
    model: nn.Module,
    encoder: Encoder,
    judgement: Judgement,
    plan: _Plan,
    follow: _Reliance,
    tally: Tally,
) -> Side:
    """What the base did: with nothing in production, the gate has asked it already."""
    if judgement.against is not None:
        follow.ask(BASE, model, tally, None)
        rounds = [plan.asked.held_out, plan.probes.answered]
        return _side(model, encoder, {}, rounds, plan.costed, tally)
    follow.ask(BASE, model, tally, follow.theirs)
    rounds = [plan.earlier_rows, plan.probes.answered]
    return _side(model, encoder, judgement.theirs, rounds, plan.costed, tally)


class _Reliance:
    """Collects what every side answers with its own passages and with those that say otherwise."""

    def __init__(self, encoder: Encoder, answered: RelianceAnswers | None, share: float) -> None:
        self._encoder = encoder
        self.questions = answered.questions.first(share) if answered else None
        self.ours = answered.ours if answered else None
        self.theirs = answered.theirs if answered else None
        self.sides: dict[str, dict[str, Answer]] = {}

    def count(self, *, with_production: bool) -> int:
        """Answers in all: of each side with its own passages, of a base beside both the others too."""
        asked = len(self.questions.cases) if self.questions else 0
        return asked * (4 if with_production else 2)

    def ask(
        self, side: str, model: nn.Module, tally: Tally, known: Mapping[str, Answer] | None
    ) -> None:
        """Add a side's answers; `known` are those that the gate has had already."""
        if self.questions is None:
            return
        rows = self.questions.own if known else [*self.questions.own, *self.questions.otherwise]
        answers = answer_rows(model, self._encoder, rows, on_batch=tally.round)
        self.sides[side] = {**(known or {}), **answers}


@dataclass(frozen=True)
class _Plan:
    """Everything that is asked."""

    asked: Questions
    probes: Probes
    earlier: list[tuple[str, list[Row]]]

    @property
    def earlier_rows(self) -> list[Row]:
        return [row for _, rows in self.earlier for row in rows]

    @property
    def costed(self) -> list[Row]:
        """Rows whose reference is measured too."""
        return [*self.asked.held_out, *self.asked.texts, *self.probes.dialogues]

    def count(self, *, with_production: bool) -> int:
        """Answers in all."""
        return 2 * (len(self.earlier_rows) + len(self.probes.answered)) + (
            len(self.asked.held_out) if with_production else 0
        )

    def share_within(self, most_answers: int | None) -> float:
        """Return the share, 0 to 1, of probes and earlier rows that so many answers allow."""
        if most_answers is None:
            return 1.0
        return min(1.0, most_answers / max(1, self.count(with_production=False)))

    def first(self, share: float) -> _Plan:
        """Return the plan with a share of probes and earlier rows."""
        if share >= 1:
            return self
        return replace(
            self,
            probes=self.probes.sample(share),
            earlier=[(name, rows[: round(share * len(rows))]) for name, rows in self.earlier],
        )


def _fitting(earlier: list[tuple[str, list[Row]]], encoder: Encoder) -> list[tuple[str, list[Row]]]:
    return [
        (name, some)
        for name, rows in earlier
        if (some := [row for row in rows if not row.is_text and encoder.takes(row)])
    ]


def _side(
    model: nn.Module,
    encoder: Encoder,
    known: Mapping[str, Answer],
    rounds: list[list[Row]],
    costed: list[Row],
    tally: Tally,
) -> Side:
    """`known` answers with those to the rows of each round (their own limits of length), and the
    cost of references.
    """
    answers: dict[str, Answer] = dict(known)
    for rows in rounds:
        answers |= answer_rows(model, encoder, rows, on_batch=tally.round)
    return Side(answers, reference_nll(model, encoder, costed))
