"""After the verdict a version of a small set is trained on the held-out rows too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.training.shops import shop
from serving.rollout_store import RolloutStore
from tests.training.test_commands import Shell
from training.recipes.recipe import load_recipe
from training.recipes.recipe_choices import chosen_refit
from whet.context import open_context
from whet.settings import load_settings

_QUICK = ("--rank", "16", "--epochs", "5", "--lr", "5e-3", "--threads", "1", "--seed", "3",
          "--question-variants", "1", "--no-report")  # fmt: skip
_LEARNED = (*_QUICK, "--epochs", "16")
_WORDS = ("apple", "river", "cloud", "stone", "paper", "green", "light", "music", "bread", "table")


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return _write(tmp_path / "rows.jsonl", shop(1, rows=150).rows)


@pytest.fixture
def guesses(tmp_path: Path) -> str:
    """Rows whose answers can be guessed by half, and are known once they were learned."""
    random = Random(1)
    rows = [
        {"prompt": " ".join(random.sample(_WORDS, 3)), "completion": random.choice(("one", "two"))}
        for _ in range(40)
    ]
    return _write(tmp_path / "guesses.jsonl", rows)


def _promote(shell_home: Path, base: Path, label: str) -> None:
    context = open_context(load_settings(home=shell_home, base_model=str(base)))
    store = RolloutStore(context.database, context.settings)
    store.promote(label.partition("@")[0], label, actor="t", reason="r", now=5000, force=True)
    context.close()


@pytest.mark.parametrize(
    ("rows", "holds_out", "changes", "expected"),
    [
        (500, True, {}, True),
        (1_000, True, {}, True),
        (1_001, True, {}, False),
        (500, False, {}, False),  # the rows to judge by were given
        (500, True, {"refit": False}, False),
        (5_000, False, {"refit": True}, True),
        (500, True, {"processes": 2}, False),
    ],
)
def test_small_sets_are_refitted_unless_their_test_rows_were_given(
    rows: int, holds_out: bool, changes: dict[str, Any], expected: bool
) -> None:
    recipe = replace(load_recipe("lora"), **changes)
    assert chosen_refit(recipe, rows, holds_out=holds_out).refit is expected


def test_a_method_without_a_refit_is_left_as_it_is() -> None:
    recipe = load_recipe("dpo")
    assert chosen_refit(recipe, 100, holds_out=True) == recipe


def test_the_default_stores_a_version_that_knows_the_held_out_rows(shell: Shell, file: str) -> None:
    judged = shell.json("train", "run", file, *_QUICK, "--no-refit")
    stored = shell.json("train", "run", file, *_QUICK)
    assert stored["metrics"]["all"]["candidate"] == judged["metrics"]["all"]["candidate"]
    assert stored["digest"] != judged["digest"], "the stored version is another one"
    assert "trained on all rows again" in stored["reason"]
    assert "% or more is to be expected" in stored["reason"], "how much better is not measured"
    assert stored["metrics"]["all"]["candidate_high"] == 1.0
    assert any("--no-refit" in notice for notice in stored["notices"])
    shown = shell.json("train", "show", stored["run"])
    assert shown["recipe"]["refit"] is True and shown["estimate"]["refit_seconds"] > 0


def test_rows_given_to_judge_by_are_never_trained_on(
    shell: Shell, file: str, tmp_path: Path
) -> None:
    test = _write(tmp_path / "test.jsonl", shop(1).unseen[:20])
    expected = shell.json("train", "run", file, "--test", test, *_QUICK, "--dry-run")
    assert expected["recipe"]["refit"] is False and "refit_seconds" not in expected


def test_versions_are_compared_by_what_they_answered_before_their_refit(
    shell: Shell, guesses: str, tmp_path: Path, base_folder: Path
) -> None:
    first = shell.json("train", "run", guesses, *_LEARNED)
    held_out = first["metrics"]["all"]
    assert 0 < held_out["candidate"] < 0.9, "some are unknown before the refit, so that it shows"
    _promote(tmp_path / "home", base_folder, first["adapter"])

    second = shell.json("train", "run", guesses, *_LEARNED)
    assert second["metrics"]["all"]["against"] == held_out["candidate"]
    assert f"was trained on {held_out['n']} of these questions after" in second["reason"]

    going_on = shell.json("train", "run", guesses, *_LEARNED, "--init-from", "production")
    assert going_on["metrics"]["all"]["against"] > held_out["candidate"], "it knows them by now"
    assert going_on["metrics"]["all"]["known_patterns"] == 1.0
    assert f"trained by {first['adapter']}, which this version goes on from" in going_on["reason"]
    assert "will be answered worse than this" in going_on["reason"]


def test_a_stored_version_is_judged_by_its_answers_from_before(
    shell: Shell, guesses: str, tmp_path: Path
) -> None:
    made = shell.json("train", "run", guesses, *_LEARNED)
    path = shell.json("train", "show", made["run"])["recipe"]["dataset_path"]
    (held_out,) = (tmp_path / "home").rglob(f"{path}/test.jsonl")
    again = shell.json("eval", "run", made["adapter"], "--test", str(held_out))
    assert again["metrics"]["all"]["n"] == made["metrics"]["all"]["n"]
    assert again["metrics"]["all"]["candidate"] == made["metrics"]["all"]["candidate"]
