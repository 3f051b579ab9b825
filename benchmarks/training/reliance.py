"""`python -m benchmarks.training.reliance`: which adapters the gate stops for ignoring their
passages.

Ten honest adapters (three scenarios, several seeds; with passages in all rows, or in half of them)
and one that learned rows whose passages say otherwise than their answers, each trained and judged
by `whet train run` on the built-in base. Appends a line per adapter to `reliance.jsonl` and writes
the table of RELIANCE.md, in which a later line of a case replaces an earlier one. Figures are
answers, so that other work beside it does not matter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from benchmarks.document import put_between_markers
from benchmarks.errors import BenchmarkError
from benchmarks.training.reliance_rows import SCENARIOS, RawRow, contradicted, without_passages
from whet.cli import app
from whet.lines import read_jsonl

_RESULTS = Path(__file__).with_name("reliance.jsonl")
_DOCUMENT = Path(__file__).with_name("RELIANCE.md")
_BEGIN, _END = "<!-- reliance: begin -->", "<!-- reliance: end -->"
TRAIN, TEST = 48, 26  # rows: enough to learn the manner of answering, little enough for many runs


@dataclass(frozen=True)
class Case:
    """One adapter to train."""

    scenario: str
    kind: str  # honest | half | bare | ignores
    seed: int
    counterfactual_share: float = 0.0
    epochs: int = 3

    @property
    def name(self) -> str:
        return f"{self.scenario}, {self.kind}, seed {self.seed}"


CASES = (
    Case("organisation", "ignores", 1, epochs=6),
    *(Case("organisation", "honest", seed) for seed in (1, 2, 3)),
    Case("zenith", "honest", 1),
    Case("ferry", "honest", 1),
    *(Case("organisation", "half", seed) for seed in (4, 5, 6)),
    Case("zenith", "half", 2),
    Case("ferry", "half", 2),
    Case("organisation", "bare", 1),
    Case("organisation", "bare", 1, counterfactual_share=0.2),
    Case("zenith", "ignores", 1, epochs=6),
    Case("ferry", "ignores", 1, epochs=6),
)


def rows_of(case: Case) -> tuple[list[RawRow], list[RawRow]]:
    """Return (rows to train on, rows to judge by); the latter have their own passages always."""
    made = SCENARIOS[case.scenario](TRAIN, TEST, case.seed)
    train = {
        "honest": lambda: made.train,
        "half": lambda: without_passages(made.train, every=2),
        "bare": lambda: without_passages(made.train),
        "ignores": lambda: contradicted(made.train, case.seed),
    }[case.kind]()
    return train, made.test


def run(case: Case, folder: Path, *extra: str) -> dict[str, Any]:
    """Train and judge one adapter in a home of its own; return what `whet train run` says."""
    train, test = rows_of(case)
    files = {"train": train, "test": test}
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    command = [
        "train", "run", str(folder / "train.jsonl"), "--test", str(folder / "test.jsonl"),
        "--alias", "desk", "--seed", str(case.seed), "--epochs", str(case.epochs), "--threads", "1", "--no-report",
        "--drop-leaks", "--json", *extra,
    ]  # fmt: skip
    if case.counterfactual_share:
        command += ["--counterfactual-share", str(case.counterfactual_share)]
    done = CliRunner().invoke(app, command, env={"WHET_HOME": str(folder / "home")})
    if done.exit_code or done.exception:
        raise BenchmarkError(f"{case.name}: {done.output[-500:]} {done.exception!r}")
    return dict(json.loads(done.stdout))


def main(given: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases; default: all")
    parser.add_argument("--machine", default="", help="what to call this machine in the table")
    options = parser.parse_args(given)
    commit = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"],
        capture_output=True, text=True, check=True, cwd=_DOCUMENT.parent,
    ).stdout.strip()  # fmt: skip
    for number in options.only if options.only is not None else range(len(CASES)):
        case = CASES[number]
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            found = run(case, Path(folder))
        line = {
            **asdict(case),
            "verdict": found["verdict"],
            "reliance": found["metrics"]["reliance"],
            "right": found["metrics"]["all"]["candidate"],
            "reason": found["reason"],
            "processor_s": round(time.process_time() - began, 1),
            "at": f"{datetime.now(UTC):%Y-%m-%d}",
            "commit": commit,
            "machine": options.machine,
        }
        with _RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(row(line), flush=True)
        _DOCUMENT.write_text(
            put_between_markers(_DOCUMENT.read_text(), table(_load()), _BEGIN, _END)
        )
    return 0


def _load() -> list[dict[str, Any]]:
    """Return the newest line of each case, in the order of the cases."""
    lines = read_jsonl(_RESULTS.read_bytes())
    newest = {Case(**{name: line[name] for name in asdict(CASES[0])}): line for line in lines}
    return [newest[case] for case in CASES if case in newest]


def table(lines: list[dict[str, Any]]) -> str:
    """Return the Markdown of the recorded cases."""
    head = [
        "| scenario | kind | seed | questions | follows | keeps | base | difference, points | right |"
        " verdict | recorded |",
        "|---|---|---:|---:|---:|---:|---:|---|---:|---|---|",
    ]
    rows = [f"{row(line)} {line['at']}, `{line['commit']}`, {line['machine']} |" for line in lines]
    return "\n".join([*head, *rows])


def row(line: dict[str, Any]) -> str:
    """Return a line of the table."""
    found = line["reliance"]
    share = (
        f", counterfactual_share {line['counterfactual_share']:g}"
        if line["counterfactual_share"]
        else ""
    )
    return (
        f"| {line['scenario']} | {line['kind']}{share} | {line['seed']} | {found['n']} | "
        f"{found['candidate']:.0%} | {found['candidate_keeps']:.0%} | {found['against']:.0%} | "
        f"{100 * found['low']:+.0f} to {100 * found['high']:+.0f} | {line['right']:.0%} | "
        f"{line['verdict']} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
