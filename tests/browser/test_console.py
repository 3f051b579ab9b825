"""What people do with the console, done by a browser: log in, search by keyboard, watch, toggle the
theme, on a phone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from serving.search_index.indexing import index_all
from tests import builders, worlds
from tests.web import PASSWORD
from whet.access import add_user
from whet.clock import now_ms
from whet.context import Context
from whet.database import writing

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


def test_a_person_logs_in_and_lands_where_they_wanted(
    opened: Open, sqlite_context: Context
) -> None:
    with writing(sqlite_context.database) as connection:
        add_user(connection, "ada", "viewer", PASSWORD, actor="test", now=1)
    page = opened("", "/runs")
    page.wait_for_url("**/login**")
    page.fill("[name=name]", "ada")
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs")
    expect(page.locator("#headline")).to_have_text("Nothing has been trained yet")


def test_traffic_is_searched_while_typing_and_walked_by_keyboard(
    opened: Open, sqlite_context: Context
) -> None:
    now = now_ms()
    with writing(sqlite_context.database) as connection:
        worlds.traffic(connection, 40, now)
        wanted = builders.add_interaction(
            connection, now - 60_000, question="Where is my parcel with the zebra?"
        )
        builders.add_interaction(connection, now - 120_000, question="Another zebra")
    index_all(sqlite_context, sleep=lambda _: None)
    page = opened("viewer", "/traffic?since=7d")
    expect(page.locator("tr[data-row]")).to_have_count(42)
    page.keyboard.press("/")
    page.keyboard.type("zebra")
    expect(page.locator("tr[data-row]")).to_have_count(2)
    expect(page.locator("#headline")).to_have_text("2 conversations say “zebra” in the last 7 days")
    assert "q=zebra" in page.url
    page.keyboard.press("Escape")
    for key in ("j", "j", "k"):
        page.keyboard.press(key)
    expect(page.locator("tr.at")).to_contain_text("my parcel")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/traffic/{wanted}")
    page.keyboard.press("g")
    page.keyboard.press("o")
    page.wait_for_url(lambda url: url.endswith("/"))


def test_overview_follows_what_happens_but_never_under_the_pointer(
    opened: Open, sqlite_context: Context
) -> None:
    worlds.world(sqlite_context, 30, now_ms())
    page = opened("viewer", "/", before=lambda page: page.clock.install())
    expect(page.locator("#headline")).to_contain_text(
        "support answers warranty questions otherwise"
    )
    page.locator(".circle").hover()
    with writing(sqlite_context.database) as connection:
        builders.add_alert(
            connection, now_ms(), title="Answers became empty", severity="bad", key="empty"
        )
    page.clock.run_for(11_000)
    expect(page.get_by_text("Answers became empty")).to_have_count(0)
    page.mouse.move(20, 400)
    page.clock.run_for(6_000)
    expect(page.locator("#headline")).to_contain_text("Answers became empty")


def test_the_theme_is_kept_and_the_help_lists_the_keys(opened: Open) -> None:
    page = opened("viewer", "/", theme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("[data-theme-toggle]")
    dark = page.evaluate(ground)
    assert light != dark
    page.goto("/traffic")
    assert page.evaluate(ground) == dark
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    expect(page.locator("#help")).to_contain_text("Traffic")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement !== document.body")


def test_the_first_stop_of_the_keyboard_leads_past_the_menu(opened: Open) -> None:
    page = opened("viewer", "/runs")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_no_page_is_wider_than_the_screen(
    opened: Open, sqlite_context: Context, width: int, theme: str
) -> None:
    made = worlds.world(sqlite_context, 60, now_ms())
    with writing(sqlite_context.database) as connection:
        long = builders.add_interaction(
            connection,
            now_ms(),
            question="x" * 600,
            answer="https://example.test/" + "y" * 900,
            end_user="z" * 200,
        )
    page = opened("admin", "/", width=width, theme=theme)
    paths = [
        "/",
        "/traffic",
        f"/traffic/{long}",
        f"/traffic/{made['interactions'][0]}",
        "/review",
        "/review/list",
        "/datasets",
        "/drift",
        "/runs",
        f"/runs/{made['live_run']}",
    ]
    paths += [
        f"/runs/{made['runs'][0]}",
        f"/runs/{made['failed_run']}",
        "/adapters",
        "/adapters/support",
        "/adapters/support/v3",
        "/playground",
        "/health",
        "/settings",
        "/settings/keys",
        "/settings/people",
        "/settings/audit",
    ]
    wide = []
    for path in paths:
        page.goto(path)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
    assert wide == []


def test_the_menu_of_a_phone_opens_and_leads_on(opened: Open) -> None:
    page = opened("viewer", "/", width=390)
    expect(page.locator("nav#menu")).to_be_hidden()
    page.click("[data-menu]")
    page.click("nav#menu >> text=Adapters")
    page.wait_for_url("**/adapters")


def test_a_session_that_ended_elsewhere_leads_to_the_log_in_instead_of_a_stale_page(
    opened: Open, sqlite_context: Context
) -> None:
    from whet.access import remove_user

    page = opened("viewer", "/", before=lambda page: page.clock.install())
    with writing(sqlite_context.database) as connection:
        remove_user(connection, "viewer", actor="test", now=2)
    page.mouse.move(20, 400)
    page.clock.run_for(6_000)
    page.wait_for_url("**/login**")
    opened.expected.append("401")  # type: ignore[attr-defined]  # the browser reports it itself
