"""Hostile texts on every page that shows what was said: no script runs, no request leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests import builders
from tests.hostile_texts import PAYLOADS
from whet.clock import now_ms
from whet.context import Context
from whet.database import writing

pytestmark = pytest.mark.browser


def add_hostile(context: Context, at: int) -> tuple[str, str]:
    """A conversation with each payload as text, call and result; (interaction, review item).

    All of them together are the answer, the rating's texts and the reason.
    """
    messages: list[dict[str, Any]] = []
    for payload in PAYLOADS:
        call = {"id": payload, "function": {"name": payload, "arguments": payload}}
        picture = {"type": "image_url", "image_url": {"url": payload}}
        messages += [
            {"role": "user", "content": [{"type": "text", "text": payload}, picture]},
            {"role": "assistant", "content": payload, "tool_calls": [call]},
            {"role": "tool", "name": payload, "tool_call_id": payload, "content": payload},
        ]
    request = {"model": "support", "messages": [{"role": "system", "content": "x"}, *messages]}
    every = "\n\n".join(PAYLOADS)
    response = {"role": "assistant", "content": every, "tool_calls": messages[1]["tool_calls"]}
    with writing(context.database) as connection:
        interaction = builders.add_interaction(
            connection, at, request=request, response=response, response_text=every,
            end_user=PAYLOADS[1],
        )  # fmt: skip
        builders.add_rating(connection, interaction, at, comment=every, correction=every)
        return interaction, builders.add_review_item(connection, interaction, at, why=every)


def test_no_payload_runs_or_asks_another_host(
    sqlite_context: Context, opened: Callable[..., Page]
) -> None:
    interaction, item = add_hostile(sqlite_context, now_ms() - 60_000)
    foreign: list[str] = []

    def watch(page: Page) -> None:
        page.route("https://**", lambda route: (foreign.append(route.request.url), route.abort()))

    page = opened("reviewer", f"/traffic/{interaction}", before=watch)
    host = page.url.split("/traffic")[0]
    page.on("request", lambda one: None if one.url.startswith(host) else foreign.append(one.url))
    for path in (f"/traffic/{interaction}", f"/review/item/{item}", "/review/list", "/traffic"):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        assert unwanted(page) == [], path
    page.goto(f"/review/item/{item}")
    rendered = page.evaluate(
        """async (texts) => {
          for (const text of texts) document.querySelector("#main").append(await whet.rendered(text));
          return document.querySelectorAll("#main > p, #main > pre, #main > div").length;
        }""",
        list(PAYLOADS),
    )
    assert rendered > 10 and unwanted(page) == []
    assert foreign == []


def unwanted(page: Page) -> list[str]:
    """What a payload would leave in the page."""
    found: list[Any] = page.evaluate(
        """() => [
          window.hit ? "a script ran" : "",
          document.querySelector("main img, main iframe, main object, main video, main style") ? "an element" : "",
          ...Array.from(document.querySelectorAll("main a"))
            .filter((link) => !["http:", "https:", "mailto:"].includes(link.protocol)).map((link) => link.href),
          ...Array.from(document.querySelectorAll("main .md *, main .tool-call *"))
            .filter((node) => Array.from(node.attributes).some((one) => one.name.startsWith("on") || one.name === "style"))
            .map((node) => node.outerHTML),
        ].filter(Boolean)"""
    )
    return found


def test_markdown_code_tables_calls_and_pictures_look_like_what_they_are(
    sqlite_context: Context, opened: Callable[..., Page]
) -> None:
    pixel = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    arguments = '{"part": "lamp", "count": 2}'
    call = {"id": "c1", "function": {"name": "stock", "arguments": arguments}}
    asked = [{"type": "text", "text": "Is it there?"},
             {"type": "image_url", "image_url": {"url": pixel}}]  # fmt: skip
    answer = (
        "## Stock\n\n| part | count |\n|---|--:|\n| lamp | 2 |\n\n```python\nprint('lamp')\n```\n"
        "See [the manual](https://manual.test/lamp)."
    )
    request = {
        "model": "support",
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "name": "stock", "tool_call_id": "c1", "content": '{"count":2}'},
        ],
    }
    with writing(sqlite_context.database) as connection:
        interaction = builders.add_interaction(
            connection, now_ms() - 5000, request=request, answer=answer
        )
        item = builders.add_review_item(connection, interaction, now_ms() - 5000)
    for path in (f"/review/item/{item}", f"/traffic/{interaction}"):
        page = opened("reviewer", path)
        said = page.locator(".turns")
        expect(said.get_by_role("cell", name="lamp")).to_be_visible()
        expect(said.locator(".md .tok-nb")).to_have_text("print")
        expect(said.get_by_role("link", name="the manual")).to_have_attribute(
            "rel", "noopener noreferrer nofollow"
        )
        expect(said.get_by_text("Picture, PNG, 1 × 1, 33 bytes")).to_be_visible()
        expect(said.locator(".tool-call .tok-nt").first).to_have_text('"part"')
        expect(said.get_by_text("Result of stock")).to_be_visible()
        letters = said.locator(".letters").last
        expect(letters).to_be_hidden()
        page.keyboard.press("x")
        expect(letters).to_have_text(answer)
        expect(said.get_by_role("cell", name="lamp")).to_be_hidden()
        page.keyboard.press("x")
