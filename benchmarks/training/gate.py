"""Does the gate's score tell how questions in unseen wordings are answered?

``python -m benchmarks.training.gate --seeds 10``: each seed is another shop (`benchmarks/training/
shops.py`) of 500 rows and 90 users whose questions repeat each other. The product's own split, question
variants and trainer make a version with the default recipe; the gate's score of the held-out rows and
its 90 % interval stand beside the share of 150 questions in unseen wordings that are answered right.
``--plain`` trains the questions as they are, for comparison. One JSON line per run, a summary at the
end; ``--record FILE`` appends the lines to a file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.training.shops import ROWS, USERS, shop
from training.base.probe import settled
from training.base_model import BaseModel, quiet_environment
from training.data.hold_out import AUTO
from training.data.split import split
from training.data.variants import question_variants
from training.datasets import Dataset, default_shares
from training.encode import Encoded, Encoder
from training.evaluate import Answer, answer_rows, questions
from training.gate import Pair, score_interval
from training.judging.held_out import describe_held_out, question_facts
from training.lora import trainable
from training.platform_tuning import keep_memory
from training.recipe import chosen_variants, load_recipe
from training.rows import Row, read_lines
from training.trainer import train

_BASE = Path(__file__).parents[2] / "whet" / "assets" / "base"


def measure(base: BaseModel, seed: int, *, is_plain: bool, threads: int) -> dict[str, Any]:
    """Train and judge one shop; shares are 0 to 1."""
    made = shop(seed)
    rows, unseen = _rows(made.rows), _rows(made.unseen)
    parts = split(rows, default_shares(len(rows), separate_test=False), hold_out=AUTO).parts
    recipe = settled(base, replace(load_recipe("lora"), seed=seed, threads=threads))
    recipe = chosen_variants(recipe, len(parts["train"]))
    encoder = Encoder(base, recipe.max_length)
    passes = 1 if is_plain else recipe.question_variants
    worded = question_variants(parts["train"], passes, seed).passes
    encoded = [[_encoded(encoder, row) for row in some] for some in worded]
    model = trainable(base, recipe)
    pad = base.tokenizer.pad_token_id
    began = time.process_time()
    trained = train(
        model,
        encoded[0],
        [],
        recipe,
        pad_id=min(base.stop_ids) if pad is None else pad,
        on_step=lambda step: None,
        variants=encoded[1:],
    )
    seconds = time.process_time() - began
    asked = questions(
        Dataset("shop", f"{seed:064}", "", parts["train"], [], parts["test"])
    ).held_out
    held_out = describe_held_out(parts["train"], asked)
    pairs = [
        _pair(answer, row, held_out.patterns[row.id])
        for row, answer in _answers(model, encoder, asked)
    ]
    truth = fmean(answer.score.correct for _, answer in _answers(model, encoder, unseen))
    found = score_interval(pairs)
    assert found is not None  # every shop has held-out rows
    facts = question_facts(asked, held_out)
    return {
        "seed": seed,
        "plain": is_plain,
        "used": round(sum(map(len, parts.values())) / len(rows), 4),
        "gate": round(fmean(pair.candidate for pair in pairs), 4),
        "low": round(found[0], 4),
        "high": round(found[1], 4),
        "questions": facts["questions"],
        "patterns": facts["patterns"],
        "unseen": round(truth, 4),
        "covered": found[0] <= truth <= found[1],
        "steps": trained.steps,
        "cpu_s": round(seconds, 1),
    }


def _rows(objects: Sequence[dict[str, Any]]) -> list[Row]:
    read = read_lines(json.dumps(each).encode() for each in objects)
    read.refuse_bad("the shop's rows", skip_bad=False)
    return read.rows


def _encoded(encoder: Encoder, row: Row) -> Encoded:
    found = encoder.encode(row)
    assert isinstance(found, Encoded), f"a shop's row fits any base: {found}"
    return found


def _answers(model: Any, encoder: Encoder, rows: Sequence[Row]) -> list[tuple[Row, Answer]]:
    answers = answer_rows(model, encoder, list(rows))
    return [(row, answers[row.id]) for row in rows]


def _pair(answer: Answer, row: Row, pattern: int) -> Pair:
    return Pair(answer.score.correct, 0.0, answer.score.f1, 0.0, True, row.id, pattern)


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the runs say together; differences in points."""
    return {
        "runs": len(runs),
        "gate": round(100 * fmean(run["gate"] for run in runs), 1),
        "unseen": round(100 * fmean(run["unseen"] for run in runs), 1),
        "mean_difference": round(100 * fmean(run["gate"] - run["unseen"] for run in runs), 1),
        "covered": sum(run["covered"] for run in runs),
        "least_used": min(run["used"] for run in runs),
    }


def main(given: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.gate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="shops 1 to N (default 10)")
    parser.add_argument("--base", type=Path, default=_BASE, help="folder of the base model")
    parser.add_argument("--plain", action="store_true", help="no question variants")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--record", type=Path, help="append the lines to this file")
    options = parser.parse_args(given)
    quiet_environment()
    keep_memory()
    import torch

    torch.set_num_threads(options.threads)
    base = BaseModel(options.base.resolve(), options.base.name)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit,
        "base": base.name,
        "rows": ROWS,
        "users": USERS,
    }
    runs = []
    for seed in range(1, options.seeds + 1):
        runs.append(measure(base, seed, is_plain=options.plain, threads=options.threads))
        line = json.dumps({**about, **runs[-1]})
        print(line, flush=True)
        if options.record:
            with options.record.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    print(json.dumps(summary(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
