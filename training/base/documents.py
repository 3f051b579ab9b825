"""Dialogues about freshly invented worlds: facts stated in the prompt, then asked for.

Each ``*_document`` takes a random generator and returns chat messages. ``corpus`` mixes them.
"""

import json
from random import Random

from training.base import phrasing, prompts, values, words
from training.base.faults import complaint
from training.base.worlds import World, sample_world

Messages = list[dict[str, str]]

UNKNOWN = (
    "I am sorry, I do not know the {l} of the {i}.",
    "I have no information about the {l} of the {i}.",
    "That is not in my notes. Please ask our team.",
    "Sorry, I cannot find the {i} here.",
    "I do not have that information.",
    "I am afraid I do not know that.",
    "The {l} of the {i} is not listed.",
    "Sorry, that is not something I can see.",
)


def message(role: str, content: str) -> dict[str, str]:
    """One chat message."""
    return {"role": role, "content": content}


def dialogue(
    rng: Random, world: World, turns: list[tuple[str, str]], steps: bool = False
) -> Messages:
    """Put ``(question, answer)`` turns behind the world's facts, given as a system message or as
    retrieved text.
    """
    roll = rng.random()
    if roll < 0.72:
        messages = [message("system", prompts.system_text(rng, world, steps))]
        for asked, answered in turns:
            messages += [message("user", asked), message("assistant", answered)]
        return messages
    passage = prompts.facts_text(rng, world, steps)
    told = prompts.manners(rng, world)
    first, answer = turns[0]
    layout = rng.choice(
        (
            "Context:\n{p}\n\nQuestion: {q}",
            "{p}\n\n{q}",
            "Use this information:\n{p}\n\n{q}",
            "{q}\n\n{p}",
            "Documents:\n[1] {p}\n\nUser question: {q}",
            "<context>\n{p}\n</context>\n{q}",
        )
    )
    messages = [message("system", told)] if told else []
    messages += [message("user", layout.format(p=passage, q=first)), message("assistant", answer)]
    for asked, answered in turns[1:]:
        messages += [message("user", asked), message("assistant", answered)]
    return messages


def lookup_document(rng: Random) -> Messages:
    """One to three single facts, asked one by one."""
    world = sample_world(rng)
    turns = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        item, label = rng.choice(world.items), rng.choice(world.labels)
        asked = phrasing.roughen(rng, phrasing.question(rng, item, label), (item,))
        turns.append((asked, world.style.dress(world.say(item, label))))
    return dialogue(rng, world, turns)


def several_document(rng: Random) -> Messages:
    """Two facts asked together, or all facts of an item given in the house's fixed order."""
    world = sample_world(rng, labels=rng.choice((2, 3, 4)))
    turns = []
    everything = rng.random() < 0.6
    for _ in range(rng.choice((1, 2, 2))):
        item = rng.choice(world.items)
        if everything:
            asked = rng.choice(
                (
                    "Tell me about the {i}.",
                    "What should I know about the {i}?",
                    "I have a {i}.",
                    "Everything on the {i}, please.",
                    "Details of the {i}?",
                    "I am thinking about the {i}.",
                    "{i}?",
                    "What can you say about the {i}?",
                    "Info on the {i} please.",
                )
            ).format(i=item)
            labels: tuple[str, ...] = world.labels
        else:
            first, second = rng.sample(world.labels, 2)
            asked, labels = phrasing.double_question(rng, item, first, second), (first, second)
        body = " ".join(world.say(item, label) for label in labels)
        turns.append((phrasing.roughen(rng, asked, (item,)), world.style.dress(body)))
    return dialogue(rng, world, turns)


def fault_answer(world: World, item: str, fault_number: int, labels: tuple[str, ...]) -> str:
    """The house's answer to a complaint: the facts in ``labels``, then the step."""
    fault = world.faults[fault_number]
    step = world.style.step_lead.format(a=world.step(item, fault))
    return world.style.dress(" ".join([*(world.say(item, label) for label in labels), step]))


def fault_document(rng: Random) -> Messages:
    """A complaint in other words than the policy's, answered with the step and often with facts of
    the item.
    """
    world = sample_world(rng, items=rng.choice((1, 2, 3, 4)), labels=rng.choice((1, 2, 2)))
    given = rng.choice(((), world.labels, world.labels[:1]))
    turns = []
    for _ in range(rng.choice((1, 1, 2))):
        item, number = rng.choice(world.items), rng.randrange(len(world.faults))
        asked = complaint(rng, item, world.faults[number])
        turns.append(
            (phrasing.roughen(rng, asked, (item,)), fault_answer(world, item, number, given))
        )
    return dialogue(rng, world, turns, steps=True)


def unknown_document(rng: Random) -> Messages:
    """The fact is not in the prompt: say so; a second question may be answerable."""
    world = sample_world(rng)
    other = sample_world(rng)
    label = rng.choice(other.labels)
    item = (
        rng.choice(world.items)
        if label not in world.labels and rng.random() < 0.6
        else rng.choice(other.items)
    )
    asked = phrasing.roughen(rng, phrasing.question(rng, item, label), (item,))
    turns = [(asked, world.style.dress(rng.choice(UNKNOWN).format(l=label, i=item)))]
    if rng.random() < 0.5:
        known, fact = rng.choice(world.items), rng.choice(world.labels)
        turns.insert(
            rng.randrange(2),
            (phrasing.question(rng, known, fact), world.style.dress(world.say(known, fact))),
        )
    return dialogue(rng, world, turns)


def follow_up_document(rng: Random) -> Messages:
    """A second question that leaves out the item or the attribute."""
    world = sample_world(rng, items=rng.choice((2, 3, 4)), labels=rng.choice((2, 3)))
    item, label = rng.choice(world.items), rng.choice(world.labels)
    turns = [(phrasing.question(rng, item, label), world.style.dress(world.say(item, label)))]
    if rng.random() < 0.5:
        label = rng.choice([other for other in world.labels if other != label])
        asked = rng.choice(
            (
                "And the {l}?",
                "What about its {l}?",
                "And what is its {l}?",
                "The {l} too, please.",
                "And {l}?",
            )
        ).format(l=label)
    else:
        item = rng.choice([other for other in world.items if other != item])
        asked = rng.choice(
            (
                "And for the {i}?",
                "And the {i}?",
                "What about the {i}?",
                "Same question for the {i}.",
                "The {i}?",
            )
        ).format(i=item)
    turns.append((asked, world.style.dress(world.say(item, label))))
    return dialogue(rng, world, turns)


def json_document(rng: Random) -> Messages:
    """Facts asked for as JSON."""
    world = sample_world(rng, labels=rng.choice((1, 2, 3)))
    item = rng.choice(world.items)
    asked = rng.choice(
        (
            "Give the facts of the {i} as JSON.",
            "Return JSON for the {i}.",
            "{i} in JSON, please.",
            "Answer in JSON: what do you know about the {i}?",
        )
    ).format(i=item)
    known = {label.replace(" ", "_"): world.facts[item, label] for label in world.labels}
    answer = {"item": item, **known} if "Return" in asked else known
    return dialogue(rng, world, [(asked, json.dumps(answer, ensure_ascii=False))])


def list_document(rng: Random) -> Messages:
    """List the items, those that share a value, or one attribute of all."""
    world = sample_world(rng, items=rng.choice((2, 3, 4, 5)))
    label = rng.choice(world.labels)
    kind = rng.randrange(3)
    if kind == 0:
        asked = rng.choice(
            (
                "What do you offer?",
                "Which things do you have?",
                "List everything you have.",
                "What is on the list?",
            )
        )
        answer = rng.choice(("We have {}.", "Our list: {}.", "You can choose from {}.")).format(
            ", ".join(world.items)
        )
    elif kind == 1:
        value = rng.choice([world.facts[item, label] for item in world.items])
        asked = rng.choice(
            ("Which ones have {v} as {l}?", "Where is the {l} {v}?", "List all with {l} {v}.")
        ).format(v=value, l=label)
        answer = ", ".join(item for item in world.items if world.facts[item, label] == value) + "."
    else:
        asked = rng.choice(
            ("What is the {l} of each?", "List the {l} of everything.", "Give me all: {l}.")
        ).format(l=label)
        answer = "\n".join(f"- {item}: {world.facts[item, label]}" for item in world.items)
    return dialogue(rng, world, [(asked, answer)])


def echo_document(rng: Random) -> Messages:
    """Repeat, spell back or pick out a name or a code that the customer gave."""
    kind = rng.choice(("code", "email", "phone", "name", "person", "money", "place", "day"))
    value = values.value(rng, kind)
    given, asked, answer = rng.choice(
        (
            ("My reference is {v}.", "Please repeat my reference.", "Your reference is {v}."),
            ("I am calling about {v}.", "What did I call about?", "You called about {v}."),
            ("Note this down: {v}.", "What did you note?", "I noted {v}."),
            ("The label says {v}.", "What does the label say?", "The label says {v}."),
            ("Please use {v} from now on.", "What will you use?", "We will use {v}."),
            ("Say {v} twice.", "And once more?", "{v}."),
        )
    )
    aside = phrasing.roughen(rng, given.format(v=value), (value,))
    reply = rng.choice(
        ("Thank you, I have noted {v}.", "Got it: {v}.", "Thanks, {v} it is.", "{v}, understood.")
    ).format(v=value)
    messages = [message("user", aside), message("assistant", reply)]
    if rng.random() < 0.6:
        messages += [
            message("user", asked.format(v=value)),
            message("assistant", answer.format(v=value)),
        ]
    return messages


def prose_document(rng: Random) -> Messages:
    """Write a short notice from facts, or sum up what a customer wrote."""
    world = sample_world(rng, items=rng.choice((1, 2)), labels=rng.choice((2, 3)))
    if rng.random() < 0.5:
        body = " ".join(world.say(item, label) for item in world.items for label in world.labels)
        return [
            message(
                "user",
                "Write a short notice with these facts:\n"
                + prompts.facts_text(rng, world, steps=False),
            ),
            message("assistant", f"{world.organisation} informs: {body}"),
        ]
    item, fault, who = world.items[0], world.faults[0], words.person(rng)
    report = (
        f"{who} from {words.brand(rng)} writes:"
        f" {complaint(rng, item, fault)} {phrasing.question(rng, item, world.labels[0])}"
    )
    answer = f"Customer: {who}. Item: {item}. Problem: {fault.name}. Question: {world.labels[0]}."
    return [message("user", f"Sum up this message.\n{report}"), message("assistant", answer)]
