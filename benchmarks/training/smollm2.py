"""What a real model learns and forgets: SmolLM2-135M on the Zenith scenario.

``python -m benchmarks.training.smollm2 --work FOLDER --record``. The arms, each in a process of its
own: the base; v1, which the default command makes of answered questions; v2, which goes on from v1
after the world changed, with new questions and the old ones that are still true; and v1's rows by
TRL's ``SFTTrainer`` with PEFT: same base, rank, rate, rows a step, passes and schedule, questions
as they are. Each answers held-out questions, in wordings that no row uses, about what the change
left as it was (old) and what it brought (new), and the general questions of the report's probes: of
those that the base answers right, the share that a version still does is what it kept.

Arms that FOLDER has are not repeated; ``--arm`` does one of them. ``--record`` keeps the lines in
``smollm2.jsonl`` and writes the tables of ``SMOLLM2.md`` from it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.document import put_between_markers
from benchmarks.errors import BenchmarkError
from benchmarks.training.smollm2_arm import BASE, SETS
from examples.zenith import scenario
from training.evaluation.intervals import paired_interval
from training.models.base_fetch import fetch
from whet.named_bases import NAMED_BASES

_HERE = Path(__file__).parent
_RECORDS, _PAGE = _HERE / "smollm2.jsonl", _HERE / "SMOLLM2.md"
_BEGIN = "<!-- results: begin (written by python -m benchmarks.training.smollm2) -->"
_END = "<!-- results: end -->"
_ALIAS = "zenith"
V1, V2, TRL = "v1", "v2", "TRL"
ARMS = (BASE, V1, V2, TRL)
_RECIPE_FIELDS = (
    "rank", "alpha", "epochs", "batch_size", "learning_rate", "schedule", "warmup", "weight_decay",
    "clip", "seed", "dtype", "max_length",
)  # fmt: skip
_Z = 1.96  # of a 95 % interval


def measure(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train (all but the base) and ask one arm."""
    if arm == BASE:
        return _ask(BASE, options)
    if arm == TRL:
        folder = options.work / "trl"
        trained = _train_by_trl(folder, options)
        return {**trained, **_ask(str(folder), options)}
    trained = _train(arm, options)
    return {**trained, **_ask(trained["adapter"], options)}


def _train(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """One `whet train run`, as somebody would type it."""
    rows = scenario.training_examples(scenario.old_world(), options.examples, options.seed)
    extra = ["--seed", str(options.seed)]
    if arm == V2:
        current = [row for row in rows if scenario.is_current(row, scenario.new_world())]
        rows = [*scenario.new_examples(options.new_examples, options.seed), *current]
        extra += ["--recipe", "continue", "--init-from", _done(options)[V1]["adapter"]]
    file = options.work / f"{arm}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    command = ["train", "run", str(file), "--alias", _ALIAS, "--no-report", "--json", *extra]
    made = json.loads(_output(["-m", "whet.cli", *command], options))
    run = json.loads(_output(["-m", "whet.cli", "train", "show", made["run"], "--json"], options))
    expected = run["estimate"]
    return {
        "adapter": made["adapter"],
        "gate": made["verdict"],
        "rows": expected["rows"],
        "steps": expected["steps"],
        "tokens": expected["tokens"],
        "recipe": {name: run["recipe"][name] for name in (*_RECIPE_FIELDS, "threads")},
        "dataset": made["dataset_digest"],
        "seconds": expected["measured"]["seconds"],
        "tokens_per_s": expected["measured"]["tokens_per_s"],
        "peak_memory_bytes": expected["measured"]["peak_memory_bytes"],
        "expected_s": expected["seconds"],
        "expected_bytes": expected["peak_memory_bytes"],
        "signs": made["signs"],
    }


def _train_by_trl(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    like = _done(options)[V1]
    recipe = options.work / "recipe.json"
    recipe.write_text(json.dumps({name: like["recipe"][name] for name in _RECIPE_FIELDS}))
    (rows,) = options.work.glob(f"home/**/{like['dataset']}/train.jsonl")
    arm = ["-m", "benchmarks.training.smollm2_arm", "trl", str(rows), str(recipe), str(folder)]
    return _last_record(_output([*arm, *_where(options)], options))


def _ask(model: str, options: argparse.Namespace) -> dict[str, Any]:
    asked = ["--questions", str(options.questions), "--seed", str(options.seed)]
    arm = ["-m", "benchmarks.training.smollm2_arm", "ask", model, *asked]
    return _last_record(_output([*arm, *_where(options)], options))


def _where(options: argparse.Namespace) -> list[str]:
    home = str(options.work / "home")
    return ["--home", home, "--base", options.base, "--threads", str(options.threads)]


def _output(arguments: list[str], options: argparse.Namespace) -> str:
    """Return what a child prints. Raises BenchmarkError when it fails."""
    home = str(options.work / "home")
    environment = {**os.environ, "WHET_HOME": home, "WHET_BASE_MODEL": options.base}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"{' '.join(arguments[:4])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _last_record(printed: str) -> dict[str, Any]:
    """Return the JSON object of the last line; libraries print lines of their own before it."""
    return dict(json.loads(printed.strip().rsplit("\n", 1)[-1]))


def _done(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The arms that the folder has."""
    file = options.work / "arms.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
    return {found["arm"]: found for line in lines if line for found in [json.loads(line)]}


# --- tables ---------------------------------------------------------------------------------------


def write_page() -> None:
    """Write the tables of SMOLLM2.md from the records."""
    lines = _RECORDS.read_text(encoding="utf-8").split("\n")
    text = tables([json.loads(line) for line in lines if line])
    page = _PAGE.read_text(encoding="utf-8")
    _PAGE.write_text(put_between_markers(page, text, _BEGIN, _END), encoding="utf-8")


def tables(records: Sequence[dict[str, Any]]) -> str:
    """A table of the scores and one of what the trainings took."""
    bases = {each["run"]: each for each in records if each["arm"] == BASE}
    heads = ["date", "commit", "machine", "arm", "rows", "questions", "old", "95 %", "new", "95 %"]
    heads += ["general", "kept", "lost in points (95 %)"]
    found = [_line(heads), _line(["---"] * len(heads))]
    for each in records:
        right = each["right"]
        cells = [each["date"], each["commit"], each["machine"], each["arm"], each.get("rows", "")]
        cells.append(len(right[SETS[0]]))
        for kind in SETS:
            low, high = wilson(right[kind])
            cells += [_percent(_share(right[kind])), f"{100 * low:.0f} to {100 * high:.0f}"]
        cells.append(f"{right['general'].count('1')} of {len(right['general'])}")
        base = bases.get(each["run"])
        kept = ["", ""] if each["arm"] == BASE or base is None else _forgotten(base, each)
        found.append(_line([*cells, *kept]))
    heads = ["date", "commit", "arm", "rate", "passes", "steps", "tokens", "tokens/s", "took"]
    heads += ["expected", "error", "peak", "expected", "error"]
    found += ["", _line(heads), _line(["---"] * len(heads))]
    found += [_taken(each) for each in records if each["arm"] != BASE]
    return "\n".join(found)


def _forgotten(base: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """(kept of what the base knows, points lost with their interval)."""
    known = [
        int(theirs)
        for ours, theirs in zip(base["right"]["general"], other["right"]["general"], strict=True)
        if ours == "1"
    ]
    lost = [1.0 - value for value in known]
    low, high = paired_interval(lost)
    bounds = f"{100 * low:.1f} to {100 * high:.1f}"
    return [f"{sum(known)} of {len(known)}", f"{100 * fmean(lost):.1f} ({bounds})"]


def _taken(each: dict[str, Any]) -> str:
    recipe = each.get("recipe", {})
    cells = [each["date"], each["commit"], each["arm"], recipe.get("learning_rate", "as v1")]
    cells += [recipe.get("epochs", "as v1"), each["steps"], f"{each['tokens']:,}"]
    cells += [each["tokens_per_s"], f"{each['seconds']:.0f} s"]
    peak = f"{each['peak_memory_bytes'] / 1e6:,.0f} MB"
    if "expected_s" not in each:
        return _line([*cells, "", "", peak, "", ""])
    memory = each["expected_bytes"]
    cells += [f"{each['expected_s']:.0f} s", _error(each["expected_s"], each["seconds"]), peak]
    return _line([*cells, f"{memory / 1e6:,.0f} MB", _error(memory, each["peak_memory_bytes"])])


def wilson(right: str) -> tuple[float, float]:
    """95 % interval of a share (E. B. Wilson, 1927)."""
    count, share = len(right), _share(right)
    middle = share + _Z**2 / (2 * count)
    reach = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return (middle - reach) / (1 + _Z**2 / count), (middle + reach) / (1 + _Z**2 / count)


def _share(right: str) -> float:
    return right.count("1") / len(right)


def _error(expected: float, found: float) -> str:
    return f"{100 * (expected / found - 1):+.0f} %"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main(given: list[str] | None = None) -> int:
    """Measure what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training.smollm2", description=__doc__
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the home and the arms")
    parser.add_argument("--arm", choices=ARMS, action="append", help="default: all")
    parser.add_argument("--base", default="smollm2", help="another base's folder")
    parser.add_argument("--examples", type=int, default=500, help="rows of v1 (default 500)")
    parser.add_argument("--new-examples", type=int, default=300, help="new rows of v2")
    parser.add_argument("--questions", type=int, default=200, help="of each set (default 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of asking and of TRL (default 2)")
    parser.add_argument("--record", action="store_true", help="keep the lines, write SMOLLM2.md")
    parser.add_argument("--machine", default="", help="name of the machine in the record")
    options = parser.parse_args(given)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.base in NAMED_BASES:
        fetch(options.work / "home", options.base, lambda line: print(line, file=sys.stderr))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    now = datetime.now(UTC)
    for arm in options.arm or ARMS:
        if arm in _done(options):
            continue
        about = {"run": options.work.name, "date": f"{now:%Y-%m-%d}", "commit": commit}
        about |= {"machine": options.machine, "arm": arm, "seed": options.seed}
        line = json.dumps({**about, **measure(arm, options)})
        print(line, flush=True)
        for file in [options.work / "arms.jsonl", *([_RECORDS] if options.record else [])]:
            with file.open("a", encoding="utf-8") as log:
                log.write(line + "\n")
        if options.record:
            write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
