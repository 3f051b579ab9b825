"""/v1/files and /v1/vector_stores: collections and documents in OpenAI's shape.

What a key may see and change is decided in `serving.retrieval.vector_stores`. Files are parsed by
the upload worker, a process of its own, in the parsers' sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from sqlalchemy.exc import SQLAlchemyError

from serving.gateway import vector_store_objects as objects
from serving.gateway.answers import ApiError
from serving.gateway.core import Caller, Core
from serving.gateway.file_search import read_filter
from serving.gateway.request_body import read_body
from serving.gateway.upload_form import ReceivedForm, receive_form
from serving.retrieval.filters import check_filter
from serving.retrieval.parsing.process import LARGEST_FILE
from serving.retrieval.records import Outcome, SearchRequest
from serving.retrieval.upload_runner import UploadRunner
from serving.retrieval.vector_stores import StoreFile, VectorStores
from whet.clock import now_ms
from whet.database import reading
from whet.errors import InputError, WhetError
from whet.json_types import JsonObject

PURPOSES = ("assistants", "user_data")
_JSON = "application/json"
_MOST_RESULTS = 50  # OpenAI's limit
_DEFAULT_RESULTS = 10
_MOST_AT_ONCE = 4  # threads for reading and writing rows and files
_MOST_UPLOADS = 4  # files that arrive at once
_MOST_IN_BATCH = 500
_SEARCH_TIMEOUT_S = 6.0
_RETRY_AFTER_S = 5
T = TypeVar("T")


class VectorStoreApi:
    """What the routes do, for whoever asks."""

    def __init__(self, core: Core, runner: UploadRunner) -> None:
        self.core, self._runner = core, runner
        # Of its own: what hangs here must not keep keys and aliases from being refreshed.
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, "vector-stores")
        self._uploads = asyncio.Semaphore(_MOST_UPLOADS)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def call(self, caller: Caller, work: Callable[[VectorStores], T]) -> T:
        """Run `work` in a thread as the caller. Raises ApiError."""
        stores = VectorStores(self.core.context, caller.key_id, now_ms())
        try:
            return await self.in_thread(partial(work, stores))
        except WhetError as error:
            code = "invalid_value" if isinstance(error, InputError) else error.code
            raise ApiError(error.status, str(error), code=code) from None
        except SQLAlchemyError as error:
            raise ApiError(
                503,
                "The database cannot be read or written at this moment.",
                code="database_unavailable",
                retry_after_s=_RETRY_AFTER_S,
            ) from error

    async def upload(self, request: Request) -> Response:
        """Take a file."""
        caller = await self.core.caller(request.scope)
        async with self._uploads:
            part = await self.call(caller, _begin_file)
            try:
                form = await receive_form(
                    request.receive, caller, part, LARGEST_FILE, self.in_thread
                )
                if form is None:
                    return Response(b"")
                purpose = _purpose(form)
                file = await self.call(
                    caller, lambda on: on.files.complete(part, form.filename, purpose, now_ms())
                )
            finally:
                await self.in_thread(partial(part.unlink, missing_ok=True))
        return respond(objects.file_object(file))

    async def download(self, request: Request, file_id: str) -> Response:
        """Return a file's content."""
        caller = await self.core.caller(request.scope)
        file = await self.call(caller, lambda on: on.files.get(file_id))
        path = await self.call(caller, lambda on: on.files.content(file_id))
        # As bytes to keep: a page of the file's own must not run under the gateway's address.
        return FileResponse(path, media_type="application/octet-stream", filename=file.name)

    async def list_files(self, request: Request) -> Response:
        """Return the key's files."""
        caller = await self.core.caller(request.scope)
        files = await self.call(caller, lambda on: on.files.load())
        wanted = request.query_params.get("purpose")
        shown = [objects.file_object(one) for one in files if wanted in (None, one.purpose)]
        query = {"limit": str(objects.MOST_LISTED), **request.query_params}
        if query["limit"].isdecimal():  # here clients may ask for 10,000, and get a page at a time
            query["limit"] = str(min(int(query["limit"]), objects.MOST_LISTED))
        return respond(objects.list_page(shown, query))

    async def delete_file(self, request: Request, file_id: str) -> Response:
        """Delete a file, and its documents in the stores that the key may change."""
        caller = await self.core.caller(request.scope)
        changed = await self.call(caller, lambda on: on.delete_file(file_id))
        for store in changed:
            await self._wake(store)
        return respond(objects.deleted(file_id, "file"))

    # --- stores -----------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """Create a store, with the files that the request names."""
        caller, asked = await self._decoded(request, objects.StoreRequest)
        objects.refuse_unsupported(asked)
        file_ids = _limited(asked.file_ids or [])

        def work(on: VectorStores) -> str:
            for file_id in file_ids:
                on.files.get(file_id)  # before anything is made
            made = on.create(asked.name or "", asked.metadata or {}).collection.name
            for file_id in file_ids:
                on.add_file(made, file_id, {})
            return made

        made = await self.call(caller, work)
        if file_ids:
            await self._wake(made)
        return respond(objects.store_object(await self.call(caller, lambda on: on.get(made))))

    async def update(self, request: Request, store_id: str) -> Response:
        """Change a store's name or metadata."""
        caller, asked = await self._decoded(request, objects.StoreRequest)
        objects.refuse_unsupported(asked)
        if asked.file_ids is not None:
            raise objects.invalid("file_ids", "add files with POST /v1/vector_stores/{id}/files.")
        found = await self.call(caller, lambda on: on.update(store_id, asked.name, asked.metadata))
        return respond(objects.store_object(found))

    async def remove(self, request: Request, store_id: str) -> Response:
        """Delete a store with its documents."""
        caller = await self.core.caller(request.scope)
        await self.call(caller, lambda on: on.remove(store_id))
        await self.in_thread(partial(self._runner.stop, store_id))
        return respond(objects.deleted(store_id, "vector_store.deleted"))

    async def search(self, request: Request, store_id: str) -> Response:
        """Search a store."""
        caller, asked = await self._decoded(request, objects.StoreSearchRequest)
        wanted = _search_request(store_id, asked)
        await self.call(caller, lambda on: on.get(store_id))
        core = self.core
        if core.searcher is None:
            raise _search_failed("This gateway has no retrieval process.")
        try:
            async with asyncio.timeout(_SEARCH_TIMEOUT_S):
                found = await core.searcher.search(wanted)
        except TimeoutError:
            raise _search_failed(f"The search took longer than {_SEARCH_TIMEOUT_S:g} s.") from None
        core.metrics.retrievals[found.outcome].inc()
        if found.outcome is Outcome.FAILED:
            raise _search_failed("The search failed.")
        hits = [hit for hit in found.hits if hit.collection == store_id]
        return respond(objects.search_page(wanted.query, hits))

    # --- files of a store -------------------------------------------------------------------------

    async def add_file(self, request: Request, store_id: str) -> Response:
        """Put a file into a store."""
        caller, asked = await self._decoded(request, objects.StoreFileRequest)
        objects.refuse_unsupported(asked)
        file = await self.call(
            caller, lambda on: on.add_file(store_id, asked.file_id, asked.attributes or {})
        )
        await self._wake(store_id)
        return respond(objects.store_file_object(file))

    async def get_file(self, request: Request, store_id: str, file_id: str) -> Response:
        """Return one file of a store."""
        caller = await self.core.caller(request.scope)
        file = await self.call(caller, lambda on: on.get_file(store_id, file_id))
        await self._resume(store_id)
        return respond(objects.store_file_object(file))

    async def list_store_files(self, request: Request, store_id: str) -> Response:
        """Return a store's files."""
        caller = await self.core.caller(request.scope)
        files = await self.call(caller, lambda on: on.list_files(store_id))
        await self._resume(store_id)
        return respond(_files_page(files, request))

    async def remove_file(self, request: Request, store_id: str, file_id: str) -> Response:
        """Take a file out of a store."""
        caller = await self.core.caller(request.scope)
        await self.call(caller, lambda on: on.remove_file(store_id, file_id))
        await self._wake(store_id)
        return respond(objects.deleted(file_id, "vector_store.file.deleted"))

    async def add_batch(self, request: Request, store_id: str) -> Response:
        """Put several files into a store."""
        caller, asked = await self._decoded(request, objects.FileBatchRequest)
        objects.refuse_unsupported(asked)
        file_ids = _limited(asked.file_ids)

        def work(on: VectorStores) -> JsonObject:
            for file_id in file_ids:
                on.files.get(file_id)  # before anything is put in
            files = [on.add_file(store_id, one, asked.attributes or {}) for one in file_ids]
            return objects.batch_object(on.files.add_batch(store_id, file_ids, now_ms()), files)

        found = await self.call(caller, work)
        await self._wake(store_id)
        return respond(found)

    async def get_batch(
        self, request: Request, store_id: str, batch_id: str, *, is_list: bool = False
    ) -> Response:
        """Return a batch, or the files of it that are in the store."""
        caller = await self.core.caller(request.scope)

        def work(on: VectorStores) -> tuple[JsonObject, list[StoreFile]]:
            batch = on.files.get_batch(batch_id)
            own = batch.file_ids if batch.store == store_id else []
            files = on.find_files(store_id, own)
            return objects.batch_object(batch, files), files

        found, files = await self.call(caller, work)
        await self._resume(store_id)
        return respond(_files_page(files, request) if is_list else found)

    # --- parts ------------------------------------------------------------------------------------

    async def _decoded(self, request: Request, kind: type[T]) -> tuple[Caller, T]:
        caller = await self.core.caller(request.scope)
        limit = self.core.context.settings.request_max_bytes
        body = await read_body(request.receive, caller, limit)
        return caller, objects.decode(body or b"{}", kind)

    async def _wake(self, store_id: str) -> None:
        await self.in_thread(partial(self._runner.wake, store_id))

    async def _resume(self, store_id: str) -> None:
        """Go on with what a restart interrupted, unless it ended for a reason that is told."""

        def resume() -> None:
            uploads = VectorStores(self.core.context, "", 0).uploads(store_id)
            if uploads.has_work() and not uploads.problem and not uploads.is_being_read:
                self._runner.wake(store_id)

        await self.in_thread(resume)


def add_vector_store_routes(app: FastAPI, runner: Callable[[], UploadRunner]) -> None:
    """Add the routes. `runner` starts the workers that read what is uploaded."""
    gateway: Any = app
    known: list[VectorStoreApi] = []

    def api() -> VectorStoreApi:
        if not known or known[0].core is not gateway.core:
            known[:] = [VectorStoreApi(gateway.core, runner())]
        return known[0]

    @app.post("/v1/files")
    async def upload(request: Request) -> Response:
        return await api().upload(request)

    @app.get("/v1/files")
    async def files(request: Request) -> Response:
        return await api().list_files(request)

    @app.get("/v1/files/{file_id}")
    async def file(request: Request, file_id: str) -> Response:
        return await _read(api(), request, lambda on: objects.file_object(on.files.get(file_id)))

    @app.delete("/v1/files/{file_id}")
    async def delete_file(request: Request, file_id: str) -> Response:
        return await api().delete_file(request, file_id)

    @app.get("/v1/files/{file_id}/content")
    async def content(request: Request, file_id: str) -> Response:
        return await api().download(request, file_id)

    @app.post("/v1/vector_stores")
    async def create(request: Request) -> Response:
        return await api().create(request)

    @app.get("/v1/vector_stores")
    async def stores(request: Request) -> Response:
        query = request.query_params
        return await _read(
            api(),
            request,
            lambda on: objects.list_page(
                [objects.store_object(one) for one in on.list_stores()], query
            ),
        )

    @app.get("/v1/vector_stores/{store_id}")
    async def store(request: Request, store_id: str) -> Response:
        return await _read(api(), request, lambda on: objects.store_object(on.get(store_id)))

    @app.post("/v1/vector_stores/{store_id}")
    async def update(request: Request, store_id: str) -> Response:
        return await api().update(request, store_id)

    @app.delete("/v1/vector_stores/{store_id}")
    async def remove(request: Request, store_id: str) -> Response:
        return await api().remove(request, store_id)

    @app.post("/v1/vector_stores/{store_id}/search")
    async def search(request: Request, store_id: str) -> Response:
        return await api().search(request, store_id)

    _add_store_file_routes(app, api)


def _add_store_file_routes(app: FastAPI, api: Callable[[], VectorStoreApi]) -> None:
    files = "/v1/vector_stores/{store_id}/files"
    batches = "/v1/vector_stores/{store_id}/file_batches"

    @app.post(files)
    async def add_file(request: Request, store_id: str) -> Response:
        return await api().add_file(request, store_id)

    @app.get(files)
    async def list_files(request: Request, store_id: str) -> Response:
        return await api().list_store_files(request, store_id)

    @app.get(f"{files}/{{file_id}}")
    async def get_file(request: Request, store_id: str, file_id: str) -> Response:
        return await api().get_file(request, store_id, file_id)

    @app.delete(f"{files}/{{file_id}}")
    async def remove_file(request: Request, store_id: str, file_id: str) -> Response:
        return await api().remove_file(request, store_id, file_id)

    @app.post(batches)
    async def add_batch(request: Request, store_id: str) -> Response:
        return await api().add_batch(request, store_id)

    @app.get(f"{batches}/{{batch_id}}")
    async def get_batch(request: Request, store_id: str, batch_id: str) -> Response:
        return await api().get_batch(request, store_id, batch_id)

    @app.get(f"{batches}/{{batch_id}}/files")
    async def batch_files(request: Request, store_id: str, batch_id: str) -> Response:
        return await api().get_batch(request, store_id, batch_id, is_list=True)


def respond(found: JsonObject) -> Response:
    """Return an object as JSON."""
    return Response(msgspec.json.encode(found), media_type=_JSON)


async def _read(
    api: VectorStoreApi, request: Request, work: Callable[[VectorStores], JsonObject]
) -> Response:
    caller = await api.core.caller(request.scope)
    return respond(await api.call(caller, work))


def _begin_file(on: VectorStores) -> Path:
    with reading(on.context.database) as connection:
        on.require_writer(connection)
    return on.files.begin(now_ms())


def _purpose(form: ReceivedForm) -> str:
    purpose = form.fields.pop("purpose", "")
    if purpose not in PURPOSES:
        raise objects.invalid(
            "purpose",
            f"{purpose[:40]!r}; expected {' or '.join(PURPOSES)}: files here become documents.",
        )
    if form.fields:
        name = next(iter(form.fields))
        raise objects.invalid(name[:80], "this field is not read; files do not expire.")
    return purpose


def _limited(file_ids: list[str]) -> list[str]:
    if len(file_ids) > _MOST_IN_BATCH:
        raise objects.invalid("file_ids", f"{len(file_ids)}; at most {_MOST_IN_BATCH} at once.")
    return file_ids


def _files_page(files: list[StoreFile], request: Request) -> JsonObject:
    query = request.query_params
    wanted = query.get("filter")
    shown = [objects.store_file_object(one) for one in files if wanted in (None, one.state)]
    return objects.list_page(shown, query)


def _search_request(store_id: str, asked: objects.StoreSearchRequest) -> SearchRequest:
    """Raises ApiError 400."""
    queries = [asked.query] if isinstance(asked.query, str) else asked.query
    if len(queries) != 1 or not queries[0].strip():
        raise objects.invalid("query", "expected one text that is not empty; ask for each alone.")
    if asked.rewrite_query:
        raise objects.invalid("rewrite_query", "a search has no conversation to rewrite it from.")
    count = _DEFAULT_RESULTS if asked.max_num_results is None else asked.max_num_results
    if not 1 <= count <= _MOST_RESULTS:
        raise objects.invalid("max_num_results", f"{count}; expected 1 to {_MOST_RESULTS}.")
    threshold = (asked.ranking_options or {}).get("score_threshold") or 0.0
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise objects.invalid("ranking_options.score_threshold", "expected 0 to 1.")
    filters = read_filter(asked.filters) if asked.filters else {}
    try:
        check_filter(filters)
    except InputError as error:
        raise objects.invalid("filters", str(error)) from None
    return SearchRequest(
        collection=store_id, query=queries[0], top_k=count, min_score=float(threshold),
        filter=filters,
    )  # fmt: skip


def _search_failed(message: str) -> ApiError:
    return ApiError(503, message, code="retrieval_failed", retry_after_s=_RETRY_AFTER_S)
