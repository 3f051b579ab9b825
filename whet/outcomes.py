"""SQL conditions on `interactions`: what counts for the version that answered, and what not."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, func, not_, or_, select

from whet.access import same_group
from whet.tables import interactions, ratings

# `http_status` of a row with status `cut` whose gateway was stopped or killed. What the client was
# sent before says 200; as with 499 for a client that left, the row says how the answer ended.
GATEWAY_STOPPED = 503

_FAILED = ("error", "cut")


def counts_for_version() -> ColumnElement[bool]:
    """Requests that say something about the version that answered.

    Left out: requests whose client left; refused ones (HTTP 400 to 499), which are the
    application's own mistake; a failed answer to an SDK's retry, because its first try has counted
    already; and answers whose gateway was stopped or killed, which no version causes.
    """
    client_mistake = interactions.c.http_status.between(400, 499)
    gateway_stopped = and_(
        interactions.c.status == "cut", interactions.c.http_status == GATEWAY_STOPPED
    )
    failed_retry = and_(_failed(), func.coalesce(interactions.c.retry, 0) > 0)
    left_out = or_(client_mistake, failed_retry, gateway_stopped)
    return and_(interactions.c.status != "cancelled", not_(left_out))


def service_failed() -> ColumnElement[bool]:
    """Answers that failed or broke off, and count for the version that gave them."""
    return and_(_failed(), counts_for_version())


def lowest_ratings(answers: FromClause) -> Select[Any]:
    """Select (id, lowest) of each rated answer: one that somebody rated down counts as down.

    `answers`: has `id` and `api_key_id`. A rating of 0 was withdrawn.
    """
    return (
        select(answers.c.id, func.min(ratings.c.rating).label("lowest"))
        .join(ratings, and_(ratings.c.interaction_id == answers.c.id, ratings.c.rating != 0))
        .where(same_group(ratings.c.api_key_id, answers.c.api_key_id))
        .group_by(answers.c.id)
    )


def is_empty_answer() -> ColumnElement[bool]:
    """Complete answers without text and without a tool call.

    A named tool call (`tool_choice` with a function's name) ends with `stop` instead of
    `tool_calls`, and in the Responses API a call is an item of the output: so the calls themselves
    are looked for in the response.
    """
    return and_(
        interactions.c.status == "complete",
        func.coalesce(interactions.c.response_text, "") == "",
        func.coalesce(interactions.c.finish_reason, "") != "tool_calls",
        not_(_calls_tools()),
    )


def _failed() -> ColumnElement[bool]:
    return interactions.c.status.in_(_FAILED)


def _calls_tools() -> ColumnElement[bool]:
    response = interactions.c.response
    chat = func.coalesce(response["tool_calls"].as_string(), "[]") != "[]"
    # As JSON text: within a string value the quotes would be escaped, so only a whole value
    # matches.
    output = func.coalesce(response["output"].as_string(), "").contains('"function_call"')
    return or_(chat, output)
