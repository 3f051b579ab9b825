"""A figure that several pages show is the same on each of them, because it is counted in one place."""

from __future__ import annotations

import re

from feedback import queue, retraining
from feedback.queue import Decision
from tests.feedback.world import ALIAS, NOW, queued, seed_dataset
from tests.web import console_client, headline
from whet.context import Context


def _overview_count(html: str) -> int:
    found = re.search(r"([\d,]+)\s*(?:<[^>]+>\s*)*new examples?\b", html)
    assert found, "Overview does not say how many new examples there are"
    return int(found[1].replace(",", ""))


def test_new_examples_are_counted_alike_on_overview_and_datasets(context: Context) -> None:
    """Seven decisions on three questions: a version takes the newest answer to each."""
    seed_dataset(context)
    for number in range(7):
        question = f"How long is the warranty of part {number % 3}?"
        (item,) = queued(context, 1, at=NOW + number, question=question)
        said = Decision("edit", f"{number + 20} months.")
        queue.decide(context.database, item, "ada", said, now=NOW + number)
    client = console_client(context, "reviewer", clock=lambda: NOW + 60)
    of_policy = client.get(f"/api/retraining?alias={ALIAS}").json()["state"]["new_examples"]
    of_datasets = int(re.search(r"\d+", headline(client.get("/datasets").text))[0])
    of_overview = _overview_count(client.get("/").text)
    followed = _overview_count(client.get("/overview/live").text)
    assert (of_policy, of_datasets, of_overview, followed) == (3, 3, 3, 3), (
        "the policy, Datasets, Overview and the part of Overview that follows count differently"
    )


def test_a_version_that_was_built_and_not_learned_leaves_its_examples_new(
    context: Context,
) -> None:
    """Building teaches nothing, so that Overview and the policy count on as before."""
    seed_dataset(context)
    for item in queued(context, 2):
        queue.decide(context.database, item, "ada", Decision("approve"), now=NOW)
    client = console_client(context, "reviewer", clock=lambda: NOW + 60)
    client.post("/datasets/build", data={"csrf": client.csrf, "alias": ALIAS})
    assert _overview_count(client.get("/").text) == 2
    assert retraining.count_new_examples(context) == {ALIAS: 2}
