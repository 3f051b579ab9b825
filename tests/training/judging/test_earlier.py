"""Earlier tasks: found through the lineage of datasets and through earlier versions, without what
has changed or is judged already.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import insert

from tests.serving.conftest import add_version
from tests.training.tiny import facts
from training.data.datasets import PARTS, Dataset, save
from training.data.rows import Row, read_lines
from training.evaluation.earlier import MOST_ROWS, earlier_rows
from whet.context import Context
from whet.database import writing
from whet.store import digest_json
from whet.tables import datasets


def rows(raw: list[dict[str, Any]]) -> list[Row]:
    return read_lines(json.dumps(row).encode() for row in raw).rows


def digests(some: list[Row]) -> set[str]:
    return {row.digest for row in some}


def dataset(
    context: Context, version: int, train: list[Row], test: list[Row], parents: tuple[str, ...] = ()
) -> Dataset:
    """A dataset version in the store and the table, as feedback makes them."""
    made = save(context.store, "support", {"train": train, "validation": [], "test": test})
    values = {
        "name": "support",
        "version": version,
        "path": made.path,
        "rows": dict.fromkeys(PARTS, 1),
        "parents": list(parents),
        "example_ids": [],
        "created_by": "t",
        "created_at": version,
    }
    with writing(context.database) as connection:
        connection.execute(insert(datasets).values(digest=made.digest, **values))
    return made


def test_test_rows_of_ancestors_and_of_earlier_versions_are_asked_again(context: Context) -> None:
    some = rows(facts(90))
    first = dataset(context, 1, some[:20], some[20:30])
    second = dataset(context, 2, some[30:40], some[40:50], (first.digest,))
    by_file = save(
        context.store, "file", {"train": some[50:60], "validation": [], "test": some[60:70]}
    )
    add_version(context, "support", 1, card={"dataset_path": by_file.path})
    with writing(context.database) as connection:
        connection.exec_driver_sql(f"UPDATE adapters SET dataset_digest = '{by_file.digest}'")
    now = dataset(context, 3, some[70:80], some[80:90], (second.digest,))
    found = {
        label: {row.digest for row in kept} for label, kept in earlier_rows(context, "support", now)
    }
    assert found == {
        "support@v2": digests(some[40:50]),
        "support@v1": digests(some[20:30]),
        by_file.digest[:8]: digests(some[60:70]),
    }
    assert earlier_rows(context, "another", first) == []


def test_what_is_judged_already_or_has_another_answer_now_is_left_out(
    sqlite_context: Context,
) -> None:
    some, changed = rows(facts(30)), rows(facts(30, shift=1))
    first = dataset(sqlite_context, 1, some[:10], some[10:20])
    now = dataset(sqlite_context, 2, [*some[:10], *changed[10:14]], some[14:18], (first.digest,))
    ((_, kept),) = earlier_rows(sqlite_context, "support", now)
    assert digests(kept) == digests(some[18:20]), (
        "four are asked with the dataset itself, four have another answer now"
    )


def test_a_dataset_whose_files_are_gone_is_passed_over_and_a_large_one_is_sampled(
    sqlite_context: Context,
) -> None:
    some = rows(facts(120))
    gone = dataset(sqlite_context, 1, some[:5], some[5:10])
    large = dataset(sqlite_context, 2, some[10:20], some[20:100], (gone.digest,))
    sqlite_context.store.remove_folder(gone.path)
    now = dataset(sqlite_context, 3, some[100:110], some[110:], (large.digest,))
    once, again = (earlier_rows(sqlite_context, "support", now) for _ in range(2))
    assert [(label, len(kept)) for label, kept in once] == [
        ("support@v2", MOST_ROWS)
    ] and once == again


def test_rows_of_two_files_with_one_id_are_never_taken_for_each_other(
    sqlite_context: Context,
) -> None:
    some = rows([{**row, "id": str(number % 10)} for number, row in enumerate(facts(20))])
    first = dataset(sqlite_context, 1, rows(facts(25))[20:], some[:10])
    now = dataset(sqlite_context, 2, rows(facts(30))[25:], some[10:], (first.digest,))
    ((_, kept),) = earlier_rows(sqlite_context, "support", now)
    assert len(kept) == 10 and not {row.id for row in kept} & {row.id for row in now.test}


def test_rows_that_corrections_replaced_are_not_asked_again(sqlite_context: Context) -> None:
    """A version that no longer gives their answers has learned, and not forgotten."""
    some = rows(facts(30))
    first = dataset(sqlite_context, 1, some[:10], some[10:20])
    now = dataset(sqlite_context, 2, some[20:25], some[25:], (first.digest,))
    left_out = [
        *({"id": row.id, "why": "…", "outdated": digest_json(row.raw)} for row in some[10:14]),
        {"id": some[14].id, "why": "a test row resembles it"},
    ]
    manifest = sqlite_context.store.local_folder(now.path) / "manifest.json"
    manifest.chmod(0o644)
    about = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**about, "left_out": left_out}))
    ((_, kept),) = earlier_rows(sqlite_context, "support", now)
    assert digests(kept) == digests(some[14:20]), "what left for another reason still stands"
