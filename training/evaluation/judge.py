"""A candidate against what is in production (the base, while there is none): both answer the same
rows, the gate decides, the answers are kept.

What else is measured about the candidate, with the base beside it, comes afterwards:
`training/evaluation/survey.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from training.data.datasets import Dataset
from training.data.rows import Row
from training.evaluation.answering import answer_rows
from training.evaluation.answers import Answer, NllSum, Questions, asked_messages, questions
from training.evaluation.cross_validation import CrossValidated
from training.evaluation.gate import Decision, Finding, Pair, Thresholds, decide
from training.evaluation.held_out import (
    HeldOut,
    by_task,
    describe_held_out,
    question_facts,
    question_sentence,
    worst_slices,
)
from training.evaluation.nll import reference_nll
from training.evaluation.refit import SeenRows, seen_by_candidate
from training.evaluation.reliance import RelianceAnswers, find_reliance, reliance_questions
from training.evaluation.reliance_gate import GROUP as RELIANCE
from training.evaluation.text_gate import GROUP, TextPair, judge_texts
from training.models.encode import Encoder
from training.models.lora import with_stored
from training.plan.prepare import Prepared
from training.recipes.methods import ADAPTER, METHODS
from training.store import adapter_publish
from training.store.evaluation_types import GroupMetrics, NewEvaluation, Sample
from whet.context import Context
from whet.database import reading
from whet.registry import Adapter, current_rollouts, find_adapter

_PRODUCTION = "production"  # the name under which the other version lies in the PEFT model
BASE = "the base"
SAMPLES = "samples.jsonl"
NO_ROWS = "No row was held out, so nothing was compared."


@dataclass(frozen=True)
class Judgement:
    """A decision with what it rests on."""

    decision: Decision | None  # None: there was nothing to judge by
    against: Adapter | None  # None: the base
    against_name: str
    asked: Questions
    samples_path: str | None
    ours: Mapping[str, Answer] = field(default_factory=dict)  # the candidate's answers, by row
    theirs: Mapping[str, Answer] = field(default_factory=dict)  # the other's
    # Answered by both too; None: the alias uses no passages
    reliance: RelianceAnswers | None = None

    @property
    def verdict(self) -> str:
        return self.decision.verdict if self.decision else "none"

    @property
    def reason(self) -> str:
        return self.decision.reason if self.decision else NO_ROWS

    def with_note(self, sentence: str) -> Judgement:
        """The same with a sentence after the reason."""
        if self.decision is None:
            return self
        return replace(
            self, decision=replace(self.decision, reason=f"{self.decision.reason} {sentence}")
        )

    def row(self, run_id: str | None, dataset_digest: str) -> NewEvaluation | None:
        """A row of `evaluations`, without id, adapter_digest and created_at."""
        if self.decision is None:
            return None
        return {
            "run_id": run_id,
            "against_digest": self.against.digest if self.against else None,
            "dataset_digest": dataset_digest,
            "metrics": self.decision.metrics,
            "verdict": self.decision.verdict,
            "reason": self.decision.reason,
            "thresholds": {
                **self.decision.thresholds,
                "rows_available": self.asked.available,
                "failed": list(self.decision.failed),
            },
            "samples_path": self.samples_path,
        }


def production_of(context: Context, alias: str, base_digest: str) -> Adapter | None:
    """The version that answers under the alias now; None while the base does, or when that version
    belongs to another base.
    """
    with reading(context.database) as connection:
        rollout = current_rollouts(connection).get(alias)
        if rollout is None or rollout.stable_digest is None:
            return None
        adapter = find_adapter(connection, rollout.stable_digest)
    return adapter if adapter.base_digest == base_digest else None


def judge(
    context: Context,
    model: nn.Module,
    prepared: Prepared,
    *,
    sample_name: str,
    on_batch: Callable[[int, int], None],
    crossed: CrossValidated | None = None,
) -> Judgement:
    """The trained model against production (or the base)."""
    against = production_of(context, prepared.alias, prepared.base.digest)
    asked = crossed.dataset if crossed else prepared.dataset
    return compare(
        context,
        model,
        prepared.encoder,
        prepared.dataset,
        against,
        sample_name=sample_name,
        on_batch=on_batch,
        base=base_beside(prepared),
        crossed=crossed,
        alias=prepared.alias,
        seen=seen_by_candidate(
            context,
            asked.test,
            prepared.start_adapter,
            against,
            is_refitted=bool(prepared.recipe.refit),
        ),
    )


def base_beside(prepared: Prepared) -> Callable[[], PreTrainedModel] | None:
    """What loads the base where the candidate cannot be taken off it, because it is no adapter;
    else None.
    """
    return (
        None
        if METHODS[prepared.recipe.method].engine == ADAPTER
        else lambda: prepared.base.load_model(prepared.recipe.dtype)
    )


def compare(
    context: Context,
    model: nn.Module,
    encoder: Encoder,
    dataset: Dataset,
    against: Adapter | None,
    *,
    sample_name: str,
    on_batch: Callable[[int, int], None],
    base: Callable[[], PreTrainedModel] | None = None,
    crossed: CrossValidated | None = None,
    alias: str = "",
    seen: SeenRows | None = None,
) -> Judgement:
    """Both answer the same rows, and the gate decides.

    `model` is a PEFT model with the candidate active, or any other when `base` loads the base anew;
    `against` None is the base. `crossed`: answers to held-out rows that models of other folds gave
    already. `alias`: whose reliance on its passages is judged, where it uses any. `seen`: rows that
    one of them was trained on.
    """
    seen = seen or SeenRows()
    other = against.label if against else BASE
    asked = questions(crossed.dataset if crossed else dataset)
    if not asked.rows and not asked.texts:
        return Judgement(None, against, other, asked, None)
    known = {**seen.ours, **(crossed.answers if crossed else {})}
    to_ask = [row for row in asked.rows if row.id not in known]
    reliance = reliance_questions(context, alias, dataset, encoder) if alias else None
    passages = reliance.otherwise if reliance else []
    theirs_to_ask = [row for row in asked.rows if row.id not in seen.theirs]
    tally = Tally(on_batch, len(to_ask) + len(theirs_to_ask) + 2 * len(passages))
    ours = {**known, **answer_rows(model, encoder, to_ask, on_batch=tally.round)}
    our_reliance = answer_rows(model, encoder, passages, on_batch=tally.round)
    our_costs = reference_nll(model, encoder, asked.texts)
    with answering_as(context, model, against, base) as other_model:
        theirs = answer_rows(other_model, encoder, theirs_to_ask, on_batch=tally.round)
        their_reliance = answer_rows(other_model, encoder, passages, on_batch=tally.round)
        their_costs = reference_nll(other_model, encoder, asked.texts)
    theirs = {**seen.theirs, **theirs}
    further = _text_finding(asked, our_costs, their_costs, against, other)
    if reliance:
        further[RELIANCE] = find_reliance(
            reliance, our_reliance, their_reliance, Thresholds(), against=other
        )
    held_out = describe_held_out(dataset.train, asked.rows)
    if crossed:
        held_out = held_out.with_cross_validated(crossed.held_out)
    pairs = {row.id: _pair(row, ours[row.id], theirs[row.id], held_out) for row in asked.rows}
    groups = {group: [pairs[row.id] for row in some] for group, some in asked.groups.items()}
    decision = decide(groups, first=against is None, against=other, further=further)
    decision = _with_questions(decision, asked, pairs, held_out.with_known(seen.by_start), seen)
    decision = _with_origin(decision, seen.sentence(other), crossed)
    _add_manners(decision, asked, ours, theirs)
    path = save_answers(context, sample_name, asked, ours, theirs)
    followed = RelianceAnswers(reliance, our_reliance, their_reliance) if reliance else None
    return Judgement(decision, against, other, asked, path, ours, theirs, followed)


def _text_finding(
    asked: Questions,
    ours: Mapping[str, NllSum],
    theirs: Mapping[str, NllSum],
    against: Adapter | None,
    other: str,
) -> dict[str, Finding]:
    """The verdict on held-out plain texts; nothing where there are none."""
    read = [
        TextPair(len(row.answer.encode()), cost.tokens, cost.nats, theirs[row.id].nats)
        for row in asked.texts
        if (cost := ours.get(row.id))
    ]
    must_beat = against is None and not asked.held_out
    if not read:
        return {}
    return {GROUP: judge_texts(read, Thresholds(), against=other, must_beat=must_beat)}


def _with_origin(decision: Decision, seen: str, crossed: CrossValidated | None) -> Decision:
    """The decision with which rows were trained before, and by which models it was made."""
    sentences = [decision.reason, seen]
    if crossed:
        sentences.append(
            f"By {crossed.folds}-fold cross-validation: the version itself is trained on all rows."
        )
    return replace(decision, reason=" ".join(filter(None, sentences)))


class Tally:
    """Adds up what several rounds of answering report."""

    def __init__(self, on_batch: Callable[[int, int], None], total: int) -> None:
        self._on_batch, self._total, self._before = on_batch, total, 0

    def round(self, done: int, total: int) -> None:
        self._on_batch(self._before + done, self._total)
        self._before += total if done == total else 0


def _pair(row: Row, ours: Answer, theirs: Answer, held_out: HeldOut) -> Pair:
    exact = bool(row.checks or row.calls)  # never by overlap
    return Pair(
        ours.score.correct,
        theirs.score.correct,
        ours.score.f1,
        theirs.score.f1,
        exact,
        row.id,
        held_out.patterns[row.id],
    )


def _with_questions(
    decision: Decision,
    asked: Questions,
    pairs: Mapping[str, Pair],
    held_out: HeldOut,
    seen: SeenRows,
) -> Decision:
    """The decision with what is known about the questions, by task and slice, and a sentence about
    it.
    """
    for group, rows in (*asked.groups.items(), ("all", asked.held_out)):
        decision.metrics[group].update(cast(GroupMetrics, question_facts(rows, held_out)))
        if seen.is_refitted and decision.metrics[group].get("candidate_high") is not None:
            decision.metrics[group]["candidate_high"] = 1.0  # how much better is not measured
    overall = decision.metrics["all"]
    overall["tasks"] = by_task(pairs, asked.held_out)
    overall["worse_slices"] = worst_slices(pairs, held_out)
    sentence = question_sentence(overall)
    return replace(decision, reason=f"{decision.reason} {sentence}") if sentence else decision


def _add_manners(
    decision: Decision, asked: Questions, ours: Mapping[str, Answer], theirs: Mapping[str, Answer]
) -> None:
    """Share of answers that ended by themselves, and their mean length in tokens."""
    for group, rows in asked.groups.items():
        if rows:
            found = decision.metrics[group]
            found["candidate_stopped"], found["candidate_tokens"] = _manners(rows, ours)
            found["against_stopped"], found["against_tokens"] = _manners(rows, theirs)


def _manners(rows: Sequence[Row], answers: Mapping[str, Answer]) -> tuple[float, float]:
    some = [answers[row.id] for row in rows]
    return (
        round(sum(answer.stopped for answer in some) / len(some), 4),
        round(sum(answer.tokens for answer in some) / len(some), 1),
    )


@contextmanager
def answering_as(
    context: Context,
    model: nn.Module,
    against: Adapter | None,
    base: Callable[[], PreTrainedModel] | None,
) -> Iterator[nn.Module]:
    """A model that answers as `against` does (None: the base): this one meanwhile, or one on the
    base that `base` loads.
    """
    if base is None and against is None:
        with cast(PeftModel, model).disable_adapter():
            yield model
        return
    other = cast(PreTrainedModel | PeftModel, model) if base is None else base()
    if against is not None:
        weights, config = adapter_publish.read_weights(context, against)
        if _PRODUCTION not in getattr(other, "peft_config", {}):
            other = with_stored(other, config, weights, _PRODUCTION)
        cast(PeftModel, other).set_adapter(_PRODUCTION)
    try:
        yield other
    finally:
        if base is None:
            cast(PeftModel, model).set_adapter("default")


def save_answers(
    context: Context,
    name: str,
    asked: Questions,
    ours: Mapping[str, Answer],
    theirs: Mapping[str, Answer],
) -> str:
    """One JSON object per row: question, reference, both answers and their scores.

    Returns the path of the answers in the store.
    """
    groups_of: dict[str, list[str]] = {}
    for group, rows in asked.groups.items():
        for row in rows:
            groups_of.setdefault(row.id, []).append(group)

    def sample(row: Row) -> Sample:
        return {
            "id": row.id,
            "groups": groups_of[row.id],
            "prompt": asked_messages(row),
            "reference": row.answer,
            "candidate": ours[row.id].as_json(),
            "against": theirs[row.id].as_json(),
        }

    def fill(folder: Path) -> None:
        lines = (json.dumps(sample(row), ensure_ascii=False) + "\n" for row in asked.rows)
        (folder / SAMPLES).write_text("".join(lines), encoding="utf-8")

    folder = f"evaluations/{name}"
    context.store.put_folder(folder, fill)
    return f"{folder}/{SAMPLES}"
