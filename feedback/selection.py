"""Which conversations deserve a person's attention.

Pure: candidates and what was taken already in, items out.

Attention is scarce, so a day and alias has a budget. It is shared out like this (why: a queue of
only the worst conversations finds most errors, but says nothing about the error rate; a quarter of
random audit keeps that number unbiased at a small cost in errors found):

| reason     | share | what                                                                                   |
|------------|-------|----------------------------------------------------------------------------------------|
| correction | 0.25  | the application posted what the answer should have been: the cheapest to judge          |
| rating     | 0.25  | a negative rating: self-selected, but somebody was unhappy                               |
| drift      | 0.25  | named by an open alert: what the model may not know yet                                  |
| audit      | 0.25  | drawn at random with a known probability: what makes the error rate an estimate          |
| request    | –     | a person asked for this conversation: outside the budget, first in the queue             |

A share that is not used is free for the other reasons, round-robin, save the audit's: it is kept
for the rest of the day, since a sample that stops when complaints are many is no sample. Never
selected: interactions that are not complete, more than `per_user` of one end user, more than
`per_group` of nearly the same question.

The audit knows no such caps, and a conversation that was drawn stays in the audit whatever else
points at it: a sample from which somebody has taken the complaints, or the repetitions, would say
that answers are better than they are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from feedback.similar import groups
from whet.feedback_rules import LeftOutCode

SHARES: dict[str, float] = {"correction": 0.25, "rating": 0.25, "drift": 0.25, "audit": 0.25}
REQUEST_PRIORITY = 1000.0  # above every other item: somebody waits for it
DAY_MS = 86_400_000
# Until there is a day of history: a desk of 2,000 conversations a day, the size of one drift
# window.
FIRST_DAY_VOLUME = 2000
_SMALLEST_PROBABILITY = 1e-4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A conversation that somebody or something points at."""

    interaction_id: str
    alias: str
    reason: str  # a key of SHARES
    why: str  # one sentence for the reviewer
    status: str  # of the interaction
    question: str
    created_at: int
    end_user: str | None = None
    alert_id: str | None = None
    sampling_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What the queue took in today for one alias."""

    interaction_ids: frozenset[str] = frozenset()  # ever, not only today
    by_reason: Mapping[str, int] = field(default_factory=dict)
    by_user: Mapping[str, int] = field(default_factory=dict)
    questions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    budget: int  # per day and alias
    per_user: int
    # Of nearly the same question: the second shows whether the first was an accident
    per_group: int = 2


@dataclass(frozen=True, slots=True)
class Item:
    candidate: Candidate
    priority: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a candidate was not selected."""

    code: LeftOutCode
    sentence: str


@dataclass(frozen=True, slots=True)
class Selection:
    items: list[Item]
    left_out: dict[str, LeftOut]  # by interaction id


def limits_for(budget: int) -> Limits:
    """One end user may fill a twentieth of the budget, and always at least five: nobody steers the
    training set alone.
    """
    return Limits(budget=budget, per_user=max(5, budget // 20))


def audit_probability(budget: int, volume_per_day: int | None) -> float:
    """Probability with which each complete interaction of a day enters the audit; None: no history
    yet.
    """
    volume = FIRST_DAY_VOLUME if volume_per_day is None else max(1, volume_per_day)
    return max(_SMALLEST_PROBABILITY, min(1.0, SHARES["audit"] * budget / volume))


def drawn(interaction_id: str, probability: float, seed: str) -> bool:
    """Uniform and repeatable: the same interaction is drawn or not drawn whenever it is asked."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:{interaction_id}".encode()).digest()[:8], "big")
    return number < probability * 2**64


def select(candidates: Iterable[Candidate], taken: Taken, limits: Limits) -> Selection:
    """Choose among the candidates of ONE alias. Within a reason the newest comes first."""
    left_out: dict[str, LeftOut] = {}
    eligible = _eligible(candidates, taken, left_out)
    group_of, group_count = _group(eligible, taken)
    users = Counter(taken.by_user)
    counts = Counter({reason: taken.by_reason.get(reason, 0) for reason in SHARES})
    waiting = {reason: [c for c in eligible if c.reason == reason] for reason in SHARES}
    items: list[Item] = []
    while (reason := _next_reason(waiting, counts, limits.budget)) is not None:
        candidate = waiting[reason].pop(0)
        group = group_of[candidate.interaction_id]
        capped = reason != "audit"
        if capped and candidate.end_user and users[candidate.end_user] >= limits.per_user:
            left_out[candidate.interaction_id] = LeftOut(
                "end_user",
                f"{limits.per_user} conversations of this end user are in the queue today, "
                "which is as many as one may have.",
            )
        elif capped and group_count[group] >= limits.per_group:
            left_out[candidate.interaction_id] = LeftOut(
                "similar",
                f"{limits.per_group} conversations with nearly the same question are in the queue "
                "today, which is as many as it takes.",
            )
        else:
            counts[reason] += 1
            group_count[group] += 1
            if candidate.end_user:
                users[candidate.end_user] += 1
            items.append(Item(candidate, _priority(reason, counts[reason])))
    for candidate in (c for rest in waiting.values() for c in rest):
        left_out[candidate.interaction_id] = LeftOut(
            "budget",
            f"The day's budget of {limits.budget} conversations for reviewers is used up.",
        )
    return Selection(items, left_out)


def _eligible(
    candidates: Iterable[Candidate], taken: Taken, left_out: dict[str, LeftOut]
) -> list[Candidate]:
    """Complete, new, once per interaction (drawn at random before all else, then under its
    strongest reason), newest first.
    """
    strength = {"audit": -1} | {
        reason: rank for rank, reason in enumerate(SHARES) if reason != "audit"
    }
    best: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.interaction_id in taken.interaction_ids:
            continue
        if candidate.status != "complete":
            left_out[candidate.interaction_id] = LeftOut(
                "incomplete",
                f"Its status is {candidate.status!r}: only complete answers are reviewed.",
            )
            continue
        known = best.get(candidate.interaction_id)
        if known is None or strength[candidate.reason] < strength[known.reason]:
            best[candidate.interaction_id] = candidate
    return sorted(best.values(), key=lambda c: (-c.created_at, c.interaction_id))


def _group(eligible: Sequence[Candidate], taken: Taken) -> tuple[dict[str, int], Counter[int]]:
    found = groups([*taken.questions, *(candidate.question for candidate in eligible)])
    known = len(taken.questions)
    counts = Counter(found[:known])
    return {
        candidate.interaction_id: found[known + position]
        for position, candidate in enumerate(eligible)
    }, counts


def _next_reason(
    waiting: Mapping[str, list[Candidate]], counts: Mapping[str, int], budget: int
) -> str | None:
    """Round-robin weighted by share: the reason that is furthest behind its share; ties in the
    order of SHARES.
    """
    total = sum(counts.values())
    kept_for_audit = max(0, int(SHARES["audit"] * budget) - counts["audit"])
    room = {
        reason: total < budget - (0 if reason == "audit" else kept_for_audit) for reason in SHARES
    }
    open_reasons = [reason for reason in SHARES if waiting[reason] and room[reason]]
    return (
        min(open_reasons, key=lambda reason: counts[reason] / SHARES[reason])
        if open_reasons
        else None
    )


def _priority(reason: str, ordinal: int) -> float:
    """The queue mixes the reasons in the same proportion, so that audit is never starved by
    complaints.
    """
    return round(-ordinal / SHARES[reason] - list(SHARES).index(reason) / 100, 4)
