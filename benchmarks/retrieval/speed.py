"""Time of a search on one core, beside other engines: words, vectors, and the whole.

Passages are made of the manual's sentences, drawn with a fixed seed; vectors are those of the
manual's passages with noise, so that neighbours are as close as real ones. The question's
embedding is timed apart.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.errors import BenchmarkError
from serving.retrieval.embedders import Embedder, EmbedderSource, FloatArray
from serving.retrieval.embedders.protocol import normalise
from serving.retrieval.fusion import Fusion
from serving.retrieval.index import Candidate, Index, IndexBuilder
from serving.retrieval.index_files import open_generation, write_generation
from serving.retrieval.records import Document, Mode, Passage

_SEED = 7
_SENTENCES = 8  # of a passage; about 130 words
_NOISE = 0.03  # of each component; a unit vector of 384 has 0.05
_DOCUMENT_PASSAGES = 10
_FIRST = 10  # hits that are taken of each search
Search = Callable[[int], object]  # by number of the question


def measure_speed(
    texts: Sequence[str],
    vectors: FloatArray,
    questions: Sequence[str],
    embedder: Embedder,
    *,
    passages: int,
    is_graph: bool,
    with_peers: bool,
    langchain: Path | None = None,
) -> dict[str, Any]:
    """Build an index of `passages` and ask every question. Returns milliseconds by engine.

    `langchain`: the interpreter of an environment that has its stack (`peers/langchain.txt`).
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    made = _passages(texts, passages)
    rows = _rows(vectors, passages)
    asked = np.stack([embedder.embed_query(question) for question in questions])
    result: dict[str, Any] = {"passages": passages, "graph": is_graph, "ms": {}}
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        index = _build(Path(folder), made, rows, is_graph)
        result["build_processor_s"] = round(time.process_time() - started, 1)
        times = result["ms"]
        for mode in Mode:
            times[mode.value] = _time(
                lambda number, mode=mode: _first(
                    index, questions[number], asked[number], mode, _FIRST
                ),
                len(questions),
            )
        result["recall@10"] = _recall(index, rows, asked)
        if with_peers:
            times |= _peers(Path(folder), made, questions)
        index.close()
        if langchain is not None:
            found = _langchain(langchain, Path(folder), made, rows, questions, asked)
            times |= {f"LangChain, {mode.value}": found.pop(mode.value) for mode in Mode}
            result["langchain"] = found
    times["embed the question"] = _time(
        lambda number: embedder.embed_query(questions[number]), len(questions)
    )
    return result


def _passages(texts: Sequence[str], count: int) -> list[str]:
    draw = random.Random(_SEED)
    sentences = [line for text in texts for line in text.split("\n") if len(line.split()) > 6]
    return ["\n".join(draw.choices(sentences, k=_SENTENCES)) for _ in range(count)]


def _rows(vectors: FloatArray, count: int) -> FloatArray:
    draw = np.random.default_rng(_SEED)
    chosen = vectors[draw.integers(0, len(vectors), count)]
    noise = draw.standard_normal(chosen.shape, dtype=np.float32) * np.float32(_NOISE)
    return normalise(chosen + noise)


def _build(folder: Path, made: Sequence[str], rows: FloatArray, is_graph: bool) -> Index:
    builder = IndexBuilder(rows.shape[1], graph_from=0 if is_graph else len(made) + 1)
    for number, text in enumerate(made):
        owner = number // _DOCUMENT_PASSAGES
        document = Document(
            id=f"doc_{owner}", collection="c", address=str(owner), title=text.split("\n")[0],
            media_type="text/plain", language="en", content_sha256="",
        )  # fmt: skip
        passage = Passage(
            id=f"psg_{number}", collection="c", document_id=document.id,
            position=number % _DOCUMENT_PASSAGES, section="", text=text, tokens=0,
        )  # fmt: skip
        builder.add(passage, document, rows[number].astype(np.float16))
    write_generation(
        folder, "one",
        lambda target: builder.write(
            target, digest="", embedder="", source=EmbedderSource(), now=0
        ),
    )  # fmt: skip
    generation = open_generation(folder)
    assert generation is not None
    return Index(generation)


def _time(search: Search, questions: int, rounds: int = 3) -> dict[str, float]:
    """Return median and 95th percentile in milliseconds, of wall and of processor time."""
    search(0)
    wall, processor = [], []
    for _ in range(rounds):
        for number in range(questions):
            before = time.perf_counter(), time.process_time()
            search(number)
            wall.append(time.perf_counter() - before[0])
            processor.append(time.process_time() - before[1])
    return {
        "p50": round(float(np.percentile(wall, 50)) * 1000, 2),
        "p95": round(float(np.percentile(wall, 95)) * 1000, 2),
        "processor_p50": round(float(np.percentile(processor, 50)) * 1000, 2),
        "processor_p95": round(float(np.percentile(processor, 95)) * 1000, 2),
    }


def _first(
    index: Index, question: str, vector: FloatArray, mode: Mode, count: int
) -> list[Candidate]:
    found = index.search(question, vector, mode=mode, given_filter={}, fusion=Fusion())
    return list(islice(found, count))


def _recall(index: Index, rows: FloatArray, asked: FloatArray) -> float:
    """Return the share of the ten nearest (float32) among the index's first ten."""
    found = 0
    for vector in asked:
        exact = np.argsort(-(rows @ vector), kind="stable")[:10]
        candidates = _first(index, "", vector, Mode.VECTOR, 10)
        found += len({f"psg_{row}" for row in exact} & {each.passage_id for each in candidates})
    return round(found / (10 * len(asked)), 4)


def _langchain(
    python: Path,
    folder: Path,
    made: Sequence[str],
    rows: FloatArray,
    questions: Sequence[str],
    asked: FloatArray,
) -> dict[str, Any]:
    """Run LangChain's stack over the same passages and vectors, in a process of its own."""
    (folder / "texts.json").write_text(json.dumps(made))
    (folder / "questions.json").write_text(json.dumps(list(questions)))
    np.save(folder / "vectors.npy", rows)
    np.save(folder / "asked.npy", asked)
    child = Path(__file__).with_name("langchain_child.py")
    done = subprocess.run(
        [str(python), str(child), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"LangChain's stack failed: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout.strip().split("\n")[-1]))


def _peers(folder: Path, made: Sequence[str], questions: Sequence[str]) -> dict[str, Any]:
    """Time other engines for words, those that are installed."""
    found = {"FTS5 (any word)": _fts5(folder, made, questions)}
    for name, measure in (("bm25s", _bm25s), ("tantivy", _tantivy)):
        try:
            found[name] = measure(folder, made, questions)
        except ImportError:
            print(f"{name} is not installed; left out")
    return found


def _fts5(folder: Path, made: Sequence[str], questions: Sequence[str]) -> dict[str, Any]:
    database = sqlite3.connect(folder / "fts.db")
    database.execute("CREATE VIRTUAL TABLE p USING fts5(text, tokenize='porter unicode61')")
    database.executemany("INSERT INTO p(text) VALUES (?)", ((text,) for text in made))
    database.commit()
    query = "SELECT rowid FROM p WHERE p MATCH ? ORDER BY rank LIMIT 200"

    def search(number: int) -> object:
        words = "".join(c if c.isalnum() else " " for c in questions[number]).split()
        any_word = " OR ".join(f'"{word}"' for word in words)
        return database.execute(query, (any_word,)).fetchall()

    return _time(search, len(questions), rounds=1)


def _bm25s(_: Path, made: Sequence[str], questions: Sequence[str]) -> dict[str, Any]:
    import bm25s  # a peer, installed by whoever compares
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    options = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(made), **options), show_progress=False)

    def search(number: int) -> object:
        tokens = bm25s.tokenize([questions[number]], **options)
        return index.retrieve(tokens, k=200, show_progress=False)

    return _time(search, len(questions))


def _tantivy(folder: Path, made: Sequence[str], questions: Sequence[str]) -> dict[str, Any]:
    import tantivy  # a peer, installed by whoever compares

    schema = tantivy.SchemaBuilder()
    schema.add_text_field("text", stored=False, tokenizer_name="en_stem")
    target = folder / "tantivy"
    target.mkdir()
    index = tantivy.Index(schema.build(), path=str(target))
    writer = index.writer(num_threads=1)
    for text in made:
        writer.add_document(tantivy.Document(text=[text]))
    writer.commit()
    index.reload()
    searcher = index.searcher()

    def search(number: int) -> object:
        words = "".join(c if c.isalnum() else " " for c in questions[number])
        return searcher.search(index.parse_query(words, ["text"]), 200)

    return _time(search, len(questions))
