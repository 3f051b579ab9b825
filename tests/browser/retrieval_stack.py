"""A gateway, the retrieval process and the console together, for tests from upload to answer.

Everything is real but the engine: it answers with the first sentence of passage [1] of its prompt,
as a model that was taught to cite does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.retrieval.client import RetrievalClient
from serving.retrieval.server import create_retrieval_app
from serving.rollout_store import RolloutStore
from tests.browser.conftest import listening
from tests.serving.conftest import Running, add_version, serve, set_replica
from tests.serving.mock_engine import MockEngine
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.registry import engine_name
from whet.settings import load_settings

_FIRST = re.compile(r"\[1\] From [^\n]*\n(?P<sentence>[^.]*)\.")
NOTHING_TO_CITE = "I do not know."


class PassageEngine(MockEngine):
    """Answers from its passages, a word at a time."""

    def _text(self, body: dict[str, Any]) -> list[str]:
        prompt = "\n".join(str(message["content"]) for message in body.get("messages", []))
        found = _FIRST.search(prompt)
        answer = f"{found['sentence'].strip()} [1]." if found else NOTHING_TO_CITE
        return re.findall(r"\S+\s*", answer)


@contextmanager
def retrieval_stack(home: Path, **settings: Any) -> Iterator[tuple[Context, Running]]:
    """Serve `support` v1 with retrieval; yields the console's context and the gateway."""
    context = open_context(load_settings(home=home, **settings))
    digest = add_version(context, "support", 1)
    name = engine_name("support", 1, digest)
    with PassageEngine() as engine, listening(create_retrieval_app(context)) as address:
        object.__setattr__(context.settings, "retrieval_url", address)
        engine.adapters[name] = "/x"
        set_replica(context, engine.url, {digest: name})
        RolloutStore(context.database, context.settings).promote(
            "support", "support@v1", actor="tests", reason="first", now=now_ms()
        )
        for running in serve(context, engine, searcher=RetrievalClient(context.settings)):
            object.__setattr__(context.settings, "gateway_port", running.port)
            yield context, running
    context.close()
