"""Asking a logged request again."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from sqlalchemy import select

from whet.access import create_key, revoke_key
from whet.context import Context
from whet.conversation import answer_of, given_beginning
from whet.database import reading, writing
from whet.errors import EngineError, EngineUnavailableError, NotFoundError
from whet.rag_prompt import format_passage, insert_into_request
from whet.tables import interactions
from whet.word_diff import word_diff

ROUTE_PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
}
_TIMEOUT_S = 120


def replay_interaction(
    context: Context, interaction_id: str, *, model: str, key: str, actor: str, now: int
) -> dict[str, Any]:
    """`{"before": {"version","text","finish_reason"}, "after": {…, "interaction_id"}, "same"}`.

    The new answer is logged like any other.

    An answer with retrieved passages is asked for with the same passages, in the system message.

    Raises NotFoundError, EngineError.
    """
    with reading(context.database) as connection:
        row = connection.execute(
            select(interactions).where(interactions.c.id == interaction_id)
        ).first()
    if row is None:
        raise NotFoundError(
            f"There is no interaction {interaction_id!r}.",
            hint=(
                "The response header x-whet-interaction-id names it; the log keeps it for the"
                " retention time."
            ),
        )
    version = f"{row.adapter}@v{row.version}" if row.adapter else context.settings.base_alias
    body = {**row.request, "model": model or version, "stream": False}
    body.pop("stream_options", None)
    if row.route != "completions":
        # The passages of then, whatever the collection has now.
        passages = [format_passage(hit) for hit in row.retrieved or ()]
        body = {**insert_into_request(body, passages), "rag": False}
    made = ""
    if not key:
        with writing(context.database) as connection:
            made, key = create_key(
                connection,
                f"replay-{interaction_id[-12:]}",
                secret=context.secret,
                actor=actor,
                now=now,
            )
    try:
        answer, headers = ask_gateway(context, ROUTE_PATHS[row.route], body, key)
    finally:
        if made:
            with writing(context.database) as connection:
                revoke_key(connection, made, actor=actor, now=now)
    text, finish = read_answer(row.route, answer)
    before_text = answer_of(row.request, row.response, row.response_text).text
    if not row.request.get("echo"):
        text = given_beginning(row.request) + text  # the log holds a continued answer whole
    before = {"version": version, "text": before_text, "finish_reason": row.finish_reason}
    after = {
        "version": headers.get("x-whet-adapter"),
        "text": text,
        "finish_reason": finish,
        "interaction_id": headers.get("x-whet-interaction-id"),
    }
    return {"before": before, "after": after, "same": before["text"] == text}


def ask_gateway(
    context: Context, path: str, body: dict[str, Any], key: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return (JSON, headers) of the gateway's answer.

    Raises EngineUnavailableError where it cannot be reached, EngineError where it refuses.
    """
    settings = context.settings
    host = "127.0.0.1" if settings.gateway_host in {"0.0.0.0", "::"} else settings.gateway_host
    url = f"http://{host}:{settings.gateway_port}{path}"
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return json.load(response), {
                name.lower(): value for name, value in response.headers.items()
            }
    except urllib.error.HTTPError as error:
        raise EngineError(f"The gateway answered {error.code}: {_message(error.read())}") from error
    except (urllib.error.URLError, OSError) as error:
        raise EngineUnavailableError(
            f"The gateway at {url} cannot be reached: {error}.", hint="`whet up` starts it."
        ) from error


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def read_answer(route: str, answer: dict[str, Any]) -> tuple[str, str | None]:
    """Return (text, finish reason) of a gateway's answer."""
    if route == "responses":
        parts = [
            part.get("text", "")
            for item in answer["output"]
            if item.get("type") == "message"
            for part in item["content"]
        ]
        return "".join(parts), {"completed": "stop", "incomplete": "length"}.get(
            str(answer.get("status"))
        )
    choice = answer["choices"][0]
    return (
        choice["text"] if route == "completions" else choice["message"]["content"]
    ) or "", choice["finish_reason"]


def mark_changes(before: str, after: str, *, colour: bool = False) -> str:
    """One text in which `[-gone-]` and `{+new+}` words are marked, coloured for a terminal when
    asked.
    """
    red, green, plain = ("\x1b[31m", "\x1b[32m", "\x1b[0m") if colour else ("", "", "")
    parts = []
    for kind, text in word_diff(before, after):
        if kind == "removed":
            text = f"{red}[-{text}-]{plain}"
        elif kind == "added":
            text = f"{green}{{+{text}+}}{plain}"
        parts.append(text)
    return "".join(parts)
