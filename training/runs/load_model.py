"""Load the model of a run, and measure it before the first step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

from peft import PeftModel
from torch import nn

from training.loop.faults import translate_oom
from training.loop.loss import Loss
from training.loop.pairs import max_completion_tokens
from training.loop.throughput import choose_threads, write, writing_seconds
from training.machine.allocator import return_memory
from training.methods.families import family
from training.models.encoded import Encoded
from training.models.fingerprint import PROMPTS
from training.models.lora import set_adapter_weights
from training.plan.estimates import estimate, memory_of
from training.plan.prepare import Prepared
from training.recipes.methods import METHODS
from training.store import adapter_publish
from training.store.table_rows import Estimate
from whet.context import Context
from whet.errors import InputError


def measured(
    context: Context, prepared: Prepared, price_per_hour: float = 0.0
) -> tuple[Prepared, nn.Module, Loss, Estimate]:
    """(the run with its number of threads, its model, what is minimised, the estimate): all that is
    known before the first step. Raises TrainingError where memory runs out already.
    """
    pad_id = pad_token(prepared)
    with translate_oom(prepared.recipe):
        model, loss_of = (
            load(context, prepared),
            family(METHODS[prepared.recipe.method]).loss(prepared),
        )
        recipe, answers = (
            prepared.recipe,
            (prepared.base.stop_ids, max_completion_tokens(prepared.train)),
        )
        writes = "samples" in METHODS[recipe.method].reads
        writing = (
            partial(writing_seconds, model, prepared.train, recipe, pad_id, *answers)
            if writes
            else float
        )
        threads, speed = choose_threads(model, prepared.train, recipe, pad_id, loss_of, writing)
        prepared = replace(prepared, recipe=replace(prepared.recipe, threads=threads))
        # What computing some steps left behind is memory that the run will use again
        return_memory()
        memory = memory_of(model, prepared, pad_id, loss_of)
        written = write(model, prepared.train, recipe, pad_id, *answers) if writes else None
    return (
        prepared,
        model,
        loss_of,
        estimate(prepared, speed, memory, price_per_hour, written=written),
    )


def load(context: Context, prepared: Prepared) -> nn.Module:
    """The model as the method trains it, or with the weights of the adapter that the run starts
    from.

    Raises InputError when that one is scaled in the other way (LoRA by alpha / rank, rsLoRA by
    alpha / √rank).
    """
    model = family(METHODS[prepared.recipe.method]).build(prepared)
    if prepared.start_adapter is not None:
        weights, config = adapter_publish.read_weights(context, prepared.start_adapter)
        if bool(config.get("use_rslora")) != (prepared.recipe.method == "rslora"):
            raise InputError(
                f"{prepared.start_adapter.label} is scaled"
                f" {'by alpha / √rank' if config.get('use_rslora') else 'by alpha / rank'},"
                f" {prepared.recipe.method} the other way.",
                hint=(
                    "Go on with the method it was trained with (lora or rslora), or start without"
                    " init_from."
                ),
            )
        set_adapter_weights(cast(PeftModel, model), weights)
    return model


def probes(prepared: Prepared) -> list[list[int]]:
    """Token ids of a few whole conversations, held-out ones where there are any."""
    rows = prepared.dataset.test or prepared.dataset.validation or prepared.dataset.train
    found = (prepared.encoder.encode(row) for row in rows[:PROMPTS])
    return [list(encoded.ids) for encoded in found if isinstance(encoded, Encoded)]


def pad_token(prepared: Prepared) -> int:
    """Any token serves: nothing attends to it and it is never learned."""
    pad = prepared.base.tokenizer.pad_token_id
    return int(pad if pad is not None else min(prepared.base.stop_ids))
