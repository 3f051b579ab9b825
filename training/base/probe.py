"""How fast does a base learn new facts? ``python -m training.base.probe --base FOLDER``.

Trains a LoRA adapter with the product's own trainer on 500 examples of a scenario the base has
never seen, answers held-out questions greedily and prints one JSON line: the share of answers with
all facts right, the share per fact, seconds, tokens. ``--change`` goes on to the second half of the
Zenith story, as the recipe `continue` does.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.zenith import scenario as zenith
from training.base import other
from training.data.rows import read_lines
from training.loop.generation import greedy
from training.loop.trainer import train
from training.machine.allocator import keep_memory
from training.machine.device import compute_dtype
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.lora import trainable
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from training.recipes.recipe_choices import resolved

Scorer = Callable[[dict[str, Any], str], dict[str, bool]]
ANSWER_TOKENS = 90  # the longest reference answer of either scenario has fewer than 70
_TOGETHER = 50  # conversations answered in one batch


def answers(
    model: nn.Module,
    base: BaseModel,
    conversations: list[list[dict[str, str]]],
    limit: int = ANSWER_TOKENS,
) -> list[str]:
    """Greedy answers to ``conversations``, up to ``limit`` tokens each."""
    tokenizer = base.tokenizer
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        ).input_ids
        for said in conversations
    ]
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    found = [""] * len(prompts)
    for start in range(0, len(order), _TOGETHER):
        part = order[start : start + _TOGETHER]
        for n, ids in zip(
            part, greedy(model, [prompts[n] for n in part], base.stop_ids, limit), strict=True
        ):
            found[n] = str(tokenizer.decode(ids, skip_special_tokens=True))
    return found


def judge(scorer: Scorer, rows: list[dict[str, Any]], given: list[str]) -> dict[str, Any]:
    """Share of answers with all facts right, the share per fact, and every wrong answer."""
    judged = [scorer(row["expected"], answer) for row, answer in zip(rows, given, strict=True)]
    facts: dict[str, list[bool]] = {}
    for one in judged:
        for name, ok in one.items():
            facts.setdefault(name, []).append(ok)
    wrong = [
        f"{row['messages'][-1]['content']} => {answer}"
        for row, answer, one in zip(rows, given, judged, strict=True)
        if not all(one.values())
    ]
    return {
        "right": round(1 - len(wrong) / len(rows), 4),
        "facts": {name: round(sum(oks) / len(oks), 3) for name, oks in facts.items()},
        "wrong": wrong,
    }


class Probe:
    """One base, one scenario, one seed."""

    def __init__(self, base: BaseModel, scenario: str, recipe: Recipe, questions: int) -> None:
        self.base, self.recipe, self.questions, self.zenith = base, recipe, questions, zenith
        self.encoder = Encoder(base, base.max_positions)
        self.scorer: Scorer = (
            other.facts_right
            if scenario == "other"
            else lambda expected, answer: zenith.score(expected, answer).facts
        )
        self.model: Any = None

    def learn(self, rows: list[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
        """Train the adapter (a new one, or the one there is) on ``rows``; how it went."""
        read = read_lines(json.dumps(row).encode() for row in rows)
        read.refuse_bad("the scenario's rows", skip_bad=False)
        encoded = [one for one in map(self.encoder.encode, read.rows) if isinstance(one, Encoded)]
        if len(encoded) < len(rows):
            raise SystemExit(
                f"{len(rows) - len(encoded)} of {len(rows)} rows are too long for this base"
            )
        if self.model is None:
            self.model = trainable(self.base, recipe)
        pad = self.base.tokenizer.pad_token_id
        began = time.monotonic()
        trained = train(
            self.model,
            encoded,
            [],
            recipe,
            pad_id=min(self.base.stop_ids) if pad is None else pad,
            on_step=lambda step: None,
        )
        return {
            "rows": len(rows),
            "steps": trained.steps,
            "tokens": trained.tokens,
            "learning_rate": recipe.learning_rate,
            "last_loss": round(trained.last_loss, 4),
            "seconds": round(time.monotonic() - began, 1),
        }

    def ask(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The score of the model as it is now."""
        return judge(
            self.scorer, rows, answers(self.model, self.base, [row["messages"] for row in rows])
        )

    def change(self, rows: list[dict[str, Any]], new_examples: int, seed: int) -> dict[str, Any]:
        """v1 in the changed world, then v2: on from v1, with the new examples and the old ones that
        are still true.
        """
        zenith = self.zenith
        new_held_out, old_held_out = (
            zenith.held_out("new", self.questions, seed),
            zenith.held_out("old", self.questions, seed),
        )
        found: dict[str, Any] = {"v1_new": self.ask(new_held_out)}
        current = [row for row in rows if zenith.is_current(row, zenith.new_world())]
        going_on = settled(self.base, replace(load_recipe("continue"), seed=seed))
        found["v2_training"] = self.learn(
            [*zenith.new_examples(new_examples, seed), *current], going_on
        )
        return found | {"v2_new": self.ask(new_held_out), "v2_old": self.ask(old_held_out)}


def settled(base: BaseModel, recipe: Recipe) -> Recipe:
    """The recipe as a run on this base and machine would use it, with the threads that are set."""

    found = resolved(recipe, parameters=base.parameters, max_length=base.max_positions)
    return replace(found, dtype=compute_dtype(recipe.dtype), threads=torch.get_num_threads())


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One probe."""

    keep_memory()
    torch.set_num_threads(args.threads)
    base = BaseModel(args.base, args.base.name)
    changed = {
        name: value
        for name in ("epochs", "batch_size", "learning_rate", "rank")
        if (value := getattr(args, name)) is not None
    }
    recipe = settled(base, recipe_from({**changed, "seed": args.seed}, load_recipe("lora")))
    probe = Probe(base, args.scenario, recipe, args.questions)
    if args.scenario == "other":
        rows, held_out = (
            other.training_rows(args.examples, args.seed),
            other.held_out_rows(args.questions, args.seed),
        )
    else:
        rows, held_out = (
            zenith.training_examples(zenith.old_world(), args.examples, args.seed),
            zenith.held_out("before", args.questions, args.seed),
        )
    found: dict[str, Any] = {
        "base": args.base.name,
        "scenario": args.scenario,
        "seed": args.seed,
        "questions": args.questions,
        "threads": args.threads,
    }
    found |= {
        "recipe": {
            name: getattr(recipe, name)
            for name in ("rank", "alpha", "epochs", "batch_size", "dtype")
        }
    }
    found["v1_training"] = probe.learn(rows, recipe)
    found["v1"] = probe.ask(held_out)
    if args.change:
        found |= probe.change(rows, args.new_examples, args.seed)
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="Measure how fast a base learns new facts.")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--scenario", choices=("zenith", "other"), default="zenith")
    parser.add_argument(
        "--change", action="store_true", help="also train v2 after the change of the world (zenith)"
    )
    for name, default in (
        ("examples", 500),
        ("questions", 200),
        ("seed", 1),
        ("new-examples", 300),
        ("threads", 2),
        ("show", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, kind in (
        ("rank", int),
        ("batch-size", int),
        ("epochs", float),
        ("learning-rate", float),
    ):
        parser.add_argument(f"--{name}", type=kind, default=None, help="instead of the recipe's")
    parser.add_argument("--log", type=Path, default=None, help="append the result to this file")
    args = parser.parse_args(argv)
    if args.change and args.scenario != "zenith":
        parser.error("--change is the second half of the Zenith story; leave --scenario out")
    found = run(args)
    for name, score in found.items():
        for line in (score.pop("wrong") if isinstance(score, dict) and "wrong" in score else [])[
            : args.show
        ]:
            sys.stderr.write(f"{name}: {line}\n")
    line = json.dumps(found)
    sys.stdout.write(line + "\n")
    if args.log:
        with args.log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
