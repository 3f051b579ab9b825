"""Finds the passage that holds the reviewer's answer, and where the search has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
from sqlalchemy import Connection

from serving.blame.judging import KeyFacts
from serving.blame.key_facts import DOCUMENTABLE, Fact
from serving.blame.records import Case, Lookup, PassageVerdict, RightPassage, Trace
from serving.blame.support import Subject, find_subject, supports
from serving.retrieval.documents_store import passages_by_id
from serving.retrieval.filters import IndexedDocument, document_mask
from serving.retrieval.records import Document, Hit, Mode, Outcome, SearchRequest, SearchResult
from whet.context import Context
from whet.database import reading

# Hits that are looked through for the facts: the most that a search gives.
LOOKED_THROUGH = 50

Search = Callable[[SearchRequest], SearchResult]
Resolve = Callable[[str], tuple[Hit, Document] | None]


def resolve_in(context: Context) -> Resolve:
    """Return a function that reads a passage that is alive, by its id."""

    def resolve(passage_id: str) -> tuple[Hit, Document] | None:
        with reading(context.database) as connection:
            return _read(connection, passage_id)

    return resolve


def _read(connection: Connection, passage_id: str) -> tuple[Hit, Document] | None:
    found = passages_by_id(connection, [passage_id]).get(passage_id)
    if found is None:
        return None
    passage, document = found
    hit = Hit(
        passage_id=passage.id, document_id=document.id, collection=passage.collection,
        title=document.title, address=document.address, section=passage.section,
        text=passage.text, score=0.0, metadata=document.metadata,
    )  # fmt: skip
    return hit, document


def look_up(
    case: Case, key: KeyFacts, search: Search, resolve: Resolve, picked: str = ""
) -> Lookup:
    """Return the right passage and what stands against it.

    What the review says of passages goes before what is read in them: the one that was `ignored` is
    the right one, one that is `wrong` is neither right nor against the review, and where the right
    one is `missing`, none of the prompt's is it.

    Args:
        search: searches a collection; never raises.
        resolve: reads a passage that is alive, by its id.
        picked: id of the passage that the command names; empty: the review's, else looked for.
    """
    assert case.review is not None
    candidates: dict[str, Hit] = {hit.passage_id: hit for hit in case.passages}
    problem = ""
    if case.trace is not None:
        found, problem = _search_all(case, key, case.trace, search)
        candidates = {**found, **candidates}  # the logged text is what the model saw
    answers = (case.review.answer, case.logged)
    subject = find_subject(case.question, answers, candidates.values())
    named = _named(case, PassageVerdict.WRONG)
    wrong = [hit for name, hit in candidates.items() if name in named]
    candidates = {name: hit for name, hit in candidates.items() if name not in named}
    right, pick_problem = _choose(case, key, candidates, subject, resolve, picked)
    if right is not None and case.trace is not None:
        right = _place(case, case.trace, right, search, resolve)
    return Lookup(
        right=right,
        contrary=_first(candidates.values(), key.excluded, subject),
        wrong=_first(wrong, key.excluded, subject),
        is_searched=case.trace is not None and not problem,
        is_verifiable=any(fact.kind in DOCUMENTABLE for fact in key.required),
        problem=pick_problem or problem,
    )


def _search_all(
    case: Case, key: KeyFacts, trace: Trace, search: Search
) -> tuple[dict[str, Hit], str]:
    """Search without the logged filter and threshold, by question, by answer, and by facts."""
    assert case.review is not None
    question = trace.query or case.question
    facts = " ".join(fact.value for fact in key.required)
    asked = (
        (question, Mode.HYBRID), (f"{question}\n{case.review.answer}", Mode.HYBRID),
        (f"{question} {facts}", Mode.LEXICAL),
    )  # fmt: skip
    found: dict[str, Hit] = {}
    for query, mode in asked:
        result = search(
            SearchRequest(collection=trace.collection, query=query, top_k=LOOKED_THROUGH, mode=mode)
        )
        if result.outcome in (Outcome.FAILED, Outcome.FORBIDDEN):
            return found, result.message or f"{trace.collection!r} cannot be searched."
        for hit in result.hits:
            found.setdefault(hit.passage_id, hit)
    return found, ""


def _choose(
    case: Case,
    key: KeyFacts,
    candidates: Mapping[str, Hit],
    subject: Subject,
    resolve: Resolve,
    picked: str,
) -> tuple[RightPassage | None, str]:
    logged = {hit.passage_id: place for place, hit in enumerate(case.passages, start=1)}
    if picked:
        living = resolve(picked)
        hit = candidates.get(picked) or (living[0] if living else None)
        if hit is None:
            return None, f"There is no passage {picked!r} any more."
        return RightPassage(hit=hit, how="picked", logged_rank=logged.get(picked)), ""
    ignored = [candidates[name] for name in _named(case, PassageVerdict.IGNORED)
               if name in candidates]  # fmt: skip
    if ignored:
        hit = _first(ignored, key.required, subject) or ignored[0]
        return RightPassage(hit=hit, how="reviewed", logged_rank=logged.get(hit.passage_id)), ""
    assert case.review is not None
    if case.review.passage_verdict is PassageVerdict.MISSING:
        candidates = {name: hit for name, hit in candidates.items() if name not in logged}
    sent = [candidates[name] for name in logged if name in candidates]
    hit = _first(sent, key.required, subject)
    if hit is not None:
        return RightPassage(hit=hit, how="logged", logged_rank=logged[hit.passage_id]), ""
    hit = _first(candidates.values(), key.required, subject)
    return (RightPassage(hit=hit, how="found") if hit is not None else None), ""


def _named(case: Case, verdict: PassageVerdict) -> tuple[str, ...]:
    """Return the ids of the passages of which the review says `verdict`."""
    review = case.review
    return review.passage_ids if review and review.passage_verdict is verdict else ()


def _first(hits: Iterable[Hit], facts: Iterable[Fact], subject: Subject) -> Hit | None:
    wanted = tuple(facts)
    return next((hit for hit in hits if supports(hit, wanted, subject)), None)


def _place(
    case: Case, trace: Trace, right: RightPassage, search: Search, resolve: Resolve
) -> RightPassage:
    """Say at which place the search of now has the passage, and what keeps it out."""
    living = resolve(right.hit.passage_id)
    if living is None:
        return right  # removed since; the logged text is all there is of it
    wanted = SearchRequest(
        collection=trace.collection, query=trace.query or case.question, top_k=LOOKED_THROUGH,
        filter=trace.filter, mode=Mode(trace.mode),
    )  # fmt: skip
    rank, score = _rank(right.hit.passage_id, search(wanted))
    without = msgspec.structs.replace(wanted, filter={})
    unfiltered = _rank(right.hit.passage_id, search(without)) if trace.filter else (rank, score)
    return msgspec.structs.replace(
        right,
        rank=rank,
        rank_unfiltered=unfiltered[0],
        score=score or unfiltered[1],
        is_filtered=not _passes(living[1], trace),
        is_newer=living[1].added_at > case.created_at,
    )


def _rank(passage_id: str, result: SearchResult) -> tuple[int | None, float]:
    for place, hit in enumerate(result.hits, start=1):
        if hit.passage_id == passage_id:
            return place, hit.score
    return None, 0.0


def _passes(document: Document, trace: Trace) -> bool:
    known = IndexedDocument(
        id=document.id, address=document.address, language=document.language,
        title=document.title, metadata=document.metadata,
    )  # fmt: skip
    return bool(document_mask([known], trace.filter)[0])
