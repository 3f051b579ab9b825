"""The data commands as a person calls them: files in, files and records out, one sentence for what
cannot be.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_drops_test_rows_that_repeat_its_rows_and_asks_where_they_are_many(
    shell: Shell, tmp_path: Path
) -> None:
    rows = facts(40)
    copied = [
        {
            **row,
            "messages": [
                {"role": "user", "content": row["messages"][0]["content"].upper() + "!!"},
                row["messages"][1],
            ],
        }
        for row in rows[7:9]
    ]
    train, test = (
        write_rows(tmp_path / "rows.jsonl", rows),
        write_rows(tmp_path / "test.jsonl", [*facts(60)[50:], *copied]),
    )
    said = shell.refused("train", "run", str(train), "--test", str(test), "--dry-run")
    assert "2 of 12 test rows (17 %) would be dropped to prevent train/test leakage" in said
    assert "line 11 " in said and "the same question as line 8 " in said
    assert "2 of 12 test rows" in shell.refused("data", "check", str(train), "--test", str(test))
    made = shell.json(
        "train",
        "run",
        str(train),
        "--test",
        str(test),
        "--dry-run",
        "--drop-leaks",
        "--threads",
        "1",
    )
    assert made["rows"] == 40 and any(
        "line 11: found the same question" in notice for notice in made["notices"]
    )


def test_a_run_says_before_its_first_step_what_a_check_would_warn_of(
    shell: Shell, tmp_path: Path
) -> None:
    """Whoever never called `whet data check` hears of it all the same."""
    rows = facts(40)
    answered = {
        **rows[3],
        "id": "other",
        "messages": [
            rows[3]["messages"][0],
            {"role": "assistant", "content": "Write to a.person@example.com."},
        ],
    }
    file = str(write_rows(tmp_path / "rows.jsonl", [*rows, answered]))
    said = "\n".join(
        shell.json("train", "run", file, "--no-split", "--dry-run", "--threads", "1")["notices"]
    )
    assert (
        "warning: 1 questions have more than one answer. Lines 4+41." in said
        and "warning: 1 rows hold personal data (1 EMAIL). Lines 41." in said
    )
    assert "warning" not in str(
        shell.json(
            "train",
            "run",
            str(write_rows(tmp_path / "good.jsonl", rows)),
            "--no-split",
            "--dry-run",
            "--threads",
            "1",
        )["notices"]
    )


def test_cleaning_leaves_a_record_of_what_went_in_and_came_out(
    shell: Shell, tmp_path: Path
) -> None:
    rows = [
        {"prompt": "I am\u00a0a@b.com\u200b ", "completion": "Thank you."},
        *facts(3),
        facts(1)[0],
    ]
    into = tmp_path / "clean.jsonl"
    shell("data", "clean", str(write_rows(tmp_path / "rows.jsonl", rows)), "--into", str(into))
    clean, record = _lines(into), json.loads((tmp_path / "clean.jsonl.record.json").read_text())
    assert (
        len(clean) == 4
        and clean[0]["prompt"] == "I am <EMAIL_1>"
        and clean[0]["scrubbed"] == ["<EMAIL_1>"]
    )
    assert [(step["step"], step["rows"]) for step in record["steps"]] == [
        ("normalise", 1),
        ("scrub", 1),
        ("duplicates", 1),
    ]
    assert record["steps"][1]["found"] == {"EMAIL": 1} and record["steps"][2]["lines"] == [
        {"line": 5, "stays": 2}
    ]
    assert (
        record["result"]["sha256"] == hashlib.sha256(into.read_bytes()).hexdigest()
        and record["libraries"]["google-re2"]
    )
    assert "exists already" in shell.refused(
        "data", "clean", str(tmp_path / "rows.jsonl"), "--into", str(into)
    )
    found = shell.json("data", "check", str(into), "--report", str(tmp_path / "report.html"))
    assert found["errors"] == 0 and (tmp_path / "report.html").read_text().startswith(
        "<!doctype html>"
    )


def test_parts_are_split_augmented_and_mixed_with_an_earlier_split_that_binds(
    shell: Shell, tmp_path: Path
) -> None:
    first = shell.json(
        "data",
        "split",
        str(write_rows(tmp_path / "rows.jsonl", facts(60))),
        "--into",
        str(tmp_path / "one"),
    )
    more = write_rows(tmp_path / "more.jsonl", facts(90))
    second = shell.json(
        "data",
        "split",
        str(more),
        "--into",
        str(tmp_path / "two"),
        "--parent",
        str(tmp_path / "one"),
        "--test",
        "0.4",
    )
    assert (
        sum(second[part] for part in ("train", "validation", "test")) == 90
        and second["test"] > first["test"]
    )
    for part in ("train", "validation", "test"):
        kept = {row["id"] for row in _lines(tmp_path / "two" / f"{part}.jsonl")}
        assert {row["id"] for row in _lines(tmp_path / "one" / f"{part}.jsonl")} <= kept, (
            f"a row left {part}"
        )
    train = tmp_path / "one" / "train.jsonl"
    shell("data", "augment", str(train), "--into", str(tmp_path / "new.jsonl"), "--per-row", "2")
    made = _lines(tmp_path / "new.jsonl")
    assert (
        made
        and {row["origin"] for row in made} == {"synthetic"}
        and {row["parent"] for row in made} <= {row["id"] for row in _lines(train)}
    )
    assert "held-out part" in shell.refused(
        "data", "augment", str(tmp_path / "one" / "test.jsonl"), "--into", str(tmp_path / "x.jsonl")
    )
    mixed = shell.json(
        "data",
        "mix",
        str(train),
        str(tmp_path / "new.jsonl"),
        "--into",
        str(tmp_path / "all.jsonl"),
        "--temperature",
        "3",
        "--balance",
    )
    assert (
        mixed["result"]["rows"]
        == len(_lines(train)) + len(made)
        == len(_lines(tmp_path / "all.jsonl"))
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("augment", "ROWS", "--into", "OUT", "--methods", "magic"), "names magic"),
        (("augment", "ROWS", "--into", "OUT", "--methods", "paraphrase"), "names no endpoint"),
        (("mix", "ROWS", "ROWS", "--into", "OUT"), "Two files have one name"),
        (("mix", "ROWS", "--into", "OUT", "--temperature", "0"), "temperature is 0"),
        (
            ("mix", "ROWS", "--into", "OUT", "--replay", "ROWS", "--share", "1"),
            "share of replayed rows",
        ),
        (("split", "ROWS", "--into", "OUT", "--parent", "ROWS"), "cannot be read"),
        (("split", "ROWS", "--into", "OUT", "--by-time", "when"), "no time in 'when'"),
        (("clean", "none.parquet", "--into", "OUT"), "cannot be read"),
        (("clean", "ROWS", "--into", "OUT", "--region", "germany"), "'germany' is not one"),
        (("check", "ROWS", "--region", "UK"), "'UK' is not one"),
        (("clean", "ROWS", "--into", "o" * 300), "cannot be written: File name too long"),
    ],
)
def test_a_wrong_call_gets_a_sentence_and_writes_nothing(
    shell: Shell, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    names = {
        "ROWS": str(write_rows(tmp_path / "rows.jsonl", facts(12))),
        "OUT": str(tmp_path / "out"),
    }
    assert sentence in shell.refused(
        "data", *[names.get(argument, argument) for argument in arguments]
    )
    assert not (tmp_path / "out").exists()


def test_lines_that_were_left_out_are_counted_and_recorded_by_every_step(
    shell: Shell, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", facts(12))
    rows.write_text("{oops\n" + rows.read_text())
    calls = {
        "clean": ("clean", str(rows), "--into", str(tmp_path / "clean.jsonl")),
        "augment": ("augment", str(rows), "--into", str(tmp_path / "augment.jsonl")),
        "mix": ("mix", str(rows), "--replay", str(rows), "--into", str(tmp_path / "mix.jsonl")),
    }
    for step, arguments in calls.items():
        said = shell("data", *arguments, "--skip-bad")
        refused = json.loads((tmp_path / f"{step}.jsonl.record.json").read_text())["refused"]
        assert [bad["line"] for bad in refused] == [1] * (
            2 if step == "mix" else 1
        ) and "oops" in refused[0]["found"], step
        assert f"refused {len(refused)}" in " ".join(said.split()), said
    made = shell.json("data", "split", str(rows), "--into", str(tmp_path / "parts"), "--skip-bad")
    assert [bad["line"] for bad in made["refused"]] == [1]
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert manifest["refused"] == made["refused"] and manifest["borrowed"] == made["borrowed"]


def test_a_split_says_which_rows_a_part_borrowed(shell: Shell, tmp_path: Path) -> None:
    said = shell(
        "data",
        "split",
        str(write_rows(tmp_path / "rows.jsonl", facts(4))),
        "--into",
        str(tmp_path / "parts"),
    )
    assert (
        "1 of the rows in validation are there because it would be too small without them"
        in " ".join(said.split())
        and "--parent" in said
    )


def test_a_link_to_a_held_out_part_is_one(shell: Shell, tmp_path: Path) -> None:
    shell(
        "data",
        "split",
        str(write_rows(tmp_path / "rows.jsonl", facts(40))),
        "--into",
        str(tmp_path / "parts"),
    )
    link = tmp_path / "harmless.jsonl"
    link.symlink_to(tmp_path / "parts" / "test.jsonl")
    assert "held-out part" in shell.refused(
        "data", "augment", str(link), "--into", str(tmp_path / "x.jsonl")
    )


def test_mixed_weights_can_be_read_again(shell: Shell, tmp_path: Path) -> None:
    rows = [
        {**row, "weight": weight} for row, weight in zip(facts(4), (1e-4, 1e4, 1, 1), strict=True)
    ]
    mixed = shell.json(
        "data", "mix", str(write_rows(tmp_path / "own.jsonl", rows)), str(write_rows(tmp_path / "other.jsonl", facts(40)[4:])),
        "--into", str(tmp_path / "all.jsonl"), "--temperature", "4", "--balance",
    )  # fmt: skip
    assert (
        mixed["result"]["rows"] == 40
        and mixed["refused"] == []
        and any("weigh that" in notice for notice in mixed["notices"])
    )
    assert all(1e-4 <= row.get("weight", 1) <= 1e4 for row in _lines(tmp_path / "all.jsonl"))
