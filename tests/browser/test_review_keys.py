"""Keys of the Review page that a reviewer chose, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from tests.feedback.world import queued
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.tables import reviews

pytestmark = pytest.mark.browser


def _decisions(context: Context) -> list[str]:
    with reading(context.database) as connection:
        query = select(reviews.c.decision).order_by(reviews.c.created_at)
        return list(connection.execute(query).scalars())


def _choose(page: Page, action: str, letter: str) -> None:
    page.keyboard.press("?")
    page.locator("[data-key-form] select").select_option(action)
    page.locator("[data-key-form] input").fill(letter)
    page.locator("[data-key-form] input").press("Enter")


def test_a_reviewer_changes_keys_and_two_actions_never_share_one(
    sqlite_context: Context, opened: Callable[..., Page]
) -> None:
    _, second, third = queued(sqlite_context, 3, at=now_ms() - 60_000)
    page = opened("reviewer", "/review")
    _choose(page, "r", "a")
    said = page.locator("[data-key-said]")
    expect(said).to_contain_text("The key is a now")
    page.locator("[data-key-form] select").select_option("s")
    page.locator("[data-key-form] input").fill("g")
    page.locator("[data-key-form] input").press("Enter")
    expect(said).to_contain_text("has a meaning on every page")
    page.keyboard.press("Escape")  # leaves the field
    page.keyboard.press("Escape")  # closes the window
    reject = page.locator('[data-decision="reject"] kbd')
    expect(reject).to_have_text("a")
    expect(page.locator('[data-decision="approve"] kbd')).to_have_text("r")
    page.locator(".review-item").focus()
    page.keyboard.press("a")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    expect(reject).to_have_text("a", timeout=5000)
    page.reload()
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    page.keyboard.press("r")
    expect(page.locator(f'[data-item="{third}"]')).to_be_visible()
    page.wait_for_function(
        "fetch('/api/review/stats').then(r => r.json()).then(s => s.decided_today === 2)"
    )
    assert _decisions(sqlite_context) == ["reject", "approve"], "the letters did not change places"
