"""Pictures of the pages of a running console, for the documentation and for looking at.

Without arguments: the console of this installation (the settings say where it listens,
`admin.password` in the home folder opens it), the pages the documentation shows, into docs/images.
`--all` takes every page at 1280 and 390 pixels, light and dark. Needs Debian's Chromium and the
playwright package, which `make screenshots` sets up.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, sync_playwright

from whet.settings import load_settings

SIZES = ((1280, 800), (390, 844))
THEMES = ("light", "dark")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGES = {
    "overview": "/",
    "traffic": "/traffic?since=all",
    "review": "/review",
    "datasets": "/datasets",
    "drift": "/drift",
    "runs": "/runs",
    "documents": "/documents",
    "adapters": "/adapters",
    "playground": "/playground",
    "health": "/health",
    "settings": "/settings",
}
# A page that is reached through the first link of a list: name -> (list, selector of the link)
LINKED = {
    "conversation": ("/traffic?since=all", "tr[data-row] a[href^='/traffic/']"),
    "collection": ("/documents", "tr[data-row] a[href^='/documents/']"),
    "run": ("/runs", "tr[data-row] a[href^='/runs/'], a.running"),
    "alias": ("/adapters", ".alias-card h2 a"),
    "version": ("/adapters", ".line-at:last-child a"),
    "incident": ("/drift", "a[href^='/drift/incidents/']"),
}

# What docs/images holds: a picture says what a page is, not every state of it
DOCUMENTED = {"overview", "conversation", "review", "incident", "run", "alias"}


def log_in(context: BrowserContext, address: str, name: str, password: str) -> Page:
    page = context.new_page()
    page.goto(f"{address}/login")
    page.fill("[name=name]", name)
    page.fill("[name=password]", password)
    page.click("button.primary")
    page.wait_for_url(lambda url: "/login" not in url)
    return page


def addresses(page: Page, address: str, wanted: set[str]) -> dict[str, str]:
    """Name -> path of every page to take; a page that the installation has nothing for is left out
    and said so.
    """
    found = {name: path for name, path in PAGES.items() if name in wanted}
    for name, (origin, selector) in LINKED.items():
        if name not in wanted:
            continue
        page.goto(address + origin)
        link = page.locator(selector).first
        if link.count():
            found[name] = str(link.get_attribute("href"))
        else:
            print(f"{name}: {origin} leads to none; left out", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(__file__).parent.parent / "docs" / "images"
    )
    parser.add_argument(
        "--address", default="", help="of the console; default: where the settings say"
    )
    parser.add_argument("--user", default="admin")
    parser.add_argument(
        "--password", default="", help="default: what admin.password in the home folder says"
    )
    parser.add_argument("--only", default="", help="names of pages, separated by commas")
    parser.add_argument("--all", action="store_true", help="every page, both widths, both themes")
    parser.add_argument(
        "--whole", action="store_true", help="the whole page instead of the first screen"
    )
    arguments = parser.parse_args()
    settings = load_settings()
    address = (arguments.address or f"http://127.0.0.1:{settings.console_port}").rstrip("/")
    password = arguments.password or (settings.home / "admin.password").read_text().strip()
    wanted = (
        set(arguments.only.split(","))
        if arguments.only
        else {*PAGES, *LINKED}
        if arguments.all
        else DOCUMENTED
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        print(
            "Chromium is not installed: apt-get update && apt-get install -y chromium",
            file=sys.stderr,
        )
        return 1
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for width, height in SIZES if arguments.all else SIZES[:1]:
            for theme in THEMES if arguments.all else THEMES[:1]:
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme=theme
                )  # type: ignore[arg-type]
                page = log_in(context, address, arguments.user, password)
                for name, path in addresses(page, address, wanted).items():
                    page.goto(address + path)
                    page.wait_for_timeout(400)  # charts draw after the page is there
                    file = arguments.folder / f"{name}-{width}-{theme}.png"
                    page.screenshot(path=str(file), full_page=arguments.whole)
                    print(file)
                context.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
