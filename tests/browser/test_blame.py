"""*Find what was at fault* on a conversation's page, from the click to the answers side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from serving.pages.console_key import console_key
from serving.retrieval.embedders import open_embedder
from serving.retrieval.reindex import reindex
from tests.browser.retrieval_stack import PassageEngine, retrieval_stack
from tests.serving.conftest import Running
from tests.serving.mock_engine import BASE
from tests.serving.retrieval.worlds import add_collection, add_document
from whet.clock import now_ms
from whet.context import Context
from whet.database import writing
from whet.tables import reviews

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Open = Callable[..., Page]
QUESTION: Any = [{"role": "user", "content": "How many months are lamps covered?"}]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[tuple[Context, Running]]:
    with retrieval_stack(tmp_path / "home") as found:
        yield found


@pytest.fixture
def sqlite_context(stack: tuple[Context, Running]) -> Context:
    """The console's, of whose gateway and retrieval process the stack is."""
    return stack[0]


def answer_wrongly(running: Running) -> str:
    """Ask, and have the answer corrected by a reviewer who names the passage; returns its id."""
    context = running.context
    add_collection(context)
    add_document(context, "lamps.md", "Lamps are covered for 36 months.", title="Warranty")
    reindex(context, "manual", open_embedder(context.settings))
    running.refresh()
    response = running.client().chat.completions.with_raw_response.create(
        model="support", messages=QUESTION, temperature=0,
        extra_body={"rag": {"collection": "manual"}},
    )  # fmt: skip
    interaction_id = response.headers["x-whet-interaction-id"]
    (hit,) = running.row(interaction_id).retrieved
    with writing(context.database) as connection:
        connection.execute(
            insert(reviews).values(
                id="rev_1", item_id=interaction_id, interaction_id=interaction_id, created_at=1,
                reviewer="anna", decision="edit", answer="They are covered for 36 months.",
                passage_verdict="ignored", passage_ids=[hit["passage_id"]], standing=interaction_id,
            )
        )  # fmt: skip
    console_key(context, now_ms())
    running.refresh()
    return interaction_id


@pytest.mark.timeout(180)
def test_the_matrix_is_run_and_shown(
    opened: Open, stack: tuple[Context, Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = PassageEngine._text
    monkeypatch.setattr(
        PassageEngine, "_text",
        lambda self, body: reads(self, body) if body["model"] == BASE else ["It is 12 months."],
    )  # fmt: skip
    page = opened("reviewer", f"/traffic/{answer_wrongly(stack[1])}")
    page.get_by_role("button", name="Find what was at fault").click()
    expect(page.get_by_text("adapter (contradicts)")).to_be_visible()
    expect(page.get_by_text("as the reviewer says")).to_be_visible()
    expect(page.get_by_text("of the passages: ignored [1]")).to_be_visible()
    page.locator("summary", has_text="answers side by side").click()
    rows = page.locator("#blame tbody tr")
    expect(rows.filter(has_text="the right passage alone").first).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "a telephone scrolls in one direction"
