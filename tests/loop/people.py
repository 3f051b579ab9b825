"""The people around the product under test: those who ask and rate, and the one who reviews."""

from __future__ import annotations

import random
from typing import Any

import httpx
from openai import OpenAI

from examples.zenith.story.product import wait_for
from tests.loop import desk
from tests.loop.conftest import Running

ALIAS = "bakery"
_REVIEWER = ("baker", "a long enough password")


def client_of(product: Running) -> OpenAI:
    return OpenAI(base_url=f"{product.gateway}/v1", api_key=product.key, max_retries=0, timeout=120)


def ask(client: OpenAI, text: str, model: str = ALIAS, user: str | None = None) -> tuple[str, Any]:
    """(the answer, the response's headers)."""
    extra = {"user": user} if user else {}
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        temperature=0,
        max_tokens=60,
        **extra,
    )
    return raw.parse().choices[0].message.content or "", raw.headers


def complain(product: Running, questions: int, seed: int, *, about_all: bool = False) -> None:
    """Ask in the changed world, and press thumbs-down on every answer that is not right in it; or
    on all, as a cross customer would.
    """
    client, rng = client_of(product), random.Random(seed)
    with httpx.Client(headers={"Authorization": f"Bearer {product.key}"}, timeout=60) as http:
        for number in range(questions):
            text = desk.question(rng)
            said, headers = ask(client, text, user=f"guest-{seed}-{number % 70}")
            if about_all or said != desk.answer(desk.cake_in(text), desk.CHANGED):
                body = {"interaction_id": headers["x-whet-interaction-id"], "rating": -1}
                assert http.post(f"{product.gateway}/v1/feedback", json=body).status_code == 202


def review(product: Running, *, at_least: int, comment: str = "") -> None:
    """A reviewer who knows the changed prices works through the queue, over the same HTTP interface
    as the page.

    `comment` is put after the right answer, so that a later example differs from the earlier ones.
    """
    name, password = _REVIEWER
    if name not in {user["name"] for user in product.run("users", "list")}:
        product.run_plain(
            "users", "add", name, "--role", "reviewer", "--password-stdin", given=password + "\n"
        )
    reviewer = httpx.Client(base_url=product.console, auth=_REVIEWER, timeout=60)
    done = 0

    def one() -> bool:
        nonlocal done
        item = (
            reviewer.get("/api/review/next", params={"alias": ALIAS})
            .raise_for_status()
            .json()["item"]
        )
        if item is None:
            return done >= at_least
        right = desk.answer(desk.cake_in(item["messages"][-1]["content"]), desk.CHANGED) + comment
        decision = (
            {"decision": "approve"}
            if item["answer"] == right
            else {"decision": "edit", "answer": right}
        )
        reviewer.post(f"/api/review/{item['item_id']}", json=decision).raise_for_status()
        done += 1
        return False

    wait_for(one, f"{at_least} conversations to be reviewed", timeout_s=120, every_s=0.02)
    reviewer.close()
