"""A proxy on loopback that notes what was sent and answered, and changes neither."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "content-encoding",
    "host",
}
_REFUSAL_BYTES = 4000


@dataclass(frozen=True)
class Sent:
    """One request of a client, and the answer's status; the answer itself where it is a refusal."""

    path: str
    body: dict[str, Any]
    status: int
    refusal: str
    ignored: str  # the header x-whet-ignored


class Recorder:
    """What went through the proxy, in the order of the answers' heads."""

    def __init__(self, target: str) -> None:
        self.target = target.rstrip("/")
        self.url = ""
        self.sent: list[Sent] = []

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _HOP_BY_HOP
        }
        async with (
            ClientSession(timeout=ClientTimeout(total=None), auto_decompress=False) as session,
            session.request(
                request.method, f"{self.target}{request.rel_url}", data=body, headers=headers
            ) as answer,
        ):
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP - {"content-encoding"}:
                    response.headers[name] = value
            refusal = (await answer.read()) if answer.status >= 400 else b""
            if request.method == "POST":
                text = refusal[:_REFUSAL_BYTES].decode(errors="replace")
                self.sent.append(
                    Sent(
                        request.path,
                        json.loads(body),
                        answer.status,
                        text,
                        answer.headers.get("x-whet-ignored", ""),
                    )
                )
            await response.prepare(request)
            if refusal:
                await response.write(refusal)
            else:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            await response.write_eof()
            return response


@contextmanager
def recording(target: str) -> Iterator[Recorder]:
    """Forward to `target` (scheme, host and port) until the block ends."""
    recorder = Recorder(target)
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stopped = asyncio.Event()

    async def serve() -> None:
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", recorder._forward)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        recorder.url = f"http://{host}:{port}"
        ready.set()
        await stopped.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    if not ready.wait(20):
        raise TimeoutError("The recording proxy did not start within 20 s.")
    try:
        yield recorder
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(20)
        loop.close()
