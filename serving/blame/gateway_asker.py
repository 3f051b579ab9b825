"""Asks the cells of the matrix of the gateway, with a key that is made for it and revoked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from serving.blame.matrix import Asker
from serving.replay import ROUTE_PATHS, ask_gateway, read_answer
from whet.access import create_key, revoke_key
from whet.context import Context
from whet.conversation import given_beginning
from whet.database import writing
from whet.json_types import JsonObject


@contextlib.contextmanager
def gateway_key(context: Context, label: str, *, key: str, actor: str, now: int) -> Iterator[str]:
    """Yield `key`, or without one a new key that is revoked at the end."""
    if key:
        yield key
        return
    with writing(context.database) as connection:
        made, key = create_key(
            connection, f"replay-{label}", secret=context.secret, actor=actor, now=now
        )
    try:
        yield key
    finally:
        with writing(context.database) as connection:
            revoke_key(connection, made, actor=actor, now=now)


def ask_of_gateway(context: Context, key: str, interaction_id: str) -> Asker:
    """Return an asker. Its answers are logged like any other, with what they repeat."""

    def ask(model: str, route: str, body: JsonObject) -> str:
        request = {**body, "model": model, "stream": False}
        if route != "completions":
            request["metadata"] = {"source": "replay", "replay_of": interaction_id}
        answer, _ = ask_gateway(context, ROUTE_PATHS[route], request, key)
        text, _ = read_answer(route, answer)
        return text if request.get("echo") else given_beginning(request) + text

    return ask
