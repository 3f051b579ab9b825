"""Files of rows become dataset versions, by the reader that `training` brings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedback import datasets, queue
from feedback.erasing import erase_user
from feedback.importing import ImportResult, import_files
from feedback.queue import Decision
from tests import builders
from tests.feedback.world import ALIAS, NOW, queued, seed_dataset, seed_row
from tests.training.tiny import write_rows
from whet.access import hash_key
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, WhetError
from whet.lineage import identify, trace
from whet.row_files import RowFileOptions

PARTS = ("train", "validation", "test")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty different questions, two of them by one user."""
    users = {3: "u-1", 4: "u-1"}
    return write_rows(
        tmp_path / "rows.jsonl", [seed_row(n, **_user(users.get(n))) for n in range(40)]
    )


def _user(name: str | None) -> dict[str, str]:
    return {"user": name} if name else {}


def bring(
    context: Context, *files: Path, at: int = NOW, alias: str = ALIAS, **over: Any
) -> ImportResult:
    options = RowFileOptions(**over.pop("options", {}))
    return import_files(context, alias, files, options, actor="ola", now=at, **over)


def all_rows(context: Context, version: datasets.DatasetVersion) -> dict[str, dict[str, Any]]:
    found = datasets.read_rows(context.store, version.path)
    return {row["id"]: row for part in found.values() for row in part}


def review_one(context: Context, question: str, at: int) -> str:
    (item,) = queued(context, 1, at=at, question=question)
    done = queue.decide(context.database, item, "ada", Decision("edit", "36 months."), now=at)
    assert done.example_id
    return done.example_id


def test_a_file_becomes_a_version_once(sqlite_context: Context, rows: Path) -> None:
    stages: list[str] = []
    first = bring(sqlite_context, rows, progress=stages.append)
    assert first.is_new and first.version and first.version.label == "support@1"
    assert first.version.source == "files" and sum(first.version.rows.values()) == 40
    assert first.version.rows["test"] >= 4, "a part is held out, as in a run"
    assert first.notices[0].startswith("Using 40 of 40 rows")
    assert stages[0] == "reading rows.jsonl" and stages[-2:] == ["splitting", "storing"]
    again = bring(sqlite_context, rows, at=NOW + 9)
    assert (again.version, again.is_new) == (first.version, False)
    found = datasets.read_rows(sqlite_context.store, first.version.path)
    assert datasets.rows_digest(found) == first.version.digest


def test_a_dry_run_stores_nothing_and_knows_the_version(
    sqlite_context: Context, rows: Path
) -> None:
    made = bring(sqlite_context, rows, is_dry_run=True)
    assert (
        made.version is None and made.is_new and not sqlite_context.store.exists(made.folder.path)
    )
    with reading(sqlite_context.database) as connection:
        assert datasets.list_versions(connection) == []
    assert bring(sqlite_context, rows).folder.digest == made.folder.digest
    assert bring(sqlite_context, rows, is_dry_run=True).version is not None


def test_bad_rows_are_refused_in_the_words_of_the_check(
    sqlite_context: Context, tmp_path: Path
) -> None:
    from training.data.formats import read_good

    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(seed_row(1)) + '\n{"prompt": "Hello?"}\nno json\n')
    with pytest.raises(InputError) as expected:
        read_good(path, skip_bad=False)
    with pytest.raises(InputError) as refused:
        bring(sqlite_context, path)
    assert str(refused.value) == str(expected.value)
    forged = write_rows(tmp_path / "forged.jsonl", [seed_row(1), seed_row(2, answer="<|end|>")])
    with pytest.raises(InputError, match=r"forged.jsonl: 1 row cannot be learned from") as refused:
        bring(sqlite_context, forged)
    assert "<|end|>" in str(refused.value)
    made = bring(sqlite_context, forged, options={"skip_bad": True})
    assert made.version and sum(made.version.rows.values()) == 1


def test_reviewed_rows_build_upon_imported_ones(sqlite_context: Context, rows: Path) -> None:
    seed_dataset(sqlite_context)  # what the live adapter learned from
    made = bring(sqlite_context, rows)
    assert made.version and any("build upon these rows now" in notice for notice in made.notices)
    example = review_one(sqlite_context, "Is the lamp waterproof?", NOW + 5)
    built = datasets.build(sqlite_context, ALIAS, actor="ada", now=NOW + 9)
    assert built.parents == [made.version.digest] and built.source == "build"
    assert all_rows(sqlite_context, built).keys() == {
        example, *all_rows(sqlite_context, made.version)
    }  # fmt: skip
    assert datasets.origins(sqlite_context.store, built.path) == {"seed": 40, "review": 1}
    with writing(sqlite_context.database) as connection:
        adapter = builders.add_adapter(
            connection, NOW + 20, version=2, dataset=built.digest, card={"dataset_path": built.path}
        )
        builders.add_rollout(connection, NOW + 20, generation=2, stable=adapter)
    review_one(sqlite_context, "Is the kettle red?", NOW + 25)
    later = datasets.build(sqlite_context, ALIAS, actor="ada", now=NOW + 30)
    assert later.parents == [built.digest] and len(all_rows(sqlite_context, later)) == 42


def test_a_version_that_goes_live_later_is_what_reviewed_rows_build_upon(
    sqlite_context: Context, rows: Path
) -> None:
    made = bring(sqlite_context, rows, at=NOW - 2 * builders.DAY)
    seed = seed_dataset(sqlite_context)  # live since a day
    review_one(sqlite_context, "Is the lamp waterproof?", NOW)
    assert datasets.build(sqlite_context, ALIAS, actor="ada", now=NOW).parents == [seed]
    again = bring(sqlite_context, rows)
    assert made.version and not again.is_new
    assert any(f"--dataset {made.version.label}" in notice for notice in again.notices)


def test_an_erased_users_rows_go_from_the_next_version_and_come_in_no_more(
    sqlite_context: Context, rows: Path
) -> None:
    made = bring(sqlite_context, rows)
    assert made.version
    receipt = erase_user(
        sqlite_context.database, sqlite_context.store, "u-1", secret=sqlite_context.secret,
        actor="admin", now=NOW + 1,
    )  # fmt: skip
    assert receipt["subject_hash"] == hash_key("u-1", sqlite_context.secret)
    assert receipt["datasets_that_still_hold_rows"] == ["support@1"]
    review_one(sqlite_context, "Is the lamp waterproof?", NOW + 5)
    built = datasets.build(sqlite_context, ALIAS, actor="ada", now=NOW + 9)
    assert not {"seed-train-3", "seed-train-4"} & all_rows(sqlite_context, built).keys()
    again = bring(sqlite_context, rows, at=NOW + 10)
    assert again.is_new and again.version and sum(again.version.rows.values()) == 38
    assert any("2 rows of end users who were erased" in notice for notice in again.notices)


def test_rows_reviewed_elsewhere_are_seed_rows(sqlite_context: Context, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "r.jsonl", [seed_row(n, origin="review") for n in range(30)])
    made = bring(sqlite_context, path)
    assert made.version and datasets.origins(sqlite_context.store, made.version.path) == {
        "seed": 30
    }
    built = datasets.build(sqlite_context, ALIAS, actor="ada", now=NOW)
    assert built.example_ids == [] and any("30 rows reviewed elsewhere" in n for n in made.notices)


def test_the_same_rows_for_another_alias_are_refused_with_the_command(
    sqlite_context: Context, rows: Path
) -> None:
    bring(sqlite_context, rows)
    with pytest.raises(ConflictError) as refused:
        bring(sqlite_context, rows, alias="billing")
    assert "support@1" in str(refused.value)
    assert "whet train run --dataset support@1 --alias billing" in str(refused.value.hint)


def test_several_files_and_a_test_file_are_one_version(
    sqlite_context: Context, tmp_path: Path, rows: Path
) -> None:
    more = write_rows(tmp_path / "more.jsonl", [seed_row(n, split="more") for n in range(10)])
    test = write_rows(tmp_path / "test.jsonl", [seed_row(n, split="test") for n in range(5)])
    made = bring(sqlite_context, rows, more, options={"test": test})
    assert made.version and made.version.rows == {"train": 50, "validation": 0, "test": 5}
    with reading(sqlite_context.database) as connection:
        (ref,) = identify(connection, "support@1")
        what = trace(connection, ref)["what"]
    assert "imported from rows.jsonl, more.jsonl" in what


@pytest.mark.parametrize("alias", ["Support", "a--b"])
def test_an_alias_that_cannot_be_a_name_is_refused(
    sqlite_context: Context, rows: Path, alias: str
) -> None:
    with pytest.raises(WhetError, match="not usable"):
        bring(sqlite_context, rows, alias=alias)
