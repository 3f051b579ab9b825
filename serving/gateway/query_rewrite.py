"""Makes the last question of a conversation self-contained, so that a search finds what it is about.

One short answer of the base model, within a time limit; an adapter has learned to answer questions,
not to rewrite them. Whatever goes wrong, the question is searched as it stands.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from serving.gateway.core import Core
from serving.gateway.routing import Choice, pick_replica
from serving.gateway.upstream import UpstreamError
from whet.conversation import Message
from whet.json_types import JsonObject

LONGEST = 400  # characters of a question; a longer answer is something else
_MOST_TOKENS = 64
_TURNS = 4  # before the question; what an earlier one named was mostly named again
_TURN_CHARACTERS = 300  # of each: the call stays some hundred tokens
_INSTRUCTION = (
    "Rewrite the last question so that it can be understood without the conversation: put in the "
    "names that it refers to. Do not answer it. Write the question alone, in its own language."
)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How a rewriting went. `text` is the new question; `problem` says why there is none."""

    text: str = ""
    problem: str = ""
    took_ms: float = 0.0


def is_multi_turn(messages: Sequence[Message]) -> bool:
    """Tell whether there is anything that a question could refer to."""
    return sum(one.role == "user" and bool(one.content.strip()) for one in messages) > 1


async def rewrite_query(
    core: Core, choice: Choice, messages: Sequence[Message], timeout_s: float
) -> Rewrite:
    """Ask for the last question in a form that needs no conversation. Never raises for a failure."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            text, problem = await _ask(core, choice, messages)
    except TimeoutError:
        text, problem = "", f"it took longer than {timeout_s:g} s"
    return Rewrite(text, problem, (time.perf_counter() - started) * 1000)


async def _ask(core: Core, choice: Choice, messages: Sequence[Message]) -> tuple[str, str]:
    replica = pick_replica(choice.target.replicas)
    if replica is None:
        return "", "no engine is ready"
    body = {
        "model": replica.base_model,
        "messages": rewrite_prompt(messages),
        "temperature": 0,
        "max_tokens": _MOST_TOKENS,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    replica.in_flight += 1
    try:
        response = await core.upstream.post(
            replica.url, "/v1/chat/completions", msgspec.json.encode(body), "rewrite"
        )
        try:
            raw = await response.read()
        finally:
            response.close()
    except UpstreamError:
        return "", "the engine broke off"
    finally:
        replica.in_flight -= 1
    if response.status != 200:
        return "", f"the engine answered with status {response.status}"
    return read_rewrite(raw)


def rewrite_prompt(messages: Sequence[Message]) -> list[JsonObject]:
    """Return the messages that ask for the last question of `messages` in a form of its own."""
    turns = [one for one in messages if one.role in ("user", "assistant") and one.content.strip()]
    last = max(at for at, one in enumerate(turns) if one.role == "user")
    before = turns[max(0, last - _TURNS) : last]
    lines = [f"{one.role}: {' '.join(one.content.split())[:_TURN_CHARACTERS]}" for one in before]
    question = " ".join(turns[last].content.split())[-LONGEST:]
    asked = "\n".join([*lines, "", f"Last question: {question}"])
    return [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": asked}]


def read_rewrite(raw: bytes) -> tuple[str, str]:
    """Return the question that an engine's answer holds, or "" and why there is none."""
    try:
        choice = msgspec.json.decode(raw, type=_Completion).choices[0]
    except (msgspec.DecodeError, IndexError):
        return "", "the engine's answer is no completion"
    text = " ".join((choice.message.content or "").split()).strip('"\u201c\u201d ')
    if choice.finish_reason == "length" or len(text) > LONGEST:
        return "", "the model wrote more than a question"
    return text, "" if text else "the model wrote nothing"


class _Text(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Text
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
