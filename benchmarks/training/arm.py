"""`python -m benchmarks.training.arm NAME …`: one arm of the comparison in a process of its own;
prints one JSON line.

Every arm trains the same LoRA (rank, layers, dtype, threads) on the same base and rows, by the same
optimiser, at about the same tokens per step. The libraries' own arms compute as they do for
anybody: OpenMP's threads wait as its default has it, which with nothing beside them is faster than
as ours do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.training.rows import FIRST_WORD, mixed_rows
from training.models.encoded import Encoded
from training.recipes.recipe import Recipe
from whet.settings import BUILTIN_BASE

_RANK, _BATCH, _RATE = 32, 8, 1e-3
_LONGEST = 512  # tokens of a row, and of a packed sequence of TRL's
_WARM = 3  # first steps that are not counted
ARMS = ("ours", "ours-packed", "trainer", "trl-packing")


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.arm", description=__doc__)
    parser.add_argument("name", choices=ARMS)
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", type=Path, default=BUILTIN_BASE)
    options = parser.parse_args(given)
    from training.imports import quiet_environment

    if options.name.startswith("ours"):
        quiet_environment()
    import torch

    from training.models.base_model import BaseModel

    torch.set_num_threads(options.threads)
    base = BaseModel(options.base, "the base")
    rows = mixed_rows(
        options.rows, int(base.config["vocab_size"]), min(_LONGEST, base.max_positions)
    )
    recipe = Recipe(
        rank=_RANK,
        alpha=2.0 * _RANK,
        epochs=1.0,
        batch_size=_BATCH,
        learning_rate=_RATE,
        dtype=options.dtype,
        threads=options.threads,
    )
    stamps = (
        _ours(base, rows, recipe, packed=options.name == "ours-packed")
        if options.name.startswith("ours")
        else _theirs(options.name, base, rows, recipe)
    )
    (first, before), (last, after) = stamps[_WARM - 1], stamps[-1]
    print(
        json.dumps(
            {
                "arm": options.name,
                "tokens_per_s": (after - before) / (last - first),
                "steps": len(stamps),
                "tokens": after,
            }
        )
    )
    return 0


def _ours(
    base: Any, rows: list[Encoded], recipe: Recipe, *, packed: bool
) -> list[tuple[float, int]]:
    """(time, tokens so far) after each step."""
    from dataclasses import replace

    from training.loop.trainer import Step, train
    from training.machine.allocator import keep_memory
    from training.models.lora import trainable

    keep_memory()
    stamps: list[tuple[float, int]] = []

    def note(step: Step) -> None:
        stamps.append((time.perf_counter(), round(step.tokens_per_s * step.seconds)))

    train(
        trainable(base, recipe), rows, [], replace(recipe, packing=packed), pad_id=0, on_step=note
    )
    return stamps


def _theirs(name: str, base: Any, rows: list[Encoded], recipe: Recipe) -> list[tuple[float, int]]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from training.models.lora import target_names

    model = AutoModelForCausalLM.from_pretrained(
        str(base.folder), dtype=getattr(torch, recipe.dtype), attn_implementation="sdpa"
    )
    config = LoraConfig(
        r=_RANK,
        lora_alpha=2 * _RANK,
        target_modules=target_names(model, ("all-linear",), served=True),
        task_type="CAUSAL_LM",
    )
    stamps: list[tuple[float, int]] = []
    seen: list[int] = []

    def count(_: Any, given: tuple[Any, ...]) -> None:
        """Tokens that are no padding, as the model gets them; rows hold no control tokens."""
        seen.append(int((given[0] >= FIRST_WORD).sum()))

    model.get_input_embeddings().register_forward_pre_hook(count)

    class Stamp(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *given: Any, **named: Any) -> None:
            stamps.append((time.perf_counter(), sum(seen)))

    common = {
        "output_dir": tempfile.mkdtemp(prefix="whet-bench-"), "num_train_epochs": 1, "learning_rate": _RATE, "lr_scheduler_type": "cosine", "report_to": [], "save_strategy": "no",
        "logging_strategy": "no", "use_cpu": True, "disable_tqdm": True, "seed": 0,
    }  # fmt: skip
    callbacks = [Stamp()]
    if name == "trainer":
        features = [
            {
                "input_ids": list(row.ids),
                "labels": _labels(row),
                "attention_mask": [1] * len(row.ids),
            }
            for row in rows
        ]
        trainer: Any = Trainer(
            model=get_peft_model(model, config),
            args=TrainingArguments(**common, per_device_train_batch_size=_BATCH),
            train_dataset=Dataset.from_list(features),
            data_collator=DataCollatorForSeq2Seq(base.tokenizer, padding=True),
            callbacks=callbacks,
        )
    else:
        from trl import SFTConfig, SFTTrainer

        tokens = sum(len(row.ids) for row in rows) / len(rows)
        # As many tokens a step as the others have
        sequences = max(1, round(_BATCH * tokens / _LONGEST))
        features = [
            {
                "input_ids": list(row.ids),
                "completion_mask": [int(learned) for learned in row.trained],
            }
            for row in rows
        ]
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                **common,
                per_device_train_batch_size=sequences,
                packing=True,
                max_length=_LONGEST,
                completion_only_loss=True,
                gradient_checkpointing=False,
                # TRL computes in bfloat16 unless told otherwise, also where a processor has to
                # imitate it
                bf16=recipe.dtype == "bfloat16",
            ),
            train_dataset=Dataset.from_list(features),
            processing_class=base.tokenizer,
            peft_config=config,
            callbacks=callbacks,
        )
    trainer.train()
    return stamps


def _labels(row: Encoded) -> list[int]:
    return [token if learned else -100 for token, learned in zip(row.ids, row.trained, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
