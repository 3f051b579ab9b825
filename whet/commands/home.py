"""`whet init`."""

from __future__ import annotations

import typer

from whet.cli import actor, emit, out
from whet.clock import now_ms
from whet.firststart import prepare_home
from whet.settings import load_settings


def init(as_json: bool = typer.Option(False, "--json", help="Print one JSON document.")) -> None:
    """Make the home folder: settings file, secrets, database, first user and first API key.

    Safe to run again.
    """
    settings = load_settings()
    context, made = prepare_home(settings, actor=actor(), now=now_ms())
    context.close()
    if as_json:
        emit(
            {
                "home": str(settings.home),
                "made": [
                    {"what": item.what, "where": item.where, "new": item.new} for item in made
                ],
            },
            True,
        )
        return
    for item in made:
        out.print(
            f"{'[green]made [/green]' if item.new else '[dim]there[/dim]'}  {item.what}: ", end=""
        )
        out.print(item.where, markup=False, soft_wrap=True)
    out.print("`whet up` starts the product.")
