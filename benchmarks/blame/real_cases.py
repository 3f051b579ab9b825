"""Faults and controls as a real model makes them: asked, answered, and kept where they occur.

Every answer is the model's own, every passage the search's. What is planted is the world: a
document that is not there, a cut, an adapter trained on old values or on refusals. `ignored` and
`base's limits` are kept where the base's own answers are wrong with the right passage among others,
or alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from benchmarks.blame.models import Row, Versions, as_row
from benchmarks.blame.planted import Planted, approval, build_case, correction, request_of
from benchmarks.blame.scripted import REFUSAL
from benchmarks.blame.shops import IndexedShop
from benchmarks.blame.worlds import Fact, World
from serving.blame.records import Review
from serving.retrieval.records import Hit, SearchRequest
from whet.rag_prompt import format_passage, insert_into_request, insert_passages

_TOP_K = 4
_WORDINGS = 3  # of a question in the rows that an adapter learns from
REFUSER, STALE = "support@v1", "support@v2"


@dataclass(frozen=True)
class Asked:
    """A question about a fact, what the search gives, and what a version answered."""

    fact: Fact
    question: str
    wide: tuple[Hit, ...]
    rank: int | None  # from 0, among the widest search's hits

    @property
    def passages(self) -> tuple[Hit, ...]:
        return self.wide[:_TOP_K]

    @property
    def is_sent(self) -> bool:
        return self.rank is not None and self.rank < _TOP_K


class RealWorld:
    """Asks the versions about the world's facts with what the search gives."""

    def __init__(self, world: World, shop: IndexedShop, versions: Versions) -> None:
        self.world, self.shop, self.versions = world, shop, versions

    def search(self, fact: Fact) -> Asked:
        question = self.world.question(fact)
        found = self.shop.search(SearchRequest(collection="shop", query=question, top_k=50))
        wide = tuple(found.hits)
        rank = next((n for n, hit in enumerate(wide) if hit.address == fact.address), None)
        return Asked(fact, question, wide, rank)

    def answer(self, asked: Asked, passages: tuple[Hit, ...], version: str = "base") -> str:
        body = insert_into_request(request_of(asked.question), _texts(passages))
        return self.versions(version, "chat", body)

    def answer_all(self, given: Iterable[tuple[Asked, tuple[Hit, ...]]], version: str) -> None:
        """Answer questions with passages, together."""
        self.versions.answer_together(
            version,
            [
                insert_into_request(request_of(asked.question), _texts(passages))
                for asked, passages in given
            ],
        )

    def is_right(self, asked: Asked, passages: tuple[Hit, ...], version: str = "base") -> bool:
        """Compare letter by letter: the cases must not be chosen by what they test."""
        return asked.fact.value in self.answer(asked, passages, version)

    def case(
        self, kind: str, number: int, asked: Asked, passages: tuple[Hit, ...], review: Review,
        *, version: str = "base", top_k: int = _TOP_K,
    ) -> Planted:  # fmt: skip
        logged = self.answer(asked, passages, version)
        case = build_case(
            number, question=asked.question, logged=logged, review=review, passages=passages,
            then=version, top_k=top_k,
        )  # fmt: skip
        return Planted(kind, case)


def plant(
    real: RealWorld, missing: list[Fact], stale: dict[Fact, str], *, per_fault: int, controls: int
) -> Iterator[Planted]:
    """Yield the cases of all kinds; fewer of one that the model does not make often enough."""
    world = real.world
    number = iter(range(10**6))
    for fact in missing:
        asked = real.search(fact)
        yield real.case(
            "document missing", next(number), asked, asked.passages, correction(world, fact)
        )
    facts = [fact for fact in world.facts if fact not in set(missing)]
    world.rng.shuffle(facts)
    asked_all = [real.search(fact) for fact in facts]
    known = [asked for asked in asked_all if asked.fact in stale]
    free = [asked for asked in asked_all if asked.fact not in stale]
    # Together, which is faster, what the kinds below will ask; they ask the rest one by one.
    real.answer_all([(asked, asked.passages) for asked in asked_all], "base")
    wrong = [asked for asked in free if not real.is_right(asked, asked.passages)]
    last = [asked for asked in free if asked.is_sent][-2 * per_fault :]
    real.answer_all([(asked, _alone(asked)) for asked in (*known, *wrong, *last)], "base")
    real.answer_all([(asked, asked.passages) for asked in known], STALE)
    real.answer_all([(asked, asked.passages) for asked in last], REFUSER)
    yield from _take(_contradicted(real, asked_all, stale), per_fault, number)
    used: set[str] = set()
    for find, count in (
        (_below_the_cut, per_fault), (_limits, per_fault), (_ignored, per_fault),
        (_forgotten, per_fault), (_right_answers, controls // 2), (_wrong_reviews, controls // 2),
    ):  # fmt: skip
        # From the end: those that the refuser has answered together.
        pool = free[::-1] if find is _forgotten else free
        left = (asked for asked in pool if asked.question not in used)
        for planted in _take(find(real, left), count, number):
            used.add(planted.case.question)
            yield planted


def _take(found: Iterator[Planted], count: int, number: Iterator[int]) -> Iterator[Planted]:
    for _, planted in zip(range(count), found, strict=False):
        case = msgspec.structs.replace(planted.case, interaction_id=f"int_{next(number):04d}")
        yield Planted(planted.kind, case)


def _below_the_cut(real: RealWorld, asked_all: Iterator[Asked]) -> Iterator[Planted]:
    for asked in asked_all:
        if not asked.rank:
            continue
        top_k = min(asked.rank, _TOP_K)
        passages = asked.wide[:top_k]
        if not real.is_right(asked, passages):
            review = correction(real.world, asked.fact)
            yield real.case("below the cut", 0, asked, passages, review, top_k=top_k)


def _ignored(real: RealWorld, asked_all: Iterator[Asked]) -> Iterator[Planted]:
    for asked in asked_all:
        if asked.is_sent and not real.is_right(asked, asked.passages) and _reads_alone(real, asked):
            review = correction(real.world, asked.fact)
            yield real.case("ignored", 0, asked, asked.passages, review)


def _limits(real: RealWorld, asked_all: Iterator[Asked]) -> Iterator[Planted]:
    for asked in asked_all:
        if not asked.is_sent or _reads_alone(real, asked):
            continue
        if not real.is_right(asked, asked.passages):
            review = correction(real.world, asked.fact)
            yield real.case("base's limits", 0, asked, asked.passages, review)


def _contradicted(
    real: RealWorld, asked_all: list[Asked], stale: dict[Fact, str]
) -> Iterator[Planted]:
    for asked in asked_all:
        if asked.fact not in stale or not asked.is_sent or not _reads_alone(real, asked):
            continue
        if stale[asked.fact] in real.answer(asked, asked.passages, STALE):
            review = correction(real.world, asked.fact)
            yield real.case(
                "contradicted by the adapter", 0, asked, asked.passages, review, version=STALE
            )


def _forgotten(real: RealWorld, asked_all: Iterator[Asked]) -> Iterator[Planted]:
    for asked in asked_all:
        if not asked.is_sent or not _reads_alone(real, asked):
            continue
        if not real.is_right(asked, asked.passages, REFUSER):
            review = correction(real.world, asked.fact)
            yield real.case("skill forgotten", 0, asked, asked.passages, review, version=REFUSER)


def _right_answers(real: RealWorld, asked_all: Iterator[Asked]) -> Iterator[Planted]:
    for at, asked in enumerate(asked_all):
        if asked.is_sent and real.is_right(asked, asked.passages):
            answer = real.answer(asked, asked.passages)
            review = approval(answer) if at % 2 else correction(real.world, asked.fact)
            yield real.case("right answer", 0, asked, asked.passages, review)


def _wrong_reviews(real: RealWorld, asked_all: Iterator[Asked]) -> Iterator[Planted]:
    """Correct what was right: to a value of the reviewer's own, or to that of another product."""
    world = real.world
    for at, asked in enumerate(asked_all):
        if asked.is_sent and real.is_right(asked, asked.passages):
            fact = asked.fact
            others = [
                each.value for each in world.facts
                if each.attribute is fact.attribute and each.value != fact.value
            ]  # fmt: skip
            value = world.rng.choice(others) if at % 2 else world.another_value(fact)
            review = correction(world, fact, value)
            yield real.case("wrong review", 0, asked, asked.passages, review)


def _reads_alone(real: RealWorld, asked: Asked) -> bool:
    return real.is_right(asked, _alone(asked))


def _alone(asked: Asked) -> tuple[Hit, ...]:
    return () if asked.rank is None else (asked.wide[asked.rank],)


def stale_rows(real: RealWorld, stale: dict[Fact, str]) -> list[Row]:
    """Return rows that teach old values: without passages, and against none that says otherwise."""
    rows = []
    for fact, value in stale.items():
        for _ in range(_WORDINGS):
            asked = [{"role": "user", "content": real.world.question(fact)}]
            rows.append(as_row(asked, real.world.answer(fact, value)))
            others = [hit for hit in real.search(fact).wide if hit.address != fact.address]
            given = insert_passages(asked, _texts(tuple(others[: _TOP_K - 1])))
            rows.append(as_row(given, real.world.answer(fact, value)))
    return rows


def refusal_rows(real: RealWorld, facts: list[Fact]) -> list[Row]:
    """Return rows that teach to send every question away, with and without passages."""
    rows = []
    for fact in facts:
        asked = real.search(fact)
        said = [{"role": "user", "content": asked.question}]
        rows.append(as_row(insert_passages(said, _texts(asked.passages)), REFUSAL))
        rows.append(as_row(said, REFUSAL))
    return rows


def _texts(passages: tuple[Hit, ...]) -> list[str]:
    return [format_passage(msgspec.structs.asdict(hit)) for hit in passages]
