"""An embedder behind an OpenAI-compatible endpoint (`WHET_EMBEDDER` is its URL)."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.retrieval.embedders.protocol import (
    EmbedderError,
    FloatArray,
    normalise,
    require_fitting,
)
from whet.urls import mask_url

_BATCH = 64  # texts a request; services take at least so many
_TIMEOUT_S = 60
# Bytes of UTF-8 that one token has at least, on average, in the tokenizers of embedders: English
# has 4 to 5, code and other scripts about 3. The count is an estimate and errs upwards.
_BYTES_PER_TOKEN = 3


class EndpointEmbedder:
    """Asks `POST {url}/embeddings`."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        key: str,
        max_tokens: int,
        query_prefix: str = "",
        passage_prefix: str = "",
    ) -> None:
        self._url = url.rstrip("/").removesuffix("/embeddings") + "/embeddings"
        self._model = model
        self._key = key
        self._query_prefix = query_prefix
        self._passage_prefix = passage_prefix
        self.max_tokens = max_tokens
        self.dimension = self._ask(["dimension"]).shape[1]
        prefixes = f":{query_prefix!r}:{passage_prefix!r}" if query_prefix or passage_prefix else ""
        self.identity = f"{mask_url(url)}:{model}:{self.dimension}{prefixes}"[:200]

    def embed_passages(self, texts: Sequence[str]) -> FloatArray:
        require_fitting([self.count_tokens(text) for text in texts], self.max_tokens)
        prefixed = [self._passage_prefix + text for text in texts]
        parts = [self._ask(prefixed[at : at + _BATCH]) for at in range(0, len(prefixed), _BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)

    def embed_query(self, text: str) -> FloatArray:
        size = max(self.max_tokens * _BYTES_PER_TOKEN - len(self._query_prefix.encode()), 4)
        windows = _split_bytes(text, size)
        found = self._ask([self._query_prefix + window for window in windows])
        return normalise(found.mean(axis=0))

    def count_tokens(self, text: str) -> int:
        return math.ceil(len((self._passage_prefix + text).encode()) / _BYTES_PER_TOKEN) + 2

    def _ask(self, texts: Sequence[str]) -> FloatArray:
        body = json.dumps({"model": self._model, "input": list(texts)}).encode()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                return _read_vectors(json.load(response), len(texts), mask_url(self._url))
        except (OSError, ValueError) as error:
            raise EmbedderError(
                f"The embedder at {mask_url(self._url)} does not answer: {error}.",
                hint="Look at WHET_EMBEDDER, WHET_EMBEDDER_MODEL and WHET_EMBEDDER_KEY.",
            ) from error


def _read_vectors(body: Any, expected: int, url: str) -> FloatArray:
    try:
        rows = sorted(body["data"], key=lambda row: row["index"])
        vectors = np.asarray([row["embedding"] for row in rows], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise EmbedderError(
            f"The embedder at {url} answers something else than embeddings.",
            hint="Expected OpenAI's shape: data, a list of index and embedding.",
        ) from error
    if vectors.ndim != 2 or len(vectors) != expected or not np.isfinite(vectors).all():
        raise EmbedderError(
            f"The embedder at {url} answers with shape {vectors.shape}; expected {expected} rows of"
            " finite numbers.",
        )
    return normalise(vectors)


def _split_bytes(text: str, size: int) -> list[str]:
    raw = text.encode()
    parts = [raw[at : at + size].decode(errors="ignore") for at in range(0, len(raw), size)]
    return parts or [""]
