"""An incident in a real browser: acknowledged by one key and taken back by another, snoozed with a
reason, on a phone as well.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests import builders
from whet.clock import now_ms
from whet.context import Context
from whet.database import writing

pytestmark = pytest.mark.browser
HOUR = builders.HOUR


def _incident(context: Context) -> str:
    now = now_ms()
    with writing(context.database) as connection:
        first = builders.add_adapter(connection, now - 9 * HOUR, version=1)
        second = builders.add_adapter(connection, now - 4 * HOUR, version=2)
        builders.add_rollout(connection, now - 9 * HOUR, stable=first)
        builders.add_rollout(
            connection, now - 3 * HOUR, stable=second, previous_digest=first, generation=2
        )
        shown = [
            builders.add_interaction(connection, now - n * 60_000, end_user=f"u{n % 3}")
            for n in range(1, 8)
        ]
        return builders.add_alert(connection, now - 2 * HOUR, interaction_ids=shown)


def test_keys_act_and_u_takes_the_newest_action_back(
    sqlite_context: Context, opened: Callable[..., Page]
) -> None:
    alert_id = _incident(sqlite_context)
    page = opened("operator", f"/drift/incidents/{alert_id}")
    expect(page.locator("#version")).to_contain_text("Roll back to v1")
    page.keyboard.press("a")
    expect(page.locator("#actions")).to_contain_text("operator acknowledged it")
    page.keyboard.press("z")
    page.locator('form[action$="/snooze"] select').select_option("4")
    page.locator('form[action$="/snooze"] input[name=reason]').fill("a deploy is under way")
    page.locator('form[action$="/snooze"] button.primary').click()
    expect(page.locator("#actions")).to_contain_text("a deploy is under way")
    for left in ("operator snoozed it", "operator acknowledged it"):
        page.keyboard.press("u")
        expect(page.locator("#actions s", has_text=left)).to_be_visible()
    expect(page.get_by_role("button", name="Acknowledge")).to_be_visible()


def test_the_actions_fit_a_phone(sqlite_context: Context, opened: Callable[..., Page]) -> None:
    alert_id = _incident(sqlite_context)
    page = opened("operator", f"/drift/incidents/{alert_id}", width=390, theme="dark")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, f"the page is {width} px wide on a phone of 390"
