"""DPO (Rafailov et al. 2023), KTO (Ethayarajh et al. 2024) and ORPO (Hong et al. 2024) by TRL's trainers, into a LoRA adapter."""

from __future__ import annotations

from typing import Any, Unpack

from training.lora import add_lora
from training.methods import trl_trainer as common
from training.methods.loop import loss, rows
from training.methods.pairs import Pair, Rated, at_once, check_batches, mismatched, pairs, rated
from training.methods.trl_trainer import on_plain_base as candidate
from training.prepare import Prepared
from training.reporter import Reporter
from training.trainer import Loop, Trained

__all__ = ["build", "candidate", "loss", "rows", "run"]


def build(prepared: Prepared) -> Any:
    check_batches(prepared.recipe)
    return add_lora(prepared.base.load_model(prepared.recipe.dtype), prepared.recipe)


def run(model: Any, prepared: Prepared, reporter: Reporter, **loop: Unpack[Loop]) -> Trained:
    """The model that goes in ends as TRL leaves it; `candidate` takes the adapter out."""
    method, some = prepared.recipe.method, prepared.dataset.train
    found: list[Pair] | list[Rated] = rated(prepared.encoder, some) if method == "kto" else pairs(prepared.encoder, some)
    per_step = sum(each.tokens for each in found) / len(found) * prepared.recipe.batch_size
    told = common.callback(prepared, loop["on_step"], per_step, lambda logs: logs.get("loss"))
    with common.scratch_folder() as folder:
        shared = {**common.arguments(prepared, folder, len(found)), "max_length": prepared.recipe.max_length, "beta": prepared.recipe.beta}
        trainer = {"dpo": _dpo, "kto": _kto, "orpo": _orpo}[method](common.float32_adapter(model), prepared, shared, found, told)
        common.go(trainer)
    learned = sum(len(each.chosen) + len(each.rejected) if isinstance(each, Pair) else len(each.answer) for each in found)
    return common.trained(told, round(per_step * len(told.losses)), round(learned / len(found) * prepared.recipe.batch_size * len(told.losses)))


def _dpo(model: Any, prepared: Prepared, shared: dict[str, Any], found: list[Any], told: Any) -> Any:
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Trainer(common.Ready, DPOTrainer):
        pass

    rows = Dataset.from_list([{"prompt_ids": each.prompt, "chosen_ids": each.chosen, "rejected_ids": each.rejected} for each in found])
    return Trainer(model, args=common.on_one_gpu(DPOConfig(**shared)), train_dataset=rows, processing_class=prepared.base.tokenizer, callbacks=[told])


def _kto(model: Any, prepared: Prepared, shared: dict[str, Any], found: list[Any], told: Any) -> Any:
    from datasets import Dataset
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    class Trainer(common.Ready, KTOTrainer):
        pass

    # TRL's KTO takes the rows in this order, every epoch: mixing them would part the pairs from their batches.
    rows = Dataset.from_list(
        [
            {"prompt_ids": each.prompt, "completion_ids": each.answer, "label": each.liked, "KL_completion_ids": other.answer}
            for each, other in mismatched(found, at_once(prepared.recipe), prepared.recipe.seed)
        ]
    )
    return Trainer(model, args=common.on_one_gpu(KTOConfig(**shared)), train_dataset=rows, processing_class=prepared.base.tokenizer, callbacks=[told])


def _orpo(model: Any, prepared: Prepared, shared: dict[str, Any], found: list[Any], told: Any) -> Any:
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Trainer(ORPOTrainer):
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return _orpo_columns(Pair(feature["prompt_ids"], feature["chosen_ids"], feature["rejected_ids"]))

    texts = {"prompt": "", "chosen": "", "rejected": ""}  # looked at before tokenising; the tokens are there already
    rows = Dataset.from_list([{**texts, "prompt_ids": each.prompt, "chosen_ids": each.chosen, "rejected_ids": each.rejected} for each in found])
    return Trainer(model, args=common.on_one_gpu(ORPOConfig(**shared)), train_dataset=rows, processing_class=prepared.base.tokenizer, callbacks=[told])


def _orpo_columns(pair: Pair) -> dict[str, list[int]]:
    """The columns that ORPO's collator pads: whole conversations, with the question left out of the labels."""
    columns = {"prompt_input_ids": pair.prompt, "prompt_attention_mask": [1] * len(pair.prompt)}
    for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        ids = [*pair.prompt, *answer]
        columns |= {f"{name}_input_ids": ids, f"{name}_attention_mask": [1] * len(ids), f"{name}_labels": [-100] * len(pair.prompt) + answer}
    return columns
