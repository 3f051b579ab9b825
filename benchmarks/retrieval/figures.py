"""Tables of the results, between markers in README.md."""

from __future__ import annotations

from typing import Any

BEGIN = "<!-- results: begin (written by python -m benchmarks.retrieval) -->"
END = "<!-- results: end -->"
_LEGS = {
    "lexical": "words (BM25)",
    "vector": "vectors",
    "hybrid": "both",
    "reranked": "both, reranked",
}
_PARTS = {
    "all": "all questions",
    "unseen": "not looked at while tuning",
    "intent": "none of the page's words",
    "known": "words of the page",
}


def tables(results: dict[str, Any]) -> str:
    """Return the document's part for whatever was measured."""
    parts = []
    if "quality" in results:
        parts.append(_quality(results["quality"]))
    if "speed" in results:
        parts += [_speed(one) for one in results["speed"]]
    if "embedders" in results:
        parts.append(_embedders(results["embedders"]))
    if "postgres" in results:
        parts.append(_postgres(results["postgres"]))
    return "\n\n".join(parts)


def _stamp(measured: dict[str, Any]) -> str:
    return f"Recorded {measured['at']} on {measured['machine']}."


def _quality(measured: dict[str, Any]) -> str:
    indexed = ""
    if measured["embedded"] and measured["index_processor_s"]:
        rate = measured["embedded"] / measured["index_processor_s"]
        indexed = f"Indexed at {rate:.1f} passages per second of processor time. "
    lines = [
        f"**Recall on the manual.** {measured['passages']:,} passages of at most "
        f"{measured['chunk_tokens']} tokens, embedder `{measured['embedder']}`. {indexed}"
        f"{_stamp(measured)}",
        "",
        "| questions | | @1 | @4 | @10 |",
        "|---|---|---:|---:|---:|",
    ]
    for part, name in _PARTS.items():
        for leg, label in _LEGS.items():
            if leg not in measured["recall"]:  # no reranker was set
                continue
            found = measured["recall"][leg][part]
            shares = " | ".join(f"{found[f'@{cut}']:.3f}" for cut in (1, 4, 10))
            lines.append(f"| {name} ({found['questions']}) | {label} | {shares} |")
    return "\n".join(lines)


def _speed(measured: dict[str, Any]) -> str:
    graph = ", candidates from the graph" if measured["graph"] else ""
    lines = [
        f"**One search among {measured['passages']:,} passages{graph}**, one core; recall@10 of "
        f"exact {measured['recall@10']:.4f}; built in {measured['build_processor_s']:g} s of "
        f"processor time without embedding. {_stamp(measured)}",
        "",
        "| | p50 ms | p95 ms | processor p50 ms | processor p95 ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in measured["ms"].items():
        columns = ("p50", "p95", "processor_p50", "processor_p95")
        lines.append(f"| {name} | " + " | ".join(f"{found[key]:.2f}" for key in columns) + " |")
    return "\n".join(lines)


def _embedders(measured: dict[str, Any]) -> str:
    rates = {name: found for name, found in measured.items() if isinstance(found, dict)}
    lines = [
        f"**Embedding {measured['sample']} passages of the manual**, {measured['tokens']:g} tokens "
        f"on average, one core. {_stamp(measured)}",
        "",
        "| | passages per second of processor time | per second |",
        "|---|---:|---:|",
    ]
    for name, found in rates.items():
        lines.append(f"| {name} | {found['per_processor_s']:.1f} | {found['per_s']:.1f} |")
    return "\n".join(lines)


def _postgres(measured: dict[str, Any]) -> str:
    build = measured["build"]
    lines = [
        f"**The manual's {measured['passages']:,} passages in {measured['server']}**: recall over all"
        " questions, time of a search for 100 passages. Written in"
        f" {build['copy_s']:g} s, words indexed in {build['words_s']:g} s, HNSW built in"
        f" {build['hnsw_s']:g} s. {_stamp(measured)}",
        "",
        "| | @1 | @4 | @10 | p50 ms | p95 ms | processor ms, mean |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in measured["engines"].items():
        shares = " | ".join(f"{found[f'@{cut}']:.3f}" for cut in (1, 4, 10))
        times = " | ".join(f"{found[key]:.2f}" for key in ("p50", "p95", "processor_mean"))
        more = f", recall@10 of exact {found['recall@10']:.4f}" if "recall@10" in found else ""
        lines.append(f"| {name}{more} | {shares} | {times} |")
    shares = " | ".join(f"{measured['files'][f'@{cut}']:.3f}" for cut in (1, 4, 10))
    lines.append(f"| words of an index in files (BM25) | {shares} | | | |")
    return "\n".join(lines)
