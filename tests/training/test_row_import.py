"""Files that became a version by `whet datasets import` are trained on like any other version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows

QUICK = ("--alias", "desk", "--rank", "4", "--epochs", "1", "--threads", "1", "--no-report")


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


def test_an_imported_version_is_trained_and_is_what_a_run_on_the_file_would_store(
    shell: Shell, tmp_path: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(120)))
    planned = shell.json("datasets", "import", rows, "--alias", "desk", "--dry-run")
    assert planned["version"] is None and shell.json("datasets", "list") == []
    made = shell.json("datasets", "import", rows, "--alias", "desk")
    assert (made["version"], made["new"], made["digest"]) == ("desk@1", True, planned["digest"])
    text = shell("datasets", "import", rows, "--alias", "desk")
    assert "exists already with exactly these rows" in text
    assert "whet train run --dataset desk@1 --alias desk" in text
    shown = shell.json("datasets", "show", "desk@1")
    assert shown["origins"] == {"seed": sum(made[part] for part in ("train", "validation", "test"))}
    assert shown["imported"]["files"][0]["name"] == "rows.jsonl"
    assert "rows.jsonl (120 rows)" in shell("datasets", "show", "desk@1")
    shell("train", "run", "--dataset", "desk@1", *QUICK)
    shell("train", "run", rows, *QUICK, "--seed", "1")
    versions = shell.json("adapters", "list")
    assert {version["dataset_digest"] for version in versions} == {made["digest"]}


def test_what_cannot_be_read_is_a_sentence(shell: Shell, tmp_path: Path) -> None:
    missing = shell.refused("datasets", "import", str(tmp_path / "none.jsonl"), "--alias", "desk")
    assert "none.jsonl" in missing
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Hello?"}\n')
    bad = shell.refused("datasets", "import", str(tmp_path / "bad.jsonl"), "--alias", "desk")
    assert "bad.jsonl: 1 of 1 lines are not training rows" in bad


def test_progress_is_on_standard_error_and_the_answer_alone_on_standard_output(
    shell: Shell, tmp_path: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    done = shell.in_a_process("datasets", "import", rows, "--alias", "desk", "--json")
    assert done.returncode == 0 and done.stdout.startswith('{"version": "desk@1"')
    assert "reading rows.jsonl …" in done.stderr and "storing …" in done.stderr
