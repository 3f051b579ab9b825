"""OpenAI's objects of files and vector stores, and the requests that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from serving.gateway.answers import ApiError
from serving.gateway.requests import explain, invalid_json
from serving.retrieval.api_files import ApiFile, FileBatch
from serving.retrieval.records import Hit
from serving.retrieval.uploads import FAILED
from serving.retrieval.vector_stores import COMPLETED, IN_PROGRESS, StoreFile, VectorStore
from whet.json_types import Json, JsonObject

MOST_LISTED = 100  # OpenAI's limit for one page
_DEFAULT_LISTED = 20
_MOST_ATTRIBUTES = 16
_LONGEST_NAME = 256  # characters
T = TypeVar("T")


class StoreRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/vector_stores, and of one of them."""

    name: str | None = None
    file_ids: list[str] | None = None
    metadata: dict[str, str] | None = None
    chunking_strategy: dict[str, Any] | None = None
    expires_after: dict[str, Any] | None = None


class StoreFileRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/vector_stores/{id}/files"""

    file_id: str
    attributes: dict[str, str | bool | float] | None = None
    chunking_strategy: dict[str, Any] | None = None


class FileBatchRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/vector_stores/{id}/file_batches"""

    file_ids: list[str]
    attributes: dict[str, str | bool | float] | None = None
    chunking_strategy: dict[str, Any] | None = None


class StoreSearchRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/vector_stores/{id}/search"""

    query: str | list[str]
    max_num_results: int | None = None
    filters: dict[str, Any] | None = None
    ranking_options: dict[str, Any] | None = None
    rewrite_query: bool | None = None


def decode(body: bytes, kind: type[T]) -> T:
    """Read a body. Raises ApiError 400."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error, body, "Send one JSON object.") from None


def refuse_unsupported(request: StoreRequest | StoreFileRequest | FileBatchRequest) -> None:
    """Raise ApiError 400 for what would be promised and not kept."""
    if request.chunking_strategy not in (None, {"type": "auto"}):
        raise invalid(
            "chunking_strategy",
            "Documents are divided along their headings, without overlap; 'auto' is the only "
            "strategy.",
        )
    if isinstance(request, StoreRequest):
        if request.expires_after is not None:
            raise invalid("expires_after", "Stores do not expire. Delete them.")
        if request.name is not None and len(request.name) > _LONGEST_NAME:
            raise invalid("name", f"The name has more than {_LONGEST_NAME} characters.")
        if len(request.metadata or {}) > _MOST_ATTRIBUTES:
            raise invalid("metadata", f"At most {_MOST_ATTRIBUTES} entries are kept.")
    elif len(request.attributes or {}) > _MOST_ATTRIBUTES:
        raise invalid("attributes", f"At most {_MOST_ATTRIBUTES} entries are kept.")


def invalid(param: str, message: str) -> ApiError:
    """A refusal of one field."""
    return ApiError(400, f"{param}: {message}", param=param, code="invalid_value")


# --- objects --------------------------------------------------------------------------------------


def file_object(file: ApiFile) -> JsonObject:
    """Return an uploaded file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at // 1000,
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def store_object(store: VectorStore) -> JsonObject:
    """Return a vector store."""
    counts = count_states(store.counts)
    found = store.collection
    return {
        "id": found.name,
        "object": "vector_store",
        "created_at": found.created_at // 1000,
        "last_active_at": found.updated_at // 1000,
        "name": found.description or found.name,
        "usage_bytes": None,  # rows of a database: nobody counts their bytes
        "file_counts": {**counts},
        "status": IN_PROGRESS if counts[IN_PROGRESS] else COMPLETED,
        "expires_after": None,
        "expires_at": None,
        "metadata": store.metadata,
    }


def store_file_object(file: StoreFile) -> JsonObject:
    """Return a file of a vector store."""
    error: JsonObject | None = None
    if file.state == FAILED:
        code = "server_error" if file.is_our_fault else "invalid_file"
        error = {"code": code, "message": file.error}
    return {
        "id": file.id,
        "object": "vector_store.file",
        "created_at": file.created_at // 1000,
        "vector_store_id": file.store,
        "status": file.state,
        "last_error": error,
        "usage_bytes": None,
        "attributes": file.attributes,
        "chunking_strategy": {"type": "other"},
    }


def batch_object(batch: FileBatch, files: Sequence[StoreFile]) -> JsonObject:
    """Return a batch; `files`: those of it that are in the store."""
    states: dict[str, int] = {}
    for file in files:
        states[file.state] = states.get(file.state, 0) + 1
    counts = count_states(states)
    return {
        "id": batch.id,
        "object": "vector_store.files_batch",
        "created_at": batch.created_at // 1000,
        "vector_store_id": batch.store,
        "status": IN_PROGRESS if counts[IN_PROGRESS] else COMPLETED,
        "file_counts": {**counts},
    }


def count_states(states: Mapping[str, int]) -> dict[str, int]:
    """Return `file_counts`."""
    found = {name: states.get(name, 0) for name in (IN_PROGRESS, COMPLETED, FAILED)}
    return {**found, "cancelled": 0, "total": sum(found.values())}


def deleted(object_id: str, kind: str) -> JsonObject:
    """Return what says that an object is deleted."""
    return {"id": object_id, "object": kind, "deleted": True}


def search_page(query: str, hits: Sequence[Hit]) -> JsonObject:
    """Return the results of a search, best first."""
    data: list[Json] = [
        {
            "file_id": hit.file_id,
            "filename": hit.address,
            "score": hit.score,
            "attributes": {key: value for key, value in hit.metadata.items() if key != "file_id"},
            "content": [{"type": "text", "text": hit.text}],
        }
        for hit in hits
    ]
    return {
        "object": "vector_store.search_results.page",
        "search_query": [query],
        "data": data,
        "has_more": False,
        "next_page": None,
    }


def list_page(objects: Sequence[JsonObject], query: Mapping[str, str]) -> JsonObject:
    """Return a page of `objects`, which come oldest first. Raises ApiError 400.

    `query`: of the address, with `limit`, `order`, `after` and `before`.
    """
    limit = query.get("limit", str(_DEFAULT_LISTED))
    if not limit.isdecimal() or not 1 <= int(limit) <= MOST_LISTED:
        raise invalid("limit", f"expected 1 to {MOST_LISTED}.")
    if query.get("order", "desc") not in ("asc", "desc"):
        raise invalid("order", "expected asc or desc.")
    found = list(objects) if query.get("order") == "asc" else list(reversed(objects))
    ids = [one["id"] for one in found]
    first, end = 0, len(found)
    for name in ("after", "before"):
        if name not in query:
            continue
        if query[name] not in ids:
            raise invalid(name, f"{query[name][:80]!r} is not in this list.")
        place = ids.index(query[name])
        first, end = (place + 1, end) if name == "after" else (first, place)
    if "before" in query and "after" not in query:
        first = max(first, end - int(limit))
    page = found[first : min(end, first + int(limit))]
    return {
        "object": "list",
        "data": [*page],
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": first + len(page) < end,
    }
