"""What a client of the gateway gets with `rag`, whole and streamed, and what the log keeps."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.pages.passage_values import describe_retrieval
from serving.replay import replay_interaction
from serving.retrieval.defaults_store import RetrievalDefault, attach, detach
from serving.retrieval.records import Outcome, SearchResult
from tests.serving.conftest import Running
from tests.serving.memory_searcher import (
    DIGEST,
    CitingEngine,
    MemorySearcher,
    add_collection,
    hit,
    serve_with,
)
from tests.serving.mock_engine import BASE
from whet.access import create_key
from whet.clock import now_ms
from whet.context import open_context
from whet.database import writing
from whet.settings import load_settings

ASKED: list[Any] = [{"role": "user", "content": "How many months are lamps kept?"}]
LAMPS = hit(1, "Lamps are kept 24 months.")
KETTLES = hit(2, "Kettles are kept 12 months.", address="https://shop.example/kettles")
RAG = {"rag": {"collection": "manual"}}
PROMPT = (
    'Use this information:\n[1] From "Page 1 > Terms" (pages/1.md):\nLamps are kept 24 months.\n'
    '[2] From "Page 2 > Terms" (https://shop.example/kettles):\nKettles are kept 12 months.'
)


@pytest.fixture
def searcher() -> MemorySearcher:
    return MemorySearcher([LAMPS, KETTLES])


@pytest.fixture
def engine() -> Iterator[CitingEngine]:
    with CitingEngine() as running:
        yield running


@pytest.fixture
def running(searcher: MemorySearcher, engine: CitingEngine, tmp_path: Path) -> Iterator[Running]:
    yield from serve_with(searcher, tmp_path / "home", engine)


def ask(
    running: Running, body: dict[str, Any], path: str = "chat/completions", key: str = ""
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    headers = {"Authorization": f"Bearer {key or running.key}"}
    asked = {"model": "support", **body}
    connection.request("POST", f"/v1/{path}", json.dumps(asked), headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, content


def chunks_of(raw: bytes) -> list[dict[str, Any]]:
    assert raw.endswith(b"data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in raw.split(b"\n\n") if line.startswith(b"data: {")]


def events_of(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.split(b"data: ", 1)[1]) for event in raw.split(b"\n\n") if event]


def test_answer_names_its_sources(running: Running, engine: CitingEngine) -> None:
    status, headers, raw = ask(running, {"messages": ASKED, **RAG})
    body = json.loads(raw)
    assert status == 200 and headers["x-whet-retrieval"] == "found"
    assert engine.seen[-1]["messages"] == [{"role": "system", "content": PROMPT}, *ASKED]
    assert "rag" not in engine.seen[-1]
    text = body["choices"][0]["message"]["content"]
    (annotation,) = body["choices"][0]["message"]["annotations"]
    cited = annotation["url_citation"]
    assert annotation["type"] == "url_citation"
    assert text[cited["start_index"] : cited["end_index"]] == "[1]"
    assert (cited["url"], cited["title"]) == ("pages/1.md", "Page 1")
    citations = body["whet"]["citations"]
    assert [(each["number"], each["used"]) for each in citations] == [(1, True), (2, False)]
    assert citations[0]["passage_id"] == LAMPS.passage_id and citations[0]["text"] == LAMPS.text
    assert body["whet"]["retrieval"]["digest"] == DIGEST
    row = running.row(headers["x-whet-interaction-id"])
    assert [each["passage_id"] for each in row.retrieved] == [LAMPS.passage_id, KETTLES.passage_id]
    assert row.request["messages"] == ASKED and row.request["rag"] == {"collection": "manual"}
    logged = row.retrieval
    assert (logged["outcome"], logged["source"], logged["cited"]) == ("found", "request", [1])
    assert logged["query"] == ASKED[0]["content"] and row.response_text == text


@pytest.mark.parametrize("split_bytes", [None, 1, 64])
@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("is_last_text_with_finish", [True, False])
def test_stream_carries_the_same_citations(
    running: Running,
    engine: CitingEngine,
    monkeypatch: pytest.MonkeyPatch,
    split_bytes: int | None,
    usage: bool,
    is_last_text_with_finish: bool,
) -> None:
    engine.answer = ["Lampen 💡", " [1]", " und", " [2]", "[9]", " `a[1]`", " [1, 2]"]
    whole = json.loads(ask(running, {"messages": ASKED, **RAG})[2])
    engine.faults.split_bytes = split_bytes
    if is_last_text_with_finish:
        monkeypatch.setattr(engine, "_events", _merge_finish(engine._events))
    body: dict[str, Any] = {"messages": ASKED, "stream": True, **RAG}
    if usage:
        body["stream_options"] = {"include_usage": True}
    _, headers, raw = ask(running, body)
    chunks = chunks_of(raw)
    assert chunks[0]["whet"]["citations"][0]["used"] is None
    assert chunks[-1]["whet"] == whole["whet"]
    assert [number for number, chunk in enumerate(chunks) if "whet" in chunk] == [
        0, len(chunks) - 1
    ]  # fmt: skip
    assert bool(chunks[-1].get("usage")) is usage
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    texts = [number for number, each in enumerate(choices) if each["delta"].get("content")]
    (annotated,) = [n for n, each in enumerate(choices) if "annotations" in each["delta"]]
    (finish,) = [n for n, each in enumerate(choices) if each["finish_reason"]]
    assert texts[-1] < annotated < finish
    message = whole["choices"][0]["message"]
    assert choices[annotated]["delta"]["annotations"] == message["annotations"]
    text = "".join(each["delta"].get("content") or "" for each in choices)
    assert text == message["content"] == "".join(engine.answer)
    spans = [each["url_citation"] for each in message["annotations"]]
    shown = [text[each["start_index"] : each["end_index"]] for each in spans]
    assert shown == ["[1]", "[2]", "[1, 2]", "[1, 2]"]
    assert spans[1]["url"] == "https://shop.example/kettles"
    row = running.row(headers["x-whet-interaction-id"])
    assert row.response_text == text and row.retrieval["cited"] == [1, 2]
    assert row.retrieval["invalid_marks"] == 1 and row.status == "complete"


def _merge_finish(events: Any) -> Any:
    """Let the last text and the finish be one chunk, as vLLM sends them."""

    def merged(*arguments: Any) -> list[bytes]:
        found = events(*arguments)
        at = next(n for n, each in enumerate(found) if b'"finish_reason":"stop"' in each)
        last = found[at - 1].replace(b'"finish_reason":null', b'"finish_reason":"stop"')
        return [*found[: at - 1], last, *found[at + 1 :]]

    return merged


def test_openai_client_reads_annotations(running: Running) -> None:
    client = running.client()
    answer = client.chat.completions.create(model="support", messages=ASKED, extra_body=RAG)
    annotations = answer.choices[0].message.annotations
    assert annotations and annotations[0].url_citation.title == "Page 1"
    stream = client.chat.completions.create(
        model="support", messages=ASKED, stream=True, extra_body=RAG
    )
    deltas = [chunk.choices[0].delta for chunk in stream]
    (found,) = [d.annotations for d in deltas if getattr(d, "annotations", None)]  # type: ignore[attr-defined]
    assert found == [each.model_dump() for each in annotations]


@pytest.mark.parametrize("stream", [False, True])
def test_no_passage_of_one_word_is_cited_in_an_empty_answer(
    running: Running, engine: CitingEngine, stream: bool
) -> None:
    engine.answer = ["No mark."]
    _, _, raw = ask(running, {"messages": ASKED, "stream": stream, **RAG})
    if stream:
        chunks = chunks_of(raw)
        assert not any("annotations" in c["choices"][0]["delta"] for c in chunks)
        found = chunks[-1]["whet"]
    else:
        body = json.loads(raw)
        assert body["choices"][0]["message"]["annotations"] == []
        found = body["whet"]
    assert [each["used"] for each in found["citations"]] == [False, False]


# --- outcomes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (SearchResult(outcome=Outcome.EMPTY, collection_digest=DIGEST), "empty"),
        (SearchResult(outcome=Outcome.FAILED, message="index gone: /var/x"), "failed"),
    ],
)
def test_answer_without_passages_says_why(
    running: Running,
    searcher: MemorySearcher,
    engine: CitingEngine,
    result: SearchResult,
    outcome: str,
    stream: bool,
) -> None:
    searcher.answer = result
    status, headers, raw = ask(running, {"messages": ASKED, "stream": stream, **RAG})
    found = (chunks_of(raw)[-1] if stream else json.loads(raw))["whet"]
    assert status == 200 and headers["x-whet-retrieval"] == outcome
    assert found["retrieval"]["outcome"] == outcome and found["citations"] == []
    assert b"/var/x" not in raw
    assert engine.seen[-1]["messages"] == ASKED
    row = running.row(headers["x-whet-interaction-id"])
    assert row.retrieved == [] and row.retrieval["outcome"] == outcome
    assert row.retrieval["message"] == result.message
    metrics = running.app.core.metrics.exposition().decode()
    assert f'whet_gateway_retrievals_total{{outcome="{outcome}"}} 1.0' in metrics


def test_failed_search_fails_the_request_on_wish(
    running: Running, searcher: MemorySearcher, engine: CitingEngine
) -> None:
    searcher.answer = SearchResult(outcome=Outcome.FAILED)
    rag = {"collection": "manual", "on_error": "fail"}
    status, headers, raw = ask(running, {"messages": ASKED, "rag": rag})
    assert status == 503 and json.loads(raw)["error"]["code"] == "retrieval_failed"
    assert headers["x-whet-retrieval"] == "failed" and engine.seen == []
    assert running.row(headers["x-whet-interaction-id"]).retrieval["outcome"] == "failed"


def test_unknown_and_forbidden_are_the_same_404(running: Running, engine: CitingEngine) -> None:
    add_collection(running, "secret", allowed=["key_of_nobody"])
    found = []
    for name in ("secret", "unheard"):
        status, headers, raw = ask(running, {"messages": ASKED, "rag": {"collection": name}})
        assert status == 404 and headers["x-whet-retrieval"] == "forbidden"
        assert running.row(headers["x-whet-interaction-id"]).retrieval["outcome"] == "forbidden"
        found.append(raw.replace(name.encode(), b"NAME"))
    assert found[0] == found[1] and b"collection_not_found" in found[0]
    assert engine.seen == []


def test_search_never_returns_more_than_asked(running: Running, searcher: MemorySearcher) -> None:
    """Whatever an index gives: other collections, lower scores and surplus stay out."""
    hits = [
        hit(1, "other", collection="secret", score=0.9),
        *(hit(n, f"text {n}", score=0.9 - n / 10) for n in range(2, 8)),
    ]
    searcher.answer = SearchResult(outcome=Outcome.FOUND, hits=hits)
    rag = {"collection": "manual", "top_k": 2, "min_score": 0.35}
    body = json.loads(ask(running, {"messages": ASKED, "rag": rag})[2])
    assert [each["text"] for each in body["whet"]["citations"]] == ["text 2", "text 3"]
    rag["min_score"] = 0.95
    body = json.loads(ask(running, {"messages": ASKED, "rag": rag})[2])
    assert body["whet"]["retrieval"]["outcome"] == "empty"


# --- what is searched ----------------------------------------------------------------------------


def _attach(running: Running, **more: Any) -> None:
    default = RetrievalDefault(alias="support", collection="manual", actor="tests", **more)
    with writing(running.context.database) as connection:
        attach(connection, default)
    running.refresh()


def test_default_of_the_alias(running: Running, searcher: MemorySearcher) -> None:
    _attach(running, top_k=1, min_score=0.2, filter={"language": "en"})
    body = json.loads(ask(running, {"messages": ASKED})[2])
    assert len(body["whet"]["citations"]) == 1
    asked = searcher.asked[-1]
    assert (asked.top_k, asked.min_score, asked.filter) == (1, 0.2, {"language": "en"})
    assert "whet" not in json.loads(ask(running, {"messages": ASKED, "rag": False})[2])
    assert len(json.loads(ask(running, {"messages": ASKED, "rag": {"top_k": 2}})[2])["whet"][
        "citations"]) == 2  # fmt: skip
    assert "whet" not in json.loads(ask(running, {"model": "base", "messages": ASKED})[2])
    with writing(running.context.database) as connection:
        detach(connection, "support", actor="tests", now=1)
    running.refresh()
    assert "whet" not in json.loads(ask(running, {"messages": ASKED})[2])


def test_default_that_the_key_may_not_read_answers_without(running: Running) -> None:
    add_collection(running, "secret", allowed=["key_of_nobody"])
    with writing(running.context.database) as connection:
        attach(connection, RetrievalDefault(alias="support", collection="secret", actor="tests"))
    running.refresh()
    status, headers, _ = ask(running, {"messages": ASKED})
    assert status == 200 and headers["x-whet-retrieval"] == "forbidden"


@pytest.mark.parametrize(
    ("messages", "query", "is_follow_up"),
    [
        (["How long are lamps kept?"], "How long are lamps kept?", False),
        (["How long are lamps kept?", "And kettles?"], "How long are lamps kept?\nAnd kettles?",
         True),
        (["Hello", "How many months are kettles kept?"], "How many months are kettles kept?",
         False),
    ],
)  # fmt: skip
def test_query(
    running: Running, searcher: MemorySearcher, messages: list[str], query: str, is_follow_up: bool
) -> None:
    turns: list[Any] = []
    for text in messages:
        turns += [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    body = json.loads(ask(running, {"messages": turns[:-1], **RAG})[2])
    assert searcher.asked[-1].query == query == body["whet"]["retrieval"]["query"]
    assert running.row(body["id"]).retrieval["is_follow_up"] is is_follow_up


def test_a_question_of_a_conversation_is_rewritten_before_the_search(
    searcher: MemorySearcher, engine: CitingEngine, tmp_path: Path
) -> None:
    asked: list[Any] = [
        {"role": "user", "content": "How long are lamps kept?"},
        {"role": "assistant", "content": "24 months."},
        {"role": "user", "content": "And if somebody bought one used?"},
    ]
    rewritten = "How long are used lamps kept?"
    as_it_stands = "And if somebody bought one used?"
    serving = serve_with(searcher, tmp_path / "home", engine, query_rewrite_s=0.5)
    for running in serving:
        engine.rewritten = f'"{rewritten}"\n'
        body = json.loads(ask(running, {"messages": asked, **RAG})[2])
        rewrite, answer = engine.seen[-2:]
        assert rewrite["model"] == BASE and rewrite["max_tokens"] == 64
        assert "assistant: 24 months." in rewrite["messages"][1]["content"]
        assert searcher.asked[-1].query == rewritten
        told = body["whet"]["retrieval"]
        assert (told["query"], told["rewritten_from"]) == (rewritten, as_it_stands)
        logged = running.row(body["id"]).retrieval
        assert logged["rewritten_from"] == as_it_stands and logged["rewrite"]["problem"] == ""
        assert rewritten not in json.dumps(answer), "the model sees the client's words"

        for wrong, problem in (("", "nothing"), ("long " * 100, "more than a question")):
            engine.rewritten = wrong
            body = json.loads(ask(running, {"messages": asked, **RAG})[2])
            assert searcher.asked[-1].query == as_it_stands
            assert "rewritten_from" not in body["whet"]["retrieval"]
            assert problem in running.row(body["id"]).retrieval["rewrite"]["problem"]
        engine.rewritten = rewritten
        engine.rewrite_delay_s = 1.0
        body = json.loads(ask(running, {"messages": asked, **RAG})[2])
        assert searcher.asked[-1].query == as_it_stands
        logged = running.row(body["id"]).retrieval
        assert "longer than 0.5 s" in logged["rewrite"]["problem"]
        assert logged["rewrite"]["took_ms"] < 950, "the answer waits no longer"
        view = describe_retrieval(logged, [], "")
        assert view is not None and "it took longer than 0.5 s" in view.details

        calls = len(engine.seen)
        for single in ({"messages": ASKED, **RAG}, {"messages": asked}):
            ask(running, single)
        assert len(engine.seen) == calls + 2, "one turn, or no search: nothing is asked"


@pytest.mark.parametrize(
    ("rag", "param"),
    [
        (True, "rag.collection"),
        ({}, "rag.collection"),
        ({"collection": "manual", "top_k": 0}, "rag.top_k"),
        ({"collection": "manual", "mode": "magic"}, "rag.mode"),
        ({"collection": "manual", "min_score": 2}, "rag.min_score"),
        ({"collection": "manual", "filter": {"a": {"b": 1}}}, None),
        ("manual", "rag"),
    ],
)
def test_wrong_rag_is_refused(running: Running, rag: Any, param: str | None) -> None:
    status, _, raw = ask(running, {"messages": ASKED, "rag": rag})
    error = json.loads(raw)["error"]
    assert status == 400 and (param is None or error["param"] == param)


def test_plain_completions_do_not_retrieve(running: Running) -> None:
    status, _, raw = ask(running, {"prompt": "x", **RAG}, "completions")
    assert status == 400 and "/v1/chat/completions" in json.loads(raw)["error"]["message"]
    _attach(running)
    assert "whet" not in json.loads(ask(running, {"prompt": "x"}, "completions")[2])


# --- the file_search tool ------------------------------------------------------------------------

FILE_SEARCH: dict[str, Any] = {
    "type": "file_search",
    "vector_store_ids": ["manual"],
    "max_num_results": 1,
    "ranking_options": {"score_threshold": 0.1},
    "filters": {"type": "and", "filters": [{"type": "eq", "key": "language", "value": "en"}]},
}


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_file_search_is_another_spelling(
    running: Running, searcher: MemorySearcher, engine: CitingEngine, path: str
) -> None:
    asked = {"input": "Lamps?"} if path == "responses" else {"messages": ASKED}
    choice = {"type": "file_search"}
    body = {**asked, "tools": [FILE_SEARCH], "tool_choice": choice}
    status, headers, raw = ask(running, body, path)
    assert status == 200, raw
    search = searcher.asked[-1]
    assert (search.top_k, search.min_score, search.filter) == (1, 0.1, {"language": "en"})
    assert "tools" not in engine.seen[-1] and "tool_choice" not in engine.seen[-1]
    row = running.row(headers["x-whet-interaction-id"])
    assert row.request["rag"]["collection"] == "manual" and "tools" not in row.request


@pytest.mark.parametrize(
    "change",
    [
        {"vector_store_ids": ["a", "b"]},
        {"vector_store_ids": None},
        {"filters": {"type": "gt", "key": "a", "value": 1}},
        {"max_num_results": 1000},
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_wrong_file_search_is_refused(running: Running, change: Any, path: str) -> None:
    asked = {"input": "Lamps?"} if path == "responses" else {"messages": ASKED}
    status, _, raw = ask(running, {**asked, "tools": [{**FILE_SEARCH, **change}]}, path)
    assert status == 400, raw


def test_responses_annotations(running: Running, engine: CitingEngine) -> None:
    engine.answer = ["Lamps [1]", " kettles", " [2]."]
    _, headers, raw = ask(running, {"input": ASKED, **RAG}, "responses")
    body = json.loads(raw)
    part = body["output"][0]["content"][0]
    assert [each["type"] for each in part["annotations"]] == ["file_citation", "url_citation"]
    assert engine.seen[-1]["instructions"] == PROMPT
    assert [each["used"] for each in body["whet"]["citations"]] == [True, True]
    assert running.row(headers["x-whet-interaction-id"]).retrieval["cited"] == [1, 2]
    _, _, raw = ask(running, {"input": ASKED, "stream": True, **RAG}, "responses")
    events = events_of(raw)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    added = [e for e in events if e["type"] == "response.output_text.annotation.added"]
    assert [each["annotation"] for each in added] == part["annotations"]
    assert events[0]["response"]["whet"]["citations"][0]["used"] is None
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["whet"] == body["whet"]
    assert events[-1]["response"]["output"][0]["content"][0]["annotations"] == part["annotations"]


def test_openai_client_reads_responses(running: Running) -> None:
    client = running.client()
    tool: Any = {"type": "file_search", "vector_store_ids": ["manual"]}
    answer = client.responses.create(model="support", input="Lamps kept?", tools=[tool])
    assert answer.output[0].content[0].annotations[0].filename == "pages/1.md"  # type: ignore[union-attr]
    stream = client.responses.create(
        model="support", input="Lamps kept?", tools=[tool], stream=True
    )
    kinds = [event.type for event in stream]
    assert "response.output_text.annotation.added" in kinds


# --- permission ----------------------------------------------------------------------------------


def test_key_never_gets_anothers_passage(
    running: Running, searcher: MemorySearcher, engine: CitingEngine
) -> None:
    with writing(running.context.database) as connection:
        key_b, secret_b = create_key(
            connection, "b", secret=running.context.secret, actor="tests", now=now_ms()
        )
    add_collection(running, "private", allowed=[key_b])
    searcher.hits.append(hit(9, "Lamps are kept in the vault.", collection="private"))
    for rag in ({"collection": "private"}, {"collection": "manual"}):
        _, _, raw = ask(running, {"messages": ASKED, "rag": rag})
        assert b"vault" not in raw
    assert all("vault" not in json.dumps(body) for body in engine.seen)
    _, _, raw = ask(running, {"messages": ASKED, "rag": {"collection": "private"}}, key=secret_b)
    assert b"vault" in raw


# --- asking again --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_replay_asks_with_the_logged_passages(
    running: Running, searcher: MemorySearcher, engine: CitingEngine, path: str
) -> None:
    """Whatever the collection, or the default of the model, has now."""
    asked = {"input": "Lamps kept?"} if path == "responses" else {"messages": ASKED}
    _, headers, _ = ask(running, {**asked, **RAG}, path)
    interaction_id = headers["x-whet-interaction-id"]
    running.row(interaction_id)
    then = engine.seen[-1]
    searcher.hits = [hit(3, "Lamps are never kept.")]
    with writing(running.context.database) as connection:
        for alias in ("support", "support@v1"):
            attach(connection, RetrievalDefault(alias=alias, collection="manual", actor="tests"))
    running.refresh()
    home = running.context.settings.home
    context = open_context(load_settings(home=home, gateway_port=running.port))
    found = replay_interaction(
        context, interaction_id, model="", key=running.key, actor="tests", now=now_ms()
    )
    context.close()
    assert found["same"] and found["before"]["text"] == "".join(engine.answer)
    names = ("messages", "input", "instructions")
    assert {n: then.get(n) for n in names} == {n: engine.seen[-1].get(n) for n in names}
