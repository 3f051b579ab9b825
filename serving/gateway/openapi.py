"""The gateway's OpenAPI document, made from the types that check its requests, and a page of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, select_autoescape

from serving.gateway.embeddings import EmbeddingsRequest
from serving.gateway.ratings import Feedback
from serving.gateway.request_fields import IGNORED, SUBSTITUTES
from serving.gateway.request_types import ChatRequest, CompletionRequest, ResponsesRequest
from serving.gateway.tokenization import DetokenizeRequest
from serving.gateway.vector_store_objects import (
    FileBatchRequest,
    StoreFileRequest,
    StoreRequest,
    StoreSearchRequest,
)
from whet import __version__

_REF = "#/components/schemas/{name}"
_JSON = "application/json"

_ERRORS: Mapping[str, str] = {
    "400": "The request is not what the route takes; the sentence says why.",
    "405": "The path does not answer this method; Allow names those it does.",
    "408": "The request did not arrive in time.",
    "431": "The headers are longer than 64 KiB.",
    "403": "The key may not change this.",
    "409": "It contradicts what is there; the sentence says how.",
    "507": "The disk has no room.",
    "401": "No key, an unknown one, or a revoked one.",
    "404": "There is no such model, collection, interaction or path.",
    "413": "The body is longer than WHET_REQUEST_MAX_BYTES.",
    "415": "The body is compressed or encoded in a way that is not read.",
    "429": "The engine is busy; Retry-After says when to try again.",
    "502": "The engine broke off before it sent anything.",
    "503": "It cannot be answered at the moment; Retry-After says when to try again.",
    "504": "The answer took longer than WHET_REQUEST_TIMEOUT_S.",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_REQUESTS = ("ChatRequest", "CompletionRequest", "ResponsesRequest")
_STORE_REQUESTS = (StoreRequest, StoreFileRequest, FileBatchRequest, StoreSearchRequest)
_STRICT = (
    "EmbeddingsRequest", "Feedback", "DetokenizeRequest", "Rag",
    *(kind.__name__ for kind in _STORE_REQUESTS),
)  # fmt: skip
_MODEL_CARD = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "root", "parent", "max_model_len", "whet"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "root": {"type": "string"},
        "parent": {"type": ["string", "null"]},
        "max_model_len": {"type": "integer"},
        "whet": {
            "type": "object",
            "properties": {
                "kind": {"enum": ["alias", "version", "base"]},
                "stands_for": {"type": "string"},
                "pinned": {"type": "boolean"},
                "trial": {
                    "type": ["object", "null"],
                    "properties": {"version": {"type": "string"}, "share": {"type": "number"}},
                },
                "limits": {"type": "object"},
            },
        },
    },
}
_FEEDBACK_STATUS = {
    "type": "object",
    "required": ["object", "interaction_id", "state", "sentence", "ratings"],
    "properties": {
        "object": {"const": "feedback"},
        "interaction_id": {"type": "string"},
        "state": {"type": "string"},
        "sentence": {"type": "string"},
        "ratings": {"type": "array", "items": {"type": "object"}},
        "review": {"type": ["object", "null"]},
        "datasets": {"type": "array", "items": {"type": "object"}},
        "versions": {"type": "array", "items": {"type": "object"}},
    },
}
_EXAMPLES: Mapping[str, Any] = {
    "ChatRequest": {
        "model": "support",
        "messages": [{"role": "user", "content": "My tablet does not charge."}],
        "user": "customer-17",
    },
    "CompletionRequest": {"model": "base", "prompt": "The warranty lasts", "max_tokens": 16},
    "ResponsesRequest": {"model": "support", "input": "My tablet does not charge."},
    "EmbeddingsRequest": {"model": "all-MiniLM-L6-v2", "input": ["My tablet does not charge."]},
    "Feedback": {"interaction_id": "int_0000000000000000000000", "rating": -1,
                 "correction": "Tablets have 24 months."},
    "DetokenizeRequest": {"model": "support", "tokens": [1, 2, 3]},
    "StoreRequest": {"name": "Help pages"},
    "StoreFileRequest": {"file_id": "file_0000000000000000000000"},
    "FileBatchRequest": {"file_ids": ["file_0000000000000000000000"]},
    "StoreSearchRequest": {"query": "How long are lamps covered?"},
    "TokenizeRequest": {"model": "support", "messages": [{"role": "user", "content": "Hello"}]},
}  # fmt: skip


@lru_cache(maxsize=1)
def openapi_document() -> dict[str, Any]:
    """OpenAPI 3.1. The answers of the completion routes are OpenAI's, which clients know."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Whet gateway",
            "version": __version__,
            "description": "OpenAI's API over LoRA adapters that keep learning. `null` means "
            "absent in every optional field. Fields without effect are dropped and named in the "
            "response header `x-whet-ignored`: " + ", ".join(IGNORED) + ". Fields that would "
            "change the answer are refused with what to use instead: "
            + "; ".join(f"{name}: {advice}" for name, advice in SUBSTITUTES.items()) + ".",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }  # fmt: skip


def _schemas() -> dict[str, Any]:
    """The types' schemas, and what the walk of `request_normalise` accepts besides."""
    kinds = (
        ChatRequest, CompletionRequest, ResponsesRequest, EmbeddingsRequest, Feedback,
        DetokenizeRequest, *_STORE_REQUESTS,
    )  # fmt: skip
    _, found = msgspec.json.schema_components(kinds, ref_template=_REF)
    schemas: dict[str, Any] = dict(found)
    for name, schema in schemas.items():
        if name in _STRICT:
            continue
        schema.pop("additionalProperties", None)  # annotations are dropped
        if name in _REQUESTS:
            for field, why in IGNORED.items():
                schema["properties"].setdefault(field, {"description": f"Dropped: {why}."})
            schema["additionalProperties"] = False
    schemas["Feedback"]["properties"]["rating"] = {"enum": [-1, 0, 1, None]}
    prompt = {
        "type": "object",
        "required": ["model", "prompt"],
        "properties": {
            "model": {"type": "string"},
            "prompt": {"type": "string"},
            "add_special_tokens": {"type": ["boolean", "null"]},
            "return_token_strs": {"type": ["boolean", "null"]},
        },
    }
    chat = {**schemas["ChatRequest"], "additionalProperties": True}
    return {
        **schemas,
        "Error": _ERROR_SCHEMA,
        "TokenizeRequest": {"anyOf": [chat, prompt]},
        "ModelCard": _MODEL_CARD,
        "FeedbackStatus": _FEEDBACK_STATUS,
    }


def _paths() -> dict[str, Any]:
    completion = ("400", "401", "404", "408", "413", "415", "429", "431", "502", "503", "504")
    asked = ("400", "401", "404", "413", "415", "502", "503")
    return {
        "/v1/chat/completions": {
            "post": _operation(
                "Answer a conversation",
                "A chat completion, or server-sent events with `stream`. With `rag`, or a default of "
                "the model name, the message has `annotations` and the body `whet`: how the search "
                "ended, and the passages. `tools` may hold `file_search` instead of `rag`.",
                completion, body="ChatRequest", streams=True,
            )
        },
        "/v1/completions": {
            "post": _operation(
                "Continue a prompt", "A completion, or server-sent events with `stream`.",
                completion, body="CompletionRequest", streams=True,
            )
        },
        "/v1/responses": {
            "post": _operation(
                "Answer in the form of the Responses API",
                "A response, or server-sent events with `stream`. Nothing is stored for "
                "`previous_response_id`. `rag` and `file_search` retrieve as in chat.",
                completion, body="ResponsesRequest", streams=True,
            )
        },
        "/v1/models": {
            "get": _operation("List what can be asked", "Cards of aliases, base and versions.",
                              ("401",))
        },
        "/v1/models/{model}": {
            "parameters": [_path_parameter("model", "A name such as support or support@v7.")],
            "get": _operation("Show one model", "Its card: context length, what it stands for, a "
                              "running trial, limits.", ("401", "404", "503"),
                              answer="ModelCard"),
        },
        "/v1/tokenize": {
            "post": _operation(
                "Count and show the tokens of a prompt",
                "`count`, `max_model_len`, `tokens`, `token_strs`. The body is that of "
                "/v1/chat/completions, or a `model` and a `prompt`; `return_token_strs` adds the "
                "texts.",
                asked, body="TokenizeRequest",
            )
        },
        "/v1/detokenize": {
            "post": _operation("Show the text of tokens", "`prompt`.", asked,
                               body="DetokenizeRequest")
        },
        "/v1/feedback": {
            "post": _operation("Say what somebody thought of an answer", "Kept.",
                               ("400", "401", "404", "413", "415", "503"), body="Feedback",
                               status="202")
        },
        "/v1/feedback/{interaction_id}": {
            "parameters": [_path_parameter("interaction_id", "From x-whet-interaction-id.")],
            "get": _operation("Say what became of the feedback", "Its state, and a sentence.",
                              ("400", "401", "404", "503"), answer="FeedbackStatus"),
        },
        "/v1/embeddings": {
            "post": _operation(
                "Make embeddings", "A list of vectors of length one, in the order of the texts.",
                ("400", "401", "413", "415", "503"), body="EmbeddingsRequest",
            )
        },
        **_vector_store_paths(),
        "/healthz": {"get": _open_operation("Say whether the process lives", "It lives.")},
        "/readyz": {
            "get": _open_operation("Say whether a request can be answered now", "It can.",
                                   {"503": "It cannot; the body says why."})
        },
        "/metrics": {"get": _open_operation("Metrics for Prometheus", "Prometheus's text form.")},
    }  # fmt: skip


def _vector_store_paths() -> dict[str, Any]:
    read = ("401", "404", "503")
    write = ("400", "401", "403", "404", "409", "413", "503")
    store = _path_parameter("store_id", "A vector store, which is the name of a collection.")
    file = _path_parameter("file_id", "An uploaded file.")
    batch = _path_parameter("batch_id", "Files that were put in at once.")
    one = "/v1/vector_stores/{store_id}"
    upload = "The file. The body is multipart/form-data with `file` and `purpose`."
    return {
        "/v1/files": {
            "post": _operation("Upload a file", upload, (*write, "415", "507")),
            "get": _operation("List this key's files", "A page of files.", read),
        },
        "/v1/files/{file_id}": {
            "parameters": [file],
            "get": _operation("Show a file", "The file.", read),
            "delete": _operation("Delete a file, also from stores", "It is deleted.", write),
        },
        "/v1/files/{file_id}/content": {
            "parameters": [file], "get": _operation("Download a file", "Its bytes.", read),
        },
        "/v1/vector_stores": {
            "post": _operation("Make a vector store", "The store.", write, body="StoreRequest"),
            "get": _operation("List the stores that this key may read", "A page.", read),
        },
        one: {
            "parameters": [store],
            "get": _operation("Show a store", "The store.", read),
            "post": _operation("Rename a store", "The store.", write, body="StoreRequest"),
            "delete": _operation("Delete a store with its documents", "It is deleted.", write),
        },
        f"{one}/search": {
            "parameters": [store],
            "post": _operation("Search a store", "The best passages.", ("400", *read),
                               body="StoreSearchRequest"),
        },
        f"{one}/files": {
            "parameters": [store],
            "post": _operation("Put a file into a store", "Its state.", write,
                               body="StoreFileRequest"),
            "get": _operation("List a store's files", "A page of states.", read),
        },
        f"{one}/files/{{file_id}}": {
            "parameters": [store, file],
            "get": _operation("Show a file's state in a store", "Its state.", read),
            "delete": _operation("Take a file out of a store", "It is out.", write),
        },
        f"{one}/file_batches": {
            "parameters": [store],
            "post": _operation("Put files into a store", "Their states.", write,
                               body="FileBatchRequest"),
        },
        f"{one}/file_batches/{{batch_id}}": {
            "parameters": [store, batch],
            "get": _operation("Show the states of a batch", "Their states.", read),
        },
        f"{one}/file_batches/{{batch_id}}/files": {
            "parameters": [store, batch],
            "get": _operation("List a batch's files", "A page of states.", read),
        },
    }  # fmt: skip


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name, "in": "path", "required": True, "description": description,
        "schema": {"type": "string"},
    }  # fmt: skip


def _operation(
    summary: str,
    description: str,
    errors: Iterable[str],
    *,
    body: str = "",
    streams: bool = False,
    status: str = "200",
    answer: str = "",
) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=answer)} if answer else {"type": "object"}
    content: dict[str, Any] = {_JSON: {"schema": schema}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {status: {"description": description, "content": content}}
    for error in errors:
        schema = {"$ref": _REF.format(name="Error")}
        responses.setdefault(
            error,
            {
                "description": _ERRORS.get(error, "Not here."),
                "content": {_JSON: {"schema": schema}},
            },
        )
    found: dict[str, Any] = {"summary": summary, "responses": responses}
    if body:
        media = {
            "schema": {"$ref": _REF.format(name=body)},
            "example": _EXAMPLES[body],
        }
        found["requestBody"] = {"required": True, "content": {_JSON: media}}
    return found


def _open_operation(
    summary: str, description: str, others: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One that asks for no key. `others`: further statuses and when they come."""
    responses = {"200": {"description": description}}
    responses |= {status: {"description": when} for status, when in (others or {}).items()}
    return {"summary": summary, "security": [], "responses": responses}


# --- the page ----------------------------------------------------------------------------------

_templates = Environment(
    loader=PackageLoader("serving.gateway"), autoescape=select_autoescape(), trim_blocks=True
)
_templates.policies["json.dumps_kwargs"] = {}  # examples in the order in which they are written


def openapi_page() -> str:
    """The document as a page for people, without scripts."""
    document = openapi_document()
    return _templates.get_template("openapi.html.jinja").render(
        info=document["info"],
        operations=[
            (method.upper(), path, operation, _fields(document, operation))
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method in ("get", "post")
        ],
        ignored=IGNORED,
        substitutes=SUBSTITUTES,
    )


def _fields(document: dict[str, Any], operation: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """(name, type in words, required) of each field of an operation's body."""
    body = operation.get("requestBody")
    if body is None:
        return []
    name = body["content"][_JSON]["schema"]["$ref"].rpartition("/")[2]
    schema = document["components"]["schemas"][name]
    kinds = schema.get("anyOf", [schema])
    fields = {field: value for kind in kinds for field, value in kind["properties"].items()}
    required = set.intersection(*(set(kind.get("required", [])) for kind in kinds))
    return [
        (field, describe_type(value), field in required)
        for field, value in fields.items()
        if not str(value.get("description", "")).startswith("Dropped")
    ]


def describe_type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in a few words: `integer, 0 to 20`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        parts = [describe_type(part) for part in schema["anyOf"] if part != {"type": "null"}]
        return " or ".join(dict.fromkeys(parts))
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, filter(lambda value: value is not None, schema["enum"])))
    kind = str(schema.get("type", "any"))
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        kind = f"list of {describe_type(schema['items'])}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and high < 2**31 - 1:
        return f"{kind}, {low:g} to {high:g}"
    return f"{kind}, at least {low:g}" if low is not None and low > -(2**31) else kind
