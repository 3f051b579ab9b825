"""Writes the whole command that trains on the rows of a run once more."""

from __future__ import annotations

import shlex

from sqlalchemy import Connection, select

from training.store.table_rows import RunRow
from whet.context import Context
from whet.tables import datasets


def command_again(context: Context, connection: Connection, row: RunRow, *options: str) -> str:
    """Return a command line that trains on the rows of the run `row` again.

    Rows that came from a file are named by the copy that the store keeps of them.
    """
    words = ["whet", "train", "run", *_rows(context, connection, row)]
    words += ["--alias", row["alias"], *_recipe(context, row), *options]
    return shlex.join(words)


def _rows(context: Context, connection: Connection, row: RunRow) -> list[str]:
    query = select(datasets.c.name, datasets.c.version)
    known = connection.execute(query.where(datasets.c.digest == row["dataset_digest"])).first()
    if known is not None:
        return ["--dataset", f"{known.name}@{known.version}"]
    path = (row["recipe"] or {}).get("dataset_path")
    if not path or not context.store.exists(path):
        return ["FILE"]
    folder = context.store.local_folder(path)
    test = folder / "test.jsonl"
    has_test = test.is_file() and test.stat().st_size > 0
    return [str(folder / "train.jsonl"), *(["--test", str(test)] if has_test else ["--no-split"])]


def _recipe(context: Context, row: RunRow) -> list[str]:
    if row["request_id"] is not None:
        return ["--recipe", context.settings.retrain_recipe]
    method = (row["recipe"] or {}).get("method")
    return ["--method", method] if method else []
