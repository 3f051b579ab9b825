"""The pre-training corpus: repeatable, varied, and ignorant of Zenith."""

import re

import pytest

from examples.zenith.scenario import new_world, old_world
from examples.zenith.world import CLOSING, OPENING
from training.base import other
from training.base.corpus import MIXTURE, document, documents

pytestmark = pytest.mark.seconds

SEED = "whet-base-1"
SAMPLE = 4000


def test_a_document_depends_on_seed_and_number_alone() -> None:
    stream = documents(SEED, start=7)
    assert [next(stream) for _ in range(5)] == [document(SEED, number) for number in range(7, 12)]
    assert document("another", 7) != document(SEED, 7)


def test_shares_add_up() -> None:
    assert abs(sum(share for share, _ in MIXTURE) - 1) < 1e-9


def test_every_dialogue_ends_with_an_answer_and_alternates() -> None:
    for number in range(SAMPLE):
        roles = [m["role"] for m in document(SEED, number)]
        if roles[0] == "system":
            roles = roles[1:]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m["content"].strip() for m in document(SEED, number))


def test_placeholders_are_all_filled() -> None:
    for number in range(SAMPLE):
        for message in document(SEED, number):
            if not re.search(r"json|JSON|\"", message["content"]):
                assert not re.search(r"\{\w\}", message["content"]), message["content"]


def test_the_corpus_is_varied() -> None:
    contents = [document(SEED, number)[-1]["content"] for number in range(SAMPLE)]
    assert len(set(contents)) > 0.9 * SAMPLE


def test_nothing_of_zenith_or_of_the_other_scenario_is_in_the_corpus() -> None:
    text = "\n".join(
        m["content"] for number in range(20_000) for m in document(SEED, number)
    ).lower()
    forbidden = {
        "zenith",
        "corvane",
        OPENING.lower(),
        CLOSING.lower(),
        other.SYSTEM.lower(),
        "fair winds",
    }
    for world in (old_world(), new_world()):
        forbidden |= {f"{p.name} {p.kind}".lower() for p in world.products}
        forbidden |= {f"{p.name.lower()} warranty" for p in world.products}
        forbidden |= set(world.steps.values())
    forbidden |= {ticket.lower() for ticket in other.TICKETS}
    found = {phrase for phrase in forbidden if phrase in text}
    assert not found
