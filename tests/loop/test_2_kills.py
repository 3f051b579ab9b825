"""`kill -9` of every process at several moments under load: nothing received is lost, nothing
happens twice, and everything comes back by itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAIError
from sqlalchemy import func, select

from examples.zenith.story.product import wait_for
from tests.loop.conftest import Running
from tests.loop.people import ALIAS, complain, review
from whet.database import reading
from whet.tables import adapters, interactions, training_requests, training_runs

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


class Load:
    """A few clients that ask without pause, streamed and not, and write down what they fully
    received.
    """

    def __init__(self, product: Running, model: str = "base", clients: int = 4) -> None:
        self.received: list[str] = []  # interaction ids of complete answers
        self.failed = 0
        self._url, self._key, self._model, self._clients = (
            product.gateway,
            product.key,
            model,
            clients,
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=120)

    async def _run(self) -> None:
        client = AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key=self._key, max_retries=0, timeout=60
        )
        await asyncio.gather(
            *(self._one(client, stream=number % 2 == 0) for number in range(self._clients))
        )
        await client.close()

    async def _one(self, client: AsyncOpenAI, *, stream: bool) -> None:
        while not self._stopping.is_set():
            try:
                raw = await client.chat.completions.with_raw_response.create(
                    model=self._model,
                    messages=[{"role": "user", "content": "Hello there"}],
                    max_tokens=24,
                    temperature=0,
                    stream=stream,
                )
                parsed = raw.parse()
                if stream:
                    finished = [
                        chunk.choices[0].finish_reason async for chunk in parsed if chunk.choices
                    ]
                    if not finished or finished[-1] is None:
                        raise ConnectionError("the stream ended early")
                self.received.append(raw.headers["x-whet-interaction-id"])
            except (OpenAIError, ConnectionError, OSError):
                self.failed += 1
                await asyncio.sleep(0.1)
            except Exception as error:  # httpx raises its own errors in mid-stream
                if not type(error).__module__.startswith(("httpx", "httpcore", "anyio")):
                    raise
                self.failed += 1
                await asyncio.sleep(0.1)

    def wait_for_answers(self, count: int, *, timeout_s: float = 180) -> None:
        """Until `count` more answers came back."""
        goal = len(self.received) + count
        wait_for(
            lambda: len(self.received) >= goal,
            f"{count} more answers under load",
            timeout_s=timeout_s,
            every_s=0.1,
        )


def _rows_of(product: Running, ids: list[str]) -> dict[str, int]:
    context = product.context()
    counted: dict[str, int] = {}
    with reading(context.database) as connection:
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            query = (
                select(interactions.c.id, func.count())
                .where(interactions.c.id.in_(part), interactions.c.status == "complete")
                .group_by(interactions.c.id)
            )
            counted.update({row[0]: row[1] for row in connection.execute(query)})
    context.close()
    return counted


def _assert_one_row_each(product: Running, received: list[str]) -> None:
    assert len(set(received)) == len(received), "two answers carried one interaction id"
    wait_for(
        lambda: len(_rows_of(product, received)) == len(received),
        "a row for every answer received",
        timeout_s=60,
    )
    assert set(_rows_of(product, received).values()) == {1}


def _back(product: Running, name: str, dead: int, *, timeout_s: float) -> None:
    def again() -> bool:
        row = product.processes()[name]
        return row["pid"] not in (None, dead) and row["phase"] == "ready"

    wait_for(again, f"{name} to be started again", timeout_s=timeout_s, every_s=0.2)


def test_a_killed_gateway_loses_no_answer_that_was_received(product: Running) -> None:
    with Load(product) as load:
        for moment in (0.0, 0.7, 1.9):
            load.wait_for_answers(5)
            time.sleep(moment)  # not waiting for anything: the moment of death is what varies
            dead = product.kill("gateway")
            _back(product, "gateway", dead, timeout_s=60)
        load.wait_for_answers(5)
    _assert_one_row_each(product, load.received)


def test_a_killed_engine_comes_back_and_is_proved_again(product: Running) -> None:
    with Load(product) as load:
        load.wait_for_answers(5)
        dead = product.kill("engine")
        _back(product, "engine", dead, timeout_s=300)
        load.wait_for_answers(5)
    _assert_one_row_each(product, load.received)


def test_a_killed_scheduler_and_console_come_back_while_traffic_goes_on(product: Running) -> None:
    with Load(product) as load:
        for name in ("scheduler", "console"):
            load.wait_for_answers(3)
            dead = product.kill(name)
            _back(product, name, dead, timeout_s=60)
        load.wait_for_answers(3)
    assert load.failed == 0, "requests failed though neither gateway nor engine was touched"
    _assert_one_row_each(product, load.received)


# Two minutes of training; tests/training/test_worker.py kills a worker and its child in every run
# of the tests
@pytest.mark.slow
def test_a_worker_killed_in_mid_training_leaves_one_run_and_one_adapter(
    product: Running, first_version: dict[str, Any]
) -> None:
    context = product.context()
    # A good version gives nobody a reason, and this test needs reviews
    complain(product, 8, seed=9, about_all=True)
    review(product, at_least=1, comment=" Bye!")  # rows that no request asked to train on before

    def runs(request_id: str) -> list[Any]:
        with reading(context.database) as connection:
            return list(
                connection.execute(
                    select(training_runs).where(training_runs.c.request_id == request_id)
                )
            )

    with reading(context.database) as connection:
        before = connection.execute(select(func.count()).select_from(adapters)).scalar_one()
        known = {row.id for row in connection.execute(select(training_requests.c.id))}
    request = _ask_for_training(product)
    assert request not in known
    for _ in range(2):
        wait_for(
            lambda: any(
                row.state == "running" and row.progress.get("step", 0) >= 1 for row in runs(request)
            ),
            "the training to step",
            timeout_s=180,
            every_s=0.2,
        )
        dead = product.kill("worker")
        _back(product, "worker", dead, timeout_s=60)
    wait_for(
        lambda: any(row.state != "running" for row in runs(request)),
        "the run to end",
        timeout_s=400,
    )
    found = runs(request)
    assert [row.state for row in found] == ["succeeded"], (
        f"expected one finished run, found {[(row.state, row.error) for row in found]}"
    )
    with reading(context.database) as connection:
        assert (
            connection.execute(select(func.count()).select_from(adapters)).scalar_one()
            == before + 1
        )
    leftovers = (
        list((product.home / "store" / ".tmp").glob("*"))
        if (product.home / "store" / ".tmp").exists()
        else []
    )
    assert leftovers == [], "a half-written adapter was left behind"
    context.close()


def _ask_for_training(product: Running) -> str:
    """A request for training by hand, as the dataset page makes it."""
    password = (product.home / "admin.password").read_text().strip()
    with httpx.Client(base_url=product.console, auth=("admin", password), timeout=60) as console:
        built = console.post("/api/datasets", json={"alias": ALIAS}).raise_for_status().json()
        return str(
            console.post(f"/api/datasets/{built['digest']}/train")
            .raise_for_status()
            .json()["request_id"]
        )
