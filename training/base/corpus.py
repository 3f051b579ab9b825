"""The pre-training corpus: a seeded, endless stream of dialogues.

``python -m training.base.corpus --count 20`` prints some of it as JSONL. Document number ``n`` of
seed ``s`` is always the same text, whatever came before it, so a run can be resumed and repeated.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from random import Random

from training.base import phrasing
from training.base.comparing import (
    aged_complaint,
    aged_complaint_document,
    choose_document,
    covered_by_memory,
    limit_document,
)
from training.base.documents import (
    Messages,
    echo_document,
    fault_answer,
    fault_document,
    follow_up_document,
    json_document,
    list_document,
    lookup_document,
    message,
    prose_document,
    several_document,
    unknown_document,
)
from training.base.faults import complaint
from training.base.smalltalk import rewrite_document, smalltalk_document
from training.base.worlds import World, memory_worlds

# 96 fixed organisations hold about 4,000 facts: enough that remembering needs a general way of
# storing facts, few enough that each is seen about a hundred times in a run of 150,000 documents.
MEMORY_WORLDS = 96


@functools.cache
def remembered(seed: str) -> tuple[World, ...]:
    """The fixed worlds of a corpus seed."""
    return memory_worlds(MEMORY_WORLDS, seed)


def memory_document(rng: Random, seed: str) -> Messages:
    """A question about a fixed world whose facts are nowhere in the prompt."""
    number = rng.randrange(MEMORY_WORLDS)
    world = remembered(seed)[number]
    messages: Messages = []
    # A third of the worlds always name themselves in a system message, the rest are known by their
    # items alone.
    if number % 3 == 0:
        messages.append(message("system", f"You are the assistant of {world.organisation}."))
    for _ in range(rng.choice((1, 1, 2))):
        item = rng.choice(world.items)
        roll = rng.random()
        fault = rng.randrange(len(world.faults))
        aged = aged_complaint(rng, world, item, fault) if roll < 0.4 else None
        compared = covered_by_memory(rng, world, item) if 0.4 <= roll < 0.5 else None
        if aged or compared:
            asked, answer = aged or compared or ("", "")
            answer = answer if aged else world.style.dress(answer)
        elif roll < 0.7:
            asked, answer = (
                complaint(rng, item, world.faults[fault]),
                fault_answer(world, item, fault, world.labels),
            )
        elif roll < 0.85:
            label = rng.choice(world.labels)
            asked, answer = (
                phrasing.question(rng, item, label),
                world.style.dress(world.say(item, label)),
            )
        else:
            first, second = rng.sample(world.labels, 2)
            asked = phrasing.double_question(rng, item, first, second)
            answer = world.style.dress(f"{world.say(item, first)} {world.say(item, second)}")
        messages += [
            message("user", phrasing.roughen(rng, asked, (item,))),
            message("assistant", answer),
        ]
    return messages


# Shares of the documents. Looking up and remembering are most of it: they are what later training
# builds on.
MIXTURE: tuple[tuple[float, Callable[[Random], Messages] | None], ...] = (
    (0.34, None),  # memory_document, which also needs the corpus seed
    (0.09, lookup_document),
    (0.09, several_document),
    (0.11, fault_document),
    (0.05, aged_complaint_document),
    (0.03, unknown_document),
    (0.04, follow_up_document),
    (0.03, json_document),
    (0.03, list_document),
    (0.07, limit_document),
    (0.02, choose_document),
    (0.03, echo_document),
    (0.02, prose_document),
    (0.03, smalltalk_document),
    (0.02, rewrite_document),
)


def document(seed: str, number: int) -> Messages:
    """Document ``number`` of the corpus with ``seed``."""
    rng = Random(f"{seed}:{number}")
    (maker,) = rng.choices([maker for _, maker in MIXTURE], weights=[share for share, _ in MIXTURE])
    return maker(rng) if maker else memory_document(rng, seed)


def documents(seed: str, start: int = 0) -> Iterator[Messages]:
    """All documents from number ``start`` on, without end."""
    number = start
    while True:
        yield document(seed, number)
        number += 1


def main(argv: list[str] | None = None) -> int:
    """Print documents as JSON lines."""
    parser = argparse.ArgumentParser(
        description="Print documents of the pre-training corpus as JSON lines."
    )
    parser.add_argument("--seed", default="whet-base-1")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    args = parser.parse_args(argv)
    for number in range(args.start, args.start + args.count):
        sys.stdout.write(
            json.dumps({"messages": document(args.seed, number)}, ensure_ascii=False) + "\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
