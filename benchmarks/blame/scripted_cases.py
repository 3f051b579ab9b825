"""Faults and controls planted by scripted behaviours: every one is what its name says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.blame.planted import (
    CONTROLS,
    FAULTS,
    Planted,
    approval,
    build_case,
    correction,
    request_of,
)
from benchmarks.blame.scripted import (
    Behaviour,
    ScriptedEngine,
    read_any,
    read_only,
    refuse,
    say_always,
)
from benchmarks.blame.shops import Shop
from benchmarks.blame.worlds import Fact, World
from serving.blame.records import Review
from serving.retrieval.records import Hit, SearchRequest
from whet.rag_prompt import format_passage, insert_into_request

# (base, version that answered) of each kind; one after the other.
_ENGINES: dict[str, tuple[tuple[str, str], ...]] = {
    "document missing": (("reader", "reader"), ("reader", "tuned-reader")),
    "below the cut": (("reader", "reader"), ("reader", "tuned-reader")),
    "ignored": (("noisy", "noisy"), ("first", "first"), ("noisy", "tuned-noisy")),
    "contradicted by the adapter": (("reader", "stale"), ("noisy", "stale")),
    "skill forgotten": (("reader", "refuser"), ("noisy", "refuser")),
    "base's limits": (("blind", "blind"), ("blind", "tuned-blind")),
    "right answer": (("reader", "tuned-reader"),),
    "wrong review": (("reader", "tuned-reader"), ("noisy", "tuned-reader")),
}


def behaviours(world: World) -> dict[str, Behaviour]:
    """Return the versions that the cases ask."""
    stale = {fact: world.another_value(fact) for fact in world.facts}
    named: dict[str, Behaviour] = {
        "reader": read_any(world),
        "noisy": read_only(world, lambda at, count: count == 1),
        "first": read_only(world, lambda at, count: at == 0),
        "blind": read_only(world, lambda at, count: False),
        "stale": say_always(world, stale.__getitem__),
        "refuser": refuse,
    }
    return named | {f"tuned-{name}": named[name] for name in ("reader", "noisy", "blind")}


def choose_missing(world: World, per_fault: int) -> list[Fact]:
    """Return the facts that no document states."""
    return world.rng.sample(world.facts, per_fault)


def plant(
    world: World,
    shop: Shop,
    engine: ScriptedEngine,
    missing: list[Fact],
    *,
    per_fault: int,
    per_control: int,
) -> Iterator[Planted]:
    """Yield `per_fault` cases of each fault and `per_control` of each control."""
    left = [fact for fact in world.facts if fact not in set(missing)]
    world.rng.shuffle(left)
    number = 0
    for kind in (*FAULTS, *CONTROLS):
        count = per_fault if kind in FAULTS else per_control
        made = 0
        for fact in list(missing if kind == "document missing" else left):
            if made == count:
                break
            planted = _plant_one(world, shop, engine, kind, fact, made, number)
            if planted is not None:
                made, number = made + 1, number + 1
                if fact in left:
                    left.remove(fact)
                yield planted


def _plant_one(
    world: World, shop: Shop, engine: ScriptedEngine, kind: str, fact: Fact, at: int, number: int
) -> Planted | None:
    """Return a case; None where the search does not give what the fault needs."""
    base, then = _ENGINES[kind][at % len(_ENGINES[kind])]
    question = world.question(fact)
    engine.expect(question, fact)
    wide = shop.search(SearchRequest(collection="shop", query=question, top_k=50)).hits
    rank = next((n for n, hit in enumerate(wide) if hit.address == fact.address), None)
    settings: dict[str, Any] = {"top_k": 4}
    if kind == "below the cut":
        if rank is None:
            return None
        settings = _keep_out(wide, rank, at)
    elif kind != "document missing" and (rank is None or rank >= settings["top_k"]):
        return None
    found = shop.search(SearchRequest(collection="shop", query=question, **settings))
    passages = list(found.hits)
    if kind == "ignored":  # behind others: the first place is read by one of the engines
        passages = [*passages[:rank], *passages[rank + 1 :], passages[rank]]
    texts = [format_passage(_fields(hit)) for hit in passages]
    logged = engine(then, "chat", insert_into_request(request_of(question), texts))
    settings["given_filter"] = settings.pop("filter", None)
    case = build_case(
        number, question=question, logged=logged, review=_review(world, kind, fact, logged, at),
        passages=tuple(passages), then=then, base=base, outcome=found.outcome.value, **settings,
    )  # fmt: skip
    return Planted(kind, case)


def _keep_out(wide: list[Hit], rank: int, at: int) -> dict[str, Any]:
    """Return a search that misses the passage: by the cut, a filter, or a threshold."""
    if rank and at % 3 == 0:
        return {"top_k": rank}
    if at % 3 == 1 and rank + 1 < len(wide):
        return {"top_k": 4, "filter": {"address": wide[rank + 1].address}}
    return {"top_k": 4, "min_score": wide[rank].score + 0.01}


def _review(world: World, kind: str, fact: Fact, logged: str, at: int) -> Review:
    if kind == "right answer":
        return approval(logged) if at % 2 else correction(world, fact)
    if kind == "wrong review":
        if at % 2:  # what another product's document states
            others = [
                each for each in world.facts
                if each.attribute is fact.attribute and each.value != fact.value
            ]  # fmt: skip
            return correction(world, fact, world.rng.choice(others).value)
        return correction(world, fact, world.another_value(fact))
    return correction(world, fact)


def _fields(hit: Hit) -> dict[str, Any]:
    return {name: getattr(hit, name) for name in ("title", "section", "address", "text")}
