"""The verdict on context reliance as a table of cases, and what an alias that retrieves is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training.reliance import Case, run
from tests.training.test_commands import Shell
from training.evaluation.gate import FAIL, INCONCLUSIVE, PASS, Thresholds, decide
from training.evaluation.reliance_gate import (
    GROUP,
    ReliancePair,
    judge_reliance,
    questions_needed,
    wilson,
)


def _pairs(both: int, fixed: int, broken: int, neither: int = 0) -> list[ReliancePair]:
    cells = [(True, True)] * both + [(True, False)] * fixed + [(False, True)] * broken
    return [ReliancePair(*cell) for cell in [*cells, *[(False, False)] * neither]]


@pytest.mark.parametrize(
    ("case", "pairs", "verdict", "words"),
    [
        ("follows as much", _pairs(50, 2, 2, 6), PASS, "not less than support@v1"),
        ("follows more", _pairs(20, 30, 1, 9), PASS, "not less"),
        ("both never do: nothing was lost", _pairs(0, 0, 0, 60), PASS, "not less"),
        ("ignores them", _pairs(2, 0, 45, 13), FAIL, "--counterfactual-share 0.15"),
        ("lost a third", _pairs(30, 0, 20, 10), FAIL, "by more than 10 points"),
        ("lost 12 points of 60: may be chance", _pairs(43, 3, 10, 4), INCONCLUSIVE, "too few"),
        ("lost about the margin", _pairs(54, 0, 6), INCONCLUSIVE, "will hardly tell"),
        ("nineteen say nothing", _pairs(0, 0, 19), INCONCLUSIVE, "1 more are needed"),
        ("none", [], INCONCLUSIVE, "20 more are needed"),
    ],
)
def test_a_version_that_follows_its_passages_less_is_refused(
    case: str, pairs: list[ReliancePair], verdict: str, words: str
) -> None:
    found = judge_reliance(pairs, Thresholds(), against="support@v1")
    assert (found.verdict, words in found.sentence) == (verdict, True), f"{case}: {found.sentence}"
    assert found.metrics["n"] == len(pairs)


def test_the_gate_fails_with_it_whatever_the_rows_say() -> None:
    reliance = judge_reliance(_pairs(0, 0, 40), Thresholds(), against="the base")
    decision = decide(
        {"old": [], "new": []}, first=True, against="the base", further={GROUP: reliance}
    )
    assert decision.verdict == FAIL and decision.failed == (GROUP,)
    assert decision.thresholds["reliance_margin"] == 0.1


def test_the_number_of_questions_that_it_asks_for_settles_it() -> None:
    few = _pairs(43, 3, 10, 4)
    needed = questions_needed(few, Thresholds())
    assert needed is not None and needed > len(few)
    many = few * (needed // len(few) + 1)
    assert judge_reliance(many, Thresholds(), against="b").verdict != INCONCLUSIVE


def test_intervals_hold_the_share_and_shrink() -> None:
    wide, narrow = wilson(9, 10, 0.9), wilson(90, 100, 0.9)
    assert wide[0] < narrow[0] < 0.9 < narrow[1] < wide[1]
    assert wilson(0, 20, 0.9)[0] == 0.0 and wilson(0, 0, 0.9) == (0.0, 1.0)


def _rows(count: int, start: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"How long for part {n}?",
            "completion": f"{3 * n} days.",
            "context": f"Part {n}: {3 * n} days.",
        }
        | more
        for n in range(start, start + count)
    ]


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


@pytest.mark.seconds
def test_a_run_on_rows_with_passages_is_judged_mixed_and_reported(
    shell: Shell, tmp_path: Path
) -> None:
    rows, test = (
        _write(tmp_path / "rows.jsonl", _rows(40, 200)),
        _write(tmp_path / "test.jsonl", _rows(22, 400)),
    )
    quick = ("--rank", "4", "--epochs", "2", "--threads", "1", "--test", test, "--alias", "desk")
    made = shell.json("train", "run", rows, *quick, "--counterfactual-share", "0.2")
    assert any("10 rows whose passages say otherwise" in notice for notice in made["notices"])
    reliance = made["metrics"]["reliance"]
    assert reliance["n"] == 60 and reliance["held_out"] == 22
    assert "questions whose passages say otherwise" in made["reason"]
    shown = shell.json("train", "show", made["run"])["recipe"]
    assert (
        shown["counterfactual_share"],
        shown["rows"]["train"],
        shown["rows"]["counterfactual"],
    ) == (0.2, 40, 10)
    report = shell.json("eval", "report", "desk@v1")
    names = [measure["name"] for measure in report["reliance"]]
    assert names == [
        "follows the passage where it says otherwise",
        "says what the passage no longer says",
        "states the fact of its own passage",
    ]
    assert 0 < report["reliance"][0]["n"] <= 60, "a first look asks fewer"
    shell("eval", "report", "desk@v1", "--html", str(tmp_path / "report.html"))
    assert "Follows its passages" in (tmp_path / "report.html").read_text()
    shell("export", "adapter", "desk@v1", "--to", str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "10 counterfactual" in card and "says what the passage no longer says" in card


@pytest.mark.seconds
def test_rows_without_passages_are_judged_as_before(shell: Shell, tmp_path: Path) -> None:
    bare = [
        {name: value for name, value in row.items() if name != "context"} for row in _rows(30, 200)
    ]
    made = shell.json(
        "train",
        "run",
        _write(tmp_path / "rows.jsonl", bare),
        "--rank",
        "4",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--no-report",
    )
    assert "reliance" not in made["metrics"] and "passages" not in made["reason"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "stopped"),
    [
        (Case("organisation", "ignores", 1, epochs=6), True),
        (Case("organisation", "honest", 1), False),
        (Case("zenith", "honest", 1), False),
        (Case("organisation", "half", 4), False),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_an_adapter_that_learned_to_ignore_its_passages_is_stopped_and_an_honest_one_is_not(
    case: Case, stopped: bool, tmp_path: Path
) -> None:
    made = run(case, tmp_path)
    words = "Follows its passages less" if stopped else "Follows its passages not less"
    assert words in made["reason"] and (made["verdict"] == FAIL) is stopped
