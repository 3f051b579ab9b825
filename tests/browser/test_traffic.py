"""Traffic as an operator works with it: search, sort, choose, into review, undo, export, thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from serving.search_index.indexing import index_all
from tests import builders
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.tables import review_items

pytestmark = pytest.mark.browser


def fill(context: Context) -> list[str]:
    """Three turns of one thread, the last of them the slowest, and something else."""
    now = now_ms()
    said: list[dict[str, str]] = []
    ids = []
    with writing(context.database) as connection:
        for turn in range(3):
            said.append({"role": "user", "content": f"Where is my parcel, part {turn}?"})
            ids.append(
                builders.add_interaction(
                    connection, now - 60_000 + turn, request={"messages": list(said)},
                    answer=f"On its way {turn}.", ttft_ms=100.0 * (turn + 1), end_user="ada",
                )
            )  # fmt: skip
            said.append({"role": "assistant", "content": f"On its way {turn}."})
        builders.add_interaction(connection, now - 50_000, question="Something else")
    index_all(context)
    return ids


def queued(context: Context) -> int:
    with reading(context.database) as connection:
        return len(connection.execute(select(review_items.c.id)).all())


def test_search_sort_choose_review_undo_export_and_thread(
    opened: Callable[..., Page], sqlite_context: Context, tmp_path: Path
) -> None:
    ids = fill(sqlite_context)
    page = opened("reviewer", "/traffic")
    page.keyboard.press("/")
    page.keyboard.type("parcel")
    expect(page.locator("#headline")).to_contain_text("3 conversations say “parcel”")
    expect(page.locator("mark").first).to_have_text("parcel")
    page.get_by_role("link", name="TTFT").click()
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("TTFT")
    expect(page.locator("tr[data-row] a").first).to_have_attribute("href", f"/traffic/{ids[2]}")
    expect(page.locator("#chosen")).to_be_hidden()
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("[data-chosen-count]")).to_have_text("1 chosen")
    page.locator("[data-choose-all]").check()
    expect(page.locator("[data-chosen-count]")).to_have_text("3 chosen")
    with page.expect_download() as exported:
        page.get_by_role("button", name="Export JSONL").click()
    lines = Path(exported.value.path()).read_text().strip().split("\n")
    assert [json.loads(line)["id"] for line in lines] == ids[::-1]
    page.get_by_role("button", name="Put into review").click()
    expect(page.locator(".said[role=status]")).to_contain_text("3 conversations put into review")
    assert queued(sqlite_context) == 3 and "q=parcel" in page.url and "sort=ttft" in page.url
    page.keyboard.press("u")
    expect(page.locator(".said[role=status]")).to_contain_text("taken out of review again")
    assert queued(sqlite_context) == 0
    page.locator("tr[data-row] a").first.click()
    expect(page.locator(".thread li")).to_have_count(3)
    page.keyboard.press("p")
    page.wait_for_url(f"**/traffic/{ids[1]}")
    page.keyboard.press("n")
    page.wait_for_url(f"**/traffic/{ids[2]}")


def test_columns_and_views_stay_in_the_address(
    opened: Callable[..., Page], sqlite_context: Context
) -> None:
    fill(sqlite_context)
    page = opened("viewer", "/traffic?q=parcel")
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("User").check()
    page.get_by_role("button", name="Show these").click()
    expect(page.locator("td a", has_text="ada").first).to_be_visible()
    page.get_by_text("Views", exact=True).click()
    page.get_by_label("Name of this view").fill("parcels")
    page.get_by_role("button", name="Save this view").click()
    expect(page.locator(".said[role=status]")).to_contain_text("Saved as “parcels”, for you.")
    page.goto(page.url.partition("?")[0])
    page.get_by_text("Views", exact=True).click()
    page.get_by_role("link", name="parcels").click()
    expect(page.locator("#headline")).to_contain_text("3 conversations say “parcel”")
    expect(page.locator("td a", has_text="ada").first).to_be_visible()
