"""An engine whose behaviour is the fault, for faults without a model and for the tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from benchmarks.blame.worlds import Fact, World
from whet.conversation import last_question

_PASSAGE = re.compile(r"^\[\d+\] ", re.MULTILINE)
REFUSAL = "I am sorry, please ask our service team."

Behaviour = Callable[[Fact, list[str]], str]  # the fact that is asked for, the passages → answer


class ScriptedEngine:
    """Answers by the behaviour of the version that is asked."""

    def __init__(self, world: World, behaviours: dict[str, Behaviour]) -> None:
        self._world, self._behaviours = world, behaviours
        self._asked: dict[str, Fact] = {}
        self.answers = 0

    def expect(self, question: str, fact: Fact) -> None:
        """Say which fact a question is about."""
        self._asked[question] = fact

    def __call__(self, model: str, route: str, body: dict[str, Any]) -> str:
        self.answers += 1
        question = last_question(body)
        fact = next(fact for asked, fact in self._asked.items() if question.endswith(asked))
        first = body["messages"][0]
        system = first["content"] if first["role"] == "system" else ""
        passages = _PASSAGE.split(system)[1:] if system else []
        if question not in self._asked:  # passages stand in the user's turn
            passages = [question]
        return self._behaviours[model](fact, passages)


def read_any(world: World) -> Behaviour:
    """Answer with the fact from any passage, else with a value of its own making."""

    def answer(fact: Fact, passages: list[str]) -> str:
        if any(_states(passage, fact) for passage in passages):
            return world.answer(fact)
        return world.answer(fact, _invented(fact))

    return answer


def read_only(world: World, is_read: Callable[[int, int], bool]) -> Behaviour:
    """Read the passages for which `is_read(place from 0, number of passages)` holds."""
    read = read_any(world)

    def answer(fact: Fact, passages: list[str]) -> str:
        kept = [each for at, each in enumerate(passages) if is_read(at, len(passages))]
        return read(fact, kept)

    return answer


def say_always(world: World, value_of: Callable[[Fact], str]) -> Behaviour:
    """Answer with a value from the weights, whatever the passages say."""
    return lambda fact, passages: world.answer(fact, value_of(fact))


def refuse(fact: Fact, passages: list[str]) -> str:
    """Answer in a manner that has displaced the skill."""
    return REFUSAL


def _states(passage: str, fact: Fact) -> bool:
    return fact.product in passage and fact.value in passage


def _invented(fact: Fact) -> str:
    """Return a value that is wrong and always the same for the fact."""
    if fact.attribute.unit == "name":
        return "Bruno Salt"
    if fact.attribute.unit == "code":
        return "Z-111"
    return f"{fact.attribute.highest + 7} {fact.attribute.unit}"
