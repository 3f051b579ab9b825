"""General questions, answered by the base itself, are learned beside a narrow task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from tests.training.test_commands import Shell
from training.data.general_prompts import GENERAL_PROMPTS
from training.data.rows import read_lines
from training.evaluation.probes import probes
from training.recipes.recipe import load_recipe, recipe_from
from training.recipes.recipe_choices import resolved
from training.runs import rehearsal

_RUN = ("--rank", "2", "--epochs", "1", "--threads", "1", "--no-report", "--no-refit")


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


@pytest.fixture
def file(tmp_path: Path) -> str:
    rows = [{"prompt": f"Where is shelf {n}?", "completion": f"In hall {n}."} for n in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(path)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A base whose every second answer comes to an end; prompts of each round that it is asked."""
    asked: list[int] = []

    def greedy(
        model: nn.Module, prompts: list[list[int]], stop_ids: frozenset[int], limit: int
    ) -> list[list[int]]:
        asked.append(len(prompts))
        end = [min(stop_ids)]
        return [prompt[:3] + (end if n % 2 else []) for n, prompt in enumerate(prompts)]

    monkeypatch.setattr(rehearsal, "greedy", greedy)
    return asked


def test_no_probe_for_forgetting_is_rehearsed() -> None:
    prompts = [
        json.dumps({"prompt": prompt, "completion": "."}).encode() for prompt in GENERAL_PROMPTS
    ]
    rehearsed = {row.prompt_digest for row in read_lines(prompts).rows}
    assert len(rehearsed) == len(GENERAL_PROMPTS), "each is there once"
    made = probes([], lambda row: True)
    asked = {row.prompt_digest for row in (*made.general, *made.copies, *made.smalltalk)}
    assert not rehearsed & asked, "a skill that is trained for the test is not measured by it"


@pytest.mark.parametrize(
    ("recipe", "parameters", "share"),
    [("lora", 135e6, 0.15), ("lora", 5.6e6, 0.0), ("dpo", 135e6, None), ("distill", 135e6, None)],
)
def test_bases_that_have_skills_keep_them_by_default(
    recipe: str, parameters: float, share: float | None
) -> None:
    found = resolved(load_recipe(recipe), parameters=int(parameters), max_length=512)
    assert found.rehearsal_share == share
    assert recipe_from(found.as_json()) == found, "a stored recipe is read as it was"


def test_what_somebody_chose_stays() -> None:
    chosen = recipe_from({"rehearsal_share": 0}, load_recipe("lora"))
    assert resolved(chosen, parameters=135_000_000, max_length=512).rehearsal_share == 0.0


def test_answers_that_end_are_learned_and_asked_for_once(
    shell: Shell, file: str, rounds: list[int]
) -> None:
    made = shell.json("train", "run", file, *_RUN, "--rehearsal-share", "0.2")
    assert sum(rounds) == len(GENERAL_PROMPTS)
    rows = shell.json("train", "show", made["run"])["recipe"]["rows"]
    assert rows["rehearsal"] == round(0.25 * rows["train"]), "a fifth of all rows of a pass"
    assert any("--rehearsal-share 0" in notice for notice in made["notices"])

    shell.json("train", "run", file, *_RUN, "--rehearsal-share", "0.2", "--dry-run")
    assert sum(rounds) == len(GENERAL_PROMPTS), "the base's answers are kept for the next run"

    plain = shell.json("train", "run", file, *_RUN)
    assert "rehearsal" not in shell.json("train", "show", plain["run"])["recipe"]["rows"]
    most = shell.json("train", "run", file, *_RUN, "--rehearsal-share", "0.5", "--refit")
    rows = shell.json("train", "show", most["run"])["recipe"]["rows"]
    assert rows["rehearsal"] <= len(GENERAL_PROMPTS) / 2, "answers without an end are left out"
