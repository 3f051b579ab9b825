"""Decides what is at fault for a bad answer. Pure: evidence in, verdict out.

The rules in their order; the first that holds decides.

| evidence                                                    | verdict                     |
|-------------------------------------------------------------|-----------------------------|
| no answer of a reviewer, or nothing in it to compare        | cannot tell                 |
| the reviewer approved, or said the same                     | no fault                    |
| asked again, the logged answer does not come                | cannot tell                 |
| a passage states what the answer said, and the reviewer     | document                    |
|   says that the passage is wrong                            |                             |
| the documents state what the answer said                    | cannot tell: the review or  |
|                                                             | the document is wrong       |
| with the logged passages the base is right                  | adapter                     |
| no passage states the reviewer's facts                      | document                    |
| one does, and it was not in the prompt                      | index; prompt where it was  |
|                                                             | cut for want of room        |
| it was; alone it gives the right answer                     | prompt: order or noise      |
| ... in the user's turn it does                              | prompt: format              |
| ... alone it does on the base, and not on the adapter       | adapter                     |
| ... alone it does not on the base                           | base                        |
| a cell that decides is not stable over its samples          | cannot tell                 |
"""

from __future__ import annotations

from serving.blame.judging import Rule, have_common_error
from serving.blame.records import (
    Case,
    Cell,
    Evidence,
    Fault,
    Lookup,
    Question,
    RightPassage,
    Trace,
    Verdict,
    Who,
)

# Of the samples of a cell that decides: 4 of 5. At 3 of 5 a coin would pass half of the time.
MIN_AGREEMENT = 0.8
_R, _N, _L, _O = Question.REPRODUCE, Question.NONE, Question.LOGGED, Question.ALONE
_W, _FIRST, _TURN = Question.SEARCH, Question.FIRST, Question.IN_TURN


def decide(evidence: Evidence) -> Verdict:
    """Return the verdict, without regard to how stable its cells are."""
    return (
        judge_review(evidence)
        or _judge_reproduction(evidence)
        or _judge_documents(evidence)
        or _judge_parts(evidence)
    )


def require_stable(evidence: Evidence, verdict: Verdict) -> Verdict:
    """Return the verdict, or `unknown` where a cell that it rests on is not stable."""
    for question, who in verdict.decided_by:
        cell = evidence.cell(question, who)
        if cell is not None and cell.agreement < MIN_AGREEMENT:
            right = sum(sample.judgement.is_right for sample in cell.samples)
            reason = (
                f"{cell.version} was right in {right} of {len(cell.samples)} answers with "
                f"{describe(question)}: too unstable to tell."
            )
            return _unknown("unstable", reason, notes=(f"It would be: {verdict.reason}",))
    return verdict


def judge_review(evidence: Evidence) -> Verdict | None:
    """Return a verdict where nothing has to be asked; None where the cells have to tell."""
    review, key, logged = evidence.case.review, evidence.key, evidence.logged
    if review is None:
        reason = "No reviewer has said what the answer should have been."
        return _unknown("no_review", reason, notes=("Review it, or give --answer TEXT.",))
    if review.decision == "approve":
        return _none("approved", f"{review.reviewer} approved the answer.")
    if not evidence.case.is_complete:
        return _unknown("incomplete", "The logged answer did not end; there is nothing to judge.")
    if key is None or logged is None or key.rule is Rule.NOTHING:
        reason = (
            "The reviewer's answer has no numbers, dates, codes or names of its own and is too "
            "long to compare by words: people have to compare the answers."
        )
        return _unknown("no_key_facts", reason)
    if key.is_same or logged.is_right:
        return _none("same_facts", "The logged answer states the same facts as the reviewer's.")
    return None


def _judge_reproduction(evidence: Evidence) -> Verdict | None:
    case = evidence.case
    if evidence.engine_problem:
        return _unknown("engine", evidence.engine_problem, notes=_hints(evidence))
    if Who.THEN not in case.versions:
        reason = f"{case.then_label} answered and is not served any more."
        return _unknown("version_removed", reason, notes=_hints(evidence))
    cell = evidence.cell(_R, Who.THEN)
    if cell is None:
        return _unknown("not_asked", _error(evidence, _R), notes=_hints(evidence))
    if not is_reproduced(evidence, cell):
        reason = (
            f"{cell.version} does not give the logged answer again: asked with the same passages "
            "and parameters, it was "
            f"{'right' if cell.is_right else 'wrong in another way'} in most answers."
        )
        return _unknown("not_reproducible", reason, notes=_hints(evidence))
    return None


def is_reproduced(evidence: Evidence, cell: Cell) -> bool:
    """Tell whether the answers repeat the logged one: its text, or its error, in most of them."""
    logged = evidence.logged
    if logged is None:
        return False
    text = " ".join(evidence.case.logged.split())
    same = [
        " ".join(sample.text.split()) == text or have_common_error(sample.judgement, logged)
        for sample in cell.samples
    ]
    return 2 * sum(same) > len(same)


def _judge_documents(evidence: Evidence) -> Verdict | None:
    case, lookup = evidence.case, evidence.lookup
    if lookup.wrong is not None:
        assert case.review is not None
        reason = (
            f"{lookup.wrong.address or lookup.wrong.document_id} states what the answer said, and "
            f"{case.review.reviewer} says that this passage is wrong."
        )
        return Verdict(
            fault=Fault.DOCUMENT, detail="wrong", reason=reason, decided_by=((_R, Who.THEN),)
        )
    if lookup.contrary is not None:
        where = lookup.contrary.address or lookup.contrary.document_id
        if lookup.right is not None:
            reason = f"The documents disagree: {_where(lookup)} and {where} state both answers."
            return _unknown("documents_disagree", reason)
        reason = f"{where} states what the answer said: the review or the document is wrong."
        return _unknown("review_unsupported", reason)
    adapter = _judge_adapter_in_place(evidence)
    if adapter is not None:
        return adapter
    if case.trace is None:
        return _without_retrieval(evidence)
    if lookup.right is not None:
        return None
    if not lookup.is_verifiable:
        reason = (
            "No document states the reviewer's answer word for word, so that the right passage "
            "cannot be found by itself."
        )
        return _unknown("no_right_passage", reason, notes=("Name it with --passage ID.",))
    if not lookup.is_searched:
        return _unknown("no_collection", lookup.problem, notes=_hints(evidence))
    reason = (
        f"No passage of {case.trace.collection!r} states {_facts(evidence)}: a document is missing."
    )
    return Verdict(
        fault=Fault.DOCUMENT, detail="missing", reason=reason, decided_by=((_R, Who.THEN),)
    )


def _judge_adapter_in_place(evidence: Evidence) -> Verdict | None:
    """Blame the adapter where the base is right with exactly what the adapter was given."""
    question = _L if evidence.case.passages else _N
    base, then = evidence.cell(question, Who.BASE), evidence.cell(_R, Who.THEN)
    if base is None or then is None or base.version == then.version or not base.is_right:
        return None
    return _blame_adapter(evidence, question)


def _blame_adapter(evidence: Evidence, question: Question) -> Verdict:
    alone, then = evidence.cell(_N, Who.THEN), evidence.cell(_R, Who.THEN)
    assert then is not None
    wrong = then.samples[0].judgement.wrong
    contradicts = (
        bool(wrong)
        and alone is not None
        and have_common_error(alone.samples[0].judgement, then.samples[0].judgement)
    )
    said = f"; without passages it says {', '.join(map(str, wrong))} too" if contradicts else ""
    reason = f"The base is right with {describe(question)}, and {then.version} is not{said}."
    detail = "contradicts" if contradicts else "forgot_skill"
    decided = ((_R, Who.THEN), (question, Who.BASE))
    return Verdict(
        fault=Fault.ADAPTER, detail=detail, reason=reason, notes=_repaired(evidence),
        decided_by=decided,
    )  # fmt: skip


def _without_retrieval(evidence: Evidence) -> Verdict:
    known = evidence.cell(_N, Who.BASE)
    left = "The base does not know it either" if known is not None else "Nothing was searched"
    reason = (
        f"Nothing was searched for this answer. {left}, so that only these are left: a document "
        "with retrieval, or training."
    )
    return _unknown("without_retrieval", reason, notes=_repaired(evidence))


def _judge_parts(evidence: Evidence) -> Verdict:
    lookup = evidence.lookup
    assert lookup.right is not None
    if lookup.right.logged_rank is None:
        return _judge_index(evidence)
    base, then = evidence.cell(_O, Who.BASE), evidence.cell(_O, Who.THEN)
    if base is None or then is None:
        return _unknown("not_asked", _error(evidence, _O), notes=_hints(evidence))
    if base.is_right or then.is_right:
        return _judge_prompt(evidence, base, then)
    in_turn = evidence.cell(_TURN, Who.BASE)
    if in_turn is not None and in_turn.is_right:
        reason = (
            "With the right passage in the user's turn the base is right; in the system message "
            "it is not."
        )
        decided = ((_R, Who.THEN), (_O, Who.BASE), (_TURN, Who.BASE))
        return Verdict(fault=Fault.PROMPT, detail="format", reason=reason, decided_by=decided)
    reason = f"Even with the right passage alone ({_where(lookup)}) the base is wrong."
    decided = ((_R, Who.THEN), (_O, Who.BASE), (_O, Who.THEN))
    return Verdict(
        fault=Fault.BASE, detail="limits", reason=reason, notes=_repaired(evidence),
        decided_by=decided,
    )  # fmt: skip


def _judge_prompt(evidence: Evidence, base: Cell, then: Cell) -> Verdict:
    """Decide where the passage was in the prompt, and alone it helps at least one of the two."""
    lookup = evidence.lookup
    assert lookup.right is not None
    is_alone = len(evidence.case.passages) == 1
    if not then.is_right and (is_alone or _answers_unlike_the_base(evidence, then)):
        return _blame_adapter(evidence, _O)
    who = Who.THEN if then.is_right else Who.BASE
    first = evidence.cell(_FIRST, who)
    rank = lookup.right.logged_rank
    others = len(evidence.case.passages) - 1
    is_order = rank != 1 and first is not None and bool(first.is_right)
    fix = "at the first place too" if is_order else f"among {others} others it does not"
    reason = (
        f"The right passage was in the prompt at place {rank}. Alone it gives the right answer; "
        f"{fix}."
    )
    decided = [(_R, Who.THEN), (_O, who)] + ([(_FIRST, who)] if is_order else [])
    return Verdict(
        fault=Fault.PROMPT,
        detail="order" if is_order else "noise",
        reason=reason,
        also=() if then.is_right else (Fault.ADAPTER,),
        notes=_repaired(evidence),
        decided_by=tuple(decided),
    )


def _answers_unlike_the_base(evidence: Evidence, then: Cell) -> bool:
    """Tell whether the adapter's error is its own: alone and among others it says the same."""
    logged = evidence.cell(_R, Who.THEN)
    base = evidence.cell(_L, Who.BASE)
    if logged is None or base is None or base.version == then.version:
        return False
    own = have_common_error(logged.samples[0].judgement, then.samples[0].judgement)
    shared = have_common_error(base.samples[0].judgement, logged.samples[0].judgement)
    return own and not shared


def _judge_index(evidence: Evidence) -> Verdict:
    """Say why the passage was not in the prompt, and whether it would have helped."""
    right, trace = evidence.lookup.right, evidence.case.trace
    assert right is not None and trace is not None
    fault, detail, why = _why_not_sent(right, trace)
    also, notes = _with_the_passage(evidence)
    return Verdict(
        fault=fault,
        detail=detail,
        reason=f"{_where(evidence.lookup)} holds the answer; {why}.",
        also=also,
        notes=(*notes, *_repaired(evidence)),
        decided_by=((_R, Who.THEN),),
    )


def _why_not_sent(right: RightPassage, trace: Trace) -> tuple[Fault, str, str]:
    if right.is_newer:
        return Fault.DOCUMENT, "missing_then", "it was added after the question was asked"
    if trace.outcome == "forbidden":
        return Fault.INDEX, "forbidden", f"the key may not read {trace.collection!r}"
    if trace.outcome == "failed":
        return Fault.INDEX, "failed", f"the search failed: {trace.message.rstrip('.')}"
    if right.is_filtered:
        return Fault.INDEX, "filtered", f"the filter {trace.filter} leaves it out"
    if right.rank is None:
        return Fault.INDEX, "not_found", "the search does not find it for this question"
    if right.score < trace.min_score:
        why = f"its score {right.score:.2f} is below {trace.min_score:g}"
        return Fault.INDEX, "below_threshold", why
    if right.rank > trace.top_k:
        why = f"it is found at place {right.rank}, and the first {trace.top_k} enter the prompt"
        return Fault.INDEX, "below_cut", why
    if trace.dropped_by_budget:
        why = f"it was one of {trace.dropped_by_budget} that were left out for want of room"
        return Fault.PROMPT, "no_room", why
    why = f"it is found now, at place {right.rank}, and was not in the prompt"
    return Fault.INDEX, "changed", why


def _with_the_passage(evidence: Evidence) -> tuple[tuple[Fault, ...], tuple[str, ...]]:
    """Say what the right passage alone would have changed: a second fault where it is nothing."""
    base, then = evidence.cell(_O, Who.BASE), evidence.cell(_O, Who.THEN)
    if then is None:
        return (), ()
    if then.is_right:
        return (), (f"With the right passage {then.version} is right.",)
    note = (f"With the right passage {then.version} is still wrong.",)
    if base is not None and base.version != then.version and base.is_right:
        return (Fault.ADAPTER,), note
    return (Fault.BASE,), note


def _hints(evidence: Evidence) -> tuple[str, ...]:
    """Say what is known although the answer could not be reproduced."""
    right, trace = evidence.lookup.right, evidence.case.trace
    if trace is None:
        return ("Nothing was searched for this answer.",)
    if right is None:
        found = f"No passage that states {_facts(evidence)} was found in {trace.collection!r}."
        return (found,) if evidence.lookup.is_searched else (evidence.lookup.problem,)
    where = _where(evidence.lookup)
    if right.logged_rank is None:
        return (f"{where} holds the answer and was not in the prompt.",)
    return (f"{where} holds the answer and was in the prompt at place {right.logged_rank}.",)


def _repaired(evidence: Evidence) -> tuple[str, ...]:
    """Say where the version or the search of now answers right already."""
    case = evidence.case
    then, now = case.versions.get(Who.THEN), case.versions.get(Who.NOW)
    question = _L if case.passages else _N
    same, search = evidence.cell(question, Who.NOW), evidence.cell(_W, Who.NOW)
    if same is not None and then != now and same.is_right:
        return (f"{now}, which is live now, is right with {describe(question)}.",)
    if search is not None and search.is_right:
        return (f"With the search of now, {now} is right.",)
    return ()


def describe(question: Question) -> str:
    """Name what a cell asks with."""
    return {
        _R: "the logged request", _N: "no passages", _L: "the logged passages",
        _W: "the passages of a search now", _O: "the right passage alone",
        _FIRST: "the right passage first", _TURN: "the right passage in the user's turn",
    }[question]  # fmt: skip


def _where(lookup: Lookup) -> str:
    assert lookup.right is not None
    hit = lookup.right.hit
    return " > ".join(filter(None, (hit.address or hit.document_id, hit.section)))


def _facts(evidence: Evidence) -> str:
    key = evidence.key
    return ", ".join(map(str, key.required)) if key and key.required else "the reviewer's answer"


def _error(evidence: Evidence, question: Question) -> str:
    errors = [cell.error for cell in evidence.cells if cell.question is question and cell.error]
    return errors[0] if errors else f"Nothing was asked with {describe(question)}."


def _unknown(detail: str, reason: str, *, notes: tuple[str, ...] = ()) -> Verdict:
    return Verdict(fault=Fault.UNKNOWN, detail=detail, reason=reason, notes=notes)


def _none(detail: str, reason: str) -> Verdict:
    return Verdict(fault=Fault.NONE, detail=detail, reason=reason)


def is_asked(case: Case, question: Question, who: Who) -> bool:
    """Tell whether a cell exists: it costs an answer each."""
    if question is Question.REPRODUCE:
        return who is Who.THEN
    if question in (Question.SEARCH,):
        return who is Who.NOW
    if question is Question.IN_TURN:
        return who is Who.BASE
    return True
