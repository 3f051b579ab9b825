"""Prepares a matrix for people: rows of a table, and sentences."""

from __future__ import annotations

import msgspec

from serving.blame.records import Cell, Fault, Report
from serving.blame.rules import describe
from whet.json_types import JsonObject

_PARTS = {
    Fault.DOCUMENT: "document", Fault.INDEX: "index", Fault.PROMPT: "prompt",
    Fault.ADAPTER: "adapter", Fault.BASE: "base", Fault.NONE: "no fault",
    Fault.UNKNOWN: "cannot tell",
}  # fmt: skip
_REPAIRS = {
    Fault.DOCUMENT: "Add or correct a document: `whet documents add`.",
    Fault.INDEX: "Raise top_k, lower min_score or change the filter: `whet documents attach`.",
    Fault.PROMPT: "Send fewer passages: a lower top_k or a higher min_score.",
    Fault.ADAPTER: "Train with examples that follow their passages, or roll back.",
    Fault.BASE: "Train the skill with reviewed examples, or take a larger base.",
}


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """One cell as a page or a terminal shows it."""

    cell: str
    asked_with: str
    version: str
    verdict: str
    answer: str
    is_right: bool | None


def name_fault(fault: Fault, detail: str) -> str:
    """Return the part at fault with its detail: `index (below cut)`."""
    if fault is Fault.NONE:
        return _PARTS[fault]
    return f"{_PARTS[fault]} ({detail.replace('_', ' ')})"


def suggest_repair(fault: Fault) -> str:
    """Return what repairs the part; empty where nothing is known to be at fault."""
    return _REPAIRS.get(fault, "")


def matrix_rows(report: Report) -> list[MatrixRow]:
    """Return the answers side by side: the reviewer's, the logged one, then the cells."""
    evidence = report.evidence
    rows = []
    review = evidence.case.review
    if review is not None and review.answer:
        who = review.reviewer or "given"
        rows.append(_row("", "the reviewed answer", who, "right", review.answer, True))
    logged = evidence.logged
    rows.append(
        _row(
            "", "the logged answer", evidence.case.then_label,
            logged.state.value if logged else "", evidence.case.logged,
            logged.is_right if logged else None,
        )
    )  # fmt: skip
    return rows + [_cell_row(cell) for cell in evidence.cells]


def _cell_row(cell: Cell) -> MatrixRow:
    with_what = describe(cell.question)
    if not cell.samples:
        return _row(cell.question.value, with_what, cell.version, "not asked", cell.error, None)
    first = cell.samples[0]
    verdict = first.judgement.state.value
    if len(cell.samples) > 1:
        right = sum(sample.judgement.is_right for sample in cell.samples)
        verdict = f"right in {right} of {len(cell.samples)}"
    return _row(cell.question.value, with_what, cell.version, verdict, first.text, cell.is_right)


def _row(
    cell: str, asked_with: str, version: str, verdict: str, answer: str, is_right: bool | None
) -> MatrixRow:
    return MatrixRow(
        cell=cell, asked_with=asked_with, version=version, verdict=verdict,
        answer=" ".join(answer.split()), is_right=is_right,
    )  # fmt: skip


def as_json(report: Report) -> JsonObject:
    """Return what `--json` prints: the verdict, the facts, the passage and the cells."""
    evidence, verdict = report.evidence, report.verdict
    right, key = evidence.lookup.right, evidence.key
    return {
        "interaction_id": evidence.case.interaction_id,
        "alias": evidence.case.alias,
        "fault": verdict.fault.value,
        "detail": verdict.detail,
        "reason": verdict.reason,
        "repair": suggest_repair(verdict.fault),
        "also": [fault.value for fault in verdict.also],
        "notes": list(verdict.notes),
        "decided_by": [[question.value, who.value] for question, who in verdict.decided_by],
        "question": evidence.case.question,
        "logged": evidence.case.logged,
        "reviewed": evidence.case.review.answer if evidence.case.review else "",
        "key_facts": {
            "rule": key.rule.value if key else "",
            "required": [str(fact) for fact in key.required] if key else [],
            "excluded": [str(fact) for fact in key.excluded] if key else [],
        },
        "right_passage": _passage(report) if right else None,
        "cells": [_cell_json(cell) for cell in evidence.cells],
    }


def _passage(report: Report) -> JsonObject:
    right = report.evidence.lookup.right
    assert right is not None
    return {
        "passage_id": right.hit.passage_id, "address": right.hit.address,
        "section": right.hit.section, "text": right.hit.text, "how": right.how,
        "logged_rank": right.logged_rank, "rank_now": right.rank,
        "rank_without_filter": right.rank_unfiltered, "score_now": right.score,
        "is_filtered": right.is_filtered, "is_newer": right.is_newer,
    }  # fmt: skip


def _cell_json(cell: Cell) -> JsonObject:
    return {
        "cell": cell.question.value,
        "who": cell.who.value,
        "version": cell.version,
        "is_right": cell.is_right,
        "error": cell.error,
        "samples": [
            {
                "text": sample.text,
                "state": sample.judgement.state.value,
                "wrong": [str(fact) for fact in sample.judgement.wrong],
            }
            for sample in cell.samples
        ],
    }


def passage_line(report: Report) -> str:
    """Return where the right passage is; empty where none is known."""
    right = report.evidence.lookup.right
    if right is None:
        return ""
    name = " > ".join(filter(None, (right.hit.address, right.hit.section)))
    place = f"at place {right.logged_rank} of the prompt" if right.logged_rank else "not sent"
    now = f", place {right.rank} in a search now" if right.rank else ""
    who = ", as the reviewer says" if right.how == "reviewed" else ""
    return f"{name or right.hit.passage_id} ({place}{now}{who})"
