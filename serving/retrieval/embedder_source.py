"""The settings that name an embedder, apart from the libraries that load one."""

from __future__ import annotations

import msgspec

from whet.settings import Settings


class EmbedderSource(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that name an embedder, so that an index of an earlier one can be asked."""

    embedder: str = ""
    model: str = ""
    max_tokens: int = 512
    query_prefix: str = ""
    passage_prefix: str = ""


def source_of(settings: Settings) -> EmbedderSource:
    """Return the settings that name the embedder now."""
    return EmbedderSource(
        embedder=settings.embedder,
        model=settings.embedder_model,
        max_tokens=settings.embedder_max_tokens,
        query_prefix=settings.embedder_query_prefix,
        passage_prefix=settings.embedder_passage_prefix,
    )
