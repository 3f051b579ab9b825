"""`whet documents attach` and `detach`: what an alias retrieves by default."""

from __future__ import annotations

import msgspec

from serving.retrieval.defaults_store import RetrievalDefault, attach, detach, parse_filter
from whet.cli import actor, emit, opened
from whet.clock import now_ms
from whet.database import writing


def attach_default(
    *,
    alias: str,
    collection: str,
    top_k: int,
    min_score: float,
    given_filter: list[str],
    as_json: bool,
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


def detach_default(*, alias: str, as_json: bool) -> None:
    """Let requests for a model name retrieve nothing any more, unless they say so."""
    with opened() as context, writing(context.database) as connection:
        detach(connection, alias, actor=actor(), now=now_ms())
    emit({"detached": alias}, as_json)
