"""Judges an answer by the key facts of the reviewer's: right, contradicting, or without them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from serving.blame.key_facts import Fact, FactKind, find_facts, is_negated
from serving.retrieval.stop_words import without_stop_words
from serving.retrieval.text_analysis import terms_of

# Words of a short answer without facts that stand for it; a longer text says the same in too many
# ways for words to tell.
_MAX_WORDS = 6


class Rule(StrEnum):
    """What answers are compared by."""

    FACTS = "facts"  # numbers, dates, codes, names, negation
    WORDS = "words"  # a short answer without facts: the words that the reviewer changed
    NOTHING = "nothing"  # a long answer without facts: people have to compare


class State(StrEnum):
    """How an answer compares with the reviewer's."""

    RIGHT = "right"
    CONTRADICTS = "contradicts"  # it says something else instead
    LACKS = "lacks"  # it does not say it


class KeyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must and must not say to be right."""

    rule: Rule
    required: tuple[Fact, ...] = ()
    excluded: tuple[Fact, ...] = ()  # what the logged answer said and the reviewer's does not
    known: tuple[Fact, ...] = ()  # of question and reviewed answer: they contradict nothing
    is_negated: bool | None = None  # None: the negation is not what the reviewer changed
    is_same: bool = False  # the logged answer says the same already


class Judgement(msgspec.Struct, frozen=True):
    """How an answer compares, and what it says instead."""

    state: State
    wrong: tuple[Fact, ...] = ()

    @property
    def is_right(self) -> bool:
        return self.state is State.RIGHT


def find_key_facts(question: str, reviewed: str, logged: str) -> KeyFacts:
    """Compare the reviewer's answer with the logged one.

    Key are the facts that the reviewer put in place of others. Facts of the question are echoes,
    unless the two answers choose between them.
    """
    asked, right, given = (find_facts(text) for text in (question, reviewed, logged))
    new = _without(right, given)
    gone = _without(given, right)
    own = _without(new, asked) or frozenset(fact for fact in new if _rivals(fact, gone))
    excluded = _without(gone, asked)
    is_denied = is_negated(reviewed)
    turned = is_denied != is_negated(logged)
    known = _sorted(right | asked)
    if not own and not excluded and not (turned and right):
        is_same = bool(_without(right, asked)) and not turned
        return _by_words(question, reviewed, logged, known, is_same=is_same)
    return KeyFacts(
        rule=Rule.FACTS,
        required=_sorted(own or _without(right, asked)),
        excluded=_sorted(excluded),
        known=known,
        is_negated=is_denied if turned and not own else None,
    )


def _by_words(
    question: str, reviewed: str, logged: str, known: tuple[Fact, ...], *, is_same: bool
) -> KeyFacts:
    right, given = _content_words(reviewed), _content_words(logged)
    if is_same or (right == given and is_negated(reviewed) == is_negated(logged)):
        return KeyFacts(rule=Rule.FACTS, is_same=True)
    new, gone = sorted(right - given - _content_words(question)), sorted(given - right)
    turned = is_negated(reviewed) != is_negated(logged)
    if (not new and not turned) or len(new) > _MAX_WORDS:
        return KeyFacts(rule=Rule.NOTHING)
    return KeyFacts(
        rule=Rule.WORDS,
        required=tuple(Fact(FactKind.WORD, word) for word in new),
        excluded=tuple(Fact(FactKind.WORD, word) for word in gone[:_MAX_WORDS]),
        known=known,
        is_negated=is_negated(reviewed) if turned else None,
    )


def judge(text: str, key: KeyFacts) -> Judgement:
    """Judge an answer. Right: every key fact is there, and none that it contradicts."""
    if key.rule is Rule.WORDS:
        return _judge_words(text, key)
    found = find_facts(text)
    missing = [fact for fact in key.required if not _is_in(fact, found, text)]
    wrong = [fact for fact in found if _is_in(fact, key.excluded)]
    if missing:
        wrong += [
            fact for fact in found
            if _rivals(fact, missing) and not _is_in(fact, key.known) and fact not in wrong
        ]  # fmt: skip
    if key.is_negated is not None and is_negated(text) != key.is_negated:
        wrong.append(Fact(FactKind.NEGATION, "" if key.is_negated else "not"))
    if wrong:
        return Judgement(State.CONTRADICTS, _sorted(wrong))
    return Judgement(State.LACKS if missing else State.RIGHT)


def have_common_error(left: Judgement, right: Judgement) -> bool:
    """Tell whether both say the same wrong thing, or both lack what is right."""
    if left.state is not right.state:
        return False
    if left.state is State.CONTRADICTS:
        return any(_is_in(fact, right.wrong) for fact in left.wrong)
    return True


def _judge_words(text: str, key: KeyFacts) -> Judgement:
    words = _content_words(text)
    missing = [fact for fact in key.required if fact.value not in words]
    wrong = [fact for fact in key.excluded if fact.value in words] if missing else []
    if key.is_negated is not None and is_negated(text) != key.is_negated:
        wrong.append(Fact(FactKind.NEGATION, "" if key.is_negated else "not"))
    if wrong:
        return Judgement(State.CONTRADICTS, _sorted(wrong))
    return Judgement(State.LACKS if missing else State.RIGHT)


def _rivals(fact: Fact, missing: Iterable[Fact]) -> bool:
    """Tell whether a fact stands where a missing one belongs: of its kind, in its unit."""
    return any(
        fact.kind is other.kind and (fact.unit == other.unit or not (fact.unit and other.unit))
        for other in missing
    )


def _is_in(fact: Fact, facts: Iterable[Fact], text: str = "") -> bool:
    if any(fact.equals(other) for other in facts):
        return True
    if fact.kind in (FactKind.NAME, FactKind.CODE) and text:
        # A name counts however it is written, and as a part of a longer one.
        return re.search(rf"(?<!\w){re.escape(fact.value)}(?!\w)", text.casefold()) is not None
    return False


def _without(facts: Iterable[Fact], others: Iterable[Fact]) -> frozenset[Fact]:
    kept = list(others)
    return frozenset(fact for fact in facts if not _is_in(fact, kept))


def _sorted(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    return tuple(sorted(set(facts), key=lambda fact: (fact.kind, fact.value, fact.unit)))


def _content_words(text: str) -> frozenset[str]:
    return frozenset(terms_of(without_stop_words(text, ["en"]), ["en"]))
