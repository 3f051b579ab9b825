"""Files of rows that become a dataset version without a training run (`whet datasets import`).

What is refused, how rows are parted and which folder they end in is the same as in
`whet train run FILE`: the same rows have the same digest, whichever of the two reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from training.commands.sources import RowSource, part_rows
from training.data import datasets
from training.data.bad_lines import BadLine, sentences
from training.data.formats import part_path, read_options
from training.data.given import Given, left_out, read_given
from training.data.rows import Row
from training.loop.pairs import refused
from training.models.base_choice import open_base
from training.models.encode import Encoder
from training.recipes.methods import ANSWERS, Method, find
from training.runs.row_check import longest_row
from whet.context import Context
from whet.errors import InputError
from whet.row_files import Progress, RowFile, RowFileOptions, RowFilter, RowFolder
from whet.store import digest_file
from whet.web.filters import plural

_BLOCK_ROWS = 500  # between two words of progress


def store_rows(
    context: Context,
    alias: str,
    files: Sequence[Path],
    options: RowFileOptions,
    *,
    keep: RowFilter,
    is_dry_run: bool,
    progress: Progress,
) -> RowFolder:
    """Read, check and part the rows of `files`, and store them; see `RowFileReader`."""
    reader = _Reader(context, find(options.method), options, keep, progress)
    for file in files:
        reader.add(file)
    if options.test is not None:
        reader.add_test(files[0], options.test)
    progress("splitting")
    source = RowSource(
        no_split=options.no_split,
        hold_out=options.hold_out,
        by_time=options.by_time,
        repeats=options.repeats,
        remember=not is_dry_run,
        accept_loss=options.drop_leaks,
    )
    found = part_rows(context, alias, reader.given, source)
    datasets.require_training_rows(found.parts)
    digest = datasets.rows_digest(found.parts)
    if not is_dry_run:
        progress("storing")
        datasets.save(context.store, alias, found.parts)
    notices = list(found.notices)
    if found.folds:
        notices.append(
            f"A run on them has a verdict by cross-validation alone: --folds {found.folds}."
        )
    counts = {part: len(found.parts[part]) for part in datasets.PARTS}
    return RowFolder(digest, f"datasets/{digest}", counts, reader.sources, notices)


@dataclass
class _Reader:
    """Collects the rows of several files that a run with the method would take."""

    context: Context
    method: Method
    options: RowFileOptions
    keep: RowFilter
    progress: Progress
    sources: list[RowFile] = field(default_factory=list)
    _rows: list[Row] = field(default_factory=list)
    _held_out: dict[str, list[Row]] = field(default_factory=dict)
    _notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        base = open_base(self.context.settings)
        self._encoder = Encoder(base, longest_row(self.context, base, self.method))
        self._reading = read_options(self.options.columns, self.options.encoding)

    @property
    def given(self) -> Given:
        """All rows, the held-out ones of folders apart."""
        test, validation = self._held_out.get("test"), self._held_out.get("validation")
        return Given(self._rows, test, validation, self._notices)

    def add(self, file: Path) -> None:
        """Read a file or a folder. Raises InputError for rows that a run would refuse."""
        self.progress(f"reading {file.name}")
        given = read_given(
            file,
            None,
            method=self.method,
            own_parts=not self.options.no_split and self.options.test is None,
            skip_bad=self.options.skip_bad,
            options=self._reading,
        )
        self._notices += given.notices
        rows = self._usable(file, given.rows)
        self._rows += rows
        for part, held_out in (("test", given.test), ("validation", given.validation)):
            if held_out is not None:
                usable = self._usable(file / part, held_out)
                self._held_out.setdefault(part, []).extend(usable)
        self.sources.append(_source(file, len(rows)))

    def add_test(self, first: Path, test: Path) -> None:
        """Read the file of test rows, or the part of that name of the first folder."""
        path = part_path(first, test) or test
        self.progress(f"reading {path.name}")
        given = read_given(path, None, own_parts=False, skip_bad=False, options=self._reading)
        self._notices += given.notices
        self._held_out["test"] = self._usable(path, given.rows)
        self.sources.append(_source(path, len(given.rows)))

    def _usable(self, file: Path, rows: Sequence[Row]) -> list[Row]:
        allowed = [row for row in rows if self.keep(row.raw)]
        if erased := len(rows) - len(allowed):
            gone = f"{plural(erased, 'row')} of end users who were erased"
            self._notices.append(f"{file}: {gone}: left out.")
        usable = self._learnable(file, allowed)
        if reviewed := sum(row.origin == "review" for row in usable):
            # Here a reviewed row is one with an example behind it that can be withdrawn.
            noted = f"{plural(reviewed, 'row')} reviewed elsewhere"
            self._notices.append(f"{file}: {noted}: stored as seed rows.")
            usable = [_as_seed(row) for row in usable]
        return usable

    def _learnable(self, file: Path, rows: Sequence[Row]) -> list[Row]:
        """Raises InputError for rows that no run could learn from, unless they are to be skipped."""
        kept: list[Row] = []
        bad: list[BadLine] = []
        for start in range(0, len(rows), _BLOCK_ROWS):
            self.progress(f"tokenising {file.name}: {start:,} of {len(rows):,} rows")
            for row in rows[start : start + _BLOCK_ROWS]:
                wrong = self._refusal(row)
                if wrong is None:
                    kept.append(row)
                else:
                    bad.append(wrong)
        if bad and (not self.options.skip_bad or not kept):
            shown = "".join(f"\n  {sentence}" for sentence in sentences(bad, of=len(rows)))
            raise InputError(
                f"{file}: {plural(len(bad), 'row')} cannot be learned from with this base:{shown}",
                hint="Correct them, or leave them out with --skip-bad.",
            )
        self._notices += left_out(bad, str(file))
        return kept

    def _refusal(self, row: Row) -> BadLine | None:
        found = self._encoder.encode_windows(row)
        if isinstance(found, BadLine):
            return found
        return refused(self._encoder, row) if self.method.rows != ANSWERS else None


def _as_seed(row: Row) -> Row:
    if row.origin != "review":
        return row
    return replace(row, origin="seed", raw={**row.raw, "origin": "seed"})


def _source(path: Path, rows: int) -> RowFile:
    return RowFile(path.name, digest_file(path) if path.is_file() else None, rows)
