"""A cross-encoder from a sentence-transformers folder, run by ONNX Runtime without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from serving.retrieval.embedders.folder import model_graph, open_session
from serving.retrieval.embedders.protocol import EmbedderError
from serving.retrieval.rerankers.protocol import RerankerError

_DEFAULT_MAX_TOKENS = 512  # BERT's number of positions, where config.json does not say

FloatArray = NDArray[np.float32]


class CrossEncoder:
    """Scores pairs by the first label of a sequence classifier.

    Args:
        folder: tokenizer.json and either model.safetensors of a BERT classifier, or
            onnx/model.onnx of any, whose first output is the logits.
        cache: where graphs that are built from weights are kept.
        threads: pairs that are read at the same time.
    """

    def __init__(self, folder: Path, cache: Path, *, threads: int = 1) -> None:
        if not (folder / "tokenizer.json").is_file():
            raise RerankerError(
                f"{folder} is no cross-encoder: it has no tokenizer.json.",
                hint="Set WHET_RERANKER to a folder as sentence-transformers saves it.",
            )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_max_tokens(folder))  # of the longer of the two
        try:
            graph, _, arithmetic = model_graph(folder, cache, quantize=False)
        except EmbedderError as error:
            raise RerankerError(str(error)) from error
        self._session = open_session(graph)
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._head = None if arithmetic == "onnx" else _Head(folder)
        self._pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="rerank")

    def score(self, question: str, passages: Sequence[str]) -> list[float]:
        return list(self._pool.map(lambda passage: self._score(question, passage), passages))

    def _score(self, question: str, passage: str) -> float:
        encoded = self._tokenizer.encode(question, passage)
        tokens = np.asarray([encoded.ids], np.int32)
        types = np.asarray([encoded.type_ids], np.int32)
        values: dict[str, Any] = {
            "input_ids": tokens, "token_type_ids": types, "mask": np.ones_like(tokens)
        }  # fmt: skip
        if self._head is None:  # a usual export, whose integers have 64 bits
            values = {
                "input_ids": tokens.astype(np.int64), "token_type_ids": types.astype(np.int64),
                "attention_mask": np.ones_like(tokens, np.int64),
            }  # fmt: skip
        feed = {name: value for name, value in values.items() if name in self._inputs}
        output = np.asarray(self._session.run(None, feed)[0][0], np.float32)
        return float(output[0] if self._head is None else self._head.score(output[0]))


class _Head:
    """BERT's pooler and classifier over the first token."""

    def __init__(self, folder: Path) -> None:
        weights = load_file(str(folder / "model.safetensors"))
        names = ("bert.pooler.dense", "classifier")
        try:
            self._layers = [
                (_float(weights[f"{name}.weight"]), _float(weights[f"{name}.bias"]))
                for name in names
            ]
        except KeyError as error:
            raise RerankerError(
                f"{folder} is no cross-encoder: its weights lack {error}.",
                hint="Use a folder of a BERT classifier, or one with onnx/model.onnx.",
            ) from error

    def score(self, first_token: FloatArray) -> float:
        (pooler, pooler_bias), (classifier, classifier_bias) = self._layers
        pooled = np.tanh(pooler @ first_token + pooler_bias)
        return float(classifier[0] @ pooled + classifier_bias[0])


def _float(weights: NDArray[Any]) -> FloatArray:
    return weights.astype(np.float32)


def _max_tokens(folder: Path) -> int:
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    return int(config.get("max_position_embeddings") or _DEFAULT_MAX_TOKENS)
