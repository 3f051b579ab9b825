"""The gateway application: FastAPI carries it; the routes that carry tokens are plain ASGI applications reached before any middleware."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serving.gateway.answers import ApiError, Receive, Scope, Send, error_body
from serving.gateway.completions import Completions
from serving.gateway.core import Core
from serving.gateway.feedback_lookup import PREFIX, FeedbackStatus
from serving.gateway.metrics import Metrics
from serving.gateway.ratings import Ratings
from serving.gateway.snapshot import Refresher
from serving.gateway.upstream import Upstream
from serving.log.drain import Drain
from serving.log.spool import Spool
from whet import __version__
from whet.access import engine_key
from whet.context import Context, open_context
from whet.settings import load_settings

DISK_CHECK_S = 1.0

Service = Callable[[Core], Awaitable[None]]  # a task that runs as long as the gateway


class Gateway(FastAPI):
    """FastAPI, except that a path in `direct` goes straight to its application: no middleware, no route matching."""

    direct: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]]
    core: Core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            direct = self.direct.get(scope["path"])
            if direct is not None:
                await direct(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_gateway(context: Context, *, services: tuple[Service, ...] | None = None) -> Gateway:
    """The application for `context`. `services` run beside it while it is up; by default the reconciler and the rollout
    controller, of which one process of all holds the lease."""
    app = Gateway(title="Whet gateway", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan)
    app.direct = {}
    app.state.context = context
    app.state.services = _default_services() if services is None else services
    _add_pages(app)
    _add_errors(app)
    return app


def from_environment() -> Gateway:
    """For uvicorn, in each worker process."""
    return create_gateway(open_context(load_settings()))


def _default_services() -> tuple[Service, ...]:
    from serving.keeper import keep_engines_and_rollouts

    return (keep_engines_and_rollouts,)


@asynccontextmanager
async def _lifespan(app: Gateway) -> AsyncIterator[None]:
    context: Context = app.state.context
    settings = context.settings
    metrics = Metrics()
    spool = Spool(settings.home / "spool", f"gateway-{os.getpid()}", full_durability=settings.log_durability == "full")
    key = engine_key(settings.home, settings.engine_key)
    engine_headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    upstream = Upstream(engine_headers, settings.request_timeout_s)
    core = app.core = Core(context, Refresher(context), spool, upstream, metrics, context.secret, engine_headers)
    drain = Drain(context.database, spool, on_rows=metrics.rows.inc)
    drain.start()
    await core.refresher.refresh()
    chat, completions, responses = (Completions(route, core) for route in ("chat", "completions", "responses"))
    app.direct = {"/v1/chat/completions": chat, "/v1/completions": completions, "/v1/responses": responses, "/v1/feedback": Ratings(core)}
    tasks = [asyncio.create_task(work) for work in (core.refresher.run(), _watch_disk(core), *(service(core) for service in app.state.services))]
    gc.collect()
    gc.freeze()  # what is there now stays; without it every full collection walks over all imported modules in the middle of requests
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        upstream.close()
        await asyncio.to_thread(drain.stop)
        spool.close()


async def _watch_disk(core: Core) -> None:
    while True:
        core.metrics.unavailable.set(1 if core.spool.check() else 0)
        core.metrics.pending.set(core.spool.pending_bytes)
        await asyncio.sleep(DISK_CHECK_S)


def _add_pages(app: Gateway) -> None:
    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        await app.core.caller(request.scope)
        return Response(app.core.refresher.current.models_body, media_type="application/json")

    @app.get(f"{PREFIX}{{interaction_id}}")
    async def feedback_status(request: Request, interaction_id: str) -> Response:
        body = await FeedbackStatus(app.core).answer(request.scope, interaction_id)
        return Response(body, media_type="application/json")

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        await app.core.caller(request.scope)
        raise ApiError(501, "This gateway has no embedding model. Use one that your application brings along.", code="no_embedder")

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    @app.get("/readyz")
    async def readyz() -> Response:
        missing = _missing(app.core)
        return Response(msgspec.json.encode({"ready": not missing, "missing": missing}), 503 if missing else 200, media_type="application/json")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(app.core.metrics.exposition), media_type="text/plain; version=0.0.4; charset=utf-8")


def _missing(core: Core) -> list[str]:
    """What keeps this process from answering; empty when nothing does."""
    reasons = []
    if not core.refresher.loaded:
        reasons.append("The database was not read yet.")
    if not core.refresher.current.base_ready:
        reasons.append("No engine replica is ready.")
    if core.spool.failure:
        reasons.append(core.spool.failure)
    return reasons


def _add_errors(app: Gateway) -> None:
    """One shape for every error, whoever raised it."""

    async def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        response = Response(error.body(), error.status)
        response.raw_headers += error.all_headers()
        return response

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = {404: f"There is no {request.url.path} here.", 405: f"{request.url.path} does not answer {request.method}."}.get(
            error.status_code, str(error.detail)
        )
        return Response(
            error_body(error.status_code, f"{message} docs/gateway.md lists what there is.", code="not_found"), error.status_code, media_type="application/json"
        )

    app.add_exception_handler(ApiError, known)
    app.add_exception_handler(HTTPException, http)
