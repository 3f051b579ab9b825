"""OpenAI's `weight` of an assistant message: 0 keeps it out of the loss, 1 learns it."""

from __future__ import annotations

from collections.abc import Sequence

from training.data.message import Message, Messages
from training.data.wrong import Wrong, shown

_OF_THE_ASSISTANT = "assistant"


def learned_turns(messages: Sequence[Message], mode: str) -> tuple[Messages, str, tuple[int, ...]]:
    """Return (messages without weights, mode, assistant turns that are not learned).

    `mode` is `last` or `all`. The turns are counted from 0 among those of the assistant, and are
    those that the returned mode would learn. A message without a weight is learned as the mode
    says. What follows the last learned turn teaches nothing and is cut off.
    Raises Wrong when nothing is left to learn, and for a weight that is neither 0 nor 1.
    """
    places = [at for at, message in enumerate(messages) if message["role"] == _OF_THE_ASSISTANT]
    weights = {at: _weight(at, messages[at]) for at in places}
    plain = [_without_weight(message) for message in messages]
    if all(weight is None for weight in weights.values()):
        return plain, mode, ()
    learned = [
        at
        for at in places
        if weights[at] == 1 or (weights[at] is None and (mode == "all" or at == places[-1]))
    ]
    if not learned:
        raise Wrong("the weight 0 on every answer", "an answer to learn: a weight of 1, or none")
    plain = plain[: learned[-1] + 1]
    places = [at for at in places if at <= learned[-1]]
    if learned == places[-1:]:
        return plain, "last", ()
    unlearned = tuple(number for number, at in enumerate(places) if at not in learned)
    return plain, "all", unlearned


def _weight(position: int, message: Message) -> int | None:
    weight = message.get("weight")
    if weight is None:
        return None
    if weight not in (0, 1):
        found = f"the weight of message {position + 1} is {shown(weight)}"
        raise Wrong(found, "0 or 1; how much a whole row counts is a 'weight' beside its messages")
    return int(weight)


def _without_weight(message: Message) -> Message:
    plain = message.copy()
    plain.pop("weight", None)
    return plain
