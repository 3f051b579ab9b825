"""Charts of traffic in a browser: in its zone, and a step leads to the conversations of its time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from serving.log.bucketing import count_late, count_recent
from tests import worlds
from whet.clock import now_ms
from whet.context import Context
from whet.database import writing
from whet.scheduler import note_job

pytestmark = pytest.mark.browser
# Where the pictures go that a person looks at; none are made without it
PICTURES = os.environ.get("WHET_TEST_PICTURES", "")


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_charts_stand_in_the_viewers_zone_and_lead_to_traffic(
    opened: Callable[..., Page], sqlite_context: Context, width: int, theme: str
) -> None:
    now = now_ms()
    worlds.world(sqlite_context, 400, now)
    count_late(sqlite_context, now)
    count_recent(sqlite_context, now)
    with writing(sqlite_context.database) as connection:
        note_job(connection, "traffic-buckets", 20, None, now=now)
    page = opened("viewer", "/adapters/support?since=7d", width=width, theme=theme)
    for name, path in (
        ("alias", "/adapters/support?since=7d"),
        ("overview", "/?since=24h"),
        ("traffic", "/traffic?since=24h"),
    ):
        page.goto(path)
        expect(page.locator(".chart-plot > svg")).to_have_count(5)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        if PICTURES:
            page.screenshot(path=Path(PICTURES) / f"{name}-{width}-{theme}.png", full_page=True)
    band = page.locator(".charts .chart-cell").first.locator("a:has(.chart-band)").nth(-3)
    start = int(band.get_attribute("href").split("start=")[1].split("&")[0])
    said = page.evaluate(
        "at => new Date(at).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'})",
        start,
    )
    assert said in band.locator("title").text_content()
    band.click()
    page.wait_for_url(f"**start={start}**")
    expect(page.locator(".chart-band.chosen")).to_have_count(5)
    expect(page.locator("form.filters .chip")).to_contain_text(said)
    page.locator("form.filters .chip").click()
    expect(page.locator(".chart-band.chosen")).to_have_count(0)
    page.get_by_text("The charts as a table").click()
    expect(page.get_by_role("region", name="Traffic by time")).to_be_visible()
