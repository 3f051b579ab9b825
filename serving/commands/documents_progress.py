"""How far `whet documents add` is, on standard error: two bars with the time that is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from whet.cli import err


class IngestProgress:
    """Shows the documents that were read, then the passages that were embedded."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._reading = progress.add_task("reading", total=None)
        self._embedding = progress.add_task("embedding", total=None, visible=False)

    def on_document(self, done: int, total: int, address: str) -> None:
        """Show that `done` of `total` files were read, the last one at `address`."""
        self._progress.update(self._reading, completed=done, total=total)

    def on_embedded(self, done: int, total: int) -> None:
        """Show that `done` of `total` passages were embedded."""
        self._progress.update(self._embedding, completed=done, total=total, visible=True)


@contextmanager
def ingest_progress() -> Iterator[IngestProgress]:
    """Show progress while the block runs; nothing where standard error is no terminal."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield IngestProgress(progress)
