"""The Playground against a small gateway that streams: side by side, errors as sentences, stopping."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests import builders
from tests.browser.conftest import listening
from tests.serving.retrieval.worlds import add_collection
from whet.access import active_keys, hash_key
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.settings import load_settings

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


@dataclass
class MockGateway:
    """Answers with the words `I am <model>`, slowly for the base, with an error for v9; remembers
    who went away.
    """

    bodies: list[dict] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers["authorization"].removeprefix("Bearer "))
        if "refuse" in body["messages"][-1]["content"]:
            return JSONResponse(
                {
                    "error": {
                        "message": f"No replica can answer {body['model']} at this moment.",
                        "code": "engine_unavailable",
                    }
                },
                status_code=503,
            )
        headers = {
            "x-whet-interaction-id": "int_" + body["model"].replace("@", "-"),
            "x-whet-adapter": body["model"],
        }
        return StreamingResponse(self.words(body), media_type="text/event-stream", headers=headers)

    async def words(self, body: dict) -> AsyncIterator[str]:
        endless = "forever" in body["messages"][-1]["content"]
        words = ["I ", "am ", body["model"], " <b>bold</b>", " ü"]
        done = False
        try:
            for word in words:
                yield (
                    "data: "
                    + json.dumps(
                        {"choices": [{"index": 0, "delta": {"content": word}}]}, ensure_ascii=False
                    )
                    + "\n\n"
                )
                await asyncio.sleep(0.01)
            while endless:
                yield 'data: {"choices": [{"index": 0, "delta": {"content": "."}}]}\n\n'
                await asyncio.sleep(0.05)
            yield (
                'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5,'
                ' "total_tokens": 14}}\n\ndata: [DONE]\n\n'
            )
            done = True
        finally:
            if not done:
                self.left.append(body["model"])


@pytest.fixture
def gateway() -> Iterator[tuple[MockGateway, str]]:
    mock = MockGateway()
    with listening(mock.app()) as address:
        yield mock, address


@pytest.fixture
def sqlite_context(tmp_path: Path, gateway: tuple[MockGateway, str]) -> Iterator[Context]:
    """A console whose gateway is the mock."""
    context = open_context(
        load_settings(home=tmp_path / "home", gateway_port=int(gateway[1].rsplit(":", 1)[1]))
    )
    with writing(context.database) as connection:
        digests = [
            builders.add_adapter(connection, now_ms() + number, version=number) for number in (1, 2)
        ]
        builders.add_rollout(
            connection, now_ms(), stable=digests[0], candidate=digests[1], share=0.1
        )
    yield context
    context.close()


def test_three_columns_answer_the_same_question_through_the_gateway(
    opened: Open, sqlite_context: Context, gateway: tuple[MockGateway, str]
) -> None:
    page = opened("reviewer", "/playground")
    page.fill("#prompt", "Who are you?")
    page.keyboard.press("Control+Enter")
    answers = page.locator("[data-answer]")
    for index, model in enumerate(("base", "support@v1", "support@v2")):
        expect(answers.nth(index)).to_have_text(f"I am {model} <b>bold</b> ü")
        expect(page.locator("[data-facts]").nth(index)).to_contain_text("5 tokens")
        expect(page.locator("[data-facts]").nth(index)).to_contain_text(model)
    expect(page.get_by_role("link", name="Open in Traffic").nth(1)).to_have_attribute(
        "href", "/traffic/int_support-v1"
    )
    assert "prompt=Who+are+you" in page.url and "b=support%40v1" in page.url
    mock = gateway[0]
    assert {body["model"] for body in mock.bodies} == {"base", "support@v1", "support@v2"}
    assert all(
        body["stream"] and body["metadata"] == {"source": "playground"} for body in mock.bodies
    )
    (key,) = mock.keys
    path = sqlite_context.settings.home / "console.key"
    assert path.read_text().strip() == key and path.stat().st_mode & 0o777 == 0o600
    with reading(sqlite_context.database) as connection:
        assert hash_key(key, sqlite_context.secret) in active_keys(connection)


def test_one_column_may_answer_without_what_the_others_retrieve(
    opened: Open, sqlite_context: Context, gateway: tuple[MockGateway, str]
) -> None:
    add_collection(sqlite_context, "handbook")
    page = opened("reviewer", "/playground?prompt=hello&c=")
    page.select_option("[name=retrieval]", "handbook")
    page.locator("[data-rag]").first.uncheck()
    page.click("[data-ask]")
    expect(page.locator("[data-answer]").nth(1)).to_contain_text("support@v1")
    expect(page.locator("[data-ask]")).to_be_enabled()
    assert {body["model"]: body.get("rag") for body in gateway[0].bodies} == {
        "base": False,
        "support@v1": {"collection": "handbook"},
    }
    assert "rag=handbook" in page.url


def test_retrieval_is_the_models_default_or_off(
    opened: Open, sqlite_context: Context, gateway: tuple[MockGateway, str]
) -> None:
    add_collection(sqlite_context, "handbook")
    page = opened("reviewer", "/playground?prompt=hello&b=&c=&rag=-")
    expect(page.get_by_label("with retrieval").first).to_be_hidden()
    page.click("[data-ask]")
    expect(page.locator("[data-facts]").first).to_contain_text("5 tokens")
    page.select_option("[name=retrieval]", "")
    page.click("[data-ask]")
    expect(page.locator("[data-ask]")).to_be_enabled()
    expect(page.locator("[data-facts]").first).to_contain_text("5 tokens")
    assert [body.get("rag") for body in gateway[0].bodies] == [False, None]


def test_stopping_ends_the_answers_and_the_gateways_work(
    opened: Open, gateway: tuple[MockGateway, str]
) -> None:
    page = opened("reviewer", "/playground?prompt=forever&c=")
    page.click("[data-ask]")
    expect(page.locator("[data-answer]").first).to_contain_text("....")
    page.keyboard.press("Escape")
    expect(page.locator("[data-facts]").first).to_have_text("stopped")
    expect(page.locator("[data-ask]")).to_be_enabled()
    for _ in range(200):
        if len(gateway[0].left) == len(gateway[0].bodies):
            break
        page.wait_for_timeout(50)
    assert sorted(gateway[0].left) == sorted(body["model"] for body in gateway[0].bodies)


def test_a_refusal_of_the_gateway_is_a_sentence_in_its_column(opened: Open) -> None:
    page = opened("reviewer", "/playground?prompt=refuse&b=support@v1")
    page.click("[data-ask]")
    expect(page.locator("[data-answer]").first).to_contain_text(
        "No replica can answer base at this moment."
    )
    opened.expected.append("503")  # type: ignore[attr-defined]  # the browser reports it itself


def test_a_gateway_that_is_not_there_is_named_with_what_to_do(
    opened: Open, sqlite_context: Context, gateway: tuple[MockGateway, str]
) -> None:
    object.__setattr__(sqlite_context.settings, "gateway_port", 1)
    page = opened("reviewer", "/playground?prompt=hello")
    page.click("[data-ask]")
    expect(page.locator("[data-answer]").first).to_contain_text(
        "The gateway does not answer at http://127.0.0.1:1. `whet status` says what runs"
    )
    opened.expected.append("503")  # type: ignore[attr-defined]  # the browser reports it itself
