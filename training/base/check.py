"""What the base can do without any adapter: ``python -m training.base.check --base FOLDER``.

Asks about freshly invented worlds, greedily, and counts answers that contain what they must. The
wording is free, so this measures the skill and not the style.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch

from training.base import phrasing, prompts
from training.base.comparing import LIMITS
from training.base.documents import message
from training.base.probe import answers
from training.base.values import plural, value
from training.base.worlds import sample_world
from training.machine.device import compute_dtype
from training.models.base_model import BaseModel

Task = tuple[list[dict[str, str]], Callable[[str], bool]]
SEED = "whet-base-check"
UNKNOWN_WORDS = ("not", "no information", "cannot")


def look_up(rng: Random) -> Task:
    """One fact of one of several items, stated in a system message."""
    world = sample_world(rng, items=rng.choice((2, 3, 4)), labels=rng.choice((1, 2, 3)))
    item, label = rng.choice(world.items), rng.choice(world.labels)
    asked = phrasing.roughen(rng, phrasing.question(rng, item, label), (item,))
    return [
        message("system", prompts.system_text(rng, world)),
        message("user", asked),
    ], lambda answer: world.facts[item, label] in answer


def unknown(rng: Random) -> Task:
    """A fact about an item that is not in the prompt."""
    world, other = sample_world(rng, items=3), sample_world(rng)
    item, label = other.items[0], rng.choice(other.labels)
    asked = phrasing.question(rng, item, label)
    messages = [message("system", prompts.system_text(rng, world)), message("user", asked)]
    return messages, lambda answer: any(word in answer.lower() for word in UNKNOWN_WORDS)


def compare(rng: Random) -> Task:
    """Months since purchase against a stated warranty term; either verdict equally often."""
    rule = LIMITS[0]
    item = sample_world(rng, items=1).items[0]
    term = rng.choice((6, 12, 18, 24, 30, 36, 48))
    age = rng.randint(1, term - 1) if rng.random() < 0.5 else rng.randint(term + 1, 2 * term)
    facts = rng.choice(rule.rules).format(i=item, v=plural(term, "months"))
    asked = rng.choice(rule.questions).format(i=item, x=plural(age, "months"))
    endings = tuple(f"{ending}" for ending in (rule.inside if age <= term else rule.outside))
    return [message("system", facts), message("user", asked)], lambda answer: any(
        ending in answer for ending in endings
    )


def echo(rng: Random) -> Task:
    """A code, name or address the customer gave, asked back in the next turn."""
    given = value(rng, rng.choice(("code", "email", "phone", "name", "person")))
    messages = [
        message("user", f"My reference is {given}."),
        message("assistant", f"Got it: {given}."),
        message("user", "Please repeat my reference."),
    ]
    return messages, lambda answer: given in answer


TASKS = {"look_up": look_up, "unknown": unknown, "compare": compare, "echo": echo}


def check(folder: Path, questions: int, threads: int) -> dict[str, object]:
    """Share of right answers per task."""

    torch.set_num_threads(threads)
    base = BaseModel(folder, folder.name)
    model = base.load_model(compute_dtype("auto"))
    found: dict[str, object] = {"base": str(folder), "questions": questions}
    for name, make in TASKS.items():
        tasks = [make(Random(f"{SEED}:{name}:{number}")) for number in range(questions)]
        given = answers(model, base, [messages for messages, _ in tasks], limit=60)
        found[name] = round(
            sum(right(answer) for (_, right), answer in zip(tasks, given, strict=True)) / questions,
            4,
        )
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="What the base can do without an adapter.")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    sys.stdout.write(json.dumps(check(args.base, args.questions, args.threads)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
