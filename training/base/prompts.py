"""System messages and retrieved passages: the places where a world's facts are stated."""

import json
from random import Random

from training.base.worlds import World

ROLES = (
    "You are the assistant of {o}, a {k}.",
    "You answer customers of {o} ({k}).",
    "You work at the {k} {o}.",
    "{o} support desk.",
    "You are a helpful agent for {o}.",
    "Assistant of the {k} {o}.",
    "You help the customers of {o}.",
    "Role: service desk of {o}.",
)
RULES = (
    "Answer in one short sentence.",
    "Be brief.",
    "Be polite.",
    "Use only these facts.",
    "Answer from the facts below.",
    "Do not make anything up.",
    "If you do not know, say so.",
    "Answer in a friendly way.",
    "Keep it short and exact.",
)


def facts_lines(rng: Random, world: World) -> list[tuple[str, str]]:
    """All facts of a world as ``(item, "label value")`` pairs in random order."""
    pairs = [(item, f"{label} {value}") for (item, label), value in world.facts.items()]
    rng.shuffle(pairs)
    return pairs


def facts_text(rng: Random, world: World, steps: bool = True) -> str:
    """The facts of a world in one of seven layouts, with the steps for its faults when ``steps``."""
    layout = rng.randrange(7)
    if layout == 0:
        text = "\n".join(f"- {item}: {fact}" for item, fact in facts_lines(rng, world))
    elif layout == 1:
        text = " ".join(world.say(item, label) for item, label in world.facts if True)
        if "It is" in text or "Its " in text:
            text = " ".join(f"{item}: {fact}." for item, fact in facts_lines(rng, world))
    elif layout == 2:
        rows = [
            " | ".join((item, *(world.facts[item, label] for label in world.labels)))
            for item in world.items
        ]
        text = "\n".join((" | ".join(("item", *world.labels)), *rows))
    elif layout == 3:
        text = json.dumps(
            {
                item: {label: world.facts[item, label] for label in world.labels}
                for item in world.items
            },
            ensure_ascii=False,
        )
    elif layout == 4:
        text = "\n".join(
            f"{item}: " + ", ".join(f"{label} {world.facts[item, label]}" for label in world.labels)
            for item in world.items
        )
    elif layout == 5:
        text = "; ".join(
            f"{label} of {item} = {world.facts[item, label]}" for item, label in world.facts
        )
    else:
        text = "\n".join(
            f"{label}: " + ", ".join(f"{item} {world.facts[item, label]}" for item in world.items)
            for label in world.labels
        )
    if steps:
        lead = rng.choice(
            (
                "If {f}: {a}.",
                "{f}: {a}.",
                "In case of {f}, {a}.",
                "When the fault is {f}, {a}.",
                "- {f} -> {a}",
            )
        )
        text += "\n" + "\n".join(
            lead.format(f=fault.name, a=world.steps["", fault.name]) for fault in world.faults
        )
    return text


def role_text(rng: Random, world: World) -> str:
    """One line saying who the assistant is."""
    return rng.choice(ROLES).format(o=world.organisation, k=rng.choice(world.domain.organisations))


def manners(rng: Random, world: World) -> str:
    """The world's opening and closing as instructions; empty when it has none."""
    parts = []
    if world.style.opening:
        parts.append(
            rng.choice(
                ('Begin with "{}"', 'Start every answer with "{}"', 'First say "{}"')
            ).format(world.style.opening)
        )
    if world.style.closing:
        parts.append(
            rng.choice(('End with "{}"', 'Close with "{}"', 'The last words are "{}"')).format(
                world.style.closing
            )
        )
    return ". ".join(parts) + "." if parts else ""


def system_text(rng: Random, world: World, steps: bool = False) -> str:
    """A complete system message: role, rules, manners and facts in random order."""
    blocks = [facts_text(rng, world, steps)]
    if rng.random() < 0.7:
        blocks.insert(0, role_text(rng, world))
    if rng.random() < 0.4:
        blocks.insert(rng.randrange(len(blocks) + 1), rng.choice(RULES))
    told = manners(rng, world)
    if told:
        blocks.insert(rng.randrange(len(blocks) + 1), told)
    return "\n".join(blocks)
