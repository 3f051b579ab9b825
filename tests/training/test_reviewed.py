"""Every reviewed conversation that stands is judged by, wherever the rows of a run come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from tests.training.tiny import facts
from training.data.datasets import PARTS, REGRESSION, Dataset, load, save, with_standing_reviews
from training.data.rows import Row, read_lines
from training.evaluation.answers import questions
from whet.context import Context
from whet.database import writing
from whet.tables import datasets


def rows(count: int, first: int = 0, **over: Any) -> list[Row]:
    return read_lines(
        [
            json.dumps({**row, "id": f"r{number}", **over}).encode()
            for number, row in list(enumerate(facts(first + count)))[first:]
        ]
    ).rows


def version(context: Context, number: int, train: list[Row], beside: list[Row]) -> Dataset:
    """A dataset version of `support`, as feedback stores it."""
    files = {"train": train, "validation": [], "test": [], "regression": beside}

    def fill(folder: Path) -> None:
        for name, some in files.items():
            if name in PARTS or some:
                (folder / f"{name}.jsonl").write_text(
                    "".join(json.dumps(row.raw) + "\n" for row in some)
                )

    path, digest = context.store.put_folder(f"datasets/version-{number}", fill), f"{number:064x}"
    with writing(context.database) as connection:
        row = {
            "digest": digest,
            "name": "support",
            "version": number,
            "path": path,
            "rows": {},
            "parents": [],
            "example_ids": [],
        }
        connection.execute(
            insert(datasets).values(**row, note=None, created_by="t", created_at=number)
        )
    return load(context.store, path, digest, "support")


def suite(dataset: Dataset) -> dict[str, str]:
    return {row.id: row.answer for row in questions(dataset).groups[REGRESSION]}


def test_a_run_on_a_file_is_judged_by_the_reviews_of_the_newest_version(
    sqlite_context: Context,
) -> None:
    reviewed, beside = rows(3, origin="review"), rows(2, first=3, origin="review")
    version(sqlite_context, 1, [*reviewed, *rows(4, first=6)], beside)
    file = save(
        sqlite_context.store, "file", {"train": rows(5, first=12), "validation": [], "test": []}
    )
    assert suite(file) == {}, "the file alone knows nothing of them"
    found = with_standing_reviews(sqlite_context, "support", file)
    assert suite(found).keys() == {"r0", "r1", "r2", "r3", "r4"}
    assert suite(with_standing_reviews(sqlite_context, "other", file)) == {}
    assert found.train == file.train, "and learns nothing else"


def test_of_two_reviews_of_one_question_the_newest_version_s_stands(
    sqlite_context: Context,
) -> None:
    first = version(sqlite_context, 1, rows(3, origin="review"), [])
    changed = json.loads(json.dumps(rows(1, origin="review")[0].raw))
    changed["messages"][-1]["content"] = "Something else now."
    version(sqlite_context, 2, read_lines([json.dumps(changed).encode()]).rows, [])
    found = suite(with_standing_reviews(sqlite_context, "support", first))
    assert found.keys() == {"r0", "r1", "r2"} and found["r0"] == "Something else now."


def test_a_version_s_own_reviews_are_asked_once(sqlite_context: Context) -> None:
    own = version(sqlite_context, 1, rows(3, origin="review"), rows(2, first=3, origin="review"))
    group = questions(with_standing_reviews(sqlite_context, "support", own)).groups[REGRESSION]
    assert sorted(row.id for row in group) == ["r0", "r1", "r2", "r3", "r4"]
