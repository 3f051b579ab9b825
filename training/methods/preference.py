"""DPO, KTO, ORPO and SimPO by TRL's trainers, into a LoRA adapter.

Rafailov et al. 2023, Ethayarajh et al. 2024, Hong et al. 2024, Meng et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack, cast

import torch
import trl.experimental.cpo
import trl.experimental.orpo
import trl.trainer.dpo_trainer
import trl.trainer.kto_trainer  # noqa: F401
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import Trainer as HfTrainer
from transformers import TrainingArguments
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from training.data.rows import Row
from training.loop.batches import Batch
from training.loop.loss import Loss, batch_loss
from training.loop.pairs import (
    Pair,
    Rated,
    at_once,
    check_batches,
    mismatched,
    pairs,
    passes_beside,
    rated,
)
from training.loop.trainer import Loop, Trained
from training.machine.allocator import keep_few_kernels
from training.methods import trl_trainer as common
from training.methods.loop import rows
from training.methods.trl_progress import Progress, trained
from training.methods.trl_trainer import on_plain_base as candidate
from training.models.lora import add_lora
from training.plan.prepare import Prepared
from training.plan.reporter import Reporter
from training.recipes.methods import APO_ZERO_UNPAIRED

__all__ = ["build", "candidate", "loss", "rows", "run"]

Examples = list[Pair] | list[Rated]
# Losses that are squares or powers of what two answers differ by: no nats, in which a rise is
# judged.
_NOT_IN_NATS = frozenset({"ipo", "sppo_hard", "discopop"})
# Of which the length of a batch is one: few shapes are few kernels to make and to keep, and a GPU's
# tensor cores like them
_MULTIPLE = 8


def build(prepared: Prepared) -> PeftModel:
    check_batches(prepared.recipe)
    keep_few_kernels()
    # Now, so that the estimate of memory knows what the library takes.
    return add_lora(prepared.base.load_model(prepared.recipe.dtype), prepared.recipe)


def loss(prepared: Prepared) -> Loss:
    """What a step of the method costs, to be timed and weighed; TRL has the loss itself."""

    def costs(model: nn.Module, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            for _ in range(passes_beside(prepared.recipe)):
                batch_loss(model, batch)
        return batch_loss(model, batch)

    return costs


def run(model: PeftModel, prepared: Prepared, reporter: Reporter, **loop: Unpack[Loop]) -> Trained:
    """The model that goes in ends as TRL leaves it, with its best weights; `candidate` takes the
    adapter out.
    """
    recipe, found = prepared.recipe, _examples(prepared, prepared.dataset.train)
    per_step = sum(each.tokens for each in found) / len(found) * recipe.batch_size
    followed = Progress(
        recipe,
        loop["on_step"],
        len(found),
        per_step,
        falls=recipe.loss_type not in _NOT_IN_NATS,
        checkpoints=loop["checkpoints"],
        resume=loop["resume"],
        sampler=loop.get("sampler"),
    )
    with followed.folder() as folder:
        shared = {
            **common.arguments(prepared, folder, len(found)),
            "max_length": recipe.max_length,
            "beta": recipe.beta,
        }
        makers: dict[str, Callable[..., HfTrainer]] = {
            "dpo": _dpo,
            "kto": _kto,
            "orpo": _orpo,
            "simpo": _simpo,
        }
        followed.train(makers[recipe.method](model, prepared, shared, found, _held_out(prepared)))
    learned = sum(
        len(each.chosen) + len(each.rejected) if isinstance(each, Pair) else len(each.answer)
        for each in found
    )
    steps = followed.state.step
    return trained(
        followed, round(per_step * steps), round(learned / len(found) * recipe.batch_size * steps)
    )


def _examples(prepared: Prepared, some: list[Row]) -> Examples:
    return (
        rated(prepared.encoder, some)
        if prepared.recipe.method == "kto"
        else pairs(prepared.encoder, some)
    )


def _held_out(prepared: Prepared) -> Examples:
    """What the weights are chosen by.

    For KTO nothing where all held-out answers are liked: a model that likes everything more would
    look better and better.
    """
    found = _examples(prepared, prepared.dataset.validation)
    one_sided = (
        prepared.recipe.method == "kto"
        and len({each.liked for each in found if isinstance(each, Rated)}) < 2
    )
    return [] if one_sided else found


def _dpo(
    model: PeftModel,
    prepared: Prepared,
    shared: common.Arguments,
    found: list[Pair],
    held_out: list[Pair],
) -> HfTrainer:
    class Trainer(common.Ready, DPOTrainer):
        pass

    def table(some: list[Pair]) -> Dataset:
        return Dataset.from_list(
            [
                {
                    "prompt_ids": each.prompt,
                    "chosen_ids": each.chosen,
                    "rejected_ids": each.rejected,
                }
                for each in some
            ]
        )

    config = DPOConfig(
        **shared,
        pad_to_multiple_of=_MULTIPLE,
        loss_type=[prepared.recipe.loss_type],
        label_smoothing=prepared.recipe.label_smoothing,
    )

    return _trainer(
        Trainer, config, model, prepared, table(found), table(held_out) if held_out else None
    )


def _kto(
    model: PeftModel,
    prepared: Prepared,
    shared: common.Arguments,
    found: list[Rated],
    held_out: list[Rated],
) -> HfTrainer:
    class Trainer(common.Ready, KTOTrainer):
        pass

    is_without_reference_point = prepared.recipe.loss_type == APO_ZERO_UNPAIRED

    def table(some: list[Rated]) -> Dataset:
        # TRL's KTO takes the rows in this order, every epoch: mixing them would part the pairs from
        # their batches.
        return Dataset.from_list(
            [
                {
                    "prompt_ids": each.prompt,
                    "completion_ids": each.answer,
                    "label": each.liked,
                    **({} if is_without_reference_point else {"KL_completion_ids": other.answer}),
                }
                for each, other in mismatched(some, at_once(prepared.recipe), prepared.recipe.seed)
            ]
        )

    config = KTOConfig(**shared, pad_to_multiple_of=_MULTIPLE, loss_type=prepared.recipe.loss_type)

    return _trainer(
        Trainer, config, model, prepared, table(found), table(held_out) if held_out else None
    )


def _orpo(
    model: PeftModel,
    prepared: Prepared,
    shared: common.Arguments,
    found: list[Pair],
    held_out: list[Pair],
) -> HfTrainer:
    # Which it would set by itself, with a warning
    config = ORPOConfig(**shared, remove_unused_columns=False)
    return _of_columns(ORPOTrainer, config, model, prepared, found, held_out)


def _simpo(
    model: PeftModel,
    prepared: Prepared,
    shared: common.Arguments,
    found: list[Pair],
    held_out: list[Pair],
) -> HfTrainer:
    """Return TRL's CPO trainer with the loss of SimPO and without CPO's own cross-entropy."""

    config = CPOConfig(
        **shared,
        remove_unused_columns=False,  # as with ORPO
        loss_type="simpo",
        cpo_alpha=0.0,
        simpo_gamma=prepared.recipe.simpo_gamma,
    )
    return _of_columns(CPOTrainer, config, model, prepared, found, held_out)


def _of_columns(
    kind: type[HfTrainer],
    config: TrainingArguments,
    model: PeftModel,
    prepared: Prepared,
    found: list[Pair],
    held_out: list[Pair],
) -> HfTrainer:
    """Return a trainer of TRL's older kind, which tokenises texts, over rows that are tokens
    already.
    """

    class Trainer(common.Bare, kind):  # type: ignore[misc, valid-type]
        def tokenize_row(
            self, feature: Mapping[str, list[int]], model: object = None
        ) -> dict[str, list[int]]:
            return _orpo_columns(
                Pair(feature["prompt_ids"], feature["chosen_ids"], feature["rejected_ids"])
            )

    def table(some: list[Pair]) -> Dataset:
        # Looked at before tokenising; the tokens are there already
        texts = {"prompt": "", "chosen": "", "rejected": ""}
        return Dataset.from_list(
            [
                {
                    **texts,
                    "prompt_ids": each.prompt,
                    "chosen_ids": each.chosen,
                    "rejected_ids": each.rejected,
                }
                for each in some
            ]
        )

    return _trainer(
        Trainer, config, model, prepared, table(found), table(held_out) if held_out else None
    )


def _trainer(
    kind: type[HfTrainer],
    config: TrainingArguments,
    model: PeftModel,
    prepared: Prepared,
    found: Dataset,
    held_out: Dataset | None,
) -> HfTrainer:
    made = kind(
        model,
        args=common.on_one_gpu(config),
        train_dataset=found,
        eval_dataset=held_out,
        processing_class=prepared.base.tokenizer,
    )
    cast(common.Bare, made).loraplus_lr_ratio = prepared.recipe.loraplus_lr_ratio
    return made


def _orpo_columns(pair: Pair) -> dict[str, list[int]]:
    """The columns that ORPO's collator pads: whole conversations, with the question left out of the
    labels.
    """
    columns = {"prompt_input_ids": pair.prompt, "prompt_attention_mask": [1] * len(pair.prompt)}
    for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        ids = [*pair.prompt, *answer]
        columns |= {
            f"{name}_input_ids": ids,
            f"{name}_attention_mask": [1] * len(ids),
            f"{name}_labels": [-100] * len(pair.prompt) + answer,
        }
    return columns
