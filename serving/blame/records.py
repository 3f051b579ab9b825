"""What the parts of blame hand each other: the case, its cells, and the verdict."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from serving.blame.judging import Judgement, KeyFacts
from serving.retrieval.records import Hit


class Fault(StrEnum):
    """Which part is to be repaired."""

    DOCUMENT = "document"
    INDEX = "index"
    PROMPT = "prompt"
    ADAPTER = "adapter"
    BASE = "base"
    NONE = "none"  # the logged answer was right
    UNKNOWN = "unknown"  # cannot tell


class Question(StrEnum):
    """What a cell of the matrix asks with."""

    REPRODUCE = "R"  # the logged request: passages, version, parameters
    NONE = "N"  # no passages
    LOGGED = "L"  # the logged passages
    SEARCH = "W"  # the passages that the search finds now
    ALONE = "O"  # the right passage alone
    FIRST = "O+"  # the right passage before the logged ones
    IN_TURN = "F"  # the right passage in the user's turn


class Who(StrEnum):
    """Which version a cell asks."""

    BASE = "base"
    THEN = "then"  # the version that answered
    NOW = "now"  # the version that is live now


class Sample(msgspec.Struct, frozen=True):
    """One answer of a cell."""

    text: str
    judgement: Judgement


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: the answers of one version to one form of the question, the greedy one first."""

    question: Question
    who: Who
    version: str  # as the gateway is asked for it
    samples: tuple[Sample, ...] = ()
    error: str = ""  # why it was not answered

    @property
    def is_right(self) -> bool | None:
        """Whether most answers are right; None without an answer."""
        if not self.samples:
            return None
        return 2 * sum(sample.judgement.is_right for sample in self.samples) > len(self.samples)

    @property
    def agreement(self) -> float:
        """Share of the answers that are judged as most are."""
        right = sum(sample.judgement.is_right for sample in self.samples)
        return max(right, len(self.samples) - right) / max(1, len(self.samples))


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What the logged request searched, and how that went."""

    collection: str
    outcome: str
    query: str
    top_k: int = 4
    min_score: float = 0.0
    filter: dict[str, Any] = {}
    mode: str = "hybrid"
    neighbours: int = 0
    dropped_by_budget: int = 0
    message: str = ""


class PassageVerdict(StrEnum):
    """What a reviewer says of passages in the prompt (`reviews.passage_verdict`)."""

    MISSING = "missing"  # the one that answers is none of them
    WRONG = "wrong"
    IGNORED = "ignored"  # one answers, and the model did not use it


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said about the answer, and of which passages of its prompt."""

    id: str = ""  # empty: the answer was given with the command
    decision: str = "edit"
    answer: str = ""
    reviewer: str = ""
    passage_verdict: PassageVerdict | None = None
    passage_ids: tuple[str, ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A logged answer and its review. `versions` has those that can be asked."""

    interaction_id: str
    alias: str
    route: str
    request: dict[str, Any]
    question: str
    logged: str
    created_at: int
    is_complete: bool
    review: Review | None
    trace: Trace | None  # None: nothing was searched
    passages: tuple[Hit, ...] = ()  # those in the prompt, in its order
    versions: dict[Who, str] = {}
    then_label: str = ""  # who answered, also when the version is gone


class RightPassage(msgspec.Struct, frozen=True, kw_only=True):
    """The passage that holds the answer, and where it lies in the search of then and of now."""

    hit: Hit
    how: str  # picked (with the command) | reviewed (named in the review) | logged | found
    logged_rank: int | None = None  # from 1; None: not in the prompt
    rank: int | None = None  # now, with the logged filter; None: not among the first
    rank_unfiltered: int | None = None
    score: float = 0.0  # now, for the logged question
    is_filtered: bool = False  # its document does not pass the logged filter
    is_newer: bool = False  # added after the answer


class Lookup(msgspec.Struct, frozen=True, kw_only=True):
    """What the documents say about the facts."""

    right: RightPassage | None = None
    contrary: Hit | None = None  # it states what the logged answer said
    wrong: Hit | None = None  # so does this one, and the reviewer says that it is wrong
    is_searched: bool = False  # the collection could be searched
    is_verifiable: bool = True  # documents could state the facts word for word
    problem: str = ""  # why the collection could not be searched, or the pick not be used


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the rules decide by."""

    case: Case
    key: KeyFacts | None = None  # None: there is nothing to compare with
    logged: Judgement | None = None
    lookup: Lookup = Lookup()
    cells: tuple[Cell, ...] = ()
    engine_problem: str = ""  # why the gateway could not be asked at all

    def cell(self, question: Question, who: Who) -> Cell | None:
        """Return a cell that was answered. Where one version is two, the one is also the other."""
        version = self.case.versions.get(who)
        for cell in self.cells:
            if cell.question is question and cell.version == version and cell.samples:
                return cell
        return None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is at fault, and why. `decided_by` names the cells that the verdict rests on."""

    fault: Fault
    detail: str
    reason: str
    also: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    decided_by: tuple[tuple[Question, Who], ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict with what it was made of."""

    evidence: Evidence
    verdict: Verdict
