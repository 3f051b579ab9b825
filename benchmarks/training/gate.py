"""Does the gate's score tell how questions in unseen wordings are answered?

``python -m benchmarks.training.gate --seeds 10``: each seed is another shop (`benchmarks/training/
shops.py`) of 500 rows and 90 users whose questions repeat each other. The product's own split,
question variants and trainer make a version with the default recipe; the gate's score of the
held-out rows and its 90 % interval stand beside the share of 150 questions in unseen wordings that
are answered right, by the model that was judged and by the version, which is trained again on all
rows. ``--plain`` trains the questions as they are, for comparison. One JSON line per
run, a summary at the end; ``--record`` keeps the lines in ``gate.jsonl`` and writes the tables of
``GATE.md`` from it.
"""

from __future__ import annotations

from training.imports import quiet_environment

if __name__ == "__main__":  # read when torch is imported
    quiet_environment()

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from benchmarks.document import put_between_markers
from benchmarks.training.shops import ROWS, USERS, shop
from training.base.probe import settled
from training.data.datasets import Dataset, default_shares
from training.data.hold_out import AUTO
from training.data.rows import Row, read_lines
from training.data.split import split
from training.data.variants import question_variants
from training.evaluation.answering import answer_rows
from training.evaluation.answers import Answer, questions
from training.evaluation.gate import Pair, score_interval
from training.evaluation.held_out import describe_held_out, question_facts
from training.loop.trainer import Trained, train
from training.machine.allocator import keep_memory
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.lora import trainable
from training.recipes.recipe import Recipe, load_recipe
from training.recipes.recipe_choices import chosen_refit, chosen_variants

_HERE = Path(__file__).parent
_BASE = _HERE.parents[1] / "whet" / "assets" / "base"
_RECORDS, _PAGE = _HERE / "gate.jsonl", _HERE / "GATE.md"
_BEGIN = "<!-- results: begin (written by python -m benchmarks.training.gate) -->"
_END = "<!-- results: end -->"


def measure(base: BaseModel, seed: int, *, is_plain: bool, threads: int) -> dict[str, Any]:
    """Train and judge one shop; shares are 0 to 1."""
    made = shop(seed)
    rows, unseen = _rows(made.rows), _rows(made.unseen)
    parts = split(rows, default_shares(len(rows), separate_test=False), hold_out=AUTO).parts
    recipe = settled(base, replace(load_recipe("lora"), seed=seed, threads=threads))
    recipe = chosen_variants(recipe, len(parts["train"]))
    recipe = chosen_refit(recipe, len(rows), holds_out=True)
    encoder = Encoder(base, recipe.max_length)
    passes = 1 if is_plain else recipe.question_variants
    began = time.process_time()
    model, trained = _trained(base, recipe, encoder, parts["train"], passes)
    seconds = time.process_time() - began
    asked = questions(
        Dataset("shop", f"{seed:064}", "", parts["train"], [], parts["test"])
    ).held_out
    held_out = describe_held_out(parts["train"], asked)
    pairs = [
        _pair(answer, row, held_out.patterns[row.id])
        for row, answer in _answers(model, encoder, asked)
    ]
    judged = fmean(answer.score.correct for _, answer in _answers(model, encoder, unseen))
    truth, found = judged, score_interval(pairs)
    assert found is not None  # every shop has held-out rows
    if recipe.refit:
        began = time.process_time()
        model, _ = _trained(base, recipe, encoder, rows, passes)
        seconds += time.process_time() - began
        truth = fmean(answer.score.correct for _, answer in _answers(model, encoder, unseen))
        found = (found[0], 1.0)  # as the gate says it
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
        "judged": round(judged, 4),
        "covered": found[0] <= truth <= found[1],
        "steps": trained.steps,
        "cpu_s": round(seconds, 1),
    }


def _trained(
    base: BaseModel, recipe: Recipe, encoder: Encoder, rows: Sequence[Row], passes: int
) -> tuple[nn.Module, Trained]:
    worded = question_variants(rows, passes, recipe.seed).passes
    encoded = [[_encoded(encoder, row) for row in some] for some in worded]
    model = trainable(base, recipe)
    pad = base.tokenizer.pad_token_id
    trained = train(
        model,
        encoded[0],
        [],
        recipe,
        pad_id=min(base.stop_ids) if pad is None else pad,
        on_step=lambda step: None,
        variants=encoded[1:],
    )
    return model, trained


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
        "judged": round(100 * fmean(run.get("judged", run["unseen"]) for run in runs), 1),
        "unseen": round(100 * fmean(run["unseen"] for run in runs), 1),
        "mean_difference": round(100 * fmean(run["gate"] - run["unseen"] for run in runs), 1),
        "covered": sum(run["covered"] for run in runs),
        "least_used": min(run["used"] for run in runs),
    }


def write_page() -> None:
    """Write the tables of GATE.md from the records."""
    lines = _RECORDS.read_text(encoding="utf-8").split("\n")
    page = _PAGE.read_text(encoding="utf-8")
    text = tables([json.loads(line) for line in lines if line])
    _PAGE.write_text(put_between_markers(page, text, _BEGIN, _END), encoding="utf-8")


def tables(records: Sequence[dict[str, Any]]) -> str:
    """A table of the runs and one of what they say together, by base and kind of training."""
    heads = ["date", "commit", "machine", "base", "questions", "shop", "used", "gate", "90 %"]
    heads += ["asked", "patterns", "judged", "unseen", "covered", "steps", "CPU s"]
    found = [_line(heads), _line(["---"] * len(heads))]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for each in records:
        kind = "as they are" if each["plain"] else "reworded"
        groups.setdefault((each["commit"], each["base"], kind), []).append(each)
        cells = [each["date"], each["commit"], each["machine"], each["base"], kind, each["seed"]]
        cells += [_percent(each["used"]), _percent(each["gate"])]
        cells += [f"{100 * each['low']:.0f} to {100 * each['high']:.0f}", each["questions"]]
        cells += [each["patterns"], _percent(each.get("judged", each["unseen"]))]
        cells += [_percent(each["unseen"]), "yes" if each["covered"] else "no"]
        found.append(_line([*cells, each["steps"], each["cpu_s"]]))
    heads = ["commit", "base", "questions", "shops", "gate", "judged", "unseen"]
    heads += ["difference", "covered"]
    found += ["", _line(heads), _line(["---"] * len(heads))]
    for (commit, base, kind), runs in groups.items():
        said = summary(runs)
        cells = [commit, base, kind, said["runs"], said["gate"], said["judged"], said["unseen"]]
        covered = f"{said['covered']} of {said['runs']}"
        found.append(_line([*cells, f"{said['mean_difference']:+.1f}", covered]))
    return "\n".join(found)


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main(given: list[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.gate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="shops 1 to N (default 10)")
    parser.add_argument("--base", type=Path, default=_BASE, help="folder of the base model")
    parser.add_argument("--plain", action="store_true", help="no question variants")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--record", action="store_true", help="keep the lines, write GATE.md")
    parser.add_argument("--first-seed", type=int, default=1, help="the first shop (default 1)")
    parser.add_argument("--machine", default="", help="name of the machine in the record")
    options = parser.parse_args(given)
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
        "machine": options.machine,
    }
    runs = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        runs.append(measure(base, seed, is_plain=options.plain, threads=options.threads))
        line = json.dumps({**about, **runs[-1]})
        print(line, flush=True)
        if options.record:
            with _RECORDS.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            write_page()
    print(json.dumps(summary(runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
