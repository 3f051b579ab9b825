"""Collections and documents as OpenAI's vector stores and their files, for one API key.

A key sees the collections that it may read. It changes those that name it, and these alone: a
collection that every key may read is the operator's. Everything here reads files and rows, and
belongs into a thread.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection

from serving.retrieval import administration
from serving.retrieval import documents_store as store
from serving.retrieval.api_files import ApiFile, ApiFiles
from serving.retrieval.chunking import DEFAULT_CHUNK_TOKENS
from serving.retrieval.index_state import State, load_index_state
from serving.retrieval.passages import document_id
from serving.retrieval.records import FILE_ID, Collection, Document
from serving.retrieval.uploads import API_SOURCE, FAILED, READ, WAITING, Upload, UploadFolder
from whet.access import may_write_documents
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, NotFoundError, WhetError
from whet.ids import new_id
from whet.json_types import Json, JsonObject

IN_PROGRESS, COMPLETED = "in_progress", "completed"  # of a file, besides FAILED
MOST_STORES = 100  # that name one key
_METADATA = "metadata"  # in a collection's settings: what a client keeps with its store
_SEARCHABLE = (State.CURRENT, State.EMPTY)


class ReadOnlyError(WhetError):
    """The key may not change this."""

    code = "read_only"
    status = 403


class StoreFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a vector store: a document, or what becomes one."""

    id: str
    store: str
    name: str
    state: str  # in_progress | completed | failed
    error: str = ""  # why it failed
    is_our_fault: bool = False  # it failed for a reason that lies not in the file
    attributes: dict[str, Any] = {}
    created_at: int
    document_id: str


class VectorStore(msgspec.Struct, frozen=True, kw_only=True):
    """A collection with the states of its files."""

    collection: Collection
    counts: dict[str, int]  # {state: files}

    @property
    def metadata(self) -> JsonObject:
        """What a client keeps with it."""
        found: dict[str, Any] = self.collection.settings.get(_METADATA, {})
        return found


class VectorStores:
    """What one key sees and changes."""

    def __init__(self, context: Context, key_id: str, now: int) -> None:
        self.context, self._key_id, self._now = context, key_id, now
        self.files = ApiFiles(context.settings.home, key_id)

    # --- stores -------------------------------------------------------------------------------

    def create(self, name: str, metadata: Mapping[str, Json]) -> VectorStore:
        """Create an empty store that this key alone may read. Raises ReadOnlyError."""
        store_id = new_id("vs", at=self._now)
        with writing(self.context.database) as connection:
            self.require_writer(connection)
            own = [one for one in store.list_collections(connection) if self._is_named(one)]
            if len(own) >= MOST_STORES:
                raise ConflictError(
                    f"{len(own)} stores name this key; at most {MOST_STORES} may.",
                    hint="Delete one that is not used any more.",
                )
            made = store.create_collection(
                connection, store_id, embedder="", chunk_tokens=DEFAULT_CHUNK_TOKENS,
                description=name, allowed_keys=[self._key_id],
                settings={_METADATA: dict(metadata)}, now=self._now,
            )  # fmt: skip
            administration.record_change(
                connection, "documents.create", store_id, {"name": name},
                actor=self._key_id, now=self._now,
            )  # fmt: skip
        return VectorStore(collection=made, counts={})

    def list_stores(self) -> list[VectorStore]:
        """Return all stores that the key may read, oldest first."""
        with reading(self.context.database) as connection:
            found = store.list_collections(connection)
            return [
                self._with_counts(connection, one)
                for one in sorted(found, key=lambda one: (one.created_at, one.name))
                if store.may_read(one, self._key_id)
            ]

    def get(self, store_id: str) -> VectorStore:
        """Return a store. Raises NotFoundError, also for one that the key may not read."""
        with reading(self.context.database) as connection:
            return self._with_counts(connection, self._readable(connection, store_id))

    def update(
        self, store_id: str, name: str | None, metadata: Mapping[str, Json] | None
    ) -> VectorStore:
        """Change name or metadata; None leaves them. Raises NotFoundError, ReadOnlyError."""
        with writing(self.context.database) as connection:
            found = self._writable(connection, store_id)
            settings = found.settings
            if metadata is not None:
                settings = {**settings, _METADATA: dict(metadata)}
            changed = store.update_collection(
                connection, store_id, now=self._now, settings=settings,
                description=found.description if name is None else name,
            )  # fmt: skip
            return self._with_counts(connection, changed)

    def remove(self, store_id: str) -> None:
        """Remove a store with its documents; its files stay.

        Raises NotFoundError, ReadOnlyError, and ConflictError while an alias retrieves from it.
        """
        with reading(self.context.database) as connection:
            self._writable(connection, store_id)
        administration.remove_collection(
            self.context.database, store_id, actor=self._key_id, now=self._now
        )
        self.uploads(store_id).remove()
        self.files.remove_batches(store_id)

    # --- files of a store ---------------------------------------------------------------------

    def add_file(self, store_id: str, file_id: str, attributes: Mapping[str, Json]) -> StoreFile:
        """Let a file become a document of a store; it is read by a worker.

        A file that is in it already is left alone, one that failed is tried again. Raises
        NotFoundError, ReadOnlyError, and ConflictError for a name that another file has.
        """
        with reading(self.context.database) as connection:
            self._writable(connection, store_id)
            file = self.files.get(file_id)
            known = next(iter(self._files(connection, store_id, [file.name])), None)
        if known is not None and known.id != file_id:
            raise ConflictError(
                f"The store has another file named {file.name!r}, {known.id}.",
                hint="Delete that one from the store first, or upload this under another name.",
            )
        if known is not None and known.state != FAILED:
            return known
        return self._accept(store_id, file, attributes)

    def _accept(self, store_id: str, file: ApiFile, attributes: Mapping[str, Json]) -> StoreFile:
        uploads = self.uploads(store_id)
        for upload in uploads.load():  # of an attempt that failed
            if upload.address == file.name:
                uploads.discard(upload)
        part = uploads.begin(file.name, self._now)
        shutil.copyfile(self.files.content(file.id), part)
        upload = uploads.complete(
            part, file.name, actor=self._key_id, modified_at=file.created_at, now=self._now,
            source=API_SOURCE, metadata={**attributes, FILE_ID: file.id},
        )  # fmt: skip
        return _of_upload(store_id, upload, "")

    def list_files(self, store_id: str) -> list[StoreFile]:
        """Return a store's files, oldest first. Raises NotFoundError."""
        with reading(self.context.database) as connection:
            self._readable(connection, store_id)
            return self._files(connection, store_id)

    def get_file(self, store_id: str, file_id: str) -> StoreFile:
        """Return one file of a store. Raises NotFoundError."""
        found = self.find_files(store_id, [file_id]) or [
            one for one in self.list_files(store_id) if one.id == file_id
        ]  # another key's upload, whose name is not known here
        if not found:
            raise NotFoundError(f"The store {store_id!r} has no file {file_id[:80]!r}.")
        return found[0]

    def find_files(self, store_id: str, file_ids: Iterable[str]) -> list[StoreFile]:
        """Return those of the key's own files that are in a store. Raises NotFoundError.

        Reads these documents alone, so that asking until a file is read stays cheap.
        """
        names = {one: file.name for one in file_ids if (file := self._own_file(one))}
        with reading(self.context.database) as connection:
            self._readable(connection, store_id)
            found = self._files(connection, store_id, names.values())
        return [one for one in found if one.id in names]

    def _own_file(self, file_id: str) -> ApiFile | None:
        try:
            return self.files.get(file_id)
        except NotFoundError:
            return None

    def remove_file(self, store_id: str, file_id: str) -> None:
        """Remove a file's document from a store. Raises NotFoundError, ReadOnlyError."""
        with reading(self.context.database) as connection:
            self._writable(connection, store_id)
        self._remove(self.get_file(store_id, file_id))

    def delete_file(self, file_id: str) -> list[str]:
        """Delete an uploaded file, and its documents from the stores that the key may change.

        Returns those stores. Raises NotFoundError, ReadOnlyError.
        """
        name = self.files.get(file_id).name
        with reading(self.context.database) as connection:
            self.require_writer(connection)
            own = [one for one in store.list_collections(connection) if self._is_named(one)]
            found = [
                file
                for one in own
                for file in self._files(connection, one.name, [name])
                if file.id == file_id
            ]
        for file in found:
            self._remove(file)
        self.files.remove(file_id)
        return [file.store for file in found]

    def _remove(self, file: StoreFile) -> None:
        uploads = self.uploads(file.store)
        for upload in uploads.load():  # first: a worker that reads it now looks whether it is there
            if upload.address == file.name:
                uploads.discard(upload)
        administration.remove_documents(
            self.context.database, file.store, [(file.document_id, file.name)],
            actor=self._key_id, now=self._now,
        )  # fmt: skip
        uploads.want_index(True)

    def uploads(self, store_id: str) -> UploadFolder:
        """Return what waits to be read into a store."""
        return UploadFolder(self.context.settings.home, store_id)

    # --- who may ------------------------------------------------------------------------------

    def require_writer(self, connection: Connection) -> None:
        """Raise ReadOnlyError unless the key may write documents."""
        if not may_write_documents(connection, self._key_id):
            raise ReadOnlyError(
                "This key reads documents and may not write them.",
                hint="`whet keys create NAME --write-documents` makes one that may.",
            )

    def _is_named(self, collection: Collection) -> bool:
        return self._key_id in (collection.allowed_keys or ())

    def _readable(self, connection: Connection, store_id: str) -> Collection:
        found = store.get_collection(connection, store_id)
        if found is None or not store.may_read(found, self._key_id):
            raise NotFoundError(f"There is no vector store {store_id[:80]!r} for this key.")
        return found

    def _writable(self, connection: Connection, store_id: str) -> Collection:
        found = self._readable(connection, store_id)
        self.require_writer(connection)
        if not self._is_named(found):
            raise ReadOnlyError(
                f"Every key may read {store_id!r}, so that no key may change it.",
                hint="The operator does: `whet documents`, or the console.",
            )
        return found

    # --- states -------------------------------------------------------------------------------

    def _with_counts(self, connection: Connection, collection: Collection) -> VectorStore:
        if not self.uploads(collection.name).load():  # nothing is under way: no need to list it
            found = store.count_contents(connection, collection.name).get(collection.name, {})
            counts = {COMPLETED: found.get("documents", 0), FAILED: found.get("failed", 0)}
            return VectorStore(collection=collection, counts=counts)
        counts = {}
        for file in self._files(connection, collection.name):
            counts[file.state] = counts.get(file.state, 0) + 1
        return VectorStore(collection=collection, counts=counts)

    def _files(
        self, connection: Connection, store_id: str, names: Iterable[str] | None = None
    ) -> list[StoreFile]:
        """Join documents with what still waits; `names`: of these alone.

        A document counts once searches find it.
        """
        collection = store.require_collection(connection, store_id)
        uploads = self.uploads(store_id)
        wanted = None if names is None else set(names)
        newest = {
            upload.address: upload
            for upload in uploads.load()
            if wanted is None or upload.address in wanted
        }
        is_current = load_index_state(self.context.settings, collection).state in _SEARCHABLE
        problem = uploads.problem
        found: list[StoreFile] = []
        for document in store.documents_of(connection, store_id, wanted):
            upload = newest.pop(document.address, None)
            if upload is not None and upload.state == WAITING:
                found.append(_of_upload(store_id, upload, problem))
                continue
            is_new = upload is not None and upload.state == READ and not upload.is_indexed
            found.append(_of_document(document, is_new and not is_current))
        left = [one for one in newest.values() if one.state != READ]
        found += [_of_upload(store_id, upload, problem) for upload in left]
        return sorted(found, key=lambda one: (one.created_at, one.id))


def _of_document(document: Document, is_being_indexed: bool) -> StoreFile:
    state = IN_PROGRESS if is_being_indexed else COMPLETED
    return StoreFile(
        id=document.file_id,
        store=document.collection,
        name=document.address,
        state=FAILED if document.state == store.FAILED else state,
        error=document.error or "",
        attributes={key: value for key, value in document.metadata.items() if key != FILE_ID},
        created_at=document.added_at,
        document_id=document.id,
    )


def _of_upload(store_id: str, upload: Upload, problem: str) -> StoreFile:
    """`problem`: why nobody reads what waits; empty: it is read."""
    metadata = upload.metadata or {}
    is_failed = upload.state == FAILED
    return StoreFile(
        id=str(metadata.get(FILE_ID) or upload.id),
        store=store_id,
        name=upload.address,
        state=FAILED if is_failed or problem else IN_PROGRESS,
        error=upload.message if is_failed else problem,
        is_our_fault=not is_failed,
        attributes={key: value for key, value in metadata.items() if key != FILE_ID},
        created_at=upload.created_at,
        document_id=document_id(store_id, upload.address),
    )
