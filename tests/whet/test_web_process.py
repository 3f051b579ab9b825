"""The console as a process, and its event streams."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends

from tests.web import console_client
from whet.context import Context
from whet.settings import load_settings
from whet.web import shell as shell_module
from whet.web.process import processes

pytestmark = pytest.mark.seconds


def test_the_process_starts_answers_and_stops_within_its_time(tmp_path: Path) -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    environment = os.environ | {"WHET_HOME": str(tmp_path / "home"), "WHET_CONSOLE_PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "-m", "whet.web"], env=environment, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/healthz", timeout=5
                ) as answer:
                    assert json.load(answer)["status"] == "ok"
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < deadline, (
                    process.stderr.read().decode()
                    if process.stderr and process.poll() is not None
                    else "not ready in time"
                )
                time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("server", ["serving.gateway.__main__", "whet.web.__main__"])
def test_a_client_gives_an_idle_connection_up_before_the_server_does(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a request that is sent while the server closes is lost: uvicorn's own five seconds
    are also those of httpx.
    """
    given: dict[str, Any] = {}
    monkeypatch.setenv("WHET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("uvicorn.run", lambda *application, **options: given.update(options))
    importlib.import_module(server).main()
    expiry = httpx._config.DEFAULT_LIMITS.keepalive_expiry
    assert expiry is not None and given.get("timeout_keep_alive", 5) >= 2 * expiry


def test_the_specification_names_the_port_that_is_checked_and_asked(
    sqlite_context: Context,
) -> None:
    (spec,) = processes(sqlite_context)
    assert spec.name == "console" and spec.listens_on == (("127.0.0.1", 8080),)
    assert spec.ready_url == "http://127.0.0.1:8080/healthz"
    assert spec.environment["WHET_HOME"] == str(sqlite_context.settings.home)


def test_a_console_that_listens_everywhere_is_asked_on_loopback(sqlite_context: Context) -> None:
    context = Context(
        load_settings(home=sqlite_context.settings.home, console_host="0.0.0.0"),
        sqlite_context.database,
        sqlite_context.store,
    )
    assert processes(context)[0].ready_url == "http://127.0.0.1:8080/healthz"


async def collect(events: AsyncIterator[Any], frames: int) -> list[str]:
    found = []
    stream = shell_module._frames(events)
    async for frame in stream:
        found.append(frame)
        if len(found) == frames:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def test_events_are_framed_with_names_json_and_line_breaks() -> None:
    async def events() -> AsyncIterator[Any]:
        yield "two\nlines"
        yield ("curve", [1, 2])

    assert await collect(events(), 9) == [
        ": open\n\n",
        "event: message\ndata: two\ndata: lines\n\n",
        "event: curve\ndata: [1, 2]\n\n",
    ]


async def test_a_silent_stream_is_kept_alive_and_its_source_is_closed_when_the_reader_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shell_module, "_KEEPALIVE_S", 0.01)
    closed = []

    async def events() -> AsyncIterator[Any]:
        try:
            await asyncio.sleep(3600)
            yield "never"
        finally:
            closed.append(True)

    assert await collect(events(), 3) == [": open\n\n", ": still here\n\n", ": still here\n\n"]
    assert closed == [True]


def test_a_page_may_put_itself_into_a_sandbox_and_cannot_loosen_its_policy(
    sqlite_context: Context,
) -> None:
    from starlette.responses import PlainTextResponse

    client = console_client(sqlite_context, "viewer")
    shell = client.app.state.shell
    given = {
        "sandbox": "sandbox allow-scripts",
        "own-origin": "sandbox allow-scripts allow-same-origin",
        "open": "default-src *",
    }
    for name, policy in given.items():
        client.app.add_api_route(
            f"/{name}",
            lambda policy=policy: PlainTextResponse(
                "x", headers={"content-security-policy": policy}
            ),
            dependencies=[Depends(shell.require("viewer"))],
        )
    seen = {name: client.get(f"/{name}").headers["content-security-policy"] for name in given}
    assert seen["sandbox"] == "sandbox allow-scripts"
    assert seen["own-origin"].startswith("default-src 'none'") and seen["open"].startswith(
        "default-src 'none'"
    )


def test_what_was_done_is_said_once_on_the_next_page(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    client.post(
        "/settings/people", data={"name": "ada", "role": "viewer", "password": "a long password"}
    )
    assert "ada may log in as viewer." in client.get("/settings/people").text
    assert "ada may log in as viewer." not in client.get("/settings/people").text
