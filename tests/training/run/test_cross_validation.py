"""A set too small for a test part is judged by models that have not seen what they are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training.shops import shop
from tests.training.test_commands import Shell
from training.data.patterns import Patterns
from training.data.rows import Row, read_lines
from training.data.split import group_key
from training.evaluation.cross_validation import fold_of_keys

_QUICK = ("--rank", "4", "--epochs", "2", "--lr", "5e-3", "--threads", "1", "--seed", "3")


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


def _write(path: Path, objects: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    return str(path)


def _rows(objects: list[dict[str, Any]]) -> list[Row]:
    return read_lines(json.dumps(each).encode() for each in objects).rows


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_hold_whole_patterns_and_are_of_like_size(folds: int) -> None:
    rows = _rows(shop(1).rows)
    fold_of = fold_of_keys(rows, folds)
    folds_of_pattern: dict[int, set[int]] = {}
    for row, pattern in zip(rows, Patterns(rows).of_rows, strict=True):
        folds_of_pattern.setdefault(pattern, set()).add(fold_of[group_key(row)])
    parted = sum(len(found) > 1 for found in folds_of_pattern.values())
    assert parted <= 0.1 * len(folds_of_pattern), "a pattern is asked by one model alone"
    sizes = [sum(fold_of[group_key(row)] == fold for row in rows) for fold in range(folds)]
    assert max(sizes) < 1.3 * min(sizes)


def test_a_set_too_small_for_a_test_part_is_cross_validated(shell: Shell, tmp_path: Path) -> None:
    different = list({row["prompt"]: row for row in shop(1).rows}.values())[:24]
    file = _write(tmp_path / "few.jsonl", different)
    made = shell.json("train", "run", file, *_QUICK)
    assert "24 of 24 rows (100.0 %): all for training, judged by 5-fold" in made["notices"][0]
    assert made["metrics"]["all"]["n"] == 24 and "By 5-fold cross-validation" in made["reason"]
    shown = shell.json("train", "show", made["run"])
    assert shown["recipe"]["folds"] == 5 and shown["recipe"]["rows"]["test"] == 0
    none = shell.json("train", "run", file, *_QUICK, "--folds", "0", "--dry-run")
    assert none["recipe"]["folds"] == 0


def test_folds_belong_to_methods_that_learn_answers(shell: Shell, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}?", "chosen": "yes", "rejected": "no"} for n in range(20)]
    file = _write(tmp_path / "pairs.jsonl", rows)
    assert "dpo has no folds" in shell.refused(
        "train", "run", file, "--method", "dpo", "--folds", "3"
    )
