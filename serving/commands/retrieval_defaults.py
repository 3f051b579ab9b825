"""`whet documents attach` and `whet documents detach`: what an alias retrieves by default."""

from __future__ import annotations

import msgspec
import typer

from serving.retrieval.defaults_store import RetrievalDefault, attach, detach, parse_filter
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.database import writing

_AS_JSON = typer.Option(False, "--json", help="Print JSON.")


def attach_command(
    alias: str = typer.Argument(..., help="An alias, a version, or the base, as requests name it."),
    collection: str = typer.Argument(..., help="What its requests retrieve from."),
    top_k: int = typer.Option(4, "--top-k", min=1, max=50, help="Passages in a prompt, at most."),
    min_score: float = typer.Option(
        0.0, "--min-score", min=0, max=1, help="Leave out passages below, 0 to 1."
    ),
    given_filter: list[str] = typer.Option(
        [], "--filter", help="KEY=VALUE of the documents' metadata; several all have to hold."
    ),
    as_json: bool = _AS_JSON,
) -> None:
    """Let every request for a model name retrieve, unless it says otherwise."""
    default = RetrievalDefault(
        alias=alias,
        collection=collection,
        top_k=top_k,
        min_score=min_score,
        filter=parse_filter(given_filter),
        actor=actor(),
        updated_at=now_ms(),
    )
    with opened() as context, writing(context.database) as connection:
        attach(connection, default, base_alias=context.settings.base_alias)
    emit(msgspec.to_builtins(default), as_json)


def detach_command(
    alias: str = typer.Argument(..., help="The model name, as it was attached."),
    as_json: bool = _AS_JSON,
) -> None:
    """Let requests for a model name retrieve nothing any more, unless they say so."""
    with opened() as context, writing(context.database) as connection:
        detach(connection, alias, actor=actor(), now=now_ms())
    emit({"detached": alias}, as_json)
