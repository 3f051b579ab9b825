"""POST /v1/embeddings: vectors of texts in OpenAI's shape, from the retrieval process."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import msgspec
import numpy as np

from serving.gateway.answers import ApiError, Receive, Scope
from serving.gateway.core import Caller, Core
from serving.gateway.request_body import read_body
from serving.gateway.requests import explain, invalid_json
from serving.retrieval.messages import EmbedResult
from whet.errors import InputError, WhetError

MAX_TEXTS = 2048  # OpenAI's limit for one request
_RETRY_AFTER_S = 5
_TOKEN_IDS = (
    "input: token ids are not taken, since they belong to another model's tokenizer. Send texts."
)


class TextEmbedder(Protocol):
    """Whoever makes vectors: the client of the retrieval process."""

    async def embed(self, texts: list[str], *, as_queries: bool = False) -> EmbedResult:
        """Return one vector per text. Raises InputError for texts that are refused."""
        ...


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/embeddings. `model` is kept for clients, who have to send one; one model embeds."""

    input: str | list[Any]
    model: str = ""
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    input_type: str | None = None  # `query`: as a question, where the embedder tells them apart


async def embed(
    core: Core, embedder: TextEmbedder | None, scope: Scope, receive: Receive
) -> bytes | None:
    """Return the answer's body; None when the client has left. Raises ApiError.

    Counted, and not logged: decision 0014.
    """
    caller = await core.caller(scope)
    try:
        found = await _embed(core, embedder, caller, receive)
    except ApiError as error:
        core.metrics.embeddings.labels(str(error.status)).inc()
        raise
    core.metrics.embeddings.labels("499" if found is None else "200").inc()
    return found


async def _embed(
    core: Core, embedder: TextEmbedder | None, caller: Caller, receive: Receive
) -> bytes | None:
    body = await read_body(receive, caller, core.context.settings.request_max_bytes)
    if body is None:
        return None
    request = _decode(body)
    texts = _texts(request)
    as_base64 = _is_base64(request)
    if embedder is None:
        raise ApiError(501, "This gateway has no embedding model.", code="no_embedder")
    try:
        found = await embedder.embed(texts, as_queries=request.input_type == "query")
    except InputError as error:
        raise ApiError(400, f"input: {error}", param="input", code="invalid_value") from None
    except WhetError as error:
        raise ApiError(
            503, str(error), code="embedder_unavailable", retry_after_s=_RETRY_AFTER_S
        ) from None
    if request.dimensions not in (None, found.dimension):
        raise ApiError(
            400,
            f"dimensions: the vectors have {found.dimension}, and cutting them would lose what they"
            " say. Leave the field out.",
            param="dimensions",
            code="invalid_value",
        )
    core.metrics.embedded_tokens.inc(found.tokens)
    return _answer(found, request.model, as_base64)


def _decode(body: bytes) -> EmbeddingsRequest:
    try:
        return msgspec.json.decode(body, type=EmbeddingsRequest)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error, body, "Send `model` and `input`.") from None


def _texts(request: EmbeddingsRequest) -> list[str]:
    texts = [request.input] if isinstance(request.input, str) else request.input
    if any(isinstance(text, int | list) for text in texts):
        raise _invalid("input", _TOKEN_IDS)
    if not all(isinstance(text, str) and text for text in texts):
        raise _invalid("input", "input: expected a text that is not empty, or a list of them.")
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise _invalid("input", f"input: {len(texts)} texts; expected 1 to {MAX_TEXTS}.")
    return texts


def _is_base64(request: EmbeddingsRequest) -> bool:
    if request.encoding_format not in (None, "float", "base64"):
        raise _invalid("encoding_format", "encoding_format: expected float or base64.")
    return request.encoding_format == "base64"


def _invalid(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")


def _answer(found: EmbedResult, model: str, as_base64: bool) -> bytes:
    def shown(vector: bytes) -> str | list[float]:
        if as_base64:
            return base64.b64encode(vector).decode()
        floats: list[float] = np.frombuffer(vector, "<f4").tolist()
        return floats

    data = [
        {"object": "embedding", "index": index, "embedding": shown(vector)}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    name = model or found.embedder.partition(":")[0]
    body = {"object": "list", "data": data, "model": name, "usage": usage}
    return msgspec.json.encode(body | {"whet": {"embedder": found.embedder}})
