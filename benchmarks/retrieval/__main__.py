"""`python -m benchmarks.retrieval [quality] [speed] [embedders]`: measure and write the tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.document import put_between_markers
from benchmarks.retrieval.embedders import measure_embedders
from benchmarks.retrieval.figures import BEGIN, END, tables
from benchmarks.retrieval.manual import load_questions
from benchmarks.retrieval.quality import measure_quality
from benchmarks.retrieval.speed import measure_speed
from serving.retrieval.documents_store import passages_of, require_collection
from serving.retrieval.embedders import FloatArray, open_embedder
from serving.retrieval.passages import embedded_text
from serving.retrieval.vectors_store import read_vectors
from whet.context import Context, open_context
from whet.database import reading
from whet.errors import WhetError
from whet.settings import load_settings

PARTS = ("quality", "speed", "embedders")
_HERE = Path(__file__).parent
_RESULTS = _HERE / "results" / "results.json"
_COLLECTION = "manual"


def main(given: list[str]) -> int:
    """0: done; 2: it could not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    cache = os.environ.get("WHET_BENCH_CACHE", _HERE.parents[1] / ".bench")
    parser.add_argument(
        "--cache", type=Path, default=Path(cache), help="folder for manual and index"
    )
    parser.add_argument(
        "--passages", default="10000,100000", help="sizes that speed is measured at"
    )
    parser.add_argument("--graph", action="store_true", help="measure speed with the graph")
    parser.add_argument("--no-peers", action="store_true", help="leave out other engines")
    parser.add_argument(
        "--langchain", type=Path, help="interpreter of an environment with peers/langchain.txt"
    )
    options = parser.parse_args(given)
    options.cache = options.cache.absolute()
    try:
        for part in options.parts or PARTS:
            _record(part, _measure(part, options))
    except WhetError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _measure(part: str, options: argparse.Namespace) -> Any:
    home = options.cache / "retrieval-home"
    if part == "quality":
        return measure_quality(options.cache, home) | _stamp()
    context = open_context(load_settings(home=home))
    embedder = open_embedder(context.settings)
    texts, vectors = _manual(context)
    if part == "embedders":
        return measure_embedders(texts, embedder) | _stamp()
    questions = [each.question for each in load_questions()]
    return [
        measure_speed(
            texts, vectors, questions, embedder, passages=int(size), is_graph=options.graph,
            with_peers=not options.no_peers, langchain=options.langchain,
        )
        | _stamp()
        for size in options.passages.split(",")
    ]  # fmt: skip


def _manual(context: Context) -> tuple[list[str], FloatArray]:
    """Return texts and vectors of the indexed manual. Raises WhetError before `quality` ran."""
    with reading(context.database) as connection:
        identity = require_collection(connection, _COLLECTION).embedder
        rows = list(passages_of(connection, _COLLECTION))
        vectors = read_vectors(connection, [digest for _, _, digest in rows], identity)
    if not vectors or len(vectors) < len({digest for _, _, digest in rows}):
        raise WhetError("The manual is not indexed.", hint="Run the part `quality` first.")
    texts = [embedded_text(doc.title, each.section, each.text) for each, doc, _ in rows]
    return texts, np.stack([vectors[digest] for _, _, digest in rows]).astype(np.float32)


def _stamp() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{_processor()} ({cores} of its cores, load {load:.1f})",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _record(part: str, measured: Any) -> None:
    results = json.loads(_RESULTS.read_text()) if _RESULTS.is_file() else {}
    if part == "speed":  # sizes that were not measured now stay
        measured = _merged(results.get("speed", []), measured)
    results[part] = measured
    _RESULTS.parent.mkdir(exist_ok=True)
    _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    document = _HERE / "README.md"
    document.write_text(put_between_markers(document.read_text(), tables(results), BEGIN, END))


def _merged(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {(each["passages"], each["graph"]): each for each in [*before, *now]}
    return [found[key] for key in sorted(found)]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
