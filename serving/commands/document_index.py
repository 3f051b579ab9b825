"""`whet documents reindex`."""

from __future__ import annotations

from rich.progress import Progress

from serving.retrieval.embedders import open_embedder
from serving.retrieval.reindex import ReindexResult, reindex
from whet.cli import emit, err, opened
from whet.context import Context


def build(*, name: str, force: bool, as_json: bool) -> None:
    """Build the index of a collection anew from its rows; the old one answers meanwhile."""
    with opened() as context:
        found = _reindex(context, name, force)
    row = {
        "collection": found.collection,
        "passages": found.passages,
        "embedded": found.embedded,
        "state": "was current" if found.was_current else "built",
    }
    emit([row], as_json, columns=list(row), title="index")


def _reindex(context: Context, name: str, force: bool) -> ReindexResult:
    embedder = open_embedder(context.settings)
    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("embedding", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return reindex(context, name, embedder, show, force=force)
