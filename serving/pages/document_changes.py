"""What people change on the Documents pages: collections, uploads, indexes, who retrieves what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from serving.retrieval import administration
from serving.retrieval import documents_store as store
from serving.retrieval.chunking import DEFAULT_CHUNK_TOKENS, LEAST_CHUNK_TOKENS
from serving.retrieval.defaults_store import RetrievalDefault, attach, detach, parse_filter
from serving.retrieval.parsing.process import LARGEST_FILE
from serving.retrieval.records import Document
from serving.retrieval.upload_runner import UploadRunner
from serving.retrieval.uploads import UploadFolder
from whet.access import User
from whet.database import reading, writing
from whet.errors import InputError, NotFoundError, WhetError
from whet.web.filters import clip, plural
from whet.web.shell import Shell

_LARGEST_CHUNK = 8192  # tokens; the longest that an embedder in use reads
_MOST_TOP_K = 50  # passages; more fit no prompt
_Text = Annotated[str, Form()]


class DiskError(WhetError):
    """An upload cannot be kept."""

    code = "upload_failed"
    status = 507


def add(routes: APIRouter, shell: Shell, runner: UploadRunner) -> None:
    """Add the routes, and let uploads that a restart interrupted go on."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await run_in_threadpool(runner.resume)
        yield
        await run_in_threadpool(runner.close)

    own = APIRouter(lifespan=lifespan)
    _add_collection_changes(own, shell, runner)
    _add_uploads(own, shell, runner)
    _add_attachments(own, shell)
    routes.include_router(own)


def _add_collection_changes(routes: APIRouter, shell: Shell, runner: UploadRunner) -> None:
    database, home = shell.context.database, shell.context.settings.home
    operator = Depends(shell.require("operator"))

    @routes.post("/documents")
    def create(
        name: _Text = "", description: _Text = "", chunk_tokens: _Text = "", user: User = operator
    ) -> Response:
        """Create an empty collection."""
        size = _number(chunk_tokens or str(DEFAULT_CHUNK_TOKENS), "The longest passage")
        if not LEAST_CHUNK_TOKENS <= size <= _LARGEST_CHUNK:
            raise InputError(
                f"The longest passage is {size} tokens; "
                f"expected {LEAST_CHUNK_TOKENS} to {_LARGEST_CHUNK}."
            )
        now = shell.now()
        with writing(database) as connection:
            store.create_collection(
                connection, name.strip(), embedder="", chunk_tokens=size,
                description=description.strip()[:500], now=now,
            )  # fmt: skip
            administration.record_change(
                connection, "documents.create", name.strip(), {}, actor=user.name, now=now
            )
        return shell.redirect(f"/documents/{name.strip()}", f"{name.strip()} is there. Add files.")

    @routes.post("/documents/{name}/remove")
    def remove_collection(name: str, user: User = operator) -> Response:
        """Remove a collection with all documents."""
        administration.remove_collection(database, name, actor=user.name, now=shell.now())
        runner.stop(name)
        UploadFolder(home, name).remove()
        return shell.redirect("/documents", f"{name} is removed: no later answer has its text.")

    @routes.post("/documents/{name}/documents/{document_id}/remove")
    def remove_document(name: str, document_id: str, user: User = operator) -> Response:
        """Remove a document; searches do not find it from now on."""
        found = _require_document(shell, name, document_id)
        administration.remove_documents(
            database, name, [(found.id, found.address)], actor=user.name, now=shell.now()
        )
        UploadFolder(home, name).want_index(True)
        runner.wake(name)
        said = f"{clip(found.address, 80)} is removed: no later answer has its text."
        return shell.redirect(f"/documents/{name}", said)

    @routes.post("/documents/{name}/reindex", dependencies=[operator])
    def reindex(name: str) -> Response:
        """Build the index anew, where it is not of the documents; the old one answers meanwhile."""
        _require_collection(shell, name)
        UploadFolder(home, name).want_index(True)
        runner.wake(name)
        return shell.redirect(f"/documents/{name}", "The index is being brought up to date.")

    @routes.post("/documents/{name}/readers")
    def readers(
        name: str, keys: _Text = "", user: User = Depends(shell.require("admin"))
    ) -> Response:
        """Say which API keys may read a collection: names or ids, or `all`."""
        _require_collection(shell, name)
        if not keys.strip():
            raise InputError("No key is named.", hint="`all` lets every key read the collection.")
        with writing(database) as connection:
            found = administration.set_readers(
                connection, name, keys, actor=user.name, now=shell.now()
            )
        count = len(found.allowed_keys or [])
        who = "every key" if found.allowed_keys is None else plural(count, "key")
        return shell.redirect(f"/documents/{name}", f"{name} answers requests of {who}.")


def _add_uploads(routes: APIRouter, shell: Shell, runner: UploadRunner) -> None:
    home = shell.context.settings.home
    sends = Depends(shell.require("operator", upload_bytes=LARGEST_FILE))
    operator = Depends(shell.require("operator"))

    @routes.post("/documents/{name}/upload")
    async def upload(
        request: Request,
        name: str,
        address: str = "",
        modified: int | None = None,
        user: User = sends,
    ) -> Response:
        """Take one file, the request's body, under `address`; it is read as soon as it can be."""
        await run_in_threadpool(_require_collection, shell, name)
        uploads = UploadFolder(home, name)
        part = await run_in_threadpool(uploads.begin, address, shell.now())
        await _receive(request, part)
        found = await run_in_threadpool(
            lambda: uploads.complete(
                part, address, actor=user.name, modified_at=modified, now=shell.now()
            )
        )
        runner.wake(name)
        return JSONResponse({"id": found.id, "address": found.address}, 202)

    @routes.post("/documents/{name}/uploads/stop", dependencies=[operator])
    def stop(name: str) -> Response:
        """Stop reading what was uploaded; what was not read waits."""
        _require_collection(shell, name)
        UploadFolder(home, name).set_paused(True)
        runner.stop(name)
        return shell.redirect(f"/documents/{name}", "Stopped. What was not read yet waits.")

    @routes.post("/documents/{name}/uploads/continue", dependencies=[operator])
    def go_on(name: str) -> Response:
        """Read what waits."""
        _require_collection(shell, name)
        UploadFolder(home, name).set_paused(False)
        runner.wake(name)
        return shell.redirect(f"/documents/{name}", "Reading goes on.")

    @routes.post("/documents/{name}/uploads/clear", dependencies=[operator])
    def clear(name: str) -> Response:
        """Forget the results of uploads; while they are stopped, what waits is thrown away too."""
        _require_collection(shell, name)
        uploads = UploadFolder(home, name)
        gone = uploads.clear()
        uploads.set_paused(False)
        return shell.redirect(f"/documents/{name}", f"{plural(gone, 'upload')} left the list.")


def _add_attachments(routes: APIRouter, shell: Shell) -> None:
    database, settings = shell.context.database, shell.context.settings
    operator = Depends(shell.require("operator"))

    @routes.post("/documents/{name}/attach")
    def attach_alias(
        name: str,
        alias: _Text = "",
        top_k: _Text = "4",
        min_score: _Text = "0",
        filter: _Text = "",
        user: User = operator,
    ) -> Response:
        """Let every request for a model name retrieve from a collection."""
        _require_collection(shell, name)
        default = RetrievalDefault(
            alias=alias,
            collection=name,
            top_k=min(max(_number(top_k, "The number of passages"), 1), _MOST_TOP_K),
            min_score=_share(min_score),
            filter=parse_filter(filter.split()),
            actor=user.name,
            updated_at=shell.now(),
        )
        with writing(database) as connection:
            attach(connection, default, base_alias=settings.base_alias)
        return shell.redirect(f"/documents/{name}", f"{alias} retrieves from {name} now.")

    @routes.post("/documents/{name}/detach")
    def detach_alias(name: str, alias: _Text = "", user: User = operator) -> Response:
        """Let a model name retrieve nothing any more."""
        _require_collection(shell, name)
        with writing(database) as connection:
            detach(connection, alias, actor=user.name, now=shell.now())
        return shell.redirect(f"/documents/{name}", f"{alias} retrieves nothing any more.")


async def _receive(request: Request, part: Path) -> None:
    """Write the request's body to `part`; what did not arrive whole is removed."""
    try:
        file = await run_in_threadpool(part.open, "wb")
        try:
            async for chunk in request.stream():
                await run_in_threadpool(file.write, chunk)
        finally:
            await asyncio.to_thread(file.close)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DiskError(f"The file cannot be kept: {error.strerror or error}.") from None
    except (ClientDisconnect, WhetError, asyncio.CancelledError):
        part.unlink(missing_ok=True)
        raise


def _require_collection(shell: Shell, name: str) -> None:
    with reading(shell.context.database) as connection:
        store.require_collection(connection, name)


def _require_document(shell: Shell, name: str, document_id: str) -> Document:
    with reading(shell.context.database) as connection:
        store.require_collection(connection, name)
        found = store.get_document(connection, document_id)
    if found is None or found.collection != name:
        raise NotFoundError(f"{name!r} has no document {clip(document_id, 60)!r}.")
    return found


def _number(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{what} is {clip(text, 20)!r}; expected a whole number.") from None


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"The least score is {clip(text, 20)!r}; expected 0 to 1.")
    return value
