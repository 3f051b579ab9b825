"""From a dropped file to a cited answer, and back from the answer to the file, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from serving.pages.console_key import console_key
from serving.retrieval.upload_runner import UploadRunner
from serving.retrieval.uploads import UploadFolder
from tests.browser.retrieval_stack import retrieval_stack
from tests.serving.conftest import Running
from tests.serving.retrieval.worlds import add_collection, add_document
from whet.clock import now_ms
from whet.context import Context

pytestmark = pytest.mark.browser
Open = Callable[..., Page]

QUESTION = "How long are lamps covered?"
WARRANTY = (
    "# Warranty\n\nLamps are covered for 36 months from the day of delivery. Keep the invoice."
)
HOSTILE = "# Kettles\n\nKettles are <img src=x onerror=alert(1)> covered for 24 months."
# A worker that starts, its embedder and its parser: seconds, on a machine that does much else
# minutes.
STARTED_MS = 120_000
# Drops files on the page, as a browser does after a drag from the desktop.
DROP = """files => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) transfer.items.add(new File([text], name));
  document.querySelector("[data-drop]").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[tuple[Context, Running]]:
    with retrieval_stack(tmp_path / "home") as found:
        yield found


@pytest.fixture
def sqlite_context(stack: tuple[Context, Running]) -> Context:
    """The console's, of whose gateway and retrieval process the stack is."""
    return stack[0]


def test_from_a_dropped_file_to_a_cited_answer_and_back(
    opened: Open, stack: tuple[Context, Running]
) -> None:
    context, running = stack
    page = opened("operator", "/documents")
    page.keyboard.press("n")
    page.get_by_label("Name").fill("manual")
    page.get_by_role("button", name="Create it").click()
    page.wait_for_url("**/documents/manual")  # and its scripts, which take what is dropped

    page.evaluate(DROP, [["warranty.md", WARRANTY], ["broken.pdf", "%PDF-1.4"]])
    page.set_input_files(
        "[data-files]", {"name": "kettles.md", "mimeType": "", "buffer": HOSTILE.encode()}
    )
    expect(page.locator("[data-upload-state=read]")).to_have_count(2, timeout=STARTED_MS)
    expect(page.locator("[data-upload-state=failed]")).to_contain_text("It is damaged")
    expect(page.locator(".index-state")).to_contain_text("index up to date", timeout=STARTED_MS)
    page.mouse.move(0, 0)
    expect(page.locator("h1")).to_have_text("manual: 2 documents, 1 could not be read")
    expect(page.locator("#rows tbody tr")).to_have_count(3)

    page.get_by_text("Attach a model").click()
    page.locator("form[action$='/attach'] select").select_option("support")
    page.get_by_role("button", name="Attach", exact=True).click()
    expect(page.locator(".said")).to_contain_text("support retrieves from manual now.")

    console_key(context, now_ms())
    running.refresh()
    page = opened("operator", f"/playground?a=support&b=&c=&prompt={QUESTION}")
    page.keyboard.press("Control+Enter")
    answer = page.locator("[data-answer]").first
    expect(answer).to_contain_text("Lamps are covered for 36 months from the day of delivery [1].")
    expect(page.locator("[data-passages] details").first).to_contain_text("cited")
    page.get_by_role("button", name="[1]").click()
    expect(page.locator("[data-passages] .text").first).to_contain_text("Keep the invoice.")
    interaction = page.locator("[data-column]").first.get_attribute("data-interaction")
    assert interaction and running.row(interaction)

    page.get_by_role("link", name="Open in Traffic").first.click()
    expect(page.locator("h1")).to_have_text(QUESTION)
    shared = page.locator(".turn.assistant mark")
    expect(shared).to_have_text("Lamps are covered for 36 months from the day of delivery")
    passage = page.locator("details.passage").first
    expect(passage.locator("mark")).to_have_text(
        "Lamps are covered for 36 months from the day of delivery"
    )
    expect(passage.locator("summary")).to_contain_text("cited")

    passage.get_by_role("link", name="warranty.md").click()
    expect(page.locator(".passage-card.chosen")).to_contain_text("Keep the invoice.")
    expect(page.get_by_role("link", name=QUESTION)).to_have_attribute(
        "href", f"/traffic/{interaction}"
    )


def test_search_marks_words_and_hostile_text_stays_text(
    opened: Open, sqlite_context: Context
) -> None:
    add_collection(sqlite_context)
    folder = UploadFolder(sqlite_context.settings.home, "manual")
    part = folder.begin("kettles.md", now_ms())
    part.write_text(HOSTILE)
    folder.complete(part, "kettles.md", actor="ada", modified_at=None, now=now_ms())
    runner = UploadRunner(sqlite_context)
    runner.resume()  # as the console does at its start, with what a killed one left
    runner.wait("manual", 120)
    page = opened("viewer", "/documents/manual")
    page.fill("#q", "kettle cover")
    page.keyboard.press("Enter")
    expect(page.locator(".hit mark")).to_have_text(["Kettles", "covered"])
    expect(page.locator(".hit-text")).to_contain_text("Kettles are covered for 24 months.")
    expect(page.locator(".hit-scores")).to_contain_text("words #1 · vectors #1")
    expect(page.locator("[data-upload]")).to_have_count(0)


def test_a_phone_has_no_sideways_scroll(opened: Open, sqlite_context: Context) -> None:
    add_collection(sqlite_context)
    found = add_document(sqlite_context, "a/" + "b" * 200 + ".md", "x" * 400, title="y" * 200)
    for path in ("/documents", "/documents/manual", f"/documents/manual/documents/{found}"):
        page = opened("admin", path, width=390)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
