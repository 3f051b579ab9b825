"""One arm of `benchmarks.training.smollm2` in a process of its own; prints one JSON line.

``ask MODEL``: the base, a stored version or a folder that PEFT wrote answers held-out questions of
Zenith and the general questions of the report's probes, greedily. ``trl ROWS RECIPE FOLDER``: TRL's
``SFTTrainer`` with PEFT trains the rows by the same recipe and saves its adapter.
"""

from __future__ import annotations

import sys

from training.imports import quiet_environment

if sys.argv[1:2] == ["ask"]:  # TRL computes as it does for anybody
    quiet_environment()

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.training.quality import trl_trained
from examples.zenith import scenario
from training.base.probe import answers
from training.data.rows import read_lines
from training.evaluation.answering import answer_rows
from training.evaluation.probes import probes
from training.machine.allocator import keep_memory
from training.machine.device import compute_dtype
from training.models.base_choice import open_base
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.lora import with_stored
from training.plan.estimates import peak_memory_bytes
from training.recipes.recipe import recipe_from
from training.store.adapter_publish import read_weights
from whet.context import open_context
from whet.database import reading
from whet.registry import find_adapter
from whet.settings import load_settings

BASE = "base"
SETS = ("old", "new")  # what the change of Zenith's world left as it was, and what it brought


def main(given: list[str] | None = None) -> int:
    """Do one arm's work."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.smollm2_arm")
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("ask")
    ask.add_argument("model", help="base, the label of a version, or a folder")
    ask.add_argument("--questions", type=int, required=True)
    ask.add_argument("--seed", type=int, required=True)
    trl = commands.add_parser("trl")
    for name in ("rows", "recipe", "folder"):
        trl.add_argument(name, type=Path)
    for command in (ask, trl):
        command.add_argument("--home", type=Path, required=True)
        command.add_argument("--base", required=True)
        command.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(given)
    if options.command == "ask":  # TRL computes as it does for anybody
        keep_memory()
    import torch

    torch.set_num_threads(options.threads)
    print(json.dumps(_asked(options) if options.command == "ask" else _trained_by_trl(options)))
    return 0


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """Which answers are right, by set, as a text of 0 and 1."""
    context = open_context(load_settings(home=options.home, base_model=options.base))
    base = open_base(context.settings)
    model = base.load_model(compute_dtype("auto"))
    if Path(options.model).is_dir():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, options.model).eval()
    elif options.model != BASE:
        with reading(context.database) as connection:
            adapter = find_adapter(connection, options.model)
        weights, config = read_weights(context, adapter)
        model = with_stored(model, config, weights).eval()
    began = time.monotonic()
    found: dict[str, Any] = {}
    for kind in SETS:
        rows = scenario.held_out(kind, options.questions, options.seed)
        said = answers(model, base, [row["messages"] for row in rows])
        right = [
            scenario.score(row["expected"], text).right
            for row, text in zip(rows, said, strict=True)
        ]
        found[kind] = "".join(str(int(each)) for each in right)
    encoder = Encoder(base, base.max_positions)
    general = probes([], encoder.takes).general
    known = answer_rows(model, encoder, general)
    found["general"] = "".join(str(int(known[row.id].score.correct)) for row in general)
    context.close()
    return {"right": found, "ask_s": round(time.monotonic() - began, 1)}


def _trained_by_trl(options: argparse.Namespace) -> dict[str, Any]:
    base = open_base(load_settings(home=options.home, base_model=options.base))
    recipe = recipe_from(json.loads(options.recipe.read_text(encoding="utf-8")))
    raw = [json.loads(line) for line in options.rows.read_bytes().split(b"\n") if line]
    encoder = Encoder(base, recipe.max_length)
    encoded = _encoded(base, encoder, raw)
    loading = peak_memory_bytes()
    model, figures = trl_trained(base, raw, recipe, encoded)
    peak = peak_memory_bytes()
    tokens = round(sum(len(row.ids) for row in encoded) * recipe.epochs)
    model.save_pretrained(options.folder)
    return {
        "rows": len(raw),
        "steps": figures["steps"],
        "tokens": tokens,
        "seconds": figures["seconds"],
        "tokens_per_s": round(tokens / figures["seconds"]),
        "peak_memory_bytes": peak,
        "loading_bytes": loading,
    }


def _encoded(base: BaseModel, encoder: Encoder, raw: list[dict[str, Any]]) -> list[Encoded]:
    rows = read_lines(json.dumps(row).encode() for row in raw).rows
    found = [encoder.encode(row) for row in rows]
    assert all(isinstance(row, Encoded) for row in found), f"a row is too long for {base.name}"
    return [row for row in found if isinstance(row, Encoded)]


if __name__ == "__main__":
    sys.exit(main())
