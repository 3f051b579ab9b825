"""`whet data …`: look at training rows before they cost anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from whet.cli import emit, opened, out
from whet.errors import InputError

data = typer.Typer(no_args_is_help=True, help="Check, split and measure training rows (JSONL).")

_Json = typer.Option(False, "--json", help="Print one JSON document.")
_File = typer.Argument(..., metavar="FILE", help="JSONL file of training rows.")


@data.command("check")
def check(file: Path = _File, as_json: bool = _Json) -> None:
    """Every line that is not a training row, and every row that the base cannot learn from. Exit code 2 when there is one."""
    with opened() as context:
        from training.inspect_rows import inspect

        found = inspect(context, file)
        bad = found.pop("rejected")
        if as_json:
            emit({**found, "rejected": bad}, True)
        else:
            for line in bad:
                out.print(f"line {line['line']}: found {line['found']}; expected {line['expected']}", markup=False)
            emit({key: value for key, value in found.items() if key not in ("preview", "histogram")}, False)
            _preview(found["preview"])
        if bad or not found["rows"]:
            raise typer.Exit(2)


@data.command("stats")
def stats(file: Path = _File, as_json: bool = _Json) -> None:
    """Tokens per row (histogram), learned tokens, over-long rows, duplicates, tasks, origins."""
    with opened() as context:
        from training.inspect_rows import inspect

        found = inspect(context, file)
        if as_json:
            emit(found, True)
            return
        histogram = found.pop("histogram")
        emit({key: value for key, value in found.items() if key not in ("preview", "rejected")}, False)
        most = max((bin_["rows"] for bin_ in histogram), default=1)
        for bin_ in histogram:
            out.print(f"{bin_['from']:>6} to {bin_['to']:>6} tokens  {'█' * round(40 * bin_['rows'] / most)} {bin_['rows']}", markup=False)


@data.command("split")
def split(
    file: Path = _File,
    into: Path = typer.Option(..., "--into", help="Folder for train.jsonl, validation.jsonl and test.jsonl; it must not hold them yet."),
    validation: float = typer.Option(0.1, "--validation", min=0, max=0.9, help="Share of rows, 0 to 0.9."),
    test: float = typer.Option(0.1, "--test", min=0, max=0.9, help="Share of rows, 0 to 0.9."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave out lines that are not rows, instead of refusing."),
    as_json: bool = _Json,
) -> None:
    """Split by content: rows with one question, user or group stay together, and a row lands in the same part every time."""
    from training import datasets, rows

    if validation + test >= 1:
        raise InputError(f"--validation {validation} and --test {test} leave nothing for training.", hint="Use shares that add up to less than 1.")
    found = rows.read_file(file)
    found.refuse_bad(str(file), skip_bad=skip_bad)
    parts = datasets.split(found.rows, datasets.Shares(validation, test))
    existing = [name for name in datasets.PARTS if (into / f"{name}.jsonl").exists()]
    if existing:
        raise InputError(f"{into} holds {existing[0]}.jsonl already.", hint="Name another folder, or remove the files.")
    into.mkdir(parents=True, exist_ok=True)
    for name in datasets.PARTS:
        (into / f"{name}.jsonl").write_text("".join(json.dumps(row.raw, ensure_ascii=False) + "\n" for row in parts[name]), encoding="utf-8")
    emit({"folder": str(into), **{name: len(parts[name]) for name in datasets.PARTS}, "left_out": len(found.bad)}, as_json)


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
