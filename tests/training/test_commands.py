"""The commands as a person calls them, in their own process: output, exit code, and the sentence
for bad input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.training.tiny import facts, write_rows
from whet.cli import app
from whet.errors import WhetError


class Shell:
    """Runs `whet …` in a home of its own: in this process, where the heavy imports are done
    already, save for `in_a_process`.
    """

    def __init__(self, home: Path, base: Path) -> None:
        self._environment = {"WHET_HOME": str(home), "WHET_BASE_MODEL": str(base), "COLUMNS": "200"}

    def __call__(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), env=self._environment)
        assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """The sentence of a command that must not succeed; its exit code is 2."""
        result = CliRunner().invoke(app, list(arguments), env=self._environment)
        if isinstance(result.exception, WhetError):
            assert result.exception.exit_code == 2
            return str(result.exception)
        assert result.exit_code == 2, f"{arguments}: {result.output} {result.exception!r}"
        return result.output

    def in_a_process(
        self, *arguments: str, before: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`before`: Python to run in that process first, for what a test plants."""
        command = (
            ["-c", f"{before}; from whet.cli import main; main()"] if before else ["-m", "whet.cli"]
        )
        return subprocess.run(
            [sys.executable, *command, *arguments],
            env={**os.environ, **self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=280,
        )


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return str(write_rows(tmp_path / "rows.jsonl", facts(120)))


_QUICK = ("--rank", "8", "--epochs", "2", "--lr", "5e-3", "--threads", "1")


def test_from_a_file_to_a_stored_version_and_out_again(
    shell: Shell, rows: str, tmp_path: Path
) -> None:
    test_file = write_rows(tmp_path / "test.jsonl", facts(144)[120:])
    made = shell.json("train", "run", rows, "--alias", "desk", "--test", str(test_file), *_QUICK)
    assert made["adapter"] == "desk@v1" and made["metrics"]["old"]["n"] == 24
    assert (
        made["verdict"] in ("pass", "fail", "inconclusive")
        and made["reason"]
        and made["next"].startswith("whet ")
    )
    run = shell.json("train", "show", made["run"])
    assert (
        run["state"] == "succeeded"
        and run["evaluations"][0]["verdict"] == made["verdict"]
        and run["recipe"]["rank"] == 8
    )
    assert [row["id"] for row in shell.json("train", "list")] == [made["run"]]
    assert shell.json("adapters", "verify")[0]["intact"] is True
    shell("export", "adapter", "desk", "--to", str(tmp_path / "out"))
    assert (
        shell.json("adapters", "import", str(tmp_path / "out"), "--name", "other")["adapter"]
        == "other@v1"
    )
    judged_by = write_rows(
        tmp_path / "judged.jsonl",
        [*facts(144)[120:], {"id": "long", "prompt": "word " * 3000, "completion": "a"}],
    )
    compared = shell.json("eval", "compare", "other", "desk@v1", "--test", str(judged_by))
    assert compared["metrics"]["old"]["difference"] == 0, "the same weights answer alike"
    assert compared["metrics"]["old"]["n"] == 24 and len(compared["left_out"]) == 1, (
        "what nobody can be asked counts for nobody, and is named"
    )
    shell("export", "merge", "desk", "--to", str(tmp_path / "merged"))
    assert (tmp_path / "merged" / "model.safetensors").is_file() and (
        tmp_path / "merged" / "chat_template.jinja"
    ).is_file()
    shell("adapters", "remove", "other")
    assert [row["adapter"] for row in shell.json("adapters", "list")] == ["desk@v1"]
    assert "desk@v1" in shell("adapters", "show", "desk@v1")


def test_a_dry_run_says_what_a_run_costs_and_starts_none(shell: Shell, rows: str) -> None:
    expected = shell.json("train", "run", rows, "--dry-run", *_QUICK)
    assert (
        expected["tokens"] > 0
        and expected["steps"] > 0
        and expected["seconds"] > 0
        and expected["peak_memory_bytes"] > 0
    )
    assert shell.json("train", "list") == []


def test_checking_shows_what_is_wrong_and_what_the_model_sees(
    shell: Shell, rows: str, tmp_path: Path
) -> None:
    assert "It is 24 months." in shell("data", "check", rows)
    found = shell.json("data", "stats", rows)
    assert (
        found["rows"]
        == 120
        == found["end_of_turn_learned"]
        == sum(bin_["rows"] for bin_ in found["histogram"])
    )
    assert (found["without_learned_token"], found["duplicates"], found["truncated"]) == (0, 0, 0)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        Path(rows).read_text()
        + '{"prompt": "q"}\n'
        + json.dumps({"prompt": "word " * 3000, "completion": "a"})
        + "\n"
    )
    said = shell.refused("data", "check", str(bad))
    assert "line 121: found no field 'completion'" in said and "line 122" in said


def test_splitting_writes_three_files_once(shell: Shell, rows: str, tmp_path: Path) -> None:
    into = tmp_path / "parts"
    made = shell.json("data", "split", rows, "--into", str(into))
    assert sum(made[part] for part in ("train", "validation", "test")) == 120
    assert (
        sum(
            len((into / f"{part}.jsonl").read_text().splitlines())
            for part in ("train", "validation", "test")
        )
        == 120
    )
    assert "already" in shell.refused("data", "split", rows, "--into", str(into))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "run"), "Expected either a FILE or --dataset"),
        (("train", "run", "none.jsonl"), "cannot be read"),
        (("train", "run", "ROWS", "--rank", "65"), "Rank 65 cannot be served"),
        (("train", "run", "ROWS", "--method", "magic"), "method is 'magic'"),
        (("train", "run", "ROWS", "--alias", "../x"), "is not usable"),
        (("train", "run", "ROWS", "--recipe", "nope"), "no recipe 'nope'"),
        (("train", "run", "--dataset", "nope@v1"), "no dataset version 'nope@v1'"),
        (("train", "run", "EMPTY"), "holds no training row"),
        (("train", "run", "BAD"), "line 1: found"),
        (("train", "run", "ROWS", "--init-from", "nope@v1"), "no adapter 'nope@v1'"),
        (("train", "show", "run_nope"), "no run 'run_nope'"),
        (("train", "cancel", "run_nope"), "no run 'run_nope'"),
        (("adapters", "show", "nope"), "no adapter 'nope'"),
        (("adapters", "import", "ROWS"), "not a folder"),
        (("eval", "run", "nope", "--test", "ROWS"), "no adapter 'nope'"),
    ],
)
def test_bad_input_gets_a_sentence_and_exit_code_two(
    shell: Shell, rows: str, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "bad.jsonl").write_text("{oops\n")
    files = {
        "ROWS": rows,
        "EMPTY": str(tmp_path / "empty.jsonl"),
        "BAD": str(tmp_path / "bad.jsonl"),
    }
    assert sentence in shell.refused(*[files.get(argument, argument) for argument in arguments])


def test_a_process_of_its_own_prints_the_sentence_and_no_traceback(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text('{oops\n{"prompt": "q", "completion": "a"}\n')
    done = shell.in_a_process("train", "run", str(tmp_path / "bad.jsonl"))
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "line 1: found" in done.stderr
        and "--skip-bad" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_json_is_alone_on_standard_output_and_progress_on_standard_error(
    shell: Shell, rows: str
) -> None:
    quick = ("--alias", "desk", "--rank", "4", "--epochs", "1", "--threads", "1", "--no-report")
    done = shell.in_a_process("train", "run", rows, *quick, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adapter"] == "desk@v1"
    assert "training  step" in done.stderr and "stored as desk@v1: " in done.stderr
