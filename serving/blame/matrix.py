"""Runs the matrix of one case: asks its cells, and lets the rules decide."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from serving.blame.judging import KeyFacts, find_key_facts, judge
from serving.blame.lookup import Resolve, Search, look_up
from serving.blame.records import Case, Cell, Evidence, Lookup, Question, Report, Sample, Who
from serving.blame.rules import decide, is_asked, is_reproduced, judge_review, require_stable
from serving.retrieval.records import Hit, Mode, Outcome, SearchRequest
from whet.errors import EngineError, EngineUnavailableError
from whet.json_types import JsonObject
from whet.rag_prompt import format_passage, insert_into_request

# Answers to a cell that decides, where the logged request drew them at random.
SAMPLES = 5
# In this order a version's prompts share the longest beginnings.
_ORDER = (
    Question.NONE, Question.LOGGED, Question.SEARCH, Question.ALONE, Question.FIRST,
    Question.IN_TURN,
)  # fmt: skip
# Of the request, what changes the form of an answer and not its text.
_FORM = ("stream", "stream_options", "n", "best_of", "logprobs", "top_logprobs", "user", "metadata")


class Asker(Protocol):
    """Whoever answers a request: the gateway, or a model in this process."""

    def __call__(self, model: str, route: str, body: JsonObject) -> str:
        """Return the answer's text.

        Raises EngineUnavailableError where nobody answers, EngineError where this request is
        refused.
        """
        ...


Progress = Callable[[int, int, str], None]  # answers so far, about how many, what is asked


def run_matrix(
    case: Case,
    ask: Asker,
    search: Search,
    resolve: Resolve,
    *,
    picked: str = "",
    samples: int = SAMPLES,
    progress: Progress = lambda done, total, what: None,
) -> Report:
    """Return the verdict on one case with its evidence. No engine, no index: it says so."""
    key = None
    if case.review is not None and case.review.answer:
        key = find_key_facts(case.question, case.review.answer, case.logged)
    logged = judge(case.logged, key) if key is not None else None
    evidence = Evidence(case=case, key=key, logged=logged)
    verdict = judge_review(evidence)
    if verdict is not None or key is None:
        assert verdict is not None
        return Report(evidence=evidence, verdict=verdict)
    progress(0, 1, "documents")
    lookup = look_up(case, key, search, resolve, picked)
    evidence = msgspec.structs.replace(evidence, lookup=lookup)
    run = _Run(case, key, lookup, ask, search, samples, progress)
    evidence = run.ask_cells(evidence)
    verdict = decide(evidence)
    evidence = run.ask_again(evidence, verdict.decided_by)
    verdict = require_stable(evidence, decide(evidence))
    return Report(evidence=evidence, verdict=verdict)


class _Run:
    def __init__(
        self,
        case: Case,
        key: KeyFacts,
        lookup: Lookup,
        ask: Asker,
        search: Search,
        samples: int,
        progress: Progress,
    ) -> None:
        self._case, self._key, self._lookup = case, key, lookup
        self._ask, self._search = ask, search
        self._samples, self._progress = samples, progress
        self._done, self._total = 0, 1

    def ask_cells(self, evidence: Evidence) -> Evidence:
        """Reproduce the answer; if it comes again, ask every other cell once."""
        if Who.THEN not in self._case.versions:
            return evidence
        planned = list(self._planned())
        self._total = len(planned) + 1
        cells: list[Cell] = []
        try:
            cells.append(self._reproduce())
            evidence = msgspec.structs.replace(evidence, cells=tuple(cells))
            if not cells[0].samples or not is_reproduced(evidence, cells[0]):
                return evidence
            for question, who, passages in planned:
                cells.append(self._cell(question, who, passages))
        except EngineUnavailableError as error:
            evidence = msgspec.structs.replace(evidence, engine_problem=str(error))
        return msgspec.structs.replace(evidence, cells=tuple(cells))

    def ask_again(self, evidence: Evidence, decided_by: Sequence[tuple[Question, Who]]) -> Evidence:
        """Ask the cells that decide until each has its samples."""
        cells = list(evidence.cells)
        wanted: list[Cell] = []
        for each in decided_by:
            cell = evidence.cell(*each)
            if cell is not None and cell not in wanted:  # the base may be the version that answered
                wanted.append(cell)
        self._total = self._done + sum(self._missing(cell) for cell in wanted)
        try:
            for cell in wanted:
                cells[cells.index(cell)] = self._sample(cell)
        except EngineUnavailableError as error:
            return msgspec.structs.replace(evidence, engine_problem=str(error))
        return msgspec.structs.replace(evidence, cells=tuple(cells))

    def _planned(self) -> Iterable[tuple[Question, Who, tuple[Hit, ...]]]:
        case = self._case
        asked: set[tuple[Question, str]] = set()
        for who in Who:
            version = case.versions.get(who)
            if version is None:
                continue
            for question in _ORDER:
                passages = self._passages(question)
                if passages is None or not is_asked(case, question, who):
                    continue
                if (question, version) not in asked:
                    asked.add((question, version))
                    yield question, who, passages

    def _passages(self, question: Question) -> tuple[Hit, ...] | None:
        """Return what a cell has in its prompt; None: there is no such cell."""
        case, right = self._case, self._lookup.right
        if question in (Question.NONE, Question.REPRODUCE):
            return case.passages if question is Question.REPRODUCE else ()
        if case.route == "completions":
            return None  # a prompt has no system message
        if question is Question.LOGGED:
            return case.passages or None
        if question is Question.SEARCH:
            return self._found_now()
        if right is None:
            return None
        others = [hit for hit in case.passages if hit.passage_id != right.hit.passage_id]
        if question is Question.FIRST:
            # The last of the others gives way, so that the prompt is no longer than it was.
            kept = others if right.logged_rank is not None else others[: len(case.passages) - 1]
            is_new = kept and (right.logged_rank != 1)
            return (right.hit, *kept) if is_new else None
        return (right.hit,)

    def _found_now(self) -> tuple[Hit, ...] | None:
        trace = self._case.trace
        if trace is None:
            return None
        result = self._search(
            SearchRequest(
                collection=trace.collection, query=trace.query or self._case.question,
                top_k=trace.top_k, min_score=trace.min_score, filter=trace.filter,
                mode=Mode(trace.mode), neighbours=trace.neighbours,
            )
        )  # fmt: skip
        return tuple(result.hits) if result.outcome is Outcome.FOUND else None

    def _reproduce(self) -> Cell:
        case = self._case
        body = self._body(Question.REPRODUCE, case.passages)
        cell = Cell(question=Question.REPRODUCE, who=Who.THEN, version=case.versions[Who.THEN])
        try:
            cell = self._answered(cell, body)
            while self._is_random() and len(cell.samples) < self._samples:
                cell = self._answered(cell, body)
        except EngineUnavailableError:
            raise
        except EngineError as error:
            cell = msgspec.structs.replace(cell, error=str(error))
        return cell

    def _cell(self, question: Question, who: Who, passages: tuple[Hit, ...]) -> Cell:
        cell = Cell(question=question, who=who, version=self._case.versions[who])
        body = {**self._body(question, passages), "temperature": 0}
        try:
            return self._answered(cell, body)
        except EngineUnavailableError:
            raise
        except EngineError as error:
            return msgspec.structs.replace(cell, error=str(error))

    def _sample(self, cell: Cell) -> Cell:
        passages = self._passages(cell.question)
        body = self._body(cell.question, passages or ())
        while self._missing(cell):
            seed = {"seed": len(cell.samples)} if self._is_random() else {}
            try:
                cell = self._answered(cell, {**body, **seed})
            except EngineUnavailableError:
                raise
            except EngineError as error:
                return msgspec.structs.replace(cell, error=str(error))
        return cell

    def _missing(self, cell: Cell) -> int:
        """Return how many samples a deciding cell lacks; a greedy one is asked twice in all."""
        return max(0, (self._samples if self._is_random() else 2) - len(cell.samples))

    def _is_random(self) -> bool:
        return self._case.request.get("temperature") != 0

    def _answered(self, cell: Cell, body: JsonObject) -> Cell:
        self._progress(self._done, self._total, f"{cell.question.value} {cell.version}")
        text = self._ask(cell.version, self._case.route, body)
        self._done += 1
        sample = Sample(text, judge(text, self._key))
        return msgspec.structs.replace(cell, samples=(*cell.samples, sample))

    def _body(self, question: Question, passages: Sequence[Hit]) -> JsonObject:
        request = {name: value for name, value in self._case.request.items() if name not in _FORM}
        if self._case.route == "completions":
            return request
        texts = [format_passage(msgspec.structs.asdict(hit)) for hit in passages]
        insert = _in_user_turn if question is Question.IN_TURN else insert_into_request
        return {**insert(request, texts), "rag": False}


def _in_user_turn(request: JsonObject, texts: Sequence[str]) -> JsonObject:
    """Return the request with the passages before the text of its last user turn."""
    changed = copy.deepcopy(request)
    block = "\n".join(texts)
    turns = changed.get("messages", changed.get("input"))
    if isinstance(turns, str):
        return {**changed, "input": f"{block}\n\n{turns}"}
    for turn in reversed(turns if isinstance(turns, list) else []):
        if isinstance(turn, dict) and turn.get("role") == "user":
            content = turn.get("content")
            if isinstance(content, str):
                turn["content"] = f"{block}\n\n{content}"
            elif isinstance(content, list):
                kind = "input_text" if "input" in changed else "text"
                turn["content"] = [{"type": kind, "text": f"{block}\n\n"}, *content]
            break
    return changed
