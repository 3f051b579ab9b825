"""PostgreSQL's own full-text search and pgvector over the manual, beside the files of an index.

`python -m benchmarks.retrieval.postgres URL`: fills a table `whet_bench_passages` in a scratch
database of this machine that may create the extension `vector`, asks every question, drops the
table, and writes the figures. Run the part `quality` of `python -m benchmarks.retrieval` first.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks.retrieval.__main__ import _COLLECTION, _record, _stamp
from benchmarks.retrieval.manual import load_questions
from benchmarks.retrieval.quality import _recall, _shares
from serving.retrieval.documents_store import passages_of, require_collection
from serving.retrieval.embedders import FloatArray, open_embedder
from serving.retrieval.passages import embedded_text
from serving.retrieval.records import Mode
from serving.retrieval.search import IndexSearcher
from serving.retrieval.vectors_store import read_vectors
from whet.context import open_context
from whet.database import reading
from whet.settings import load_settings

_FIRST = 100  # passages that are asked for; enough for ten different pages
_TABLE = "whet_bench_passages"
_ROUNDS = 3
# Any word of the question, as BM25 takes it; the ranks that PostgreSQL has.
_WORDS = (
    f"SELECT page, id FROM {_TABLE}, to_tsquery('english', %s) q WHERE words @@ q"
    " ORDER BY {rank} DESC, id LIMIT %s"
)
_RANKS = {
    "ts_rank": "ts_rank(words, q, 1)",
    "ts_rank_cd": "ts_rank_cd(words, q, 1)",
}
_NEAREST = f"SELECT page, id FROM {_TABLE} ORDER BY vector <#> %s::vector LIMIT %s"
Ask = Callable[[int], list[tuple[str, int]]]  # by number of the question: (page, row)


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of a scratch database")
    parser.add_argument("--home", type=Path, required=True, help="that `quality` has indexed")
    options = parser.parse_args(given)
    context = open_context(load_settings(home=options.home))
    embedder = open_embedder(context.settings)
    with reading(context.database) as connection:
        rows = list(passages_of(connection, _COLLECTION))
        identity = require_collection(connection, _COLLECTION).embedder
        vectors = read_vectors(connection, [digest for _, _, digest in rows], identity)
    matrix = np.stack([vectors[digest] for _, _, digest in rows]).astype(np.float32)
    texts = [embedded_text(doc.title, one.section, one.text) for one, doc, _ in rows]
    pages = [document.address for _, document, _ in rows]
    asked = np.stack([embedder.embed_query(one.question) for one in load_questions()])
    with psycopg.connect(options.url, autocommit=True) as server:
        measured = _measure(server, pages, texts, matrix, asked)
        server.execute(f"DROP TABLE {_TABLE}")
    searcher = IndexSearcher(context, partial(open_embedder, context.settings))
    measured["files"] = _recall(searcher, Mode.LEXICAL, load_questions())["all"]
    searcher.close()
    _record("postgres", measured | {"passages": len(rows)} | _stamp())
    return 0


def _measure(
    server: psycopg.Connection[Any],
    pages: Sequence[str],
    texts: Sequence[str],
    matrix: FloatArray,
    asked: FloatArray,
) -> dict[str, Any]:
    build = _fill(server, pages, texts, matrix)
    version = server.execute("SHOW server_version").fetchone()
    extension = server.execute(
        "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    ).fetchone()
    assert version and extension
    engines: dict[str, Any] = {}
    lexemes = [_any_word(server, one.question) for one in load_questions()]
    for name, rank in _RANKS.items():
        query = _WORDS.format(rank=rank)
        engines[f"text, {name}"] = _ask_all(server, partial(_run, server, query, lexemes))
    written = [str(vector.tolist()) for vector in asked]
    nearest = partial(_run, server, _NEAREST, written)
    engines["pgvector, exact"] = _ask_all(server, nearest)
    began = time.perf_counter()
    server.execute(f"CREATE INDEX ON {_TABLE} USING hnsw (vector vector_ip_ops)")
    build["hnsw_s"] = round(time.perf_counter() - began, 1)
    server.execute("SET hnsw.ef_search = 200")
    server.execute("SET enable_seqscan = off")
    engines["pgvector, HNSW"] = _ask_all(server, nearest)
    engines["pgvector, HNSW"]["recall@10"] = _recall_of_exact(nearest, matrix, asked)
    return {
        "engines": engines,
        "build": build,
        "server": f"PostgreSQL {version[0]}, pgvector {extension[0]}",
    }


def _fill(
    server: psycopg.Connection[Any], pages: Sequence[str], texts: Sequence[str], matrix: FloatArray
) -> dict[str, float]:
    server.execute("CREATE EXTENSION IF NOT EXISTS vector")
    server.execute(f"DROP TABLE IF EXISTS {_TABLE}")
    server.execute(
        f"CREATE TABLE {_TABLE} (id integer PRIMARY KEY, page text, body text,"
        f" words tsvector, vector vector({matrix.shape[1]}))"
    )
    began = time.perf_counter()
    with server.cursor().copy(f"COPY {_TABLE} (id, page, body, vector) FROM STDIN") as copy:
        for number, (page, text) in enumerate(zip(pages, texts, strict=True)):
            copy.write_row((number, page, text.replace("\0", ""), str(matrix[number].tolist())))
    copied = time.perf_counter()
    server.execute(f"UPDATE {_TABLE} SET words = to_tsvector('english', body)")
    server.execute(f"CREATE INDEX ON {_TABLE} USING gin (words)")
    server.execute(f"VACUUM ANALYZE {_TABLE}")
    return {
        "copy_s": round(copied - began, 1),
        "words_s": round(time.perf_counter() - copied, 1),
    }


def _any_word(server: psycopg.Connection[Any], question: str) -> str:
    """Return the question's lexemes joined by OR; no row has an empty query."""
    found = server.execute(
        "SELECT string_agg(quote_literal(lexeme), ' | ') FROM unnest(to_tsvector('english', %s))",
        (question,),
    ).fetchone()
    return str(found[0]) if found and found[0] else "''"


def _run(
    server: psycopg.Connection[Any], query: str, values: Sequence[str], number: int
) -> list[tuple[str, int]]:
    return server.execute(query, (values[number], _FIRST)).fetchall()


def _ask_all(server: psycopg.Connection[Any], ask: Ask) -> dict[str, Any]:
    """Return recall of pages, wall times, and the server's mean processor time, in milliseconds."""
    questions = load_questions()
    ask(0)
    wall = []
    before = _processor_s(server)
    for _ in range(_ROUNDS):
        for number in range(len(questions)):
            began = time.perf_counter()
            ask(number)
            wall.append(time.perf_counter() - began)
    spent = _processor_s(server) - before
    found = [
        (question, list(dict.fromkeys(page for page, _ in ask(number))))
        for number, question in enumerate(questions)
    ]
    return _shares(found) | {
        "p50": round(float(np.percentile(wall, 50)) * 1000, 2),
        "p95": round(float(np.percentile(wall, 95)) * 1000, 2),
        "processor_mean": round(spent * 1000 / len(wall), 2),
    }


def _processor_s(server: psycopg.Connection[Any]) -> float:
    """Return the processor time of the server's process for this connection."""
    fields = Path(f"/proc/{server.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _recall_of_exact(ask: Ask, matrix: FloatArray, asked: FloatArray) -> float:
    found = 0
    for number, vector in enumerate(asked):
        exact = set(np.argsort(-(matrix @ vector), kind="stable")[:10].tolist())
        found += len(exact & {row for _, row in ask(number)[:10]})
    return round(found / (10 * len(asked)), 4)


if __name__ == "__main__":
    raise SystemExit(main())
