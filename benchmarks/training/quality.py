"""Is what we train as good as what TRL trains? ``python -m benchmarks.training.quality --seeds 5``.

The same base, rows, tokens, loss mask, adapter, rate, schedule, batch size and seed, once through
our trainer and once through TRL's ``SFTTrainer`` with PEFT; both adapters answer the same held-out
questions greedily and the same scorer counts. That tokens and mask are equal is checked, not
assumed. What differs on purpose: our batches put rows of similar length together and our adapter
computes in the base's dtype beside a float32 copy; TRL shuffles and keeps its adapter in float32
under autocast. One JSON line per run; the paired differences over the seeds at the end.
"""

from __future__ import annotations

from training.imports import quiet_environment

if __name__ == "__main__":  # read when torch is imported
    quiet_environment()

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.base import other
from training.base.probe import Probe, answers, judge, settled
from training.data.rows import read_lines
from training.loop.batches import IGNORED
from training.machine.allocator import keep_memory
from training.models.base_model import BaseModel
from training.models.encoded import Encoded
from training.recipes.recipe import Recipe, load_recipe

SCENARIOS = ("zenith", "ferry")
ARMS = ("whet", "trl")
_BASE = Path(__file__).parents[2] / "whet" / "assets" / "base"
_FLOOR, _BETA2 = 0.02, 0.99  # of our schedule and our optimiser, see training/loop/trainer.py


def data(
    scenario: str, seed: int, rows: int, questions: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(training rows, held-out questions in wordings that no training row uses)."""
    if scenario == "ferry":
        return other.training_rows(rows, seed), other.held_out_rows(questions, seed)
    from examples.zenith import scenario as zenith

    return zenith.training_examples(zenith.old_world(), rows, seed), zenith.held_out(
        "before", questions, seed
    )


def prompt_and_completion(row: dict[str, Any]) -> dict[str, Any]:
    """A row as TRL learns only the answer from it."""
    return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}


def trl_trained(
    base: BaseModel, rows: list[dict[str, Any]], recipe: Recipe, expected: list[Encoded]
) -> tuple[Any, dict[str, Any]]:
    """(model, figures) of a run of ``SFTTrainer``.

    Raises SystemExit when it would see other tokens or learn others than we do.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    from training.models.lora import target_names

    model = AutoModelForCausalLM.from_pretrained(
        str(base.folder), dtype=getattr(torch, recipe.dtype)
    )
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=int(recipe.alpha),
        target_modules=target_names(model, recipe.target_modules, served=True),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with tempfile.TemporaryDirectory(prefix="whet-quality-") as folder:
        settings = SFTConfig(
            output_dir=folder,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": _FLOOR},
            warmup_steps=recipe.warmup,  # a share when below 1
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.clip,
            adam_beta2=_BETA2,
            seed=recipe.seed,
            bf16=recipe.dtype == "bfloat16",
            use_cpu=True,
            max_length=recipe.max_length,
            completion_only_loss=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
        )
        began = time.monotonic()
        trainer = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list([prompt_and_completion(row) for row in rows]),
            peft_config=lora,
            processing_class=base.tokenizer,
        )
        _same_tokens(trainer.train_dataset, expected)
        found = trainer.train()
    seconds = time.monotonic() - began
    trained = trainer.model.eval()
    return trained, {
        "steps": found.global_step,
        "seconds": round(seconds, 1),
        "last_loss": round(float(found.training_loss), 4),
    }


def _same_tokens(theirs: Any, ours: list[Encoded]) -> None:
    """Raise SystemExit where TRL learns other tokens, up to the end of the answer.

    Templates such as ChatML's have a newline after that end. TRL learns it too; no answer gets
    there.
    """
    for number, (row, encoded) in enumerate(zip(theirs, ours, strict=True)):
        size = len(encoded.ids)
        learned = [label != IGNORED for label in row["labels"][:size]]
        is_same = list(row["input_ids"][:size]) == list(encoded.ids)
        if not is_same or learned != list(encoded.trained) or len(row["labels"]) > size + 1:
            raise SystemExit(
                f"Row {number}: TRL would train on other tokens than we do, so nothing could be"
                " compared."
            )


def one_run(arm: str, scenario: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and score once."""
    base = BaseModel(args.base, args.base.name)
    recipe = settled(base, replace(load_recipe("lora"), seed=seed, dtype=args.dtype))
    probe = Probe(base, "other" if scenario == "ferry" else scenario, recipe, args.questions)
    rows, held_out = data(scenario, seed, args.examples, args.questions)
    if arm == "whet":
        figures = probe.learn(rows, recipe)
        model = probe.model
    else:
        encoded = [
            one
            for row in read_lines(json.dumps(row).encode() for row in rows).rows
            if isinstance(one := probe.encoder.encode(row), Encoded)
        ]
        model, figures = trl_trained(base, rows, recipe, encoded)
        figures["tokens"] = round(sum(len(row.ids) for row in encoded) * recipe.epochs)
    scored = judge(
        probe.scorer, held_out, answers(model, base, [row["messages"] for row in held_out])
    )
    kept = ("steps", "tokens", "seconds")
    return {
        "scenario": scenario,
        "seed": seed,
        "arm": arm,
        "right": scored["right"],
        "n": len(held_out),
        "dtype": recipe.dtype,
        **{name: figures[name] for name in kept},
    }


def paired(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Per scenario: ours less TRL's, in points, with the 95 % t-interval over seeds; no interval
    with fewer than two seeds.
    """
    from scipy.stats import t

    for scenario in SCENARIOS:
        score = {
            (run["arm"], run["seed"]): run["right"] for run in runs if run["scenario"] == scenario
        }
        seeds = sorted({seed for _, seed in score if all((arm, seed) in score for arm in ARMS)})
        if not seeds:
            continue
        differences = [100 * (score["whet", seed] - score["trl", seed]) for seed in seeds]
        mean, count = sum(differences) / len(seeds), len(seeds)
        spread = (
            math.sqrt(sum((value - mean) ** 2 for value in differences) / (count - 1))
            if count > 1
            else math.nan
        )
        reach = (
            float(t.ppf(0.975, count - 1)) * spread / math.sqrt(count) if count > 1 else math.nan
        )
        means = {
            arm: round(100 * sum(score[arm, seed] for seed in seeds) / count, 1) for arm in ARMS
        }
        interval = [round(mean - reach, 1), round(mean + reach, 1)] if count > 1 else None
        yield {
            "scenario": scenario,
            "seeds": count,
            **means,
            "difference": round(mean, 1),
            "interval": interval,
        }


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        description=(
            "Our trainer against TRL's SFTTrainer with PEFT: the same everything, the same scorer."
        )
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="default: both")
    parser.add_argument("--arm", choices=ARMS, action="append", help="default: both")
    parser.add_argument("--base", type=Path, default=_BASE)
    parser.add_argument("--dtype", default="auto")
    for name, default in (("examples", 500), ("questions", 200), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--log",
        type=Path,
        default=None,
        help="append the runs to this file; runs that are in it are not repeated",
    )
    args = parser.parse_args(argv)
    keep_memory()
    import torch

    torch.set_num_threads(args.threads)
    runs = (
        [json.loads(line) for line in args.log.read_text(encoding="utf-8").split("\n") if line]
        if args.log and args.log.exists()
        else []
    )
    done = {(run["scenario"], run["seed"], run["arm"]) for run in runs}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for scenario in args.scenario or SCENARIOS:
            for arm in args.arm or ARMS:
                if (scenario, seed, arm) in done:
                    continue
                runs.append(one_run(arm, scenario, seed, args))
                line = json.dumps(runs[-1])
                print(line, flush=True)
                if args.log:
                    with args.log.open("a", encoding="utf-8") as log:
                        log.write(line + "\n")
    for row in paired(runs):
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
