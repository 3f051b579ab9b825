"""How the packages meet without importing each other: each names what it contributes in
`pyproject.toml`.

Five entry-point groups; every value is `module:attribute`:

- `whet.commands`   a `typer.Typer` (sub-commands) or a plain function (one command), mounted under
  the entry's name
- `whet.pages`      `(Shell) -> fastapi.APIRouter`: pages of the console
- `whet.processes`  `(Context) -> list[ProcessSpec]`: what `whet up` starts
- `whet.jobs`       `(Context) -> list[Job]`: what the scheduler calls
- `whet.row_files`  a `whet.row_files.RowFileReader`, one alone: what `whet datasets import` reads
  files with
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from whet.errors import ConfigurationError


@dataclass(frozen=True)
class ProcessSpec:
    """One process that `whet up` supervises."""

    name: str
    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)  # added to the supervisor's own
    ready_url: str = ""  # 200 here means it can do its work; empty: started is ready
    ready_within_s: float = 60
    stop_within_s: float = 15  # after SIGTERM, before SIGKILL
    # (host, port), checked to be free before the start
    listens_on: tuple[tuple[str, int], ...] = ()
    order: int = 50  # started in this order; the engine is 10, the gateway 20, the rest 50
    notice: str = ""  # a sentence for whoever starts it
    remedies: tuple[tuple[str, str], ...] = ()  # (regular expression on an error, what to do)


@dataclass(frozen=True)
class Job:
    """Something the scheduler does again and again.

    `run` gets the time and must do nothing twice that matters.
    """

    name: str
    every_s: float
    run: Callable[[int], Any]  # (now in ms) -> a short description of what was done, or None


def load(group: str) -> Iterator[tuple[str, Any]]:
    """(name, object) of every entry point in the group, in a stable order.

    Import errors are not hidden.
    """
    found = sorted(entry_points(group=group), key=lambda entry: entry.name)
    if not found:
        raise ConfigurationError(
            f"No {group} are registered: Whet is not installed in this environment.",
            hint="Run `make setup`, or `pip install --no-deps -e .`.",
        )
    for entry in found:
        yield entry.name, entry.load()
