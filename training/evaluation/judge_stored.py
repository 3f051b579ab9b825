"""Judging versions that are stored already: against production, the base, or another version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from training.data.datasets import Dataset, with_standing_reviews
from training.data.rows import Row
from training.evaluation.judge import Judgement, compare, production_of
from training.evaluation.refit import seen_by_stored
from training.evaluation.survey import survey
from training.machine.device import compute_dtype
from training.models.base_choice import open_base
from training.models.encode import Encoder
from training.models.lora import with_stored
from training.store import adapter_publish, adapter_store
from training.store.evaluation_types import JudgedVersion
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import InputError
from whet.ids import new_id
from whet.registry import Adapter, find_adapter


def judge_stored(
    context: Context,
    reference: str,
    against: str | None,
    dataset: Dataset,
    *,
    actor: str,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> JudgedVersion:
    """Answer the dataset's questions with both, decide, and store the evaluation.

    `against`: None for what is in production, `base`, or a version. Raises NotFoundError,
    AdapterError, InputError.
    """
    base = open_base(context.settings)
    candidate, other = _versions(context, reference, against, base.digest)
    for adapter in (candidate, other):
        if adapter is not None:
            adapter_store.require_base(adapter, base.digest, base.name)
    if other is not None and other.digest == candidate.digest:
        raise InputError(
            f"{candidate.label} would be compared with itself.",
            hint="Name another version, or 'base'.",
        )
    weights, config = adapter_publish.read_weights(context, candidate)
    model = with_stored(base.load_model(compute_dtype("auto")), config, weights)
    encoder = Encoder(base, min(base.max_positions, context.settings.engine_max_model_len))
    dataset = with_standing_reviews(context, candidate.name, dataset)
    dataset, left_out = _answerable(dataset, encoder)
    judgement: Judgement = compare(
        context,
        model,
        encoder,
        dataset,
        other,
        sample_name=new_id("evl"),
        on_batch=on_batch,
        alias=candidate.name,
        seen=seen_by_stored(context, dataset.test, candidate, other),
    )
    row = judgement.row(candidate.run_id, dataset.digest)
    if row is None or judgement.decision is None:
        raise InputError(
            "There is no row to judge by.",
            hint="A dataset version needs test rows or reviewed rows.",
        )
    survey(context, model, encoder, dataset, judgement, name=candidate.name, on_batch=on_batch)
    evaluation_id = adapter_store.add_evaluation(context, candidate, row, actor=actor, now=now_ms())
    return {
        "id": evaluation_id,
        "adapter": candidate.label,
        "against": judgement.against_name,
        "verdict": row["verdict"],
        "reason": row["reason"],
        "metrics": row["metrics"],
        "samples_path": row["samples_path"],
        # held-out rows that the base and the engine do not take
        "left_out": [row.id for row in left_out],
    }


def _answerable(dataset: Dataset, encoder: Encoder) -> tuple[Dataset, list[Row]]:
    """The dataset with the rows that can be asked at all, and the held-out rows that cannot: too
    long, or rendered before. They would count as wrong for either side.
    """
    kept: dict[bool, list[Row]] = {True: [], False: []}
    for row in dataset.test:
        kept[encoder.takes(row)].append(row)
    return replace(
        dataset,
        test=kept[True],
        regression=[row for row in dataset.regression if encoder.takes(row)],
    ), kept[False]


def _versions(
    context: Context, reference: str, against: str | None, base_digest: str
) -> tuple[Adapter, Adapter | None]:
    with reading(context.database) as connection:
        candidate = find_adapter(connection, reference)
        if against is not None:
            return candidate, None if against == "base" else find_adapter(connection, against)
    production = production_of(context, candidate.name, base_digest)
    return (
        candidate,
        production if production is None or production.digest != candidate.digest else None,
    )
