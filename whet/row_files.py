"""How files of training rows become a dataset version: `training` reads and checks them, `feedback`
owns versions.

The reader is the one entry point of the group `whet.row_files`. It leaves a dataset folder in the
store, as a training run on the same files does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from whet.context import Context
from whet.errors import ConfigurationError
from whet.json_types import JsonObject
from whet.plugins import load

GROUP = "whet.row_files"

Progress = Callable[[str], None]  # told what is being done
RowFilter = Callable[[Mapping[str, Any]], bool]  # of a row as written: whether it may be stored


@dataclass(frozen=True, slots=True)
class RowFileOptions:
    """How files are read and parted; the options of `whet train run` of the same names."""

    test: Path | None = None
    method: str = "lora"
    no_split: bool = False
    hold_out: str = "auto"
    by_time: str = ""
    repeats: str = "keep"
    skip_bad: bool = False
    drop_leaks: bool = False
    columns: str = ""
    encoding: str = ""


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file that rows came from."""

    name: str
    digest: str | None  # of its bytes; None for a folder
    rows: int

    def as_json(self) -> JsonObject:
        return {"name": self.name, "sha256": self.digest, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class RowFolder:
    """Rows that were read, and the folder in the store that holds them, or would hold them."""

    digest: str
    path: str  # relative to the store
    rows: dict[str, int]  # part → how many
    files: list[RowFile]
    notices: list[str] = field(default_factory=list)  # what a person should know, in sentences


class RowFileReader(Protocol):
    """Reads files of rows into a dataset folder.

    Raises InputError, in the words of `whet data check`, for what is no row or cannot be learned
    from. `keep` leaves rows out; nothing is stored for `is_dry_run`.
    """

    def __call__(
        self,
        context: Context,
        alias: str,
        files: Sequence[Path],
        options: RowFileOptions,
        *,
        keep: RowFilter,
        is_dry_run: bool,
        progress: Progress,
    ) -> RowFolder: ...


def load_row_file_reader() -> RowFileReader:
    """Return the reader. Raises ConfigurationError where the package that has it is not installed."""
    try:
        readers: list[RowFileReader] = [reader for _, reader in load(GROUP)]
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"Reading files of rows needs {error.name!r}, which is not installed here.",
            hint="Run `make setup`, or install the extra `training` (pyproject.toml).",
        ) from error
    return readers[0]
