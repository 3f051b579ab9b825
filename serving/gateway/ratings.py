"""POST /v1/feedback: what people thought of an answer. It takes the same way as the answers: spool first, database after."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.gateway.answers import (
    JSON_TYPE,
    ApiError,
    Receive,
    Scope,
    Send,
    method_not_allowed,
    send_bytes,
    send_error,
)
from serving.gateway.core import Core
from serving.gateway.engine_errors import RETRY_AFTER_S
from serving.gateway.request_body import read_body
from serving.gateway.requests import explain
from serving.log.records import NULL, RatingRecord, encode, rating_id
from serving.log.spool import SpoolError
from whet.clock import now_ms

_INTERACTION_ID = re.compile(r"int_[0-9a-z]{22}")
_MAX_TEXT = 32_768  # characters of a comment or a correction: longer than any answer that is worth correcting by hand


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    interaction_id: str
    rating: Literal[-1, 0, 1]
    comment: Annotated[str, Meta(max_length=_MAX_TEXT)] | UnsetType | None = UNSET
    correction: Annotated[str, Meta(max_length=_MAX_TEXT)] | UnsetType | None = UNSET
    labels: Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=32)] | UnsetType | None = UNSET


_decoder = msgspec.json.Decoder(Feedback)


class Ratings:
    """A plain ASGI application."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._take(scope, receive, send)
        except ApiError as error:
            self._core.metrics.refused(error.status)
            await send_error(send, error)
        except SpoolError as error:
            await send_error(send, ApiError(503, f"{error}", code=error.code, retry_after_s=RETRY_AFTER_S))

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        core = self._core
        if scope["method"] != "POST":
            raise method_not_allowed("POST")
        caller = await core.caller(scope)
        body = await read_body(receive, caller, core.context.settings.request_max_bytes)
        if body is None:
            return
        feedback = _parse(body)
        content = msgspec.to_builtins(feedback)
        del content["interaction_id"]
        record = RatingRecord(
            id=rating_id(feedback.interaction_id, caller.key_id, content),
            interaction_id=feedback.interaction_id,
            api_key_id=caller.key_id,
            rating=feedback.rating,
            comment=feedback.comment or None,
            correction=feedback.correction or None,
            labels=msgspec.Raw(msgspec.json.encode(feedback.labels)) if feedback.labels else NULL,
            created_at=now_ms(),
        )
        core.spool.append(encode(record))
        await core.spool.flushed()
        core.metrics.ratings.inc()
        await send_bytes(send, 202, msgspec.json.encode({"id": record.id, "interaction_id": record.interaction_id}), [JSON_TYPE])


def _parse(body: bytes) -> Feedback:
    try:
        feedback = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f'The body is not valid JSON: {error}. Send {{"interaction_id", "rating"}}.', code="invalid_json") from None
    if not _INTERACTION_ID.fullmatch(feedback.interaction_id):
        raise ApiError(
            400,
            "interaction_id is not one of ours: send the value of the response header x-whet-interaction-id (it is also the `id` in the body).",
            param="interaction_id",
            code="invalid_value",
        )
    return feedback
