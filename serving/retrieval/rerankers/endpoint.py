"""A reranker behind `POST {url}/rerank`, as Cohere, Jina and vLLM answer it."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from serving.retrieval.rerankers.protocol import RerankerError
from whet.urls import mask_url

# The gateway waits 5 s for a search; the fused order must still have time to answer.
_TIMEOUT_S = 3.0


class RerankEndpoint:
    """Asks an endpoint; `url` is what stands before `/rerank`, such as http://host:8000/v1."""

    def __init__(
        self, url: str, *, model: str = "", key: str = "", timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/rerank") + "/rerank"
        self._model = model
        self._key = key
        self._timeout_s = timeout_s

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        body = {"query": question, "documents": list(passages), "top_n": len(passages)}
        if self._model:
            body["model"] = self._model
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                return _read_scores(json.load(response), len(passages), mask_url(self._url))
        except (OSError, ValueError) as error:
            raise RerankerError(
                f"The reranker at {mask_url(self._url)} does not answer: {error}.",
                hint="Look at WHET_RERANKER, WHET_RERANKER_MODEL and WHET_RERANKER_KEY.",
            ) from error


def _read_scores(body: Any, expected: int, url: str) -> list[float]:
    try:
        scores = {int(row["index"]): float(row["relevance_score"]) for row in body["results"]}
    except (KeyError, TypeError, ValueError) as error:
        raise RerankerError(
            f"The reranker at {url} answers something else than scores.",
            hint="Expected Cohere's shape: results, a list of index and relevance_score.",
        ) from error
    if sorted(scores) != list(range(expected)) or not all(map(math.isfinite, scores.values())):
        raise RerankerError(
            f"The reranker at {url} answers with {len(scores)} scores; expected {expected} finite"
            " ones."
        )
    return [scores[index] for index in range(expected)]
