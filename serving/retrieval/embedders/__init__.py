"""Embedders: the default that set-up installs, a folder, or an endpoint, chosen by a setting."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from serving.retrieval.embedders.endpoint import EndpointEmbedder
from serving.retrieval.embedders.folder import (
    DEFAULT_NAME,
    FolderEmbedder,
    default_model_folder,
)
from serving.retrieval.embedders.protocol import (
    Embedder,
    EmbedderError,
    FloatArray,
    TextTooLongError,
)
from whet.settings import Settings

__all__ = [
    "Embedder",
    "EmbedderError",
    "EmbedderSource",
    "FloatArray",
    "TextTooLongError",
    "open_embedder",
    "source_of",
]


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


def open_embedder(settings: Settings, source: EmbedderSource | None = None) -> Embedder:
    """Load the embedder that `WHET_EMBEDDER` names, or the one of `source`.

    Raises EmbedderError when it cannot be loaded.
    """
    source = source or source_of(settings)
    if source.embedder.startswith(("http://", "https://")):
        return EndpointEmbedder(
            source.embedder,
            model=source.model,
            key=settings.embedder_key,
            max_tokens=source.max_tokens,
            query_prefix=source.query_prefix,
            passage_prefix=source.passage_prefix,
        )
    is_default = source.embedder in {"", DEFAULT_NAME}
    return FolderEmbedder(
        default_model_folder() if is_default else Path(source.embedder).expanduser(),
        settings.home / "embedders",
        name=DEFAULT_NAME if is_default else "",
        threads=settings.embedder_threads or len(os.sched_getaffinity(0)),
        query_prefix=source.query_prefix,
        passage_prefix=source.passage_prefix,
    )
