"""Embedders: the default that set-up installs, a folder, or an endpoint, chosen by a setting."""

from __future__ import annotations

import os
from pathlib import Path

from serving.retrieval.embedder_source import EmbedderSource, source_of
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
