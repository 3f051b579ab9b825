"""Playground: the same question to the base and to versions, side by side, streamed through the
gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response, StreamingResponse

from serving.pages.console_key import console_key
from serving.retrieval.defaults_store import load_defaults
from serving.retrieval.documents_store import list_collections
from whet.database import reading
from whet.errors import AccessError, EngineUnavailableError
from whet.json_types import JsonObject
from whet.registry import current_rollouts, list_adapters
from whet.web.shell import Shell

COLUMNS = 3  # more do not fit side by side
WITHOUT = "-"  # the choice of no retrieval; no collection can have this name
_CHOICES = 200  # versions offered in a column's list
_CONNECT_S = 5.0
_GIVEN_HEADERS = ("x-whet-interaction-id", "x-whet-adapter")


class Question(BaseModel):
    """What a column sends.

    The gateway checks it as it checks every request; the limits here only bound a mistake.
    """

    model: str = Field(min_length=1, max_length=200)
    system: str = Field("", max_length=100_000)
    prompt: str = Field(min_length=1, max_length=100_000)
    max_tokens: int = Field(256, ge=1, le=100_000)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    collection: str = Field("", max_length=64)  # empty: what the model retrieves from by default
    retrieve: bool = True

    def body(self) -> JsonObject:
        """The gateway's request."""
        messages = [{"role": "system", "content": self.system}] if self.system.strip() else []
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [*messages, {"role": "user", "content": self.prompt}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "metadata": {"source": "playground"},
        }
        if self.seed is not None:
            body["seed"] = self.seed
        if not self.retrieve:
            body["rag"] = False
        elif self.collection:
            body["rag"] = {"collection": self.collection}
        return body


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Playground", "/playground", "playground", 60)
    routes = APIRouter(dependencies=[Depends(shell.require("reviewer"))])

    @routes.get("/playground")
    def playground(
        request: Request,
        prompt: str = "",
        system: str = "",
        rag: str = "",
        a: str | None = None,
        b: str | None = None,
        c: str | None = None,
    ) -> Response:
        """The base and versions side by side; the query's fields fill it in.

        `a`, `b`, `c`: models; `rag`: a collection, `-` for none; `prompt` and `system`.
        """
        models = offered(shell)
        with reading(shell.context.database) as connection:
            names = [one.name for one in list_collections(connection)]
            defaults = load_defaults(connection)
        columns = [
            default if given is None else given
            for given, default in zip((a, b, c), first_columns(shell, models), strict=True)
        ]
        return shell.render(
            request, "serving/playground.html", models=models, columns=columns,
            prompt=prompt[:20_000], system=system[:20_000], settings=shell.context.settings,
            collections=names, rag=rag, without=WITHOUT,
            defaults={alias: default.collection for alias, default in defaults.items()},
        )  # fmt: skip

    @routes.post("/playground/ask")
    async def ask(question: Question) -> Response:
        """One column's answer, passed through as the gateway streams it."""
        key = await run_in_threadpool(console_key, shell.context, shell.now())
        return await stream_from_gateway(
            gateway_url(shell), key, question.body(), shell.context.settings.request_timeout_s
        )

    return routes


def gateway_url(shell: Shell) -> str:
    settings = shell.context.settings
    host = "127.0.0.1" if settings.gateway_host in ("0.0.0.0", "::") else settings.gateway_host
    return f"http://{host}:{settings.gateway_port}"


def offered(shell: Shell) -> list[tuple[str, list[tuple[str, str]]]]:
    """(group, [(model, words)]): the base, the aliases, then exact versions, newest first."""
    settings = shell.context.settings
    with reading(shell.context.database) as connection:
        rollouts = current_rollouts(connection)
        adapters = list_adapters(connection)[:_CHOICES]
    roles = {rollout.stable_digest: f"live as {alias}" for alias, rollout in rollouts.items()}
    roles |= {
        rollout.candidate_digest: f"on trial as {alias}"
        for alias, rollout in rollouts.items()
        if rollout.candidate_digest
    }
    versions = [
        (
            adapter.label,
            (
                f"{adapter.label} ({roles[adapter.digest]})"
                if adapter.digest in roles
                else adapter.label
            ),
        )
        for adapter in adapters
    ]
    groups = [("Base", [(settings.base_alias, f"{settings.base_alias}, the base model")])]
    if rollouts:
        groups.append(("As applications see it", [(alias, alias) for alias in sorted(rollouts)]))
    return [*groups, ("Versions", versions)] if versions else groups


def first_columns(shell: Shell, models: list[tuple[str, list[tuple[str, str]]]]) -> list[str]:
    """What an untouched page compares: the base, the live version, the one on trial or else the
    newest other one.
    """
    settings = shell.context.settings
    versions = dict(models).get("Versions", [])
    live = next((model for model, words in versions if "live as" in words), "")
    trial = next((model for model, words in versions if "on trial" in words), "") or next(
        (model for model, _ in versions if model != live), ""
    )
    chosen = [settings.base_alias, live or trial, trial if live else ""]
    return chosen if chosen[1] != chosen[2] else [chosen[0], chosen[1], ""]


async def stream_from_gateway(url: str, key: str, body: JsonObject, timeout_s: float) -> Response:
    """The gateway's stream; its errors as JSON with its sentence.

    The upstream request ends when the reader goes away.
    """
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=_CONNECT_S)
    session = aiohttp.ClientSession(timeout=timeout)
    try:
        upstream = await session.post(
            f"{url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}
        )
    except (aiohttp.ClientError, TimeoutError) as error:
        await session.close()
        raise EngineUnavailableError(
            f"The gateway does not answer at {url}.",
            hint="`whet status` says what runs; `whet up` starts it.",
        ) from error
    except BaseException:
        await session.close()
        raise
    if upstream.status != 200:
        async with session:
            return _refused(upstream.status, await _json(upstream))
    headers = {name: upstream.headers[name] for name in _GIVEN_HEADERS if name in upstream.headers}
    return StreamingResponse(
        _pass_on(session, upstream), media_type="text/event-stream", headers=headers
    )


async def _pass_on(
    session: aiohttp.ClientSession, upstream: aiohttp.ClientResponse
) -> AsyncIterator[bytes]:
    try:
        async for chunk in upstream.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError):
        # The status line is long sent: the break is said in the stream itself, in the gateway's
        # form.
        yield (
            b'data: {"error": {"message": "The answer broke off: the gateway closed the'
            b' connection."}}\n\n'
        )
    finally:
        upstream.close()  # not released: an unread rest would keep the engine at work
        await asyncio.shield(session.close())


async def _json(upstream: aiohttp.ClientResponse) -> JsonObject:
    try:
        content = await upstream.json(content_type=None)
    except (aiohttp.ClientError, ValueError, TimeoutError):
        return {}
    return content if isinstance(content, dict) else {}


def _refused(status: int, content: JsonObject) -> Response:
    """The gateway's error under its own status.

    Its 401 is about the console's key, not about the person: they stay logged in.
    """
    found = content.get("error")
    message = str(found.get("message", "")) if isinstance(found, dict) else ""
    if status == 401:
        refusal = AccessError(
            f"The gateway refuses the console's key: {message}",
            hint="A key made a moment ago is known to it after a second or two.",
        )
        return JSONResponse(
            {"error": {"message": refusal.message, "hint": refusal.hint, "code": "gateway_key"}},
            status_code=502,
        )
    return JSONResponse(
        {
            "error": {
                "message": message or f"The gateway answered {status}.",
                "hint": "",
                "code": "gateway",
            }
        },
        status_code=status,
    )
