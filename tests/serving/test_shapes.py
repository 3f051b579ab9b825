"""The engine asked directly and through the gateway: no difference but those of docs/gateway.md.

Requests after what vLLM's own server tests cover (`shapes.py`); differences and their reasons are
data (`engine_differences.py`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from serving.base import base_of
from tests.engine_fixture import LiveEngine
from tests.serving.conftest import Running, replica
from tests.serving.engine_differences import DIFFERENCES, explain
from tests.serving.random_schemas import RandomSchemas, as_request
from tests.serving.shapes import LEAST, Observed, Shape, field_shapes, observe, usual_shapes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500)]  # with the start of the engine
ENGINE_PATHS = {"/v1/tokenize": "/tokenize", "/v1/detokenize": "/detokenize"}
Ask = Callable[[Shape], tuple[Observed, Observed]]


@pytest.fixture(scope="module")
def ask(live: Running, live_engine: LiveEngine) -> Iterator[Ask]:
    """Sends a shape to both."""
    routes = live.app.core.refresher.current.routes
    names = {name: route.stable.engine_model for name, route in routes.items()}
    names["base"] = base_of(live.context).engine_name
    engine_headers, gateway_headers = (
        {"authorization": f"Bearer {key}"} for key in (live_engine.key, live.key)
    )
    with (
        httpx.Client(base_url=live_engine.url, headers=engine_headers, timeout=60) as engine,
        httpx.Client(base_url=live.url, headers=gateway_headers, timeout=60) as gateway,
    ):

        def both(shape: Shape) -> tuple[Observed, Observed]:
            name = names.get(shape.model, shape.model) if shape.model else None
            path = ENGINE_PATHS.get(shape.path, shape.path)
            return observe(engine, shape, name, path), observe(
                gateway, shape, shape.model, shape.path
            )

        yield both


def differences(shape: Shape, both: tuple[Observed, Observed]) -> Iterator[tuple[str, Any, Any]]:
    """(aspect, engine, gateway) of what is not equal; of two statuses only these."""
    engine, gateway = both
    if engine.status != gateway.status:
        yield "status", engine.status, gateway.status
        return
    for (aspect, ours), (_, theirs) in zip(engine.aspects(), gateway.aspects(), strict=True):
        if ours != theirs:
            yield aspect, ours, theirs


def compare(shapes: Iterator[Shape], ask: Ask) -> set[str]:
    """Fails for differences that no row explains, and for a 5xx; returns the rows it needed."""
    used, unexplained = set(), []
    for shape in shapes:
        both = ask(shape)
        if both[1].status >= 500:
            unexplained.append(f"{shape.id}: the gateway answers {both[1].status}")
        for aspect, engine, gateway in differences(shape, both):
            row = explain(shape.id, aspect, engine, gateway)
            if row is None:
                unexplained.append(f"{shape.id}: {aspect}: engine {engine!r}, gateway {gateway!r}")
            else:
                used.add(row.id)
    assert not unexplained, f"{len(unexplained)} unlisted differences:\n" + "\n".join(unexplained)
    return used


def test_usual_requests_are_answered_as_by_the_engine(ask: Ask) -> None:
    compare(usual_shapes(), ask)


@pytest.mark.slow  # a thousand requests, each sent twice
def test_every_value_of_every_field_is_answered_as_by_the_engine(ask: Ask) -> None:
    used = compare(field_shapes(), ask) | compare(usual_shapes(), ask)
    assert not {row.id for row in DIFFERENCES} - used, "rows that nothing needs any more"


# --- constraints of any shape --------------------------------------------------------------------

FUZZED = 1000
FUZZ_CLIENTS = 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [17])
def test_random_schemas_cost_no_engine(live: Running, live_engine: LiveEngine, seed: int) -> None:
    """Schemas, sensible and not, wherever one may stand: no 5xx, no outage, no dead engine."""
    schemas = RandomSchemas(seed)
    bodies = [
        {"model": "base", **LEAST["/v1/chat/completions"], **as_request(schemas.draw(), number)}
        for number in range(FUZZED)
    ]
    process = live_engine.process
    assert process is not None
    headers = {"authorization": f"Bearer {live.key}"}
    states: set[str] = set()
    done = threading.Event()
    with httpx.Client(base_url=live.url, headers=headers, timeout=120) as client:

        def watch() -> None:
            while not done.wait(0.2):
                states.add(replica(live).state)

        def send(body: dict[str, Any]) -> tuple[int, str]:
            answer = client.post("/v1/chat/completions", json=body)
            return answer.status_code, answer.text[:300]

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with ThreadPoolExecutor(FUZZ_CLIENTS) as clients:
                answers = list(clients.map(send, bodies))
        finally:
            done.set()
            watcher.join()
    wrong = [
        f"{status} {text}\n{json.dumps(body)}"
        for (status, text), body in zip(answers, bodies, strict=True)
        if status not in (200, 400)
    ]
    assert not wrong, f"{len(wrong)} of {FUZZED}, the first:\n" + "\n".join(wrong[:3])
    assert process.poll() is None, "the engine's process ended"
    assert states == {"ready"}, f"the replica was {states}"
    taken = sum(status == 200 for status, _ in answers)
    assert taken > FUZZED / 5, f"only {taken} of {FUZZED} schemas were accepted: too few good ones"
