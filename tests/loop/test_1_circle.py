"""The whole circle on a world that is not Zenith, on the real engine: file → adapter → live →
ratings → review → dataset version → retraining → gate → rollout, and the trace of an answer back to
the people behind it.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from sqlalchemy import func, select

from examples.zenith.story.product import wait_for
from tests.loop import desk
from tests.loop.conftest import Running
from tests.loop.people import ALIAS, ask, client_of, complain, review
from whet.database import reading
from whet.tables import interactions

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def test_the_first_version_learned_its_rows_and_answers(
    product: Running, first_version: dict[str, Any]
) -> None:
    client = client_of(product)
    rng = random.Random(3)
    asked = [desk.question(rng) for _ in range(20)]
    answers = [ask(client, text) for text in asked]
    assert {headers["x-whet-adapter"] for _, headers in answers} == {f"{ALIAS}@v1"}
    right = sum(
        text == desk.answer(desk.cake_in(question), desk.CAKES)
        for question, (text, _) in zip(asked, answers, strict=True)
    )
    assert right >= 16, f"{right} of 20 answers right; the adapter did not learn its {150} rows"


def test_corrections_become_a_version_that_goes_live_and_knows_them(
    product: Running, first_version: dict[str, Any]
) -> None:
    client = client_of(product)
    rng = random.Random(4)
    complain(product, 140, seed=4)
    review(product, at_least=40)

    run = wait_for(
        lambda: _retrained(product),
        "the policy to ask and the worker to train bakery@v2",
        timeout_s=420,
    )
    judged = product.run("train", "show", run["id"])["evaluations"][0]
    assert judged["metrics"]["regression"]["fixed"] >= 20, (
        "v2 does not answer the conversations that people corrected"
    )
    # So few rows are held out in so small a world; then a person decides
    if judged["verdict"] == "inconclusive":
        product.run("rollout", "promote", ALIAS, f"{ALIAS}@v2", "--reason", "looked at the answers")

    def live() -> bool:
        ask(client, desk.question(rng))  # a canary needs traffic
        return bool(product.look("/api/rollouts", alias=ALIAS)[0]["stable"] == f"{ALIAS}@v2")

    wait_for(live, "bakery@v2 to be live", timeout_s=120, every_s=0.5)
    wait_for(
        lambda: ask(client, "How much is the Amber Loaf?")[1]["x-whet-adapter"] == f"{ALIAS}@v2",
        "the gateway to route to v2",
        timeout_s=20,
    )
    changed = [
        text
        for text in (desk.question(rng) for _ in range(80))
        if desk.cake_in(text) in ("Copper Tart", "Willow Bun")
    ][:20]
    right = sum(
        ask(client, text)[0] == desk.answer(desk.cake_in(text), desk.CHANGED) for text in changed
    )
    assert right >= 0.8 * len(changed), (
        f"{right} of {len(changed)} corrected facts answered right by v2"
    )

    _, headers = ask(client, changed[0])
    tree = str(product.run("trace", headers["x-whet-interaction-id"]))
    for kind in ("int_", "rev_", "run_", "req_"):
        assert kind in tree, f"the trace of an answer does not lead to a {kind}… record"


def _retrained(product: Running) -> dict[str, Any] | None:
    ended = [
        run for run in product.look("/api/runs") if run["request_id"] and run["state"] != "running"
    ]
    assert all(run["state"] == "succeeded" for run in ended), ended
    return ended[0] if ended else None


def test_every_answer_so_far_has_one_row(product: Running, first_version: dict[str, Any]) -> None:
    context = product.context()
    client = client_of(product)
    _, headers = ask(client, "How much is the Amber Loaf?")

    def counted() -> bool:
        with reading(context.database) as connection:
            return bool(
                connection.execute(
                    select(func.count()).where(
                        interactions.c.id == headers["x-whet-interaction-id"]
                    )
                ).scalar()
            )

    wait_for(counted, "the row of the last answer", timeout_s=20, every_s=0.2)
    context.close()
