"""Tells whether a passage states facts, and about the thing that the question asks about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from serving.blame.key_facts import DOCUMENTABLE, Fact, FactKind, find_facts, find_names
from serving.retrieval.records import Hit
from serving.retrieval.stop_words import without_stop_words
from serving.retrieval.text_analysis import terms_of

# Of the question's words where it names nothing: less is another topic, more is another wording.
_MIN_SHARE = 0.5
# A line that stands for itself, whatever the one before is about.
_ROW = re.compile(r"\s*(?:[|*•-]|\d+[.)])")
_UNIT_END = re.compile(r"(?<=[.!?;])\s+|\n+")


class Subject(msgspec.Struct, frozen=True):
    """What a question is about: the names in it, and the words that tell passages apart."""

    names: tuple[str, ...]
    terms: frozenset[str]


def find_subject(question: str, answers: Iterable[str] = (), hits: Iterable[Hit] = ()) -> Subject:
    """Return the subject. A name that the answers write large counts as one in the question.

    Words that more than half of the passages have are common to all of them, and say nothing.
    """
    folded = question.casefold()
    names = set(find_names(question))
    for answer in answers:
        names |= {name for name in find_names(answer) if _has_word(name, folded)}
    terms = _terms(question)
    texts = [_terms(f"{hit.title}\n{hit.section}\n{hit.text}") for hit in hits]
    telling = {term for term in terms if 2 * sum(term in text for text in texts) <= len(texts)}
    return Subject(tuple(sorted(names)), frozenset(telling) or terms)


def supports(hit: Hit, facts: Iterable[Fact], subject: Subject) -> bool:
    """Tell whether the passage states each of the facts about the subject.

    Facts that no document states word for word (negation, single words) are not looked for;
    without any other the answer is False.
    """
    wanted = [fact for fact in facts if fact.kind in DOCUMENTABLE]
    heading = f"{hit.title}\n{hit.section}"
    windows = list(_windows(hit.text))
    return bool(wanted) and all(
        any(_states(fact, unit) and _is_about(subject, heading, unit, before, fact)
            for unit, before in windows)
        for fact in wanted
    )  # fmt: skip


def _windows(text: str) -> Iterator[tuple[str, str]]:
    """Yield each sentence or line with the one before it."""
    before = ""
    for unit in _UNIT_END.split(text):
        if unit.strip():
            yield unit, before
            before = unit


def _states(fact: Fact, unit: str) -> bool:
    if any(fact.equals(found) for found in find_facts(unit)):
        return True
    is_text = fact.kind in (FactKind.NAME, FactKind.CODE)
    return is_text and _has_word(fact.value, unit.casefold())


def _is_about(subject: Subject, heading: str, unit: str, before: str, fact: Fact) -> bool:
    if not subject.names:
        found = _terms(f"{heading}\n{before}\n{unit}")
        return len(subject.terms & found) >= _MIN_SHARE * max(1, len(subject.terms))
    if _names_any(subject, unit):
        return True
    others = [name for name in find_names(unit) if name not in fact.value]
    if _names_any(subject, heading):
        # Of several things in a heading, the one that the sentence names is meant.
        return not any(_has_word(name, heading.casefold()) for name in others)
    return not others and not _ROW.match(unit) and _names_any(subject, before)


def _names_any(subject: Subject, text: str) -> bool:
    folded = text.casefold()
    return any(_has_word(name, folded) for name in subject.names)


def _has_word(word: str, folded: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", folded) is not None


def _terms(text: str) -> frozenset[str]:
    return frozenset(terms_of(without_stop_words(text, ["en"]), ["en"]))
