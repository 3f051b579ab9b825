"""The room for passages: the conversation stays whole, the lowest passages are left out whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.retrieval.records import Outcome, SearchResult
from tests.serving.conftest import Running
from tests.serving.memory_searcher import CitingEngine, MemorySearcher, hit, serve_with
from tests.serving.test_retrieval import ask

CONTEXT = 2048  # of the engine, which counts a token per character here
RAG = {"rag": {"collection": "manual", "top_k": 10}}
HITS = [hit(n, f"passage-{n} " + "x" * 190, score=1 - n / 100) for n in range(10)]


@pytest.fixture
def engine() -> Iterator[CitingEngine]:
    with CitingEngine() as running:
        yield running


@pytest.fixture
def running(engine: CitingEngine, tmp_path: Path) -> Iterator[Running]:
    searcher = MemorySearcher()
    searcher.answer = SearchResult(outcome=Outcome.FOUND, hits=HITS)
    yield from serve_with(searcher, tmp_path / "home", engine, engine_max_model_len=CONTEXT)


def _asked(words: int) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "w" * words}]


@pytest.mark.parametrize("words", [10, 500, 1000, 1400])
@pytest.mark.parametrize("max_tokens", [None, 16, 400])
def test_lowest_passages_are_left_out(
    running: Running, engine: CitingEngine, words: int, max_tokens: int | None
) -> None:
    body: dict[str, Any] = {"messages": _asked(words), **RAG}
    if max_tokens:
        body["max_tokens"] = max_tokens
    _, headers, raw = ask(running, body)
    found = json.loads(raw)["whet"]
    kept = len(found["citations"])
    prompt = engine.seen[-1]["messages"]
    assert prompt[-1]["content"] == "w" * words
    room = CONTEXT - (max_tokens or CONTEXT // 4)
    used = sum(len(message["content"]) for message in prompt) + 1
    assert used <= room and kept < len(HITS)
    one_more = len(HITS[0].text) + 50  # with its source
    assert used + one_more > room  # the next one has no room
    assert [each["passage_id"] for each in found["citations"]] == [
        each.passage_id for each in HITS[:kept]
    ]
    assert found["retrieval"]["dropped_by_budget"] == len(HITS) - kept
    row = running.row(headers["x-whet-interaction-id"])
    assert len(row.retrieved) == kept and row.retrieval["dropped_by_budget"] == len(HITS) - kept


def test_question_without_room_is_asked_alone(running: Running, engine: CitingEngine) -> None:
    _, headers, raw = ask(running, {"messages": _asked(1900), **RAG})
    assert engine.seen[-1]["messages"] == _asked(1900)
    assert json.loads(raw)["whet"]["retrieval"]["dropped_by_budget"] == 10
    assert headers["x-whet-retrieval"] == "found"


def test_bytes_are_the_bound_where_the_engine_counts_nothing(
    running: Running, engine: CitingEngine
) -> None:
    engine.faults.no_tokenize = True
    _, _, raw = ask(running, {"messages": _asked(10), **RAG})
    kept = len(json.loads(raw)["whet"]["citations"])
    prompt = json.dumps(engine.seen[-1]["messages"])
    assert 0 < kept < 10 and len(prompt) <= CONTEXT - CONTEXT // 4
