"""Facts are found, brought into one form, and compared."""

from __future__ import annotations

import msgspec
import pytest

from serving.blame.judging import Rule, State, find_key_facts, judge
from serving.blame.key_facts import find_facts, is_negated
from serving.blame.support import find_subject, supports
from serving.retrieval.records import Hit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It has 24 months.", "The warranty is two years."),
        ("It weighs 1.5 kg.", "It weighs 1500 g."),
        ("It costs €9.50.", "The price is 9.5 euros."),
        ("It costs 1,200 euros.", "You pay 1.200,00 euros."),
        ("Open until 8:15 pm.", "We close at 20:15."),
        ("On 1 March 2026.", "The day is 2026-03-01."),
        ("From March 1st, 2026.", "Since 01.03.2026."),
        ("a 24-month warranty", "it lasts 24 months"),
        ("You save 15%.", "It is 15 percent less."),
        ("Take part K-204.", "The part is k-204, please."),
    ],
)
def test_same_fact_in_two_wordings(one: str, other: str) -> None:
    assert find_facts(one) and find_facts(one) == find_facts(other)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("Returns are open.", []),
        ("The Varo lamp is sold by Rafael Olsen.", ["rafael olsen", "varo"]),
        ("Rafael Olsen sells it.", ["rafael olsen"]),
        ("Berlin.", ["berlin"]),
        ("One of them is 3 kg.", ["3000 grams"]),
        ("Write to help@shop.example.", ["help@shop.example"]),
        ("Set max_connections to 20.", ["20", "max_connections"]),
        ("Call 280 6338 today.", ["280 6338"]),
    ],
)
def test_facts_of_a_text(text: str, facts: list[str]) -> None:
    assert sorted(map(str, find_facts(text))) == sorted(facts)


def test_negation() -> None:
    assert is_negated("It isn't covered.") and is_negated("You cannot return it.")
    assert not is_negated("It is covered. Note the date.")


QUESTION = "How long is the warranty of the Varo lamp?"
LOGGED = "The Varo lamp has a warranty of 12 months."


@pytest.mark.parametrize(
    ("reviewed", "answer", "state"),
    [
        ("It is 34 months.", "The warranty lasts 34 months.", State.RIGHT),
        ("It is 34 months.", "Returns within 14 days, warranty 34 months.", State.RIGHT),
        ("It is 34 months.", "It was 12 months, now 34 months.", State.CONTRADICTS),
        ("It is 34 months.", "The warranty lasts 20 months.", State.CONTRADICTS),
        ("It is 34 months.", "Please ask our team.", State.LACKS),
        ("It has no warranty.", "There is not any warranty.", State.RIGHT),
        ("It has no warranty.", "It has 12 months.", State.CONTRADICTS),
    ],
)
def test_an_answer_is_judged_by_what_the_reviewer_changed(
    reviewed: str, answer: str, state: State
) -> None:
    key = find_key_facts(QUESTION, reviewed, LOGGED)
    assert key.rule is Rule.FACTS and not key.is_same
    assert judge(LOGGED, key).state is State.CONTRADICTS
    assert judge(answer, key).state is state


def test_another_wording_of_the_same_facts_is_the_same() -> None:
    assert find_key_facts(QUESTION, "A year of warranty: 12 months, that is.", LOGGED).is_same
    assert find_key_facts(QUESTION, "The Varo lamp has 12 months.", "Its term: 12 months.").is_same
    assert find_key_facts("Is it open?", "Yes, it is open.", "Yes it is open!").is_same


def test_answers_that_choose_between_facts_of_the_question_differ() -> None:
    key = find_key_facts("Is it 12 or 24 months?", "It is 24 months.", "It is 12 months.")
    assert judge("24 months.", key).is_right and not judge("12 months.", key).is_right


def test_a_short_answer_without_facts_is_compared_by_its_words() -> None:
    key = find_key_facts("Which button?", "Press the blue one.", "Press the red one.")
    assert key.rule is Rule.WORDS
    assert judge("The blue button, please.", key).is_right
    assert judge("The red button, please.", key).state is State.CONTRADICTS


def test_a_long_answer_without_facts_is_for_people() -> None:
    reviewed = (
        "open the cover, clean the inner filter with warm water, let it dry, close everything"
    )
    assert find_key_facts("What now?", reviewed, "just wait").rule is Rule.NOTHING


PAGE = Hit(
    passage_id="p", document_id="d", collection="c", title="Warranties", address="w.md", section="",
    text="| product | warranty |\n| Varo lamp | 24 months |\n| Kelt kettle | 36 months |", score=0,
)  # fmt: skip


def test_a_passage_supports_a_fact_only_of_its_subject() -> None:
    subject = find_subject("How long is the warranty of the Varo lamp?")
    assert supports(PAGE, find_facts("24 months"), subject)
    assert not supports(PAGE, find_facts("36 months"), subject)
    assert not supports(PAGE, find_facts("12 months"), subject)
    lower = find_subject("warranty of my varo lamp", ["The Varo lamp has 24 months."])
    assert not supports(PAGE, find_facts("36 months"), lower)
    assert not supports(PAGE, (), subject)


def test_words_that_most_passages_have_tell_nothing_of_the_subject() -> None:
    lamps, kettles = (
        msgspec.structs.replace(PAGE, title="", text=f"{name} are kept 12 months.")
        for name in ("Lamps", "Kettles")
    )
    subject = find_subject("How many months are lamps kept?", (), [lamps, kettles])
    assert supports(lamps, find_facts("12 months"), subject)
    assert not supports(kettles, find_facts("12 months"), subject)
