"""The commands: what they print, as JSON for scripts, and how they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from feedback import cli
from tests.feedback.world import queued, seed_dataset, seed_row
from whet.context import Context
from whet.errors import InputError, NotFoundError, WhetError


@pytest.fixture
def run(sqlite_context: Context, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WHET_HOME", str(sqlite_context.settings.home))
    erase = typer.Typer()
    erase.command("erase")(cli.erase)
    apps = {"review": cli.review, "datasets": cli.datasets, "erase": erase}

    def call(name: str, *arguments: str, text: str = "") -> Any:
        result = CliRunner().invoke(apps[name], [*arguments], input=text)
        if isinstance(result.exception, WhetError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout) if "--json" in arguments else result.stdout

    return call


def test_a_conversation_goes_from_the_queue_to_a_dataset_by_commands(
    sqlite_context: Context, run: Any, tmp_path: Path
) -> None:
    seed_dataset(sqlite_context)
    queued(sqlite_context, 2)
    item = run("review", "next", "--json")
    assert item["answer"] == "0 months." and item["why"]
    done = run(
        "review",
        "decide",
        item["item_id"],
        "edit",
        "--answer",
        "-",
        "--label",
        "outdated",
        "--json",
        text="36 months.\n",
    )
    assert done["example_id"]
    assert run("review", "stats", "--json")["decided_today_by_me"] == 1
    built = run("datasets", "build", "--json")
    assert (built["version"], built["reviewed"]) == ("support@2", 1)
    assert [row["version"] for row in run("datasets", "list", "--json")] == [
        "support@2",
        "support@1",
    ]
    assert run("datasets", "show", "support", "--json")["example_ids"] == [done["example_id"]]
    difference = run("datasets", "diff", "support@1", "support@2", "--json")
    assert [row["id"] for rows in difference["added"].values() for row in rows] == [
        done["example_id"]
    ]
    assert "added" in run("datasets", "diff", "support@1", "support@2")
    assert (
        len(run("datasets", "export", "support@2", str(tmp_path / "out"), "--json")["files"]) == 4
    )
    assert run("erase", "--user", "nobody", "--yes", "--json")["erased"]["examples"] == 0


def test_an_empty_queue_is_no_error(run: Any) -> None:
    assert run("review", "next", "--json") == {"item": None}
    assert "Nothing waits for review." in run("review", "next")


def test_mistakes_are_sentences(run: Any, sqlite_context: Context) -> None:
    for arguments, error in (
        (("review", "decide", "itm_x", "approve"), NotFoundError),
        (("datasets", "build"), InputError),
        (("datasets", "show", "support@7"), NotFoundError),
        (("datasets", "list", "--alias", "nobody"), NotFoundError),
        (("datasets", "retraining", "--alias", "nobody"), NotFoundError),
        (("review", "next", "--alias", "nobody"), NotFoundError),
        (("review", "stats", "--alias", "nobody"), NotFoundError),
        (("erase", "--user", " ", "--yes"), InputError),
        (("erase", "--user", "u", "--json"), InputError),
    ):
        with pytest.raises(error):
            run(*arguments)


def test_a_version_is_shown_by_figures_and_reasons_and_its_ids_on_demand(
    sqlite_context: Context, run: Any
) -> None:
    seed_dataset(sqlite_context)
    asked = seed_row(4)["messages"][1]["content"]
    ids = []
    for answer in ("5 euros.", "6 euros."):
        (item,) = queued(sqlite_context, 1, question=asked)
        done = run("review", "decide", item, "edit", "--answer", answer, "--json")
        ids.append(done["example_id"])
    run("datasets", "build")
    text = run("datasets", "show", "support@2")
    assert "12 train, 0 validation, 4 test" in text
    assert "1 seed row\n  1  by another reviewed answer\n" in text
    assert "1 row\n  1  a newer reviewed answer to the same question stands\n" in text
    assert "support@1" in text and "each weighs 4 times a seed row" in text
    assert not any(example in text for example in ids), "ids only with --verbose"
    full = run("datasets", "show", "support@2", "--verbose")
    assert all(example in full for example in ids) and "seed-train-4" in full
    about = run("datasets", "show", "support@2", "--json")
    assert about["superseded_by_reason"] == {"by another reviewed answer": 1}
    assert about["left_out"][0]["id"] == ids[0] and about["example_ids"] == [ids[1]]


def test_the_policy_says_its_sentence(sqlite_context: Context, run: Any) -> None:
    seed_dataset(sqlite_context)
    (row,) = run("datasets", "retraining", "--json")
    assert row["decision"]["reason"] == "0 new reviewed examples of the 100 needed."
    shown = " ".join(run("datasets", "retraining").split())
    assert "support too_few 0 0 new reviewed examples of the 100 needed." in shown
