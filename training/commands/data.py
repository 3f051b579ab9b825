"""`whet data …`: look at training rows before they cost anything, and make better ones of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from training.commands.options import COLUMNS, ENCODING, VERBOSE
from training.commands.sources import describe_split, refuse_large_loss
from whet.cli import emit, err, opened, out
from whet.clock import now_ms
from whet.errors import InputError

data = typer.Typer(
    no_args_is_help=True,
    help=(
        "Check, clean, split, mix and augment training rows: JSONL, JSON, CSV, Parquet, `datasets`"
        " folders."
    ),
)

_Json = typer.Option(False, "--json", help="Print one JSON document.")
_File = typer.Argument(..., metavar="FILE", help="File of training rows.")
_Region = typer.Option(
    "", "--region", help="Country (two letters) whose phone numbers may stand without +."
)
# Of the figures, what is printed below the table, or in --json alone.
_NOT_IN_TABLE = {
    "preview", "previews", "histogram", "findings", "rejected", "test_rejected", "notices",
}  # fmt: skip
_SkipBad = typer.Option(
    False, "--skip-bad", help="Leave out lines that are not rows, instead of refusing."
)


@data.command("check")
def check(
    file: Path = _File,
    test: Path | None = typer.Option(
        None, "--test", help="A test set that no row may be known from."
    ),
    report: Path | None = typer.Option(
        None, "--report", help="Also write an HTML page with plots here."
    ),
    region: str = _Region,
    method: str = typer.Option(
        "lora", "--method", help="The method that is to learn them: its run refuses the same rows."
    ),
    verbose: bool = VERBOSE,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """What is wrong with the rows and what to do about it, and what the model will see.

    Exit code 2 when a run would refuse them.
    """
    with opened() as context:
        from training.data.check import check as checked
        from training.data.finding import Finding
        from training.data.formats import read_options
        from training.data.pii import known_region

        country = known_region(region)
        with _stages(as_json) as progress:
            found = checked(
                context,
                file,
                test=test,
                region=country,
                method_name=method,
                options=read_options(columns, encoding),
                progress=progress,
            )
        if report is not None:
            from training.data.report import render

            _write_text(report, render(found, file.name, now_ms()))
        if as_json:
            emit(found, True)
        else:
            _print_rejected(found, verbose)
            emit({key: value for key, value in found.items() if key not in _NOT_IN_TABLE}, False)
            for notice in found["notices"]:
                rows = f" ({notice['rows']:,} rows)" if notice["rows"] else ""
                out.print(f"• {notice['found']}{rows}", markup=False)
            for finding in found["findings"]:
                style = "red" if finding["severity"] == "error" else "yellow"
                out.print(Finding(**finding).sentence(verbose=verbose), markup=False, style=style)
            _preview(found["preview"])
        if found["errors"]:
            raise typer.Exit(2)


def _print_rejected(found: dict[str, Any], verbose: bool) -> None:
    """Print one sentence for each fault, or with `verbose` one for each line."""
    from training.data.bad_lines import BadLine, sentences

    bad = [BadLine(**line) for line in found["rejected"]]
    of = found["rows"] + found["rejected_lines"]
    for sentence in map(str, bad) if verbose else sentences(bad, of=of):
        out.print(sentence, markup=False)


@data.command("stats")
def stats(
    file: Path = _File,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Tokens per row (histogram), learned tokens, over-long rows, duplicates, tasks, origins,
    labels, languages.
    """
    with opened() as context:
        from training.data.check import check as checked
        from training.data.formats import read_options

        with _stages(as_json) as progress:
            options = read_options(columns, encoding)
            found = checked(context, file, options=options, progress=progress)
        if as_json:
            emit(found, True)
            return
        histogram = found.pop("histogram")
        emit({key: value for key, value in found.items() if key not in _NOT_IN_TABLE}, False)
        most = max((bin_["rows"] for bin_ in histogram), default=1)
        for bin_ in histogram:
            out.print(
                f"{bin_['from']:>6} to {bin_['to']:>6} tokens "
                f" {'█' * round(40 * bin_['rows'] / most)} {bin_['rows']}",
                markup=False,
            )


@data.command("clean")
def clean(
    file: Path = _File,
    into: Path = typer.Option(
        ...,
        "--into",
        help="File for the clean rows (JSONL); a record of what was done is written beside it.",
    ),
    near: bool = typer.Option(
        False, "--near", help="Also leave out rows that are nearly the same as an earlier one."
    ),
    keep_duplicates: bool = typer.Option(
        False, "--keep-duplicates", help="Leave exact duplicates in."
    ),
    keep_pii: bool = typer.Option(False, "--keep-pii", help="Leave personal data in."),
    keep_characters: bool = typer.Option(
        False,
        "--keep-characters",
        help="Leave Unicode form, control characters and white space as they are.",
    ),
    region: str = _Region,
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Normalise texts, replace personal data by placeholders that are seen and never learned, leave
    out duplicates. Exit code 2 when a row had to be refused.
    """
    from training.data import record
    from training.data.clean import clean as cleaned
    from training.data.formats import read_good, read_options
    from training.data.pii import known_region

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
        into, made.rows, step="clean", sources=[file], libraries=("google-re2", "phonenumbers", "python-stdnum", "datasketch"), now_ms=now_ms(),
        rows_in=len(reading.rows), steps=made.steps, refused=refused,
    )  # fmt: skip
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


@data.command("split")
def split(
    file: Path = _File,
    into: Path = typer.Option(
        ...,
        "--into",
        help="Folder for train.jsonl, validation.jsonl and test.jsonl; it must not hold them yet.",
    ),
    validation: float = typer.Option(
        0.1, "--validation", min=0, max=0.9, help="Share of rows, 0 to 0.9."
    ),
    test: float = typer.Option(0.1, "--test", min=0, max=0.9, help="Share of rows, 0 to 0.9."),
    parent: Path | None = typer.Option(
        None, "--parent", help="Folder of an earlier split: its rows keep their parts."
    ),
    hold_out: str = typer.Option(
        "auto",
        "--hold-out",
        help=(
            "What is held out together: pattern (whole patterns of questions), question, user; auto"
            " chooses. See --by-time."
        ),
    ),
    by_time: str = typer.Option(
        "", "--by-time", help="Field with a time: the newest rows are held out."
    ),
    drop_leaks: bool = typer.Option(
        False,
        "--drop-leaks",
        help="Write the parts although more than a tenth of the rows is in none of them.",
    ),
    skip_bad: bool = _SkipBad,
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = _Json,
) -> None:
    """Split into parts that do not repeat each other: rows with one question or group stay
    together, and a row keeps its part with --parent.
    """
    from training import datasets
    from training.data import record
    from training.data.formats import read_good, read_options
    from training.data.split import parent_from
    from training.data.split import split as divided

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
    for each in dropped:
        out.print(f"dropped: {each['why']}", markup=False)
    for part, rows in made.borrowed.items():
        out.print(
            f"• {rows} of the rows in {part} are there because it would be too small without them. "
            f"Later splits leave them there with --parent {into}.",
            markup=False,
        )


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
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


def _preview(preview: list[dict[str, Any]]) -> None:
    """The first row as the model sees it; learned tokens stand out."""
    from rich.text import Text

    if not preview:
        return
    text = Text()
    for piece in preview:
        text.append(piece["text"], style="bold green underline" if piece["trained"] else "dim")
    out.print("\nThe first row as the base sees it; what is underlined is learned:")
    out.print(text)
