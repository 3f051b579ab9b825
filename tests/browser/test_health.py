"""The first row of "When something is wrong", walked as an operator does: from Overview's headline to
what to do, and back to rest; times stand in the browser's zone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update

from tests import builders
from whet.clock import now_ms, to_datetime
from whet.context import Context
from whet.database import writing
from whet.tables import replicas

pytestmark = pytest.mark.browser
OPERATING = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
MINUTE = 60_000


def test_an_engine_that_is_gone_is_followed_from_the_headline_to_what_to_do(
    opened: Callable[..., Page], sqlite_context: Context
) -> None:
    now = now_ms()
    with writing(sqlite_context.database) as connection:
        builders.add_interaction(connection, now - MINUTE)
        builders.add_replica(connection, now, state="gone")
        connection.execute(update(replicas).values(since=now - 36 * MINUTE))
        for lease in ("reconciler", "scheduler"):
            builders.add_lease(connection, lease, "host:1", now + 10 * MINUTE)
    said = "No engine replica can answer: every request fails"
    assert f"| `{said}` |" in OPERATING.read_text(), "the table is read by this sentence"
    page = opened("operator", "/")
    clock = to_datetime(now - 36 * MINUTE).strftime("%H:%M")  # tests run in UTC
    expect(page.locator("#headline")).to_contain_text(said)
    expect(page.locator("#headline time")).to_have_text(f"since {clock} (36 min)")
    page.get_by_role("link", name=said).click()
    page.wait_for_url("**/health#engine_down")
    expect(page.locator("#engine_down")).to_contain_text("logs/engine.log")
    expect(page.locator("#engine_down")).to_contain_text("kill -9 PID")
    with writing(sqlite_context.database) as connection:
        connection.execute(update(replicas).values(state="ready", seen_at=now_ms()))
    page.mouse.move(5, 5)
    expect(page.locator("#headline")).to_have_text("Every process works")


@pytest.mark.slow
def test_the_headline_says_that_the_database_is_away_and_that_it_is_back(
    opened: Any, sqlite_context: Context
) -> None:
    opened.expected.append("503")
    page = opened("viewer", "/")
    expect(page.locator("#headline")).to_have_text("Nothing has been asked yet")
    file = sqlite_context.settings.home / "whet.db"
    sqlite_context.database.dispose()
    for part in file.parent.glob("whet.db-*"):
        part.unlink()
    file.rename(file.with_name("away"))
    page.mouse.move(5, 5)
    headline = page.locator("#headline")
    expect(headline).to_contain_text("The database does not answer", timeout=15_000)
    expect(headline.locator("time")).to_contain_text("since ")
    sqlite_context.database.dispose()
    file.with_name("away").rename(file)
    expect(headline).to_have_text("Nothing has been asked yet")
