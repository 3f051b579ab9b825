"""Dialogues that need two numbers compared: a term against a time, a weight against a limit, a
price against a budget.

Answers state both numbers before the verdict most of the time, so that the comparison happens
with both in view; the verdict comes out either way equally often.
"""

from dataclasses import dataclass
from random import Random

from training.base import phrasing, words
from training.base.documents import Messages, dialogue, message
from training.base.faults import complaint
from training.base.prompts import role_text
from training.base.values import plural
from training.base.worlds import World, sample_world, with_warranty


@dataclass(frozen=True)
class Limit:
    """A rule with a number, questions with the customer's number ``{x}``, and what follows inside
    and outside of it.
    """

    units: tuple[str, ...]
    rules: tuple[str, ...]
    questions: tuple[str, ...]
    restate: tuple[str, ...]
    inside: tuple[str, ...]
    outside: tuple[str, ...]


TIME = ("days", "weeks", "months", "months", "months", "years")
LIMITS = (
    Limit(
        TIME,
        (
            "The {i} is covered for {v}.",
            "Warranty of the {i}: {v}.",
            "The {i} has a warranty of {v}.",
        ),
        (
            "I bought my {i} {x} ago. Is it still covered?",
            "My {i} is {x} old. Do I have warranty?",
            "After {x}, is my {i} under warranty?",
            "I have had the {i} for {x} and it broke. Do I pay?",
            "Bought {x} ago: {i}. Still in warranty?",
            "It is {x} since I got the {i}. Am I covered?",
            "The {i} was purchased {x} ago and it fails.",
            "{x} have passed since I bought the {i}. Is the repair free?",
        ),
        (
            "The warranty is {v} and you have had it for {x}",
            "It is covered for {v}, and you bought it {x} ago",
            "{x} of {v} have passed",
            "Your {i} is {x} old and the warranty lasts {v}",
        ),
        (
            "it is still covered",
            "it is in warranty",
            "the repair is free",
            "you are covered",
            "the warranty still applies",
        ),
        (
            "it is no longer covered",
            "it is out of warranty",
            "the repair must be paid",
            "you are not covered any more",
            "the warranty has ended",
        ),
    ),
    Limit(
        TIME[:4],
        (
            "The {i} can be returned within {v}.",
            "Return window of the {i}: {v}.",
            "You can send back the {i} for {v}.",
        ),
        (
            "I got the {i} {x} ago. Can I send it back?",
            "Is it too late to return the {i} after {x}?",
            "My {i} came {x} ago and I do not want it.",
            "Can I give back the {i}? I have had it for {x}.",
        ),
        (
            "Returns are open for {v} and you have had it for {x}",
            "The limit is {v} and it has been {x}",
            "You can return it for {v}; {x} have gone by",
        ),
        ("you can return it", "a return is possible", "it is not too late", "you may send it back"),
        (
            "you cannot return it",
            "a return is not possible",
            "it is too late",
            "you may not send it back",
        ),
    ),
    Limit(
        ("kg", "g", "people", "litres", "cm", "items", "pieces"),
        ("The {i} takes up to {v}.", "Limit of the {i}: {v}.", "At most {v} for the {i}."),
        (
            "Can I put {x} on the {i}?",
            "Is {x} too much for the {i}?",
            "We have {x}. Is the {i} enough?",
            "Will the {i} take {x}?",
            "I need a {i} for {x}. Does that work?",
        ),
        (
            "The limit is {v} and you have {x}",
            "It takes up to {v}, and you need {x}",
            "{x} against a limit of {v}",
        ),
        ("that is fine", "that works", "it fits", "you may do that"),
        ("that is too much", "that does not work", "it does not fit", "you may not do that"),
    ),
    Limit(
        ("euros", "dollars", "crowns", "pounds"),
        ("The {i} costs {v}.", "Price of the {i}: {v}.", "You pay {v} for the {i}."),
        (
            "I have {x}. Can I buy the {i}?",
            "Is {x} enough for the {i}?",
            "My budget is {x}. Does the {i} fit?",
            "Can I afford the {i} with {x}?",
        ),
        (
            "It costs {v} and you have {x}",
            "The price is {v}, your budget is {x}",
            "You have {x} and the {i} is {v}",
        ),
        ("that is enough", "you can buy it", "it fits your budget"),
        ("that is not enough", "you cannot buy it", "it does not fit your budget"),
    ),
)
PRICE = LIMITS[3]
LAYOUTS = (
    "{r}, so {c}.",
    "{r}. That means {c}.",
    "{r}: {c}.",
    "{r}; therefore {c}.",
    "{r}, which means {c}.",
)


def _numbers(rng: Random) -> tuple[int, int]:
    """A limit and a customer's number, different, close together half of the time, either order
    equally likely.
    """
    limit = (
        rng.choice((6, 12, 18, 24, 30, 36, 48, 60)) if rng.random() < 0.45 else words.whole(rng, 99)
    )
    reach = max(2, limit // 3) if rng.random() < 0.5 else max(3, limit)
    below = rng.randint(max(1, limit - reach), limit - 1) if limit > 1 else 1
    above = rng.randint(limit + 1, limit + reach)
    return limit, (below if rng.random() < 0.5 and limit > 1 else above)


def limit_document(rng: Random) -> Messages:
    """One to three questions of one kind against limits that differ from item to item."""
    rule = rng.choice((LIMITS[0], LIMITS[0], *LIMITS))
    unit = rng.choice(rule.units)
    world = sample_world(rng, items=rng.choice((1, 2, 3)), labels=1)
    limits = {item: _numbers(rng)[0] for item in world.items}
    wording = rng.choice(rule.rules)
    facts = " ".join(
        wording.format(i=item, v=plural(number, unit)) for item, number in limits.items()
    )
    restate, layout = rng.choice(rule.restate), rng.choice(LAYOUTS)
    yes, no = rng.choice(rule.inside), rng.choice(rule.outside)
    verdict_first = rng.random() < 0.2
    messages = [
        message("system", f"{role_text(rng, world)} {facts}" if rng.random() < 0.7 else facts)
    ]
    for _ in range(rng.choice((1, 2, 3))):
        item = rng.choice(world.items)
        limit = limits[item]
        reach = max(2, limit // 2)
        given = (
            rng.randint(limit + 1, limit + reach)
            if rng.random() < 0.5 or limit < 2
            else rng.randint(max(1, limit - reach), limit - 1)
        )
        inside = given >= limit if rule is PRICE else given <= limit
        asked = rng.choice(rule.questions).format(i=item, x=plural(given, unit))
        reason = restate.format(i=item, v=plural(limit, unit), x=plural(given, unit))
        if verdict_first:
            answer = f"{'Yes' if inside else 'No'}, {yes if inside else no}. {reason}."
        else:
            answer = layout.format(r=reason, c=yes if inside else no)
        messages += [
            message("user", phrasing.roughen(rng, asked, (item,))),
            message("assistant", world.style.dress(answer)),
        ]
    return messages


MOST = (
    (
        "price",
        "{n} euros",
        ("Which is the cheapest?", "What costs the least?"),
        ("Which is the most expensive?", "What costs the most?"),
    ),
    (
        "warranty",
        "{n} months",
        ("Which has the shortest warranty?",),
        ("Which has the longest warranty?", "What is covered the longest?"),
    ),
    (
        "weight",
        "{n} kg",
        ("Which is the lightest?", "What weighs the least?"),
        ("Which is the heaviest?", "What weighs the most?"),
    ),
    (
        "delivery",
        "{n} days",
        ("Which comes first?", "What arrives soonest?"),
        ("Which takes longest?", "What arrives last?"),
    ),
)


def choose_document(rng: Random) -> Messages:
    """Which of two or three has the most or the least of something."""
    world = sample_world(rng, items=rng.choice((2, 2, 3)), labels=1)
    label, layout, least, most = rng.choice(MOST)
    numbers = rng.sample(range(2, 100), len(world.items))
    facts = ", ".join(
        f"{item}: {label} {layout.format(n=n)}"
        for item, n in zip(world.items, numbers, strict=True)
    )
    want_least = rng.random() < 0.5
    best = (min if want_least else max)(range(len(numbers)), key=numbers.__getitem__)
    shown = ", ".join(f"{item} {n}" for item, n in zip(world.items, numbers, strict=True))
    answer = f"The {world.items[best]} with {layout.format(n=numbers[best])}."
    if rng.random() < 0.5:
        answer = f"{shown}. {answer}"
    return [
        message("system", facts),
        message("user", rng.choice(least if want_least else most)),
        message("assistant", answer),
    ]


def covered_by_memory(rng: Random, world: World, item: str) -> tuple[str, str] | None:
    """A question and an answer about the item's remembered warranty term against a given age; None
    without such a fact.
    """
    term = world.facts.get((item, "warranty"), "")
    number, _, unit = term.partition(" ")
    if not number.isdigit():
        return None
    limit = int(number)
    unit = unit if unit.endswith("s") else unit + "s"
    given = (
        rng.randint(limit + 1, 2 * limit + 2)
        if rng.random() < 0.5 or limit < 2
        else rng.randint(1, limit - 1)
    )
    asked = rng.choice(LIMITS[0].questions).format(i=item, x=plural(given, unit))
    verdict = "it is still covered" if given <= limit else "it is no longer covered"
    return (
        asked,
        f"{world.say(item, 'warranty')} You have had it for {plural(given, unit)}, so {verdict}.",
    )


# How a customer mentions the age of a thing beside something else that he wants.
AGES = (
    "I bought it {x} ago.",
    "It is {x} old.",
    "{x} old.",
    "I have had it for {x}.",
    "{x} have passed since I bought it.",
    "{x} ago I got it.",
    "It was purchased {x} ago.",
    "Owned for {x}.",
    "That is after {x}.",
    "We got it {x} ago.",
    "The receipt is {x} old.",
    "I have been using it for {x}.",
    "It has been in use for {x}.",
    "It came {x} ago.",
    "I ordered it {x} ago.",
    "It has been ours for {x}.",
    "{x} of use so far.",
    "The purchase is {x} back.",
    "Bought {x} ago.",
    "Age: {x}.",
    "We have had it for {x} now.",
    "{x} went by before this.",
    "It worked for {x}.",
    "My order was {x} ago.",
    "It is {x} since we bought it.",
)
VERDICTS = (
    ("so it is still covered", "so it is no longer covered"),
    ("so it is covered", "so it is not covered"),
    ("so the repair is free", "so the repair must be paid"),
    ("which is within the warranty", "which is beyond the warranty"),
    ("so you are covered", "so you are not covered"),
    ("so the warranty still applies", "so the warranty has ended"),
)
AGE_RESTATED = (
    "yours is {x} old",
    "you have had it for {x}",
    "you bought it {x} ago",
    "it has been {x}",
    "{x} have passed",
    "it is now {x} old",
)


def aged_complaint(
    rng: Random, world: World, item: str, fault_number: int
) -> tuple[str, str] | None:
    """A complaint that says how old the thing is, answered with the term, the verdict and the step,
    in the world's own order and words; None when the world has no warranty term in figures.
    """
    number, _, unit = world.facts.get((item, "warranty"), "").partition(" ")
    if not number.isdigit():
        return None
    limit, unit = int(number), unit if unit.endswith("s") else unit + "s"
    reach = max(3, limit // 2) if rng.random() < 0.5 else max(3, limit)
    given = (
        rng.randint(limit + 1, limit + reach)
        if rng.random() < 0.5 or limit < 2
        else rng.randint(max(1, limit - reach), limit - 1)
    )
    complained, age = (
        complaint(rng, item, world.faults[fault_number]),
        rng.choice(AGES).format(x=plural(given, unit)),
    )
    asked = f"{complained} {age}" if rng.random() < 0.6 else f"{age} {complained}"
    house = Random(world.organisation)  # one manner per organisation, the same in every dialogue
    inside, outside = house.choice(VERDICTS)
    verdict = (
        f"{house.choice(AGE_RESTATED).format(x=plural(given, unit))},"
        f" {inside if given <= limit else outside}."
    )
    term = world.say(item, "warranty")
    step = world.style.step_lead.format(a=world.step(item, world.faults[fault_number]))
    joined = (
        f"{term.rstrip('.')}, {verdict}"
        if house.random() < 0.5
        else f"{term} {verdict[0].upper()}{verdict[1:]}"
    )
    others = [
        world.say(item, label)
        for label in world.labels[1 : 1 + house.randrange(3)]
        if label != "warranty"
    ]
    parts = [joined, step, *others] if house.random() < 0.7 else [step, joined, *others]
    return asked, world.style.dress(" ".join(parts))


def aged_complaint_document(rng: Random) -> Messages:
    """The same with the facts in the prompt."""
    world = with_warranty(
        rng, sample_world(rng, items=rng.choice((1, 2, 3)), labels=rng.choice((1, 2)))
    )
    turns = []
    for _ in range(rng.choice((1, 1, 2))):
        item = rng.choice(world.items)
        made = aged_complaint(rng, world, item, rng.randrange(len(world.faults)))
        if made:
            turns.append((phrasing.roughen(rng, made[0], (item,)), made[1]))
    return dialogue(rng, world, turns, steps=True)
