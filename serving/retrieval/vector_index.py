"""The vector leg: an exact scan of 8-bit rows, rescored in 16 bits, as arrays in files.

Above `GRAPH_FROM` passages a graph (HNSW, usearch) chooses the candidates instead; a filtered
search scans all the same, so that `top_k` is exact with filters.
"""

from __future__ import annotations

from pathlib import Path

import numkong
import numpy as np
from numpy.typing import NDArray
from usearch.index import Index as Graph

from serving.retrieval.embedders.protocol import FloatArray

GRAPH_FROM = 300_000  # passages; a scan of so many takes one core about 6 ms, of a million 20
# Candidates that are rescored with 16 bits. The 8-bit error is below 0.01, so the ten nearest are
# among the nearest hundreds (benchmarks/retrieval).
RESCORED = 400
_INT8_MAX = 127
# HNSW: neighbours per node and the lengths of the candidate lists while adding and searching,
# chosen for recall@10 of 0.98 (benchmarks/retrieval).
_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 16, 128, 512
_GRAPH_FILE = "vectors.usearch"

IntArray = NDArray[np.int64]


def write_vectors(folder: Path, vectors: NDArray[np.float16], *, graph_from: int) -> None:
    """Write the index of unit vectors [passages, dimension] into `folder`."""
    np.save(folder / "vectors_f16.npy", vectors)
    integers, scales = _quantize(vectors)
    np.save(folder / "vectors_i8.npy", integers)
    np.save(folder / "vectors_scales.npy", scales)
    if len(vectors) >= graph_from:
        graph = _new_graph(vectors.shape[1])
        graph.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)
        graph.save(str(folder / _GRAPH_FILE))


def _new_graph(dimension: int) -> Graph:
    return Graph(
        ndim=dimension,
        metric="ip",
        dtype="i8",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION_ADD,
        expansion_search=_EXPANSION_SEARCH,
    )


def _quantize(vectors: NDArray[np.float16]) -> tuple[NDArray[np.int8], FloatArray]:
    integers = np.zeros(vectors.shape, np.int8)
    scales = np.zeros(len(vectors), np.float32)
    for at in range(0, len(vectors), 65_536):  # rows at a time, so that float32 copies stay small
        rows = np.asarray(vectors[at : at + 65_536], np.float32)
        scale = np.maximum(np.abs(rows).max(axis=1), 1e-12) / _INT8_MAX
        integers[at : at + len(rows)] = np.rint(rows / scale[:, None])
        scales[at : at + len(rows)] = scale
    return integers, scales


class VectorIndex:
    """The written index, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self._exact = np.load(folder / "vectors_f16.npy", mmap_mode="r")
        self._integers = np.load(folder / "vectors_i8.npy", mmap_mode="r")
        self._scales = np.load(folder / "vectors_scales.npy", mmap_mode="r")
        self._graph = None
        if (folder / _GRAPH_FILE).is_file():
            self._graph = _new_graph(self._exact.shape[1])
            self._graph.view(str(folder / _GRAPH_FILE))

    def nearest(
        self, query: FloatArray, count: int, mask: NDArray[np.bool_] | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return (rows, cosines) of the nearest, best first, among those that `mask` allows."""
        if len(self._exact) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        wanted = max(count, RESCORED)
        if self._graph is not None and mask is None:
            rows = np.asarray(self._graph.search(query, wanted).keys, np.int64)
        else:
            rows = best(self._scan(query), wanted, mask)
        cosines = self.cosines(query, rows)
        order = np.argsort(-cosines, kind="stable")[:count]
        return rows[order], cosines[order]

    def cosines(self, query: FloatArray, rows: IntArray) -> FloatArray:
        """Return the exact cosines of these rows."""
        return np.asarray(self._exact[rows], np.float32) @ query

    def _scan(self, query: FloatArray) -> FloatArray:
        scale = max(float(np.abs(query).max()), 1e-12) / _INT8_MAX
        integers = np.rint(query / scale).astype(np.int8)
        products = np.asarray(numkong.cdist(integers[None], self._integers, "dot"))[0]
        return np.asarray(products * self._scales * scale, np.float32)


def best(
    scores: FloatArray, count: int, mask: NDArray[np.bool_] | None, above: float = -np.inf
) -> IntArray:
    """Return the positions of the highest scores above `above`, best first, ties by position."""
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    count = min(count, len(scores))
    if count == 0:
        return np.zeros(0, np.int64)
    chosen = np.argpartition(-scores, count - 1)[:count]
    chosen = np.sort(chosen)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return np.asarray(chosen[scores[chosen] > above], np.int64)
