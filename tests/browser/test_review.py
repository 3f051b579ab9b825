"""The review page in a real browser: ten conversations by keyboard alone, undo, conflicts that lose
nothing, no script.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from sqlalchemy import select

from feedback import queue
from feedback.queue import Decision
from tests import builders
from tests.browser.conftest import listening
from tests.feedback.world import CLAIM_MS, queued
from tests.web import PASSWORD, console_client
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.tables import examples, review_items, reviews

pytestmark = pytest.mark.browser


@pytest.fixture
def console(sqlite_context: Context) -> Iterator[tuple[str, dict[str, Any]]]:
    """The console on loopback: (its address, the cookie of a logged-in reviewer)."""
    client = console_client(sqlite_context, "reviewer")
    (name, value), *_ = client.cookies.items()
    with listening(client.app) as address:
        yield address, {"name": name, "value": value, "url": address}


@pytest.fixture
def tab(browser: Browser, console: tuple[str, dict[str, Any]]) -> Iterator[BrowserContext]:
    found = browser.new_context(viewport={"width": 1280, "height": 800})
    found.add_cookies([console[1]])  # type: ignore[list-item]
    yield found
    found.close()


def open_page(tab: BrowserContext, address: str) -> tuple[Page, list[str]]:
    page, problems = tab.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.goto(address)
    return page, problems


def standing(context: Context) -> dict[str, str]:
    with reading(context.database) as connection:
        return {
            row.item_id: row.decision
            for row in connection.execute(select(reviews).where(reviews.c.standing.is_not(None)))
        }


def skips(context: Context) -> list[tuple[str, str]]:
    with reading(context.database) as connection:
        rows = connection.execute(select(reviews).where(reviews.c.decision == "skip"))
        return [(row.item_id, row.reviewer) for row in rows if row.undone_at is None]


def holders(context: Context) -> dict[str, str | None]:
    with reading(context.database) as connection:
        found = connection.execute(select(review_items.c.id, review_items.c.claimed_by))
        return {row.id: row.claimed_by for row in found}


def wait_for(page: Page, condition: Any, what: str) -> None:
    """Wait as the page does: its own clock, since a plain sleep would also hold back what the test
    answers in the page's place.
    """
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        page.wait_for_timeout(50)


def test_ten_conversations_by_keyboard_alone_without_a_page_load(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    items = queued(sqlite_context, 10, at=now_ms() - 60_000)
    page, problems = open_page(tab, console[0] + "/review")
    loads: list[str] = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))
    expected = {}
    for n, item in enumerate(items):
        expect(page.locator(f'[data-item="{item}"]')).to_be_visible()
        if n % 3 == 0:
            page.keyboard.press("a")
            expected[item] = "approve"
        elif n % 3 == 1:
            page.keyboard.press("1")
            page.keyboard.press("e")
            page.keyboard.type(" Since purchase: a, r, s, u.")
            expect(page.locator("[data-diff] ins").first).to_be_visible()
            page.keyboard.press("Control+Enter")
            expected[item] = "edit"
        else:
            page.keyboard.press("r")
            expected[item] = "reject"
    expect(page.get_by_text("All judged.")).to_be_visible()
    wait_for(page, lambda: standing(sqlite_context) == expected, "all ten decisions")
    expect(page.locator("h1")).to_have_text("Nothing waits for review.")
    expect(page.locator("[data-progress-today]")).to_have_text("10")
    assert loads == [] and problems == []
    with reading(sqlite_context.database) as connection:
        edited = connection.execute(
            select(reviews.c.answer, reviews.c.labels, reviews.c.seconds).where(
                reviews.c.item_id == items[1]
            )
        ).one()
    assert (
        edited.answer == "1 months. Since purchase: a, r, s, u."
        and edited.labels == ["wrong fact"]
        and edited.seconds >= 0
    )


def test_undo_and_moving_without_deciding(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    first, second, third = queued(sqlite_context, 3, at=now_ms() - 60_000)
    page, problems = open_page(tab, console[0] + "/review")
    page.keyboard.press("a")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    wait_for(page, lambda: first in standing(sqlite_context), "the decision")
    page.keyboard.press("u")
    expect(page.locator(f'[data-item="{first}"]')).to_be_visible()
    assert standing(sqlite_context) == {}
    page.keyboard.press("j")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    page.keyboard.press("j")
    expect(page.locator(f'[data-item="{third}"]')).to_be_visible()
    page.keyboard.press("k")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("dialog#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    expect(page.locator(f'[data-item="{third}"]')).to_be_visible()
    wait_for(page, lambda: skips(sqlite_context) == [(second, "reviewer")], "the skip")
    assert standing(sqlite_context) == {} and problems == []


def test_an_undo_pressed_before_the_decision_arrived_takes_back_that_decision(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    first, second, _ = queued(sqlite_context, 3, at=now_ms() - 60_000)
    page, problems = open_page(tab, console[0] + "/review")
    page.keyboard.press("a")
    wait_for(page, lambda: first in standing(sqlite_context), "the first decision")
    held: list[Route] = []
    page.route(f"**/api/review/{second}", lambda route: held.append(route))
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    with page.expect_request(f"**/api/review/{second}"):
        page.keyboard.press("r")
    page.keyboard.press("u")
    wait_for(page, lambda: held, "the decision on its way")
    held[0].continue_()
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    assert set(standing(sqlite_context)) == {first}, (
        "the undo took back another decision than the last one"
    )
    assert problems == []


def test_a_conflict_leads_on_and_keeps_the_typed_text(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    first, second = queued(sqlite_context, 2, at=now_ms() - 60_000)
    page, _ = open_page(tab, console[0] + "/review")
    with writing(sqlite_context.database) as connection:
        connection.execute(
            review_items.update()
            .where(review_items.c.id == first)
            .values(claimed_by="ada", claimed_until=now_ms() + CLAIM_MS)
        )
    queue.decide(sqlite_context.database, first, "ada", Decision("reject"), now=now_ms())
    page.keyboard.press("e")
    page.keyboard.type(" precious words")
    page.keyboard.press("Control+Enter")
    error = page.locator("#toasts [role=alert]")
    expect(error).to_contain_text("ada decided this conversation already")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    bar = page.locator(".review-actions").bounding_box()
    box = error.locator(".toast").bounding_box()
    assert bar and box and box["y"] + box["height"] <= bar["y"], "it covers no action"
    assert box["x"] + box["width"] <= page.locator("[data-editor]").bounding_box()["x"]  # type: ignore[index]
    kept = error.get_by_role("link").get_attribute("href")
    page.keyboard.press("Escape")
    expect(error.locator(".toast")).to_have_count(0)
    page.goto(console[0] + str(kept))
    expect(page.locator("[data-draft-letters]")).to_contain_text("precious words")
    page.get_by_role("link", name="Next conversation").click()
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()


def test_typed_text_survives_a_reload_and_the_end_of_the_session(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    first, second = queued(sqlite_context, 2, at=now_ms() - 60_000)
    page, _ = open_page(tab, console[0] + "/review")
    page.keyboard.press("3")
    page.keyboard.press("e")
    page.keyboard.type(" From purchase.")
    page.reload()
    expect(page.locator("[data-draft-line]")).to_contain_text("Restored: the text you wrote")
    expect(page.locator("[data-editor]")).to_have_value("0 months. From purchase.")
    expect(page.get_by_role("checkbox", name="incomplete")).to_be_checked()
    tab.clear_cookies()
    page.keyboard.press("Control+Enter")
    dialog = page.get_by_role("dialog", name="Your session ended")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Password").fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("do not match")
    assert standing(sqlite_context) == {}
    dialog.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    wait_for(page, lambda: standing(sqlite_context) == {first: "edit"}, "the decision goes through")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    page.keyboard.press("r")
    wait_for(page, lambda: len(standing(sqlite_context)) == 2, "the new session's token is used")
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('draft'))") == []


def test_a_page_holds_what_it_shows_until_it_closes_and_a_link_holds_nothing(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    *_, third = queued(sqlite_context, 3, at=now_ms() - 60_000)
    linked, problems = open_page(tab, f"{console[0]}/review/item/{third}")
    expect(linked.locator("[data-editor]")).to_be_visible()
    assert set(holders(sqlite_context).values()) == {None}, "opening a link claims nothing"
    linked.keyboard.press("e")
    linked.keyboard.type("!")
    wait_for(linked, lambda: holders(sqlite_context)[third] == "reviewer", "who writes holds it")
    page, _ = open_page(tab, console[0] + "/review?order=oldest")
    held = lambda: [item for item, name in holders(sqlite_context).items() if name]  # noqa: E731
    wait_for(page, lambda: len(held()) >= 2, "the item on the screen is held")
    page.goto("about:blank")
    wait_for(linked, lambda: held() == [third], "closing gives back all but the unsent text")
    assert problems == []


def test_each_decision_and_the_next_item_are_announced(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    queued(sqlite_context, 2, at=now_ms() - 60_000)
    page, problems = open_page(tab, console[0] + "/review")
    heard = page.locator("#announce")
    page.keyboard.press("r")
    expect(heard).to_have_text("Rejected. Next: How long is the warranty of product 1?")
    assert page.evaluate("document.activeElement.className") == "review-item"
    page.keyboard.press("1")
    page.keyboard.press("a")
    expect(page.locator("[data-accept=labels]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(heard).to_have_text("Approved. Nothing else waits.")
    assert problems == []


def test_a_long_conversation_opens_at_its_answer_with_the_actions_in_sight(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    turns = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"Turn {n}. " + "word " * 300}
        for n in range(41)
    ]
    answer = " ".join(f"word{n}" for n in range(6000))
    with writing(sqlite_context.database) as connection:
        interaction = builders.add_interaction(
            connection,
            now_ms() - 5000,
            answer=answer,
            request={"model": "support", "messages": turns},
        )
        builders.add_review_item(connection, interaction, now_ms() - 5000)
    page, problems = open_page(tab, console[0] + "/review")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        page.reload()
        expect(page.get_by_role("button", name="Reject")).to_be_in_viewport(ratio=1)
        expect(page.locator("[data-judged] .turn-who")).to_be_in_viewport()
    expect(page.get_by_text("37 earlier messages")).to_have_count(1)
    page.set_viewport_size({"width": 1280, "height": 800})
    editor = page.locator("[data-editor]")
    assert editor.bounding_box()["height"] > 300, "the editor grows with its text"  # type: ignore[index]
    changed = answer.replace("word10 ", "", 1).replace("word5990", "other") + " end"
    editor.fill(changed)
    diff = page.locator("[data-diff]")
    expect(diff.locator("ins").last).to_have_text(" end")
    whole = diff.evaluate(
        "(node) => ['INS', 'DEL'].map((other) => Array.from(node.childNodes)"
        ".filter((part) => part.nodeName !== other).map((part) => part.textContent).join(''))"
    )
    assert whole == [answer, changed]
    changes = (
        "(node) => Array.from(node.children).reduce((sum, one) => sum + one.textContent.length, 0)"
    )
    assert diff.evaluate(changes) < 40, "the words that changed, not the whole answer"
    assert problems == []


def test_a_proposed_answer_is_one_key_away(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    proposed = "<b>36</b> months\n\n  from purchase"
    with writing(sqlite_context.database) as connection:
        interaction = builders.add_interaction(connection, now_ms() - 5000, answer="24 months")
        builders.add_rating(connection, interaction, now_ms(), correction=proposed)
        builders.add_review_item(connection, interaction, now_ms(), reason="correction")
    page, problems = open_page(tab, console[0] + "/review")
    page.keyboard.press("c")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("All judged.")).to_be_visible()
    wait_for(page, lambda: standing(sqlite_context), "the decision")
    with reading(sqlite_context.database) as connection:
        assert (
            connection.execute(select(examples.c.row)).scalar_one()["messages"][-1]["content"]
            == proposed
        )
    assert problems == []


def test_the_page_works_without_javascript(
    browser: Browser, sqlite_context: Context, console: tuple[str, dict[str, Any]]
) -> None:
    first, second = queued(sqlite_context, 2, at=now_ms() - 60_000)
    tab = browser.new_context(java_script_enabled=False)
    tab.add_cookies([console[1]])  # type: ignore[list-item]
    page = tab.new_page()
    page.goto(console[0] + "/review")
    page.locator("[data-editor]").fill("line one\nline two")
    page.get_by_role("button", name="Save edit").click()
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    with reading(sqlite_context.database) as connection:
        assert (
            connection.execute(
                select(reviews.c.answer).where(reviews.c.item_id == first)
            ).scalar_one()
            == "line one\nline two"
        )
    tab.close()


def cut_and_whole(context: Context) -> tuple[str, str]:
    """Two conversations: an answer that ended at its token limit, and after it a whole one."""
    with writing(context.database) as connection:
        made = []
        for n, (answer, reason) in enumerate((("It lasts 48", "length"), ("24 months.", "stop"))):
            interaction = builders.add_interaction(
                connection, now_ms() - 60_000 + n, answer=answer, finish_reason=reason
            )
            item = builders.add_review_item(
                connection, interaction, now_ms() - 60_000 + n, priority=float(9 - n)
            )
            made.append(item)
    return made[0], made[1]


def test_a_cut_answer_is_approved_by_a_second_press_on_another_control(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    cut, whole = cut_and_whole(sqlite_context)
    page, problems = open_page(tab, console[0] + "/review")
    expect(page.locator(".notice", has_text="ended at its token limit")).to_be_visible()
    question = page.locator("[data-ask=cut]")
    expect(question).to_be_hidden()
    page.keyboard.press("a")
    expect(question).to_be_visible()
    page.keyboard.press("a")  # quick presses, meant for two conversations
    expect(page.locator(f'[data-item="{cut}"]')).to_be_visible()
    assert standing(sqlite_context) == {}, "the same key twice must not approve a cut answer"
    page.keyboard.press("Control+Enter")
    assert standing(sqlite_context) == {}, "an edit that changes nothing is an approval"
    expect(page.locator("[data-accept=cut]")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(f'[data-item="{whole}"]')).to_be_visible()
    wait_for(page, lambda: standing(sqlite_context) == {cut: "approve"}, "the decision")
    expect(page.locator("[data-ask=cut]")).to_have_count(0)
    page.keyboard.press("a")
    expect(page.get_by_text("All judged.")).to_be_visible()
    wait_for(page, lambda: len(standing(sqlite_context)) == 2, "the whole one asks nothing")
    assert problems == []


def test_a_cut_answer_can_be_completed_or_accepted_with_the_mouse(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    cut, whole = cut_and_whole(sqlite_context)
    page, problems = open_page(tab, console[0] + "/review")
    page.keyboard.press("e")
    page.keyboard.type(" months.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(f'[data-item="{whole}"]')).to_be_visible()
    wait_for(page, lambda: standing(sqlite_context) == {cut: "edit"}, "an edit asks nothing")
    page.keyboard.press("u")
    expect(page.locator(f'[data-item="{cut}"]')).to_be_visible()
    page.get_by_role("button", name="Approve", exact=False).first.click()
    page.get_by_role("button", name="Approve the cut answer").click()
    wait_for(page, lambda: standing(sqlite_context) == {cut: "approve"}, "the decision")
    assert problems == []


def test_a_cut_answer_is_approved_without_javascript(
    browser: Browser, sqlite_context: Context, console: tuple[str, dict[str, Any]]
) -> None:
    cut, whole = cut_and_whole(sqlite_context)
    tab = browser.new_context(java_script_enabled=False)
    tab.add_cookies([console[1]])  # type: ignore[list-item]
    page = tab.new_page()
    page.goto(console[0] + "/review")
    expect(page.locator("[data-ask=cut]")).to_be_hidden()
    page.locator("[data-decision=approve]").click()
    expect(page.locator(f'[data-item="{cut}"]')).to_be_visible()
    page.get_by_role("button", name="Approve the cut answer").click()
    expect(page.locator(f'[data-item="{whole}"]')).to_be_visible()
    assert standing(sqlite_context) == {cut: "approve"}
    tab.close()


def test_a_phone_has_no_sideways_scroll(
    browser: Browser, sqlite_context: Context, console: tuple[str, dict[str, Any]]
) -> None:
    queued(
        sqlite_context,
        2,
        at=now_ms() - 60_000,
        question="How do I " + "x" * 300 + " {n}?",
        answer="y" * 400,
    )
    tab = browser.new_context(viewport={"width": 390, "height": 844})
    tab.add_cookies([console[1]])  # type: ignore[list-item]
    page = tab.new_page()
    for path in ("/review", "/review/list", "/datasets"):
        page.goto(console[0] + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    tab.close()


def test_counts_are_right_although_answers_to_decisions_overtake_each_other(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    first, second = queued(sqlite_context, 2, at=now_ms() - 60_000)
    page, problems = open_page(tab, console[0] + "/review")
    held: list[tuple[Route, Any]] = []
    # It says that one still waits
    page.route(f"**/api/review/{first}", lambda route: held.append((route, route.fetch())))
    expect(page.locator(f'[data-item="{first}"]')).to_be_visible()
    page.keyboard.press("a")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    wait_for(
        page,
        lambda: held,
        "the first decision's answer, without which the second's would say that one still waits",
    )
    page.keyboard.press("a")
    expect(page.get_by_text("All judged.")).to_be_visible()
    wait_for(page, lambda: len(standing(sqlite_context)) == 2, "both decisions")
    expect(page.locator("h1")).to_have_text("Nothing waits for review.")
    route, response = held[0]
    route.fulfill(response=response)
    page.wait_for_load_state("networkidle")
    expect(page.locator("h1")).to_have_text("Nothing waits for review.")
    assert problems == []


def test_passages_are_judged_by_keys(
    sqlite_context: Context, console: tuple[str, dict[str, Any]], tab: BrowserContext
) -> None:
    hits = [
        {"passage_id": f"p{number}", "document_id": "d", "collection": "manual", "address": "a.md",
         "title": f"Page {number}", "section": "", "text": "Lamps last.", "score": 0.5}
        for number in (1, 2)
    ]  # fmt: skip
    how = {"collection": "manual", "outcome": "found", "cited": []}
    first, second = queued(sqlite_context, 2, at=now_ms() - 60_000, retrieved=hits, retrieval=how)
    page, problems = open_page(tab, console[0] + "/review")
    expect(page.locator(f'[data-item="{first}"]')).to_be_visible()
    picked = page.locator("[data-pick]:checked")
    for key, verdict, chosen in (
        ("w", "wrong", ["p1"]), ("w", "wrong", ["p2"]), ("w", "", []),
        ("m", "missing", []), ("i", "ignored", ["p1"]), ("i", "ignored", ["p2"]),
    ):  # fmt: skip
        page.keyboard.press(key)
        expect(page.locator("[data-verdict]:checked")).to_have_value(verdict)
        assert [one.get_attribute("value") for one in picked.all()] == chosen
    page.keyboard.press("r")
    expect(page.locator(f'[data-item="{second}"]')).to_be_visible()
    page.keyboard.press("r")
    expect(page.get_by_text("All judged.")).to_be_visible()
    wait_for(page, lambda: len(standing(sqlite_context)) == 2, "both decisions")
    with reading(sqlite_context.database) as connection:
        said = connection.execute(
            select(reviews.c.item_id, reviews.c.passage_verdict, reviews.c.passage_ids)
        )
        assert {row[0]: (row[1], row[2]) for row in said} == {
            first: ("ignored", ["p2"]),
            second: (None, None),
        }
    assert problems == []
