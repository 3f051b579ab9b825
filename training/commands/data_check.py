"""`whet data check` and `stats`: what is wrong with rows, and what the model sees."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.text import Text

from training.commands.data import _stages, _write_text
from training.data.bad_lines import BadLine, sentences
from training.data.check_report import CheckReport, Piece
from training.data.finding import Finding
from training.data.formats import read_options
from training.data.pii import known_region
from training.data.report import render
from training.runs.row_check import check as checked
from whet.cli import emit, opened, out
from whet.clock import now_ms

# Of the figures, what is printed below the table, or in --json alone.
_NOT_IN_TABLE = {
    "preview", "previews", "histogram", "findings", "rejected", "test_rejected", "notices",
}  # fmt: skip


def check(
    *,
    file: Path,
    test: Path | None,
    report: Path | None,
    region: str,
    method: str,
    verbose: bool,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """What is wrong with the rows and what to do about it, and what the model will see.

    Exit code 2 when a run would refuse them.
    """
    with opened() as context:
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


def _print_rejected(found: CheckReport, verbose: bool) -> None:
    """Print one sentence for each fault, or with `verbose` one for each line."""

    bad = [BadLine(**line) for line in found["rejected"]]
    of = found["rows"] + found["rejected_lines"]
    for sentence in map(str, bad) if verbose else sentences(bad, of=of):
        out.print(sentence, markup=False)


def stats(*, file: Path, columns: str, encoding: str, as_json: bool) -> None:
    """Tokens per row (histogram), learned tokens, over-long rows, duplicates, tasks, origins,
    labels, languages.
    """
    with opened() as context:
        with _stages(as_json) as progress:
            options = read_options(columns, encoding)
            found = checked(context, file, options=options, progress=progress)
        if as_json:
            emit(found, True)
            return
        histogram = found["histogram"]
        emit({key: value for key, value in found.items() if key not in _NOT_IN_TABLE}, False)
        most = max((bin_["rows"] for bin_ in histogram), default=1)
        for bin_ in histogram:
            out.print(
                f"{bin_['from']:>6} to {bin_['to']:>6} tokens "
                f" {'█' * round(40 * bin_['rows'] / most)} {bin_['rows']}",
                markup=False,
            )


def _preview(preview: list[Piece]) -> None:
    """The first row as the model sees it; learned tokens stand out."""

    if not preview:
        return
    text = Text()
    for piece in preview:
        text.append(piece["text"], style="bold green underline" if piece["trained"] else "dim")
    out.print("\nThe first row as the base sees it; what is underlined is learned:")
    out.print(text)
