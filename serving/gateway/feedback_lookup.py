"""GET /v1/feedback/{interaction_id}: what became of feedback, for the group that sent it."""

from __future__ import annotations

from functools import partial

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from serving.feedback_status import assemble
from serving.feedback_store import load_facts
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
from serving.gateway.ratings import INTERACTION_ID, not_found
from whet.clock import now_ms

READ_LIMIT_S = 2.0  # a handful of lookups by key, and one pass over the dataset versions
RETRY_AFTER_S = 5
PREFIX = "/v1/feedback/"


class FeedbackStatus:
    """A plain ASGI application for paths that begin with PREFIX."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "GET":
                raise method_not_allowed("GET")
            body = await self.answer(scope, scope["path"].removeprefix(PREFIX).rstrip("/"))
        except ApiError as error:
            self._core.metrics.refused(error.status)
            await send_error(send, error)
        else:
            await send_bytes(send, 200, body, [JSON_TYPE])

    async def answer(self, scope: Scope, interaction_id: str) -> bytes:
        """The body as JSON. Raises ApiError: 401, 404, or 503 while the database is away."""
        core = self._core
        caller = await core.caller(scope)
        if not INTERACTION_ID.fullmatch(interaction_id):
            raise ApiError(
                404,
                f"{interaction_id[:80]!r} is not an id of an answer: use the value of the "
                "response header x-whet-interaction-id (it is also the `id` in the body).",
                param="interaction_id",
                code="interaction_not_found",
            )
        query = partial(
            load_facts,
            interaction_id=interaction_id,
            key_id=caller.key_id,
            received=core.recent_ratings.of(interaction_id),
        )
        try:
            facts = await core.reads.run(query, READ_LIMIT_S)
        except (TimeoutError, SQLAlchemyError) as error:
            raise ApiError(
                503,
                f"The database cannot be read at this moment. Try again in {RETRY_AFTER_S} "
                "seconds; feedback is taken and kept meanwhile.",
                code="database_unavailable",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        if facts is None:
            raise not_found(interaction_id)
        interval_s = core.context.settings.flag_interval_s
        return msgspec.json.encode(assemble(facts, flag_interval_s=interval_s, now=now_ms()))
