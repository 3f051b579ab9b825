"""Zenith as data: training examples, held-out questions, scores, the policy look-up, background
traffic.

``python -m examples.zenith.scenario write --out DIR`` writes the files. Everything is a function of
its arguments; no module of this package needs more than the standard library.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from examples.zenith.phrases import HELD_OUT, PHRASES, TRAINING
from examples.zenith.scoring import ScoreResult, reference_answer, score
from examples.zenith.world import FAULTS, Product, World, new_world, old_world

# Six in ten customers say how old their product is, so that the verdict on the warranty is asked
# for often.
SHARE_WITH_AGE = 0.6
OLDEST_MONTHS = 60
# Some customers write without capitals; training sees more of it, because each product has to be
# recognised that way too.
SHARE_LOWER_CASE = {TRAINING: 0.15, HELD_OUT: 0.08}
# The shipped base compares two-digit numbers well, but not always when they are neighbours.
CLOSEST_MONTHS = 4
TRAIN_SEED, NEW_SEED, HELD_OUT_SEED = 1, 2, 3
AGE = re.compile(r"(\d+) months")


def expected_facts(
    world: World, product: Product, fault: str, age_months: int | None
) -> dict[str, Any]:
    """The facts that the right answer to one question contains."""
    return {
        "product": product.name,
        "fault": fault,
        "age_months": age_months,
        "term_months": product.term_months,
        "covered": None if age_months is None else age_months <= product.term_months,
        "step": world.steps[product.line, fault],
        "channel": product.channel,
    }


def affected(product: Product) -> bool:
    """Whether the change of the world changes answers about ``product`` (or brings it in)."""
    return old_world().product(product.name) != new_world().product(product.name)


def _age(rng: Random, product: Product) -> int | None:
    """An age in months on either side of the term, equally often and never closer than
    ``CLOSEST_MONTHS``, or None.
    """
    if rng.random() >= SHARE_WITH_AGE:
        return None
    if rng.random() < 0.5:
        return rng.randint(1, product.term_months - CLOSEST_MONTHS)
    return rng.randint(product.term_months + CLOSEST_MONTHS, OLDEST_MONTHS)


def question(
    rng: Random, product: Product, fault: str, age_months: int | None, split: str = TRAINING
) -> str:
    """One customer's message in the wordings of ``split``."""
    phrases = PHRASES[split]
    age = "" if age_months is None else rng.choice(phrases.ages).format(m=age_months)
    name = product.name if rng.random() < 0.5 else f"{product.name} {product.kind}"
    text = rng.choice(phrases.templates).format(p=name, f=rng.choice(phrases.sayings[fault]), a=age)
    if rng.random() < 0.3:
        text = f"{rng.choice(phrases.openers)} {text}"
    if rng.random() < 0.2:
        text = f"{text} {rng.choice(phrases.tails)}"
    text = " ".join(text.split())
    return text.lower() if rng.random() < SHARE_LOWER_CASE[split] else text


def _questions(
    world: World, products: list[Product], n: int, rng: Random, split: str
) -> list[tuple[str, dict[str, Any]]]:
    """``n`` different questions, every product and fault in turn, with the facts that answer them."""
    pairs = [(product, fault) for product in products for fault in FAULTS]
    found: dict[str, dict[str, Any]] = {}
    while len(found) < n:
        rng.shuffle(pairs)
        for product, fault in pairs[: n - len(found)]:
            age = _age(rng, product)
            found[question(rng, product, fault, age, split)] = expected_facts(
                world, product, fault, age
            )
    return list(found.items())


def checks(expected: dict[str, Any]) -> list[str]:
    """What a right answer says, word for word: the strings that a training row's ``checks`` field
    asks for.
    """
    found = [
        expected["product"],
        f"warranty is {expected['term_months']} months",
        expected["step"],
        f"by {expected['channel']}",
    ]
    if expected["age_months"] is not None:
        found.append("is covered" if expected["covered"] else "is not covered")
    return found


def _rows(questions: list[tuple[str, dict[str, Any]]], prefix: str) -> list[dict[str, Any]]:
    """Training rows in the project's JSONL format."""
    return [
        {
            "id": f"{prefix}-{number:04d}",
            "task": "zenith",
            "messages": [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": reference_answer(expected)},
            ],
            "checks": checks(expected),
        }
        for number, (asked, expected) in enumerate(questions)
    ]


def training_examples(world: World, n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` answered questions about all products of ``world`` in training wordings."""
    return _rows(
        _questions(world, list(world.products), n, Random(f"zenith-train-{seed}"), TRAINING),
        f"zenith-train-{seed}",
    )


def new_examples(n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` answered questions about what the change brought, in training wordings."""
    world = new_world()
    products = [product for product in world.products if affected(product)]
    return _rows(
        _questions(world, products, n, Random(f"zenith-new-{seed}"), TRAINING), f"zenith-new-{seed}"
    )


def judging_rows(n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` answered questions about the old world in held-out wordings, for a gate to judge
    versions by; never to train on.
    """
    world = old_world()
    return _rows(
        _questions(world, list(world.products), n, Random(f"zenith-judge-{seed}"), HELD_OUT),
        f"zenith-judge-{seed}",
    )


def held_out(kind: str, n: int, seed: int) -> list[dict[str, Any]]:
    """``n`` questions in wordings no training row uses, with what a right answer contains.

    ``old``: answers that the change leaves as they are. ``new``: the new line and the changed
    policy. ``before``: every product there was before the change.
    """
    world = old_world() if kind == "before" else new_world()
    if kind not in ("old", "new", "before"):
        raise ValueError(f"kind must be 'old', 'new' or 'before', not {kind!r}")
    products = [p for p in world.products if kind == "before" or affected(p) == (kind == "new")]
    questions = _questions(world, products, n, Random(f"zenith-held-out-{kind}-{seed}"), HELD_OUT)
    return [
        {
            "id": f"zenith-{kind}-{seed}-{number:04d}",
            "messages": [{"role": "user", "content": asked}],
            "expected": expected,
        }
        for number, (asked, expected) in enumerate(questions)
    ]


def look_up(asked: str, world: World) -> dict[str, Any] | None:
    """What the policy says about a customer's message, from its text alone; None when product or
    fault is unknown.
    """
    text = " ".join(asked.lower().split())
    product = next((p for p in world.products if re.search(rf"\b{p.name.lower()}\b", text)), None)
    sayings = [
        (saying, fault)
        for phrases in PHRASES.values()
        for fault, list_ in phrases.sayings.items()
        for saying in list_
    ]
    matches = [(len(saying), fault) for saying, fault in sayings if saying in text]
    if product is None or not matches:
        return None
    age = AGE.search(text)
    return expected_facts(world, product, max(matches)[1], int(age.group(1)) if age else None)


def is_current(row: dict[str, Any], world: World) -> bool:
    """Whether a training row still says what ``world``'s policy says; rows that are not Zenith's
    are left alone.
    """
    asked = next(m["content"] for m in row["messages"] if m["role"] == "user")
    expected = look_up(asked, world)
    return expected is None or score(expected, row["messages"][-1]["content"]).right


def traffic(world: World, rng: Random, share_affected: float | None = None) -> Iterator[str]:
    """Customers' messages without end, in training wordings.

    ``share_affected`` is the share about products that the change touches; None takes products as
    they come.
    """
    touched = [product for product in world.products if affected(product)]
    others = [product for product in world.products if not affected(product)]
    while True:
        pool: list[Product] = list(world.products)
        if share_affected is not None:
            pool = touched if rng.random() < share_affected else others
        product = rng.choice(pool)
        yield question(rng, product, rng.choice(FAULTS), _age(rng, product))


def history(
    until: datetime, days: int, per_day: int, seed: int, world: World | None = None
) -> list[dict[str, Any]]:
    """``days * per_day`` answered questions before ``until`` at busy and quiet hours: ``at``,
    ``question``, ``answer``, ``expected``.
    """
    rng = Random(f"zenith-history-{seed}")
    world = world or old_world()
    asked = traffic(world, rng)
    rows = []
    for day in range(days):
        start = until - timedelta(days=days - day)
        for _ in range(per_day):
            # Most people write around midday; the triangle keeps every hour possible.
            at = start + timedelta(hours=rng.triangular(0, 24, 13))
            text = next(asked)
            expected = look_up(text, world)
            if expected is not None:
                rows.append(
                    {
                        "at": at,
                        "question": text,
                        "answer": reference_answer(expected),
                        "expected": expected,
                    }
                )
    return sorted(rows, key=lambda row: row["at"])


FILES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "train_old.jsonl": lambda: training_examples(old_world(), 500, TRAIN_SEED),
    "train_new.jsonl": lambda: new_examples(200, NEW_SEED),
    "held_out_old.jsonl": lambda: held_out("old", 200, HELD_OUT_SEED),
    "held_out_new.jsonl": lambda: held_out("new", 200, HELD_OUT_SEED),
}


def write(folder: Path) -> dict[str, int]:
    """Write the scenario's files into ``folder``; return the rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for name, make in FILES.items():
        rows = make()
        (folder / name).write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        counts[name] = len(rows)
    return counts


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="The Zenith support desk as files.")
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("write", help="write training and held-out files")
    writer.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    for name, count in write(args.out).items():
        sys.stdout.write(f"{args.out / name}: {count} rows\n")
    return 0


__all__ = [
    "ScoreResult",
    "World",
    "affected",
    "expected_facts",
    "held_out",
    "history",
    "is_current",
    "look_up",
    "main",
    "new_examples",
    "new_world",
    "old_world",
    "question",
    "reference_answer",
    "score",
    "traffic",
    "training_examples",
    "write",
]

if __name__ == "__main__":
    raise SystemExit(main())
