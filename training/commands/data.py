"""`whet data …`: look at training rows before they cost anything, and make better ones of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from training.commands.sources import describe_split, refuse_large_loss
from training.data import datasets, record
from training.data.clean import clean as cleaned
from training.data.formats import read_good, read_options
from training.data.pii import known_region
from training.data.split import Split, parent_from
from training.data.split import split as divided
from whet.cli import emit, err, out
from whet.clock import now_ms
from whet.errors import InputError
from whet.json_types import Json


def clean(
    *,
    file: Path,
    into: Path,
    near: bool,
    keep_duplicates: bool,
    keep_pii: bool,
    keep_characters: bool,
    region: str,
    skip_bad: bool,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """Normalise texts, replace personal data by placeholders that are seen and never learned, leave
    out duplicates. Exit code 2 when a row had to be refused.
    """

    record.refuse_existing(into)
    country = known_region(region)
    reading = read_good(file, skip_bad=skip_bad, options=read_options(columns, encoding))
    with _stages(as_json) as progress:
        progress("cleaning")
        made = cleaned(
            reading.rows,
            normalise=not keep_characters,
            deduplicate=not keep_duplicates,
            near=near,
            pii=not keep_pii,
            region=country,
        )
    refused = [bad.as_json() for bad in [*reading.bad, *made.refused]]
    written = record.write(
        into,
        made.rows,
        step="clean",
        sources=[file],
        libraries=("google-re2", "phonenumbers", "python-stdnum", "datasketch"),
        now_ms=now_ms(),
        facts={"rows_in": len(reading.rows), "steps": made.steps, "refused": refused},
    )
    if as_json:
        emit(written, True)
    else:
        for bad in made.refused:
            out.print(str(bad), markup=False)
        counts = {
            "rows_in": len(reading.rows),
            "rows": len(made.rows),
            **{step["step"]: step["rows"] for step in made.steps},
        }
        emit({"file": str(into), **counts, "refused": len(refused)}, False)
    if made.refused:
        raise typer.Exit(2)


def split(
    *,
    file: Path,
    into: Path,
    validation: float,
    test: float,
    parent: Path | None,
    hold_out: str,
    by_time: str,
    drop_leaks: bool,
    skip_bad: bool,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """Split into parts that do not repeat each other: rows with one question or group stay
    together, and a row keeps its part with --parent.
    """

    if validation + test >= 1:
        raise InputError(
            f"--validation {validation} and --test {test} leave nothing for training.",
            hint="Use shares that add up to less than 1.",
        )
    reading = read_good(file, skip_bad=skip_bad, options=read_options(columns, encoding))
    settled = parent_from(_json_of(parent / "manifest.json"), str(parent)) if parent else None
    shares = datasets.Shares(validation, test)
    made = divided(reading.rows, shares, parent=settled, hold_out=hold_out, by_time=by_time)
    if not drop_leaks:
        refuse_large_loss(made)
    names = {name: into / f"{name}.jsonl" for name in datasets.PARTS}
    for path in (*names.values(), into / "manifest.json"):
        record.refuse_existing(path)
    dropped = [
        {"line": leak.row.line, "id": leak.row.id, "part": leak.part, "why": str(leak)}
        for leak in made.dropped
    ]
    counts = {name: len(made.parts[name]) for name in datasets.PARTS}
    for name, path in names.items():
        _write_text(path, record.jsonl(row.raw for row in made.parts[name]))
    refused = [bad.as_json() for bad in reading.bad]
    about = {
        "source": str(file),
        "rows": counts,
        "hold_out": made.hold_out,
        "dropped": dropped,
        "refused": refused,
        "borrowed": made.borrowed,
        "assigned": made.assigned,
    }
    _write_text(into / "manifest.json", json.dumps(about, ensure_ascii=False))
    if as_json:
        about.pop("assigned")
        emit({"folder": str(into), **counts, "left_out": len(refused), **about}, True)
        return
    out.print(describe_split(made, shares), markup=False)
    emit({"folder": str(into), **counts, "dropped": len(dropped), "left_out": len(refused)}, False)
    _say_parts(made, into)


def _say_parts(made: Split, into: Path) -> None:
    """Say which rows were dropped, and which parts had to take rows from others."""
    for leak in made.dropped:
        out.print(f"dropped: {leak}", markup=False)
    for part, rows in made.borrowed.items():
        out.print(
            f"• {rows} of the rows in {part} are there because it would be too small without them. "
            f"Later splits leave them there with --parent {into}.",
            markup=False,
        )


def _json_of(path: Path) -> Json:
    try:
        read: Json = json.loads(path.read_text(encoding="utf-8"))
        return read
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}.", hint="Name a folder that `whet data split` wrote."
        ) from error


def _write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Free disk space, or name a folder that you may write to.",
        ) from error


@contextmanager
def _stages(quiet: bool) -> Iterator[Callable[[str], None]]:
    """What is being done, on standard error, while it takes its time."""
    if quiet:
        yield lambda stage: None
        return
    with err.status("reading") as status:
        yield lambda stage: status.update(stage)
