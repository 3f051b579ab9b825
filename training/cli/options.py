"""Options that several commands share: how a file of rows is read and divided."""

from __future__ import annotations

from typing import Any

import typer

COLUMNS: Any = typer.Option(
    "",
    "--columns",
    help="Which columns of the file are which fields, such as prompt=Frage,completion=Antwort.",
)
ENCODING: Any = typer.Option(
    "",
    "--encoding",
    help="Encoding of the file, such as cp1252. Default: UTF-8, UTF-16, or the only code page "
    "that it can be in.",
)
VERBOSE: Any = typer.Option(
    False, "--verbose", help="Name every line, also of rows that repeat each other."
)
HOLD_OUT: Any = typer.Option(
    "auto",
    "--hold-out",
    help=(
        "What is held out together: pattern (whole patterns of questions), question, user; auto"
        " chooses. See --by-time."
    ),
)
BY_TIME: Any = typer.Option(
    "", "--by-time", help="Field with a time: the newest rows are held out."
)
