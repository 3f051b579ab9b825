"""People's votes on the stored answers of an evaluation, given without knowing which version said
what. Pure functions; who writes votes is `ballots`.

Shown are the rows on which the candidate and the other version differ, those first whose
correctness differs, then those with the fewest words in common. Rows that both answer alike are
ties that nobody has to look at. The base's answer stands beside the two where it is stored.

A row counts once: for the answer that more people voted for, as a tie where they are even. A vote
for a third answer says nothing about the other two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import cast

from training.data.scoring import token_f1
from training.evaluation.agreement import kappa
from training.evaluation.intervals import (
    BETTER,
    MIN_ROWS,
    UNKNOWN,
    WORSE,
    compared,
    paired_interval,
)
from training.evaluation.opinion import TIE, same_answer
from training.store.evaluation_types import (
    BASE,
    CANDIDATE,
    OTHER,
    Agreement,
    FirstPlace,
    Role,
    Sample,
    VotePair,
    VotesCount,
    VotesSummary,
    VotesVerdict,
)
from whet.access import hash_key

NONE = "none"
ROLES: tuple[Role, ...] = (CANDIDATE, OTHER, BASE)


@dataclass(frozen=True, slots=True)
class Ballot:
    """One person's word on one row."""

    row: str
    voter: str
    choice: str  # candidate | against | base | tie | none (of them is good)
    places: tuple[str, ...]  # whose answer stood first, second, third


def texts_of(sample: Sample) -> dict[str, str]:
    """Role → answer, for the roles whose answer to this row is stored.

    White space around an answer cannot be seen, and does not count.
    """
    return {role: sample[role]["text"].strip() for role in ROLES if role in sample}


def shown(sample: Sample) -> tuple[str, ...]:
    """One role for each different answer: equal ones are shown once, and a vote for one is a vote
    for all who gave it.
    """
    first: dict[str, str] = {}
    for role, text in texts_of(sample).items():
        first.setdefault(text, role)
    return tuple(first.values())


def places(sample: Sample, *, voter: str, evaluation: str, secret: bytes) -> tuple[str, ...]:
    """The order in which this person sees the answers to this row: always the same one, another one
    for another person or row, never the versions' own.

    `secret` is the installation's: everything else in the hash is known to the voter, who could
    compute from it whose answer stands where.
    """

    def drawn(role: str) -> str:
        return hash_key("\0".join(("places", voter, evaluation, sample["id"], role)), secret)

    return tuple(sorted(shown(sample), key=drawn))


def differing(samples: Iterable[Sample]) -> list[Sample]:
    """Rows worth a person's time, the greatest disagreement first.

    Which of the two versions said what has no part in the order.
    """

    def agreement(sample: Sample) -> tuple[bool, float, str]:
        ours, theirs = sample[CANDIDATE], sample[OTHER]
        # The last bits depend on which one comes first
        overlap = round(token_f1(ours["text"], theirs["text"]), 6)
        return ours["score"]["correct"] == theirs["score"]["correct"], overlap, sample["id"]

    return sorted((sample for sample in samples if not same_answer(sample)), key=agreement)


def outcome(sample: Sample, ballots: Iterable[Ballot], first: str, second: str) -> int | None:
    """What people say about two answers to one row: 1 the first, -1 the second, 0 a tie; None where
    nobody said anything about the two.
    """
    said = [
        word
        for ballot in ballots
        if (word := _word(texts_of(sample), ballot.choice, first, second)) is not None
    ]
    total = sum(said)
    return (total > 0) - (total < 0) if said else None


def _word(texts: Mapping[str, str], choice: str, first: str, second: str) -> int | None:
    if first not in texts or second not in texts:
        return None
    if choice in (TIE, NONE):
        return 0
    if choice not in texts or texts[choice] not in (texts[first], texts[second]):
        return None
    return (texts[choice] == texts[first]) - (texts[choice] == texts[second])


def words(samples: Iterable[Sample], ballots: Iterable[Ballot]) -> dict[str, str]:
    """Row id → candidate, against or tie, for the rows on which people said something about the
    two: what a judge is compared with.
    """
    by_row = _by_row(ballots)
    found = {
        sample["id"]: outcome(sample, by_row[sample["id"]], CANDIDATE, OTHER)
        for sample in samples
        if sample["id"] in by_row
    }
    return {
        row: {1: CANDIDATE, -1: OTHER, 0: TIE}[word]
        for row, word in found.items()
        if word is not None
    }


def counted(
    samples: Sequence[Sample], ballots: Sequence[Ballot], names: Mapping[str, str]
) -> VotesVerdict:
    """What the votes come to, without agreement.

    `names`: role → how the version is called; the candidate, the other, and the base where its
    answers are stored.

    `{"rows", "differ", "alike", "voted", "votes", "voters", "pairs": {role: {"name", "wins",
    "losses", "ties", "none", "preference"}}, "first_place", "verdict", "sentence"}`; wins are the
    candidate's, `preference` is the share of rows won less the share lost, with its 95 % interval.
    """
    differ = {sample["id"]: sample for sample in differing(samples)}
    by_row = {row: some for row, some in _by_row(ballots).items() if row in differ}
    alike = len(samples) - len(differ)
    others = [role for role in (OTHER, BASE) if role in names]
    found: VotesCount = {
        "rows": len(samples),
        "differ": len(differ),
        "alike": alike,
        "voted": len(by_row),
        "votes": sum(map(len, by_row.values())),
        "voters": len({ballot.voter for some in by_row.values() for ballot in some}),
        # Only of the pair of which the rows are chosen is known how many were answered alike.
        "pairs": {
            role: _pair(differ, by_row, role, names[role], alike if role == OTHER else 0)
            for role in others
        },
        "first_place": _first_place([ballot for some in by_row.values() for ballot in some]),
    }
    return {
        **found,
        "verdict": found["pairs"][OTHER]["preference"]["verdict"],
        "sentence": _sentence(found, names),
    }


def _pair(
    differ: Mapping[str, Sample],
    by_row: Mapping[str, Sequence[Ballot]],
    role: str,
    name: str,
    alike: int,
) -> VotePair:
    """The candidate against one other.

    Of the rows answered alike as large a part counts as people decided of the rows that differ: all
    of them, when all are.
    """
    outcomes = [
        word
        for row, some in by_row.items()
        if (word := outcome(differ[row], some, CANDIDATE, role)) is not None
    ]
    none = sum(
        all(ballot.choice == NONE for ballot in by_row[row])
        for row in by_row
        if role in differ[row]
    )
    ties = round(alike * len(outcomes) / len(differ)) if differ else 0
    values = [*map(float, outcomes), *[0.0] * ties]
    preference = compared(
        len(outcomes),
        sum(map(abs, outcomes)),
        sum(values) / max(len(values), 1),
        *paired_interval(values),
        "higher",
    )
    return {
        "name": name,
        "wins": outcomes.count(1),
        "losses": outcomes.count(-1),
        "ties": outcomes.count(0),
        "none": none,
        "preference": preference,
    }


def _first_place(ballots: Sequence[Ballot]) -> FirstPlace:
    """How often the answer that stood first was taken, of the votes that took one, and how often
    chance would have: a bias is shown, and the drawn order cancels it.
    """
    taken = [ballot for ballot in ballots if ballot.choice in ballot.places]
    return {
        "chosen": sum(one.places[0] == one.choice for one in taken),
        "of": len(taken),
        "by_chance": round(sum(1 / len(one.places) for one in taken), 1),
    }


def summary(
    samples: Sequence[Sample], ballots: Sequence[Ballot], names: Mapping[str, str]
) -> VotesSummary:
    """`counted`, with the agreement between people on the rows that several voted on: Cohen's kappa
    where they are the same two on all of them, else Fleiss'. `same`: rows on which all who voted
    said the same.
    """
    found = counted(samples, ballots, names)
    differ = {sample["id"] for sample in differing(samples)}
    rows = [
        sorted(some, key=lambda ballot: ballot.voter)
        for row, some in _by_row(ballots).items()
        if row in differ and len(some) > 1
    ]
    voters = sorted({ballot.voter for some in rows for ballot in some})
    choices = [tuple(ballot.choice for ballot in some) for some in rows]
    measured = (
        kappa([(one, two) for one, two in choices]) if len(voters) == 2 else fleiss_kappa(choices)
    )
    same = sum(len(set(some)) == 1 for some in choices)
    agreement: Agreement = {
        "n": len(rows),
        "voters": len(voters),
        "same": same,
        "kappa": measured,
    }
    return cast(VotesSummary, {**found, "agreement": agreement})


def fleiss_kappa(rows: Sequence[Sequence[str]]) -> float | None:
    """Agreement beyond chance of any number of people (Fleiss, Psychological Bulletin 1971), who
    need not be the same ones on each row. Where more vote on one row than on another, each row's
    shares count alike. Each row: what two or more said. None where `kappa` has none.
    """
    if len(rows) < MIN_ROWS or len({word for row in rows for word in row}) < 2:
        return None
    counts = [Counter(row) for row in rows]
    agreed = fmean(
        sum(n * (n - 1) for n in row.values()) / (row.total() * (row.total() - 1)) for row in counts
    )
    chance = sum(
        fmean(row[word] / row.total() for row in counts) ** 2
        for word in {word for row in counts for word in row}
    )
    return round((agreed - chance) / (1 - chance), 3)


def said_agreement(found: VotesSummary) -> str:
    """How far people agree with each other, and the judge with them, where one was asked.

    `found`: a `summary`, perhaps with `judge`.
    """
    agreement, judge = found["agreement"], found.get("judge")
    known = _known(agreement["kappa"], "kappa" if agreement["voters"] == 2 else "Fleiss' kappa")
    who, all_of_them = (
        ("Two people", "")
        if agreement["voters"] == 2
        else (f"Two or more of {agreement['voters']} people", "all ")
    )
    people = (
        f"{who} voted on {agreement['n']} rows and {all_of_them}said the same on"
        f" {agreement['same']} ({known})."
    )
    if agreement["n"] == 0:
        people = "No row was voted on by two people, so how far they agree is not known."
    return people + (
        f" The judge says what people say on {judge['same']} of {judge['n']} rows"
        f" ({_known(judge['kappa'])})."
        if judge
        else ""
    )


def _known(value: float | None, name: str = "kappa") -> str:
    return (
        "not enough data to tell how much of that is chance"
        if value is None
        else f"{name} {value:.2f}"
    )


def _sentence(found: VotesCount, names: Mapping[str, str]) -> str:
    candidate, other, pair = names[CANDIDATE], names[OTHER], found["pairs"][OTHER]
    if not found["differ"]:
        return (
            f"{candidate} and {other} answer all {found['rows']} rows alike: there is nothing to"
            " vote on."
        )
    if not found["voted"]:
        return (
            f"Nobody has voted yet on the {found['differ']} of {found['rows']} rows that"
            f" {candidate} and {other} answer differently."
        )
    preference = pair["preference"]
    said = {
        BETTER: (
            f"People who did not know which was which prefer {candidate}'s answers to {other}'s"
        ),
        WORSE: f"People who did not know which was which prefer {other}'s answers to {candidate}'s",
        UNKNOWN: (
            f"Whether people prefer {candidate}'s or {other}'s answers: not enough data to tell"
        ),
    }.get(preference["verdict"], f"People find {candidate}'s and {other}'s answers equally good")
    third = found["voted"] - pair["wins"] - pair["losses"] - pair["ties"]
    elsewhere = f", on {third} the base's is the best" if third else ""
    return (
        f"{said}. Of {found['voted']} rows voted on, {candidate}'s answer is better on"
        f" {pair['wins']}, {other}'s on {pair['losses']}, {pair['ties']} are"
        f" ties{elsewhere} ({100 * preference['difference']:+.1f} points,"
        f" {100 * preference['low']:+.1f} to {100 * preference['high']:+.1f}, with the rows"
        " answered alike as ties)."
    )


def _by_row(ballots: Iterable[Ballot]) -> dict[str, list[Ballot]]:
    found: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        found.setdefault(ballot.row, []).append(ballot)
    return found
