"""Answers side by side in a real browser: voted on by keyboard alone, an undo, and the result with
names at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.training.judging.test_opinion import sample
from tests.training.test_pages_votes import rows_of, stored
from whet.context import Context

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


def test_rows_are_voted_on_by_keyboard_alone_without_a_page_load(
    opened: Open, sqlite_context: Context
) -> None:
    evaluation = stored(sqlite_context, [sample(number) for number in range(4)])
    page = opened("reviewer", f"/evaluations/{evaluation}/compare")
    progress, order = page.locator("[data-progress]"), []
    page.evaluate("document.body.dataset.same = 'yes'")

    def see(number: int) -> None:
        expect(page.locator("#stage:not([aria-busy]) [data-shown]")).to_have_count(1)
        expect(page.locator(".compare-walk")).to_contain_text(f"row {number} of 4")

    for number, key in enumerate(("1", "2", "t"), 1):
        see(number)
        order.append(page.locator("[data-shown]").get_attribute("data-shown"))
        page.keyboard.press(key)
        expect(progress).to_have_text(str(number))
    see(4)
    page.keyboard.press("u")
    see(3)
    expect(progress).to_have_text("2")
    page.keyboard.press("k")
    see(2)
    expect(page.locator("button[aria-pressed=true]")).to_have_text("B is better 2")
    page.keyboard.press("j")
    see(3)
    page.keyboard.press("n")
    see(4)
    assert page.evaluate("document.body.dataset.same") == "yes", "the page was loaded again"
    page.keyboard.press("0")
    expect(page.locator("#headline")).to_have_text("You have voted on every row that differs")
    expect(page.locator("#stage")).to_contain_text("support@v2")
    kept = {row.row_id: row for row in rows_of(sqlite_context)}
    assert [kept[str(row)].choice for row in order] == [
        kept[str(order[0])].places[0],
        kept[str(order[1])].places[1],
        "none",
    ]
    assert len(kept) == 4


def test_a_key_that_is_pressed_while_an_undo_is_on_its_way_votes_on_no_other_row(
    opened: Open, sqlite_context: Context
) -> None:
    evaluation = stored(sqlite_context, [sample(number) for number in range(3)])
    held: list[Route] = []
    page = opened(
        "reviewer",
        f"/evaluations/{evaluation}/compare",
        before=lambda page: page.route("**/undo", lambda route: held.append(route)),
    )  # a builtin is no handler
    progress, shown = (
        page.locator("[data-progress]"),
        page.locator("#stage:not([aria-busy]) [data-shown]"),
    )
    first = shown.get_attribute("data-shown")
    page.keyboard.press("1")
    expect(page.locator("#stage:not([aria-busy]) .compare-walk")).to_contain_text("row 2 of 3")
    with page.expect_request("**/undo"):
        page.keyboard.press("u")
    page.keyboard.press("2")
    expect(progress).to_have_text("0")
    held[0].continue_()
    expect(page.locator("#stage:not([aria-busy]) .compare-walk")).to_contain_text("row 1 of 3")
    assert rows_of(sqlite_context) == []
    page.keyboard.press("2")
    expect(progress).to_have_text("1")
    expect(page.locator("#stage:not([aria-busy]) .compare-walk")).to_contain_text("row 2 of 3")
    assert [row.row_id for row in rows_of(sqlite_context)] in ([], [first]), (
        "the vote is sent behind the next row"
    )


def test_a_phone_has_no_sideways_scroll(opened: Open, sqlite_context: Context) -> None:
    one = sample(1)
    one["candidate"]["text"], one["against"]["text"] = "x" * 400, "y " * 400
    page = opened(
        "reviewer", f"/evaluations/{stored(sqlite_context, [one])}/compare", width=390, theme="dark"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
