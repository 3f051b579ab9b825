"""The gateway application: FastAPI carries it; the routes that carry tokens are plain ASGI
applications reached before any middleware.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from serving.gateway.answers import (
    ApiError,
    Receive,
    Scope,
    Send,
    internal_error,
    method_not_allowed,
)
from serving.gateway.completions import Completions
from serving.gateway.core import Core
from serving.gateway.cors import CrossOrigin
from serving.gateway.embeddings import TextEmbedder, embed
from serving.gateway.feedback_lookup import PREFIX, FeedbackStatus
from serving.gateway.http_protocol import STATE_KEY, ConnectionWatch
from serving.gateway.metrics import Metrics
from serving.gateway.paths import base_url, find_meant_path, normalise_path
from serving.gateway.ratings import Ratings
from serving.gateway.reference_routes import add_reference_routes
from serving.gateway.request_policy import policy_of
from serving.gateway.snapshot import Refresher
from serving.gateway.upstream import Upstream
from serving.gateway.vector_store_routes import add_vector_store_routes
from serving.keeper import keep_engines_and_rollouts
from serving.log.drain import Drain
from serving.log.insert_process import InsertProcess
from serving.log.pruning import prune_spool
from serving.log.spool import Spool
from serving.retrieval.api_files import remove_files_of_others
from serving.retrieval.client import RetrievalClient
from serving.retrieval.records import Searcher
from serving.retrieval.upload_runner import UploadRunner
from whet import __version__
from whet.access import active_keys, engine_key
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading
from whet.retention import retention_before
from whet.settings import load_settings
from whet.supervision import TaskSupervisor

DISK_CHECK_S = 1.0
PRUNE_EVERY_S = 3600.0
# Without it a revoked key stays valid, so a gateway whose refresher fails is not ready.
REFRESHER = "refresher of keys and aliases"
# Of the collector's generations. Requests leave no cycles behind in their usual course, so the
# first one is looked at after some hundred requests instead of ten.
GC_THRESHOLDS = (10_000, 20, 20)
# Seconds after which a thread that waits may have the interpreter. Threads of this process read and
# write the database; an answer must not wait the default of 5 ms for each of their turns.
SWITCH_INTERVAL_S = 0.0005
# Processes of this one that read uploads; each holds an embedder.
MOST_UPLOAD_WORKERS = 1

Service = Callable[[Core], Awaitable[None]]  # a task that runs as long as the gateway


class Gateway(FastAPI):
    """FastAPI, except that a path in `direct` goes straight to its application: no middleware, no
    route matching.
    """

    direct: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]]
    core: Core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            direct = self.direct.get(scope["path"])
            if direct is None:  # seldom: look again, more closely
                scope = _as_routed(scope)
                direct = self.direct.get(scope["path"])
            if direct is not None:
                await direct(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def methods_of(self, path: str) -> list[str]:
        """Return the methods that `path` answers; none for a path that there is not."""
        if path in self.direct:
            return ["POST"]
        scope = {"type": "http", "path": path, "method": "GET"}
        found: set[str] = set()
        for route in self.router.routes:
            if route.matches(scope)[0] is not Match.NONE:
                found |= getattr(route, "methods", None) or set()
        return sorted(found | {"HEAD"} if "GET" in found else found)


class CrossOriginGateway(Gateway):
    """A gateway that pages of other origins may call; a request without Origin pays one look."""

    cross_origin: CrossOrigin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_from_page = scope["type"] == "http" and any(
            name == b"origin" for name, _ in scope["headers"]
        )
        if is_from_page:
            await self.cross_origin(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _as_routed(scope: Scope) -> Scope:
    """Return `scope` as the routes know it: a tidy path, and GET for HEAD (uvicorn cuts it)."""
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "path": normalise_path(scope["path"]), "method": method}


def create_gateway(
    context: Context,
    *,
    services: tuple[Service, ...] | None = None,
    searcher: Searcher | None = None,
    embedder: TextEmbedder | None = None,
    insert_process: InsertProcess | None = None,
) -> Gateway:
    """The application for `context`.

    `searcher` finds passages and `embedder` makes vectors; None: there is no retrieval process.
    `insert_process` inserts log records; None: a thread of this process does.

    `services` run beside it while it is up; by default the reconciler and the rollout controller,
    of which one process of all holds the lease.
    """
    origins = context.settings.allowed_origins
    app = (CrossOriginGateway if origins else Gateway)(
        title="Whet gateway",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirected POST would lose its body in some clients
        lifespan=_lifespan,
    )
    if isinstance(app, CrossOriginGateway):
        app.cross_origin = CrossOrigin(partial(Gateway.__call__, app), origins)
    app.direct = {}
    app.state.context = context
    app.state.searcher = searcher
    app.state.embedder = embedder
    app.state.insert_process = insert_process
    app.state.upload_runner = UploadRunner(context, most_at_once=MOST_UPLOAD_WORKERS)
    app.state.services = (keep_engines_and_rollouts,) if services is None else services
    _add_pages(app)
    _add_errors(app)
    return app


def from_environment() -> Gateway:
    """For uvicorn, in each worker process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    settings = load_settings()
    client = RetrievalClient(settings)
    return create_gateway(
        open_context(settings),
        searcher=client,
        embedder=client,
        insert_process=InsertProcess(),
    )


@asynccontextmanager
async def _lifespan(app: Gateway) -> AsyncIterator[dict[str, object]]:
    context: Context = app.state.context
    settings = context.settings
    metrics = Metrics()
    spool = Spool(
        settings.home / "spool",
        f"gateway-{os.getpid()}",
        full_durability=settings.log_durability == "full",
    )
    key = engine_key(settings.home, settings.engine_key)
    engine_headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    upstream = Upstream(engine_headers, settings.request_timeout_s)
    core = app.core = Core(
        context,
        Refresher(context),
        spool,
        upstream,
        metrics,
        context.secret,
        engine_headers,
        policy_of(context),
        app.state.searcher,
    )
    drain = Drain(
        context.database,
        spool,
        on_rows=metrics.rows.inc,
        is_crowded=core.refresher.is_crowded,
        insert_process=app.state.insert_process,
    )
    drain.start()
    await core.refresher.refresh()
    chat, completions, responses = (
        Completions(route, core) for route in ("chat", "completions", "responses")
    )
    app.direct = {
        "/v1/chat/completions": chat,
        "/v1/completions": completions,
        "/v1/responses": responses,
        "/v1/feedback": Ratings(core),
    }
    watch = app.state.connection_watch = ConnectionWatch(
        settings.head_timeout_s, settings.body_timeout_s, settings.request_timeout_s
    )
    app.state.drain = drain
    tasks = app.state.tasks = TaskSupervisor()
    tasks.start(REFRESHER, core.refresher.run)
    tasks.start("disk watch", partial(_watch_disk, core))
    tasks.start("connection watch", watch.run)
    tasks.start("pruning of files", partial(_prune_files, context, spool.folder))
    for service in app.state.services:
        tasks.start(service.__name__.replace("_", " "), partial(service, core))
    gc.collect()
    gc.set_threshold(*GC_THRESHOLDS)
    # What is there now stays; without it every full collection walks over all imported modules in
    # the middle of requests
    gc.freeze()
    try:
        yield {STATE_KEY: watch}
    finally:
        await tasks.stop()
        upstream.close()
        await asyncio.to_thread(app.state.upload_runner.close)
        if isinstance(app.state.searcher, RetrievalClient):
            await app.state.searcher.close()
        if await asyncio.to_thread(drain.stop):
            spool.close()


async def _watch_disk(core: Core) -> None:
    while True:
        core.spool.check()
        core.update_gauges()
        await asyncio.sleep(DISK_CHECK_S)


async def _prune_files(context: Context, folder: Path) -> None:
    """Retention of what lies on this machine; the scheduler may run on another."""
    while True:
        before = retention_before(context.settings.retention_days, now_ms())
        await asyncio.to_thread(prune_spool, folder, before)
        await asyncio.to_thread(_remove_files_of_revoked_keys, context)
        await asyncio.sleep(PRUNE_EVERY_S)


def _remove_files_of_revoked_keys(context: Context) -> None:
    with reading(context.database) as connection:
        keys = set(active_keys(connection).values())
    remove_files_of_others(context.settings.home, keys)


def _add_pages(app: Gateway) -> None:
    add_reference_routes(app)
    add_vector_store_routes(app, lambda: app.state.upload_runner)

    @app.get(f"{PREFIX}{{interaction_id}}")
    async def feedback_status(request: Request, interaction_id: str) -> Response:
        body = await FeedbackStatus(app.core).answer(request.scope, interaction_id)
        return Response(body, media_type="application/json")

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        found = await embed(app.core, app.state.embedder, request.scope, request.receive)
        return Response(found or b"", media_type="application/json")

    @app.get("/healthz")
    async def healthz() -> Response:
        return Response(b'{"status":"alive"}', media_type="application/json")

    @app.get("/readyz")
    async def readyz() -> Response:
        failing = app.state.tasks.failures
        missing = [*_missing(app.core), *filter(None, [failing.get(REFRESHER)])]
        found = {
            "ready": not missing,
            "missing": missing,
            "failing": [*failing.values(), *filter(None, [app.state.drain.failure])],
        }
        status = 503 if missing else 200
        return Response(msgspec.json.encode(found), status, media_type="application/json")

    @app.get("/metrics")
    async def metrics() -> Response:
        app.core.update_gauges()
        body = await asyncio.to_thread(app.core.metrics.exposition)
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


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
        path = request.url.path
        if error.status_code == 405:
            allowed = app.methods_of(path)
            return await known(request, method_not_allowed(*allowed))
        message = _not_found(app, request) if error.status_code == 404 else str(error.detail)
        return await known(request, ApiError(error.status_code, message, code="not_found"))

    async def defect(request: Request, _: Exception) -> Response:
        """Starlette raises the error again after this answer, so that it is logged."""
        return await known(request, internal_error())

    app.add_exception_handler(ApiError, known)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)


def _not_found(app: Gateway, request: Request) -> str:
    path, settings = request.url.path, app.state.context.settings
    meant = find_meant_path(path, lambda name: bool(app.methods_of(name)))
    if meant is None and not path.lower().startswith("/v1/v1"):
        return f"There is no {path} here. The page /docs lists what there is."
    default = f"{settings.gateway_host}:{settings.gateway_port}"
    address = base_url(request.url.scheme, request.headers.get("host", ""), default)
    return (
        f"There is no {path} here{f', but there is {meant}' if meant else ''}. "
        f"The client's base_url is the gateway's address with /v1 at its end, once: {address}"
    )
