"""POST /v1/feedback: what people thought of an answer.

It takes the same way as the answers: spool first, database after. Feedback counts only for answers
that its key or a key of its group asked for. Where the database can say at once that an answer is
another group's, the feedback is refused; else it is kept, and who counts it compares the groups.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy.exc import SQLAlchemyError

from serving.feedback_store import is_own_interaction
from serving.gateway.answers import (
    JSON_TYPE,
    ApiError,
    Receive,
    Scope,
    Send,
    internal_error,
    method_not_allowed,
    send_bytes,
    send_error,
)
from serving.gateway.core import Core
from serving.gateway.engine_errors import RETRY_AFTER_S
from serving.gateway.request_body import read_body
from serving.gateway.requests import explain, invalid_json
from serving.log.records import NULL, RatingRecord, encode, rating_id
from serving.log.spool import SpoolError
from whet.clock import now_ms

logger = logging.getLogger(__name__)

INTERACTION_ID = re.compile(r"int_[0-9a-z]{22}")
OWNER_CHECK_S = 0.5  # a slow database must not slow feedback down by more
# Characters of a comment or a correction: longer than any answer that is worth correcting by hand.
_MAX_TEXT = 32_768
_RATINGS = (-1, 0, 1)
_SHOWN = 40  # characters of a wrong value that a message repeats


_Text = Annotated[str, Meta(max_length=_MAX_TEXT)]
_Label = Annotated[str, Meta(min_length=1, max_length=64)]


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """The body. Null is the same as absent."""

    interaction_id: str
    rating: Any = None  # checked below, so that a message can name the allowed values
    comment: _Text | None = None
    correction: _Text | None = None
    labels: Annotated[list[_Label], Meta(max_length=32)] | None = None


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
            await send_error(
                send,
                ApiError(503, f"{error}", code=error.code, retry_after_s=RETRY_AFTER_S),
            )
        except Exception:  # the boundary of a request: a defect of ours, which the log explains
            logger.exception("A request to %s failed.", scope["path"])
            await send_error(send, internal_error())

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        core = self._core
        if scope["method"] != "POST":
            raise method_not_allowed("POST")
        caller = await core.caller(scope)
        body = await read_body(receive, caller, core.context.settings.request_max_bytes)
        if body is None:
            return
        feedback = parse_feedback(body)
        if await self._is_of_another_group(feedback.interaction_id, caller.key_id):
            raise not_found(feedback.interaction_id)
        content = {
            name: value
            for name, value in msgspec.to_builtins(feedback).items()
            if name != "interaction_id" and value is not None
        }
        record = RatingRecord(
            id=rating_id(feedback.interaction_id, caller.key_id, content),
            interaction_id=feedback.interaction_id,
            api_key_id=caller.key_id,
            rating=feedback.rating,
            comment=feedback.comment,
            correction=feedback.correction,
            labels=msgspec.Raw(msgspec.json.encode(feedback.labels)) if feedback.labels else NULL,
            created_at=now_ms(),
        )
        core.spool.append(encode(record))
        await core.spool.flushed()
        core.recent_ratings.add(record)
        core.metrics.ratings.inc()
        receipt = {"id": record.id, "interaction_id": record.interaction_id}
        await send_bytes(send, 202, msgspec.json.encode(receipt), [JSON_TYPE])

    async def _is_of_another_group(self, interaction_id: str, key_id: str) -> bool:
        """True only where the database says so in time; the row may not be there yet."""
        core = self._core
        if core.refresher.failure:
            return False
        query = partial(is_own_interaction, interaction_id=interaction_id, key_id=key_id)
        try:
            return await core.reads.run(query, OWNER_CHECK_S) is False
        except (TimeoutError, SQLAlchemyError):
            return False


def not_found(interaction_id: str) -> ApiError:
    return ApiError(
        404,
        f"No answer {interaction_id} is known that this key, or one of its group, asked for, and "
        "no feedback on it. The row of a fresh answer can take a second to arrive: try again then.",
        param="interaction_id",
        code="interaction_not_found",
    )


def parse_feedback(body: bytes) -> Feedback:
    """Feedback with its rating, and None for what is absent, null or blank. Raises ApiError 400."""
    try:
        feedback = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise explain(str(error), Feedback.__struct_fields__) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_json(error, body, 'Send {"interaction_id", "rating"}.') from None
    if not INTERACTION_ID.fullmatch(feedback.interaction_id):
        raise ApiError(
            400,
            "interaction_id is not one of ours: send the value of the response header "
            "x-whet-interaction-id (it is also the `id` in the body).",
            param="interaction_id",
            code="invalid_value",
        )
    feedback.comment = _text(feedback.comment)
    feedback.correction = _text(feedback.correction)
    feedback.labels = feedback.labels or None
    feedback.rating = _rating(feedback.rating, feedback.correction)
    return feedback


def _text(text: str | None) -> str | None:
    return text if text and text.strip() else None


def _rating(given: Any, correction: str | None) -> int:
    """A correction alone says that the answer was wrong."""
    if given is None and correction is not None:
        return -1
    if given is None:
        raise ApiError(
            400,
            "There is neither a rating nor a correction. Send `rating` (-1, 0 or 1), the text "
            "that would have been right as `correction`, or both.",
            param="rating",
            code="missing_field",
        )
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or given not in _RATINGS:
        found = msgspec.json.encode(given).decode()
        found = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"
        raise ApiError(
            400,
            f"rating: expected one of -1, 0, 1; found {found}.",
            param="rating",
            code="invalid_value",
        )
    return int(given)
