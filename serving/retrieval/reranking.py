"""Orders the first hits of a search anew by a reranker; without one, or when it fails, not."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec

from serving.retrieval.passages import embedded_text
from serving.retrieval.records import Hit, Mode, SearchRequest
from serving.retrieval.rerankers import Reranker, RerankerError

OpenReranker = Callable[[], Reranker | None]


class Reranking:
    """Opens the reranker at the first search, and asks it.

    Args:
        candidates: hits that it reads.
    """

    def __init__(self, open_reranker: OpenReranker, candidates: int) -> None:
        self._open = open_reranker
        self._candidates = candidates
        self._lock = threading.Lock()
        self._is_open = False
        self._reranker: Reranker | None = None
        self._problem = ""

    def candidates(self, request: SearchRequest) -> int:
        """Return how many hits `order` wants to see; 0: none."""
        return self._candidates if self._applies(request) else 0

    def order(self, request: SearchRequest, hits: list[Hit]) -> tuple[list[Hit], str]:
        """Return (the first `top_k` hits, best first, why they were not reranked)."""
        if not self._applies(request) or not hits:
            return hits[: request.top_k], self._problem if request.mode is Mode.HYBRID else ""
        reranker = self._reranker
        assert reranker is not None
        texts = [embedded_text(hit.title, hit.section, hit.text) for hit in hits]
        try:
            scores = reranker.score(request.query, texts)
        except RerankerError as error:
            return hits[: request.top_k], f"Not reranked: {error}"
        scored = [
            msgspec.structs.replace(hit, rerank_score=score)
            for hit, score in zip(hits, scores, strict=True)
        ]
        scored.sort(key=lambda hit: -(hit.rerank_score or 0.0))
        return scored[: request.top_k], ""

    def _applies(self, request: SearchRequest) -> bool:
        """Tell whether the search is reranked: `lexical` and `vector` show one ranking as it is."""
        return request.mode is Mode.HYBRID and self._opened() is not None

    def _opened(self) -> Reranker | None:
        with self._lock:
            if not self._is_open:
                self._is_open = True
                try:
                    self._reranker = self._open()
                except RerankerError as error:
                    self._problem = f"Not reranked: {error}"
            return self._reranker
