"""The console in a real browser: Debian's Chromium, driven by Playwright, against a console that
really listens.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.web import console_client
from whet.context import Context

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_PATIENCE_MS = 30_000  # the machine that runs the tests may train and serve at the same time
expect.set_options(timeout=_PATIENCE_MS)


def chromium() -> str:
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if found is None:
        pytest.fail(
            "Chromium is not installed. Run `make setup`, or `apt-get update && apt-get install -y"
            " chromium`.",
            pytrace=False,
        )
    return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Ends with this folder: Playwright's loop runs in the tests' own thread, and no other test
    could use asyncio beside it.
    """
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=_FLAGS)
        yield opened
        opened.close()


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an ASGI application on a free loopback port; yields its address."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline, "the application did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def opened(browser: Browser, sqlite_context: Context) -> Iterator[Callable[..., Page]]:
    """`opened(role, path, width=1280, theme="light")` → a page of a logged-in user.

    No page may complain in the console.
    """
    complaints: list[str] = []
    contexts = []
    client = console_client(sqlite_context, "")
    with listening(client.app) as address:

        def open_page(
            role: str,
            path: str,
            *,
            width: int = 1280,
            theme: Any = "light",
            before: Callable[[Page], None] | None = None,
        ) -> Page:
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=theme, base_url=address
            )
            contexts.append(context)
            context.set_default_timeout(_PATIENCE_MS)
            if role:
                user = console_client(sqlite_context, role)
                ((name, value),) = user.cookies.items()
                context.add_cookies(
                    [
                        {
                            "name": name,
                            "value": value,
                            "url": address,
                            "httpOnly": True,
                            "sameSite": "Strict",
                        }
                    ]
                )
            page = context.new_page()
            page.on("pageerror", lambda error: complaints.append(f"{path}: {error}"))
            page.on(
                "console",
                lambda message: (
                    complaints.append(f"{path}: {message.text}")
                    if message.type in ("error", "warning")
                    else None
                ),
            )
            if before:
                before(page)
            page.goto(path)
            return page

        open_page.expected = []  # type: ignore[attr-defined]  # parts of complaints that a test provokes, whenever they arrive
        yield open_page
        for context in contexts:
            context.close()
        expected: list[str] = open_page.expected  # type: ignore[attr-defined]
    assert [one for one in complaints if not any(part in one for part in expected)] == []
