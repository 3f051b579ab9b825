"""The rules in their order, each on evidence that differs in one cell."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from serving.blame.judging import find_key_facts, judge
from serving.blame.records import (
    Case,
    Cell,
    Evidence,
    Fault,
    Lookup,
    Question,
    Review,
    RightPassage,
    Sample,
    Trace,
    Who,
)
from serving.blame.rules import decide, require_stable
from serving.retrieval.records import Hit

ASKED = "How long is the warranty of the Varo lamp?"
RIGHT, WRONG, OTHER = "It is 34 months.", "It is 12 months.", "It is 20 months."
NOTHING = "Please ask our team."
LAMP = Hit(
    passage_id="psg_lamp", document_id="doc_lamp", collection="shop", title="Varo lamp",
    address="lamp.md", section="", text="Its warranty is 34 months.", score=0.7,
)  # fmt: skip
KETTLE = msgspec.structs.replace(LAMP, passage_id="psg_kettle", address="kettle.md")
KEY = find_key_facts(ASKED, RIGHT, WRONG)
FOUND = Lookup(right=RightPassage(hit=LAMP, how="logged", logged_rank=2), is_searched=True)
CASE = Case(
    interaction_id="int_1", alias="support", route="chat", request={"messages": []},
    question=ASKED, logged=WRONG, created_at=1, is_complete=True,
    review=Review(id="rev_1", answer=RIGHT, reviewer="anna"),
    trace=Trace(collection="shop", outcome="found", query=ASKED, top_k=2),
    passages=(KETTLE, LAMP), versions={Who.BASE: "base", Who.THEN: "v1", Who.NOW: "v1"},
    then_label="v1",
)  # fmt: skip


def cells(**answers: str | list[str]) -> tuple[Cell, ...]:
    """`N_base="…"` is the cell N of the base; `F1` stands for O+."""
    found = []
    for name, given in answers.items():
        question, who = name.split("_")
        texts = [given] if isinstance(given, str) else given
        samples = tuple(Sample(text, judge(text, KEY)) for text in texts)
        version = CASE.versions[Who(who)]
        kind = Question("O+" if question == "F1" else question)
        found.append(Cell(question=kind, who=Who(who), version=version, samples=samples))
    return tuple(found)


def evidence(lookup: Lookup = FOUND, case: Case = CASE, **answers: Any) -> Evidence:
    given = {"R_then": case.logged, **answers}
    logged = judge(case.logged, KEY)
    return Evidence(case=case, key=KEY, logged=logged, lookup=lookup, cells=cells(**given))


def change(**changes: Any) -> Case:
    return msgspec.structs.replace(CASE, **changes)


UNSENT = Lookup(right=RightPassage(hit=LAMP, how="found", rank=5, score=0.7), is_searched=True)


def unsent(**changes: Any) -> Lookup:
    assert UNSENT.right is not None
    return msgspec.structs.replace(UNSENT, right=msgspec.structs.replace(UNSENT.right, **changes))


@pytest.mark.parametrize(
    ("given", "fault", "detail"),
    [
        (evidence(Lookup(is_searched=True), L_base=WRONG), Fault.DOCUMENT, "missing"),
        (evidence(Lookup(is_searched=True), L_base=RIGHT), Fault.ADAPTER, "forgot_skill"),
        (evidence(msgspec.structs.replace(FOUND, wrong=KETTLE)), Fault.DOCUMENT, "wrong"),
        (evidence(Lookup(is_searched=True, contrary=KETTLE)), Fault.UNKNOWN, "review_unsupported"),
        (evidence(Lookup(problem="It is gone.")), Fault.UNKNOWN, "no_collection"),
        (evidence(Lookup(is_searched=True, is_verifiable=False)), Fault.UNKNOWN, "no_right_passage"),
        (evidence(msgspec.structs.replace(FOUND, contrary=KETTLE)), Fault.UNKNOWN, "documents_disagree"),
        (evidence(UNSENT, L_base=WRONG, O_then=RIGHT), Fault.INDEX, "below_cut"),
        (evidence(unsent(rank=None)), Fault.INDEX, "not_found"),
        (evidence(unsent(rank=1)), Fault.INDEX, "changed"),
        (evidence(unsent(is_filtered=True)), Fault.INDEX, "filtered"),
        (evidence(unsent(is_newer=True)), Fault.DOCUMENT, "missing_then"),
        (evidence(L_base=WRONG, O_base=RIGHT, O_then=RIGHT, F1_then=RIGHT), Fault.PROMPT, "order"),
        (evidence(L_base=WRONG, O_base=RIGHT, O_then=RIGHT, F1_then=WRONG), Fault.PROMPT, "noise"),
        (evidence(L_base=RIGHT, O_base=RIGHT, O_then=RIGHT), Fault.ADAPTER, "forgot_skill"),
        (evidence(L_base=RIGHT, N_then=WRONG, O_then=WRONG), Fault.ADAPTER, "contradicts"),
        (evidence(L_base=OTHER, N_then=WRONG, O_base=RIGHT, O_then=WRONG), Fault.ADAPTER, "contradicts"),
        (evidence(L_base=WRONG, O_base=OTHER, O_then=WRONG), Fault.BASE, "limits"),
        (evidence(L_base=WRONG, O_base=WRONG, O_then=WRONG, F_base=RIGHT), Fault.PROMPT, "format"),
        (evidence(R_then=RIGHT), Fault.UNKNOWN, "not_reproducible"),
        (evidence(R_then=OTHER), Fault.UNKNOWN, "not_reproducible"),
        (evidence(case=change(review=None)), Fault.UNKNOWN, "no_review"),
        (evidence(case=change(review=Review(decision="approve"))), Fault.NONE, "approved"),
        (evidence(case=change(is_complete=False)), Fault.UNKNOWN, "incomplete"),
        (evidence(case=change(logged=RIGHT)), Fault.NONE, "same_facts"),
        (evidence(case=change(versions={Who.BASE: "base"}, then_label="v1")), Fault.UNKNOWN, "version_removed"),
        (evidence(Lookup(), change(trace=None, passages=()), N_base=WRONG), Fault.UNKNOWN, "without_retrieval"),
        (evidence(Lookup(), change(trace=None, passages=()), N_base=RIGHT), Fault.ADAPTER, "forgot_skill"),
    ],
)  # fmt: skip
def test_the_first_rule_that_holds_decides(given: Evidence, fault: Fault, detail: str) -> None:
    verdict = decide(given)
    assert (verdict.fault, verdict.detail) == (fault, detail)
    assert verdict.reason.endswith(".")


@pytest.mark.parametrize(
    ("changes", "fault", "detail"),
    [
        ({"outcome": "forbidden"}, Fault.INDEX, "forbidden"),
        ({"outcome": "failed", "message": "Down."}, Fault.INDEX, "failed"),
        ({"min_score": 0.8}, Fault.INDEX, "below_threshold"),
        ({"top_k": 8, "dropped_by_budget": 3}, Fault.PROMPT, "no_room"),
    ],
)
def test_the_search_says_why_a_passage_was_not_sent(
    changes: dict[str, Any], fault: Fault, detail: str
) -> None:
    assert CASE.trace is not None
    case = change(trace=msgspec.structs.replace(CASE.trace, **changes))
    verdict = decide(evidence(UNSENT, case))
    assert (verdict.fault, verdict.detail) == (fault, detail)


def test_two_faults_are_both_named() -> None:
    verdict = decide(evidence(UNSENT, L_base=WRONG, O_base=RIGHT, O_then=WRONG))
    assert (verdict.fault, verdict.also) == (Fault.INDEX, (Fault.ADAPTER,))
    verdict = decide(evidence(UNSENT, L_base=WRONG, O_base=WRONG, O_then=WRONG))
    assert (verdict.fault, verdict.also) == (Fault.INDEX, (Fault.BASE,))


def test_a_cell_that_decides_has_to_be_stable() -> None:
    answers = {"L_base": WRONG, "O_base": RIGHT, "F1_then": WRONG}
    shaky = evidence(O_then=[RIGHT, RIGHT, RIGHT, WRONG, WRONG], **answers)
    steady = evidence(O_then=[RIGHT, RIGHT, RIGHT, RIGHT, WRONG], **answers)
    assert require_stable(shaky, decide(shaky)).detail == "unstable"
    assert require_stable(steady, decide(steady)).fault is Fault.PROMPT
    elsewhere = evidence(O_then=RIGHT, N_base=[RIGHT, WRONG], **answers)
    assert require_stable(elsewhere, decide(elsewhere)).fault is Fault.PROMPT
