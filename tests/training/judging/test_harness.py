"""Benchmarks of lm-evaluation-harness, with a task of our own: its own take their questions from a
hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from training.evaluation import harness
from whet.errors import ConfigurationError

RESULT: dict[str, Any] = {
    "results": {
        "desk": {"alias": "desk", "sample_len": 4, "acc,none": 0.5, "acc_stderr,none": 0.25},
        "maths": {"exact_match,strict": 1.0, "exact_match_stderr,strict": "N/A"},
    },
    "n-samples": {"desk": {"original": 9, "effective": 4}, "maths": {"effective": 2}},
}


def test_scores_stand_beside_those_of_the_base() -> None:
    base = {"results": {"desk": {"acc,none": 0.75, "acc_stderr,none": 0.2}}}
    found = harness.scores({"candidate": RESULT, "base": base})
    assert [(each.task, each.metric, each.questions) for each in found] == [
        ("desk", "acc", 4),
        ("maths", "exact_match (strict)", 2),
    ]
    assert (found[0].candidate, found[0].candidate_error) == (0.5, 0.25)
    assert (found[0].base, found[0].base_error) == (0.75, 0.2)
    assert (found[1].candidate_error, found[1].base) == (None, None)
    rows = harness.table({"scores": [each.as_json() for each in found]})
    assert rows[0]["version"] == "0.500 ± 0.250" and rows[1]["base"] == "–"


def test_without_the_package_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="'lm-eval', which is not installed") as refused:
        harness.require_installed()
    assert "make setup-harness" in str(refused.value.hint)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with one task: how long a warranty is, of three choices."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        {
            "question": f"Warranty of the {item}?",
            "choices": ["24 months", "a day", "no"],
            "right": 0,
        }
        for item in ("kettle", "lamp", "radio")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "desk_choice",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "right",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "desk.yaml").write_text(json.dumps(task))  # which YAML reads
    away = {**task, "task": "far_away", "dataset_path": "nobody/nothing", "dataset_kwargs": {}}
    (folder / "away.yaml").write_text(json.dumps(away))
    return folder


@pytest.mark.slow
def test_a_version_and_its_base_are_asked_and_shown_beside_the_report(
    tmp_path: Path, base_folder: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="`make setup-harness` installs it")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    shell = Shell(tmp_path / "home", base_folder)
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    quick = ("--alias", "desk", "--rank", "4", "--epochs", "1", "--threads", "1")
    shell("train", "run", rows, *quick)
    asked = ("eval", "harness", "desk@v1", "--include-path", str(tasks))
    found = shell.json(*asked, "--tasks", "desk_choice")
    (score,) = found["scores"]
    assert (score["task"], score["metric"], score["questions"]) == ("desk_choice", "acc", 3)
    assert 0 <= score["candidate"] <= 1 and score["base"] is not None
    assert "desk_choice" in shell(*asked, "--tasks", "desk_choice", "--limit", "1", "--no-base")
    shown = shell.json("eval", "report", "desk@v1")["harness"]
    assert [each["scores"][0]["questions"] for each in shown] == [1, 3], "the newest first"
    assert "desk_choice" in shell("eval", "report", "desk@v1")
    assert "cannot be had" in shell.refused(*asked, "--tasks", "far_away")
    assert "no task 'desk_choise'" in shell.refused(*asked, "--tasks", "desk_choise")
