"""A page of another origin calls the gateway from a browser, with the setting and without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.browser.conftest import listening
from tests.serving.conftest import Running, serve, set_replica
from tests.serving.mock_engine import MockEngine
from whet.context import open_context
from whet.settings import load_settings

pytestmark = pytest.mark.browser

# What a chat page does: ask with a key, read the stream as it comes, read headers and errors.
PAGE = """<!doctype html><link rel="icon" href="data:,">
<p id="text"></p><p id="chunks"></p><p id="facts"></p><p id="error"></p>
<script>
const show = (id, text) => document.getElementById(id).textContent = text;
async function ask(url, key, model) {
  const response = await fetch(url + "/v1/chat/completions", {
    method: "POST",
    headers: {
      "Authorization": "Bearer " + key,
      "Content-Type": "application/json",
      "X-Stainless-Lang": "js",
    },
    body: JSON.stringify({model, stream: true, messages: [{role: "user", content: "hello"}]}),
  });
  show("facts", [response.status, response.headers.get("x-whet-adapter"),
    response.headers.get("x-whet-interaction-id")].join(" "));
  if (!response.ok) { show("error", (await response.json()).error.code); return; }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", chunks = 0, part;
  while (!(part = await reader.read()).done) { text += part.value; show("chunks", ++chunks); }
  show("text", [...text.matchAll(/"content": ?"([^"]*)"/g)].map(found => found[1]).join("") +
    (text.endsWith("data: [DONE]\\n\\n") ? " (whole)" : " (cut)"));
}
const query = new URLSearchParams(location.search);
ask(query.get("url"), query.get("key"), query.get("model"))
  .catch(error => show("error", error.name));
</script>"""


@pytest.fixture
def page_address() -> Iterator[str]:
    with listening(Starlette(routes=[Route("/", lambda _: HTMLResponse(PAGE))])) as address:
        yield address


@contextmanager
def gateway_for(origins: str, home: Path) -> Iterator[Running]:
    context = open_context(load_settings(home=home, cors_origins=origins))
    with MockEngine() as engine:
        engine.faults.chunk_delay_s = 0.05
        set_replica(context, engine.url, {})
        yield from serve(context, engine)
    context.close()


@contextmanager
def opened(browser: Browser, address: str, gateway: Running, model: str) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{address}/?url={gateway.url}&key={gateway.key}&model={model}")
    yield page
    context.close()


def test_a_page_of_a_listed_origin_shows_a_stream(
    browser: Browser, page_address: str, tmp_path: Path
) -> None:
    with gateway_for(page_address, tmp_path / "home") as gateway:
        with opened(browser, page_address, gateway, "base") as page:
            expect(page.locator("#text")).to_contain_text("(whole)")
            expect(page.locator("#facts")).to_contain_text("200 base int_")
            assert int(page.locator("#chunks").inner_text()) > 2, "the stream came in one piece"
        with opened(browser, page_address, gateway, "nobody") as page:
            expect(page.locator("#error")).to_have_text("model_not_found")


def test_a_page_of_another_origin_is_refused_by_the_browser(
    browser: Browser, page_address: str, tmp_path: Path
) -> None:
    for number, origins in enumerate(("", "https://app.example.com")):
        with (
            gateway_for(origins, tmp_path / f"home{number}") as gateway,
            opened(browser, page_address, gateway, "base") as page,
        ):
            expect(page.locator("#error")).to_have_text("TypeError")
            assert gateway.engine.seen == [], "a request that the browser forbids was answered"
