"""Rerankers: a cross-encoder's folder or an endpoint that reads question and passage together."""

from __future__ import annotations

import os
from pathlib import Path

from serving.retrieval.rerankers.cross_encoder import CrossEncoder
from serving.retrieval.rerankers.endpoint import RerankEndpoint
from serving.retrieval.rerankers.protocol import Reranker, RerankerError
from whet.settings import Settings

__all__ = ["Reranker", "RerankerError", "open_reranker"]


def open_reranker(settings: Settings) -> Reranker | None:
    """Load the reranker that `WHET_RERANKER` names; None when it is empty.

    Raises RerankerError when it cannot be loaded.
    """
    named = settings.reranker
    if not named:
        return None
    if named.startswith(("http://", "https://")):
        return RerankEndpoint(named, model=settings.reranker_model, key=settings.reranker_key)
    return CrossEncoder(
        Path(named).expanduser(),
        settings.home / "embedders",
        threads=settings.embedder_threads or len(os.sched_getaffinity(0)),
    )
