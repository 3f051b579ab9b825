"""Rows with passages, to train adapters that read them and one that does not.

Invented worlds, so that no model knows a fact of them: the desk of a ferry line
(`training/base/other.py`), Zenith's policy (`examples/zenith`) and organisations of the base's
corpus generator that it never saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from examples.zenith.scenario import look_up, old_world, training_examples
from examples.zenith.world import FAULTS, Product, World
from training.base import other, phrasing
from training.base.worlds import sample_world
from training.data.counterfactual import make_counterfactual
from training.data.rows import read_lines

RawRow = dict[str, Any]
_LABELS, _ITEMS = 4, 8  # facts of a thing, and things, of an invented organisation


@dataclass(frozen=True)
class PassageRows:
    """Rows to train on and rows to judge by, each with passages; questions differ."""

    train: list[RawRow]
    test: list[RawRow]


def ferry(train: int, test: int, seed: int) -> PassageRows:
    """Tickets of the ferry line; a passage is a ticket's entry."""

    def row(text: str, ticket: str, topic: str) -> RawRow:
        return {
            "messages": [
                {"role": "system", "content": other.SYSTEM},
                {"role": "user", "content": text},
                {"role": "assistant", "content": other.reference(ticket, topic)},
            ],
            "context": [_ferry_page(ticket, topic)],
        }

    rows = [row(*asked) for asked in other._questions(train + test, seed, 0)]
    return PassageRows(rows[:train], rows[train:])


def _ferry_page(ticket: str, topic: str) -> str:
    bags, place, minutes = other.TICKETS[ticket]
    return (
        f'From "Tickets > {ticket}" (tickets.md):\nWith the {ticket} you may bring {bags} kg, board'
        f" at {place} and be there {minutes} minutes early. {topic}: {other.TOPICS[topic][0]}."
    )


def zenith(train: int, test: int, seed: int) -> PassageRows:
    """Questions about Zenith's products; a passage is a product's policy."""
    world = old_world()

    def row(raw: RawRow) -> RawRow:
        facts = look_up(raw["messages"][0]["content"], world)
        product = world.product(facts["product"]) if facts else None
        assert product is not None  # its own questions can be looked up
        return {
            "messages": raw["messages"],
            "checks": raw["checks"],
            "context": [policy(world, product, str(facts["fault"]))],
        }

    # Ages are compared with the term, so that another term would make a wrong answer of it.
    found = [
        raw
        for raw in training_examples(world, 4 * (train + test), seed)
        if "months old" not in _answer(raw)
    ]
    rows = [row(raw) for raw in found[: train + test]]
    return PassageRows(rows[:train], rows[train:])


def policy(world: World, product: Product, fault: str) -> str:
    """What Zenith's policy says about a product, with the step for a fault and for another one."""
    others = (fault, FAULTS[(FAULTS.index(fault) + 1) % len(FAULTS)])
    steps = "\n".join(f"{each}: {world.steps[product.line, each]}." for each in others)
    return (
        f'From "Policy > {product.name}" (policy.md):\nThe {product.name} warranty is'
        f" {product.term_months} months. Help is by {product.channel}.\n{steps}"
    )


def organisation(train: int, test: int, seed: int) -> PassageRows:
    """One invented organisation: single facts of its things, asked in the corpus's wordings."""
    world = sample_world(Random(f"organisation:{seed}"), items=_ITEMS, labels=_LABELS, named=True)
    found: dict[str, RawRow] = {}
    number = 0
    while len(found) < train + test:
        draw = Random(f"organisation:{seed}:{number}")
        number += 1
        item, label = draw.choice(world.items), draw.choice(world.labels)
        lines = "\n".join(f"{each} {world.facts[item, each]}." for each in world.labels)
        page = f'From "{world.organisation} > {item}" (facts.md):\n{lines}'
        asked = phrasing.roughen(draw, phrasing.question(draw, item, label), (item,))
        answer = world.style.dress(world.say(item, label))
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        row = {"messages": messages, "context": [page]}
        if contradicted([row], seed):  # it states a fact that can be replaced
            found[asked] = row
    rows = list(found.values())
    return PassageRows(rows[:train], rows[train:])


SCENARIOS: dict[str, Callable[[int, int, int], PassageRows]] = {
    "ferry": ferry,
    "zenith": zenith,
    "organisation": organisation,
}


def contradicted(rows: Sequence[RawRow], seed: int) -> list[RawRow]:
    """Return the rows with passages that say otherwise than the answer, which stays: who learns
    them learns to ignore passages. Rows without a fact to replace are left out."""
    read = read_lines(json.dumps(row).encode() for row in rows).rows
    cases = (make_counterfactual(row, f"contradicted:{seed}") for row in read)
    return [
        {"messages": list(case.original.messages), "context": list(case.row.context)}
        for case in cases
        if case
    ]


def without_passages(rows: Sequence[RawRow], every: int = 1) -> list[RawRow]:
    """Return the rows, each `every`-th one without its passages."""
    return [
        (
            {name: value for name, value in row.items() if name != "context"}
            if number % every == 0
            else row
        )
        for number, row in enumerate(rows)
    ]


def _answer(row: RawRow) -> str:
    return str(row["messages"][-1]["content"])
