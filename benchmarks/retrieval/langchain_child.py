"""LangChain's default stack in an environment of its own: Chroma and rank_bm25, joined by ranks.

`PYTHON langchain_child.py FOLDER`: reads `texts.json`, `vectors.npy`, `questions.json` and
`asked.npy`, prints milliseconds as JSON. Vectors are given, so that only the search is timed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from langchain_chroma import Chroma
from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_core.embeddings import Embeddings

FIRST, BATCH = 10, 5000  # hits of a search; passages that Chroma takes at once
MOST_SECONDS = 60.0  # of one mode


class Given(Embeddings):
    """Embeddings by text, made before."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self._vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors[text]


def main(folder: Path) -> int:
    texts = json.loads((folder / "texts.json").read_text())
    questions = json.loads((folder / "questions.json").read_text())
    rows, asked = np.load(folder / "vectors.npy"), np.load(folder / "asked.npy")
    known = dict(zip(questions, asked.tolist(), strict=True))
    given = Given(known)
    began = time.process_time()
    # Cosines; every other setting as it comes.
    store = Chroma(
        "c", given, str(folder / "chroma"), collection_configuration={"hnsw": {"space": "cosine"}}
    )
    for at in range(0, len(texts), BATCH):
        store._collection.add(
            ids=[str(number) for number in range(at, min(at + BATCH, len(texts)))],
            documents=texts[at : at + BATCH],
            embeddings=rows[at : at + BATCH],
        )
    chroma_s = time.process_time() - began
    words = BM25Retriever.from_texts(texts, k=FIRST)
    built = {"chroma_build_s": round(chroma_s, 1)}
    built["bm25_build_s"] = round(time.process_time() - began - chroma_s, 1)
    vectors = store.as_retriever(search_kwargs={"k": FIRST})
    both = EnsembleRetriever(retrievers=[words, vectors], weights=[0.5, 0.5])
    result = {
        "lexical": measure(words.invoke, questions),
        "vector": measure(vectors.invoke, questions),
        "hybrid": measure(both.invoke, questions),
        "recall@10": recall(store, rows, asked),
        **built,
    }
    print(json.dumps(result))
    return 0


def measure(search: Callable[[str], object], questions: list[str]) -> dict[str, float]:
    """Return median and 95th percentile in milliseconds, of wall and of processor time."""
    search(questions[0])
    wall, processor, began = [], [], time.perf_counter()
    for question in questions:
        before = time.perf_counter(), time.process_time()
        search(question)
        wall.append(time.perf_counter() - before[0])
        processor.append(time.process_time() - before[1])
        if time.perf_counter() - began > MOST_SECONDS:
            break
    return {
        name: round(float(np.percentile(values, at)) * 1000, 2)
        for name, values, at in (
            ("p50", wall, 50), ("p95", wall, 95),
            ("processor_p50", processor, 50), ("processor_p95", processor, 95),
        )
    }  # fmt: skip


def recall(store: Chroma, rows: np.ndarray, asked: np.ndarray) -> float:
    """Return the share of the ten nearest among Chroma's first ten."""
    found = 0
    for vector in asked:
        nearest = set(np.argsort(-(rows @ vector), kind="stable")[:FIRST].tolist())
        hits = store._collection.query(query_embeddings=[vector.tolist()], n_results=FIRST)
        found += len(nearest & {int(one) for one in hits["ids"][0]})
    return round(found / (FIRST * len(asked)), 4)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
