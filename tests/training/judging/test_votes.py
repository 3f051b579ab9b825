"""People's votes: rows in order of disagreement, answers in an order that tells nothing, and
figures that a bias for a place does not move. Pure functions.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from tests.training.judging.test_opinion import sample
from training.evaluation.opinion import beside_people
from training.evaluation.votes import (
    Ballot,
    differing,
    fleiss_kappa,
    outcome,
    places,
    said_agreement,
    shown,
    summary,
    texts_of,
    words,
)

NAMES = {"candidate": "desk@v2", "against": "desk@v1"}
WITH_BASE = {**NAMES, "base": "the base"}
SECRET = bytes(32)


def voted(
    samples: list[dict[str, Any]], choose: Any, *, voters: tuple[str, ...] = ("ada",)
) -> list[Ballot]:
    """Everybody votes on every row; `choose(places, sample)` is what they take."""
    found = []
    for one in samples:
        for voter in voters:
            order = places(one, voter=voter, evaluation="evl_1", secret=SECRET)
            found.append(Ballot(one["id"], voter, choose(order, one), order))
    return found


def three(number: int) -> dict[str, Any]:
    return {
        **sample(number),
        "base": {"text": f"quite another answer {number}", "score": {"correct": 0.0, "f1": 0.0}},
    }


def swapped(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "candidate": one["against"], "against": one["candidate"]}


# --- what is shown, and in which order --------------------------------------------------------------------------------


def test_rows_come_by_disagreement_and_equal_answers_do_not_come() -> None:
    alike, close, far, right = sample(1), sample(2, theirs=True), sample(3, theirs=True), sample(4)
    alike["against"] = {**alike["candidate"], "text": alike["candidate"]["text"] + "\n"}
    far["against"]["text"] = "nothing in common with it"
    assert [one["id"] for one in differing([alike, close, far, right])] == ["r-4", "r-3", "r-2"]


def test_which_version_said_what_has_no_part_in_the_order_of_rows() -> None:
    samples = [sample(number, ours=number % 2 == 0, theirs=number % 3 == 0) for number in range(40)]
    assert [one["id"] for one in differing(samples)] == [
        one["id"] for one in differing([swapped(one) for one in samples])
    ]


def test_a_person_sees_the_same_order_again_and_others_see_others() -> None:
    def seen(voter: str, evaluation: str = "evl_1") -> list[tuple[str, ...]]:
        return [
            places(three(number), voter=voter, evaluation=evaluation, secret=SECRET)
            for number in range(60)
        ]

    orders = {voter: seen(voter) for voter in ("ada", "ola")}
    assert orders["ada"] == seen("ada")
    assert orders["ada"] != orders["ola"] != seen("ola", "evl_2")
    assert set(orders["ada"]) == set(orders["ola"]) and len(set(orders["ada"])) == 6, (
        "every order of three occurs"
    )
    firsts = Counter(order[0] for voter in orders for order in orders[voter])
    assert min(firsts.values()) > 120 / 3 - 20, firsts


def test_who_does_not_know_the_installations_secret_cannot_tell_the_order() -> None:
    """Person, evaluation, row and roles are known to every voter: without the secret the order must
    not follow from them.
    """
    one, other = (
        [
            places(three(number), voter="ada", evaluation="evl_1", secret=secret)
            for number in range(60)
        ]
        for secret in (SECRET, b"\1" * 32)
    )
    assert one == [
        places(three(number), voter="ada", evaluation="evl_1", secret=SECRET)
        for number in range(60)
    ], "stable for one secret"
    alike = sum(a == b for a, b in zip(one, other, strict=True))
    assert alike < 25, f"{alike} of 60 orders are the same with another secret; chance makes ten"


def test_equal_answers_are_one_answer_and_a_vote_for_it_is_for_all_who_gave_it() -> None:
    one = three(1)
    one["base"] = {**one["against"]}
    assert shown(one) == ("candidate", "against") and len(texts_of(one)) == 3
    ballot = [Ballot("r-1", "ada", "against", ("against", "candidate"))]
    assert (
        outcome(one, ballot, "candidate", "base")
        == outcome(one, ballot, "candidate", "against")
        == -1
    )
    assert outcome(one, ballot, "against", "base") == 0


# --- what votes come to -----------------------------------------------------------------------------------------------


def test_a_person_who_always_takes_the_first_place_prefers_nobody() -> None:
    """Planted position bias. In the versions' own order it would be a unanimous preference."""
    samples = [sample(number) for number in range(200)]
    found = summary(samples, voted(samples, lambda order, one: order[0]), NAMES)
    assert found["verdict"] == "not enough data to tell", found["sentence"]
    assert found["first_place"] == {
        "chosen": 200,
        "of": 200,
        "by_chance": 100.0,
    }, "the bias itself is shown"
    unblind = [Ballot(one["id"], "ada", "candidate", ("candidate", "against")) for one in samples]
    assert summary(samples, unblind, NAMES)["verdict"] == "better"


@pytest.mark.parametrize(
    ("choice", "verdict", "who"),
    [
        ("candidate", "better", "prefer desk@v2's answers to desk@v1's"),
        ("against", "worse", "prefer desk@v1's answers to desk@v2's"),
    ],
)
def test_a_clear_preference_is_said_in_one_sentence(choice: str, verdict: str, who: str) -> None:
    samples = [sample(number) for number in range(20)]
    found = summary(samples, voted(samples, lambda order, one: choice), NAMES)
    assert found["verdict"] == verdict and who in found["sentence"]


def test_rows_answered_alike_are_ties_that_need_no_vote() -> None:
    samples = [sample(number) for number in range(40)]
    for one in samples[20:]:
        one["against"] = one["candidate"]
    found = summary(samples, voted(samples[:20], lambda order, one: "candidate"), NAMES)
    assert (found["rows"], found["differ"], found["alike"], found["voted"]) == (40, 20, 20, 20)
    assert found["pairs"]["against"]["preference"]["difference"] == 0.5, "20 rows won and 20 tied"
    half = summary(samples, voted(samples[:10], lambda order, one: "candidate"), NAMES)
    assert half["pairs"]["against"]["preference"]["difference"] == 0.5, (
        "who votes on half of the rows is counted with half of the ties"
    )


@pytest.mark.parametrize(
    ("rows", "choice", "verdict"),
    [
        (9, "candidate", "not enough data to tell"),
        (12, "tie", "the same"),
        (12, "none", "the same"),
        (0, "tie", "not enough data to tell"),
    ],
)
def test_few_votes_and_ties_are_no_preference(rows: int, choice: str, verdict: str) -> None:
    samples = [sample(number) for number in range(30)]
    found = summary(samples, voted(samples[:rows], lambda order, one: choice), NAMES)
    pair = found["pairs"]["against"]
    assert found["verdict"] == verdict and pair["none"] == (rows if choice == "none" else 0)
    assert rows or "Nobody has voted yet on the 30 of 30 rows" in found["sentence"]


def test_a_row_counts_once_however_many_people_vote_on_it() -> None:
    samples = [sample(number) for number in range(3)]
    found = summary(
        samples, voted(samples, lambda order, one: "candidate", voters=tuple("abcdefgh")), NAMES
    )
    assert (found["votes"], found["voted"], found["voters"]) == (24, 3, 8)
    assert found["verdict"] == "not enough data to tell", "24 votes on 3 rows are 3 rows"
    split = [Ballot("r-1", "ada", "candidate", ()), Ballot("r-1", "ola", "against", ())]
    assert outcome(samples[1], split, "candidate", "against") == 0


def test_a_vote_for_the_base_says_nothing_about_the_other_two() -> None:
    samples = [three(number) for number in range(20)]
    found = summary(samples, voted(samples, lambda order, one: "base"), WITH_BASE)
    against, base = found["pairs"]["against"], found["pairs"]["base"]
    assert (against["wins"], against["losses"], against["ties"]) == (0, 0, 0) and found[
        "verdict"
    ] == "not enough data to tell"
    assert "on 20 the base's is the best" in found["sentence"]
    assert base["losses"] == 20 and base["preference"]["verdict"] == "worse"
    assert words(samples, voted(samples, lambda order, one: "base")) == {}


# --- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_between_people_is_kappa_on_the_rows_that_two_voted_on() -> None:
    samples = [sample(number) for number in range(24)]
    taken = {
        one["id"]: "candidate" if number % 2 else "against" for number, one in enumerate(samples)
    }
    both = voted(samples, lambda order, one: taken[one["id"]], voters=("ada", "ola"))
    assert summary(samples, both, NAMES)["agreement"] == {
        "n": 24,
        "voters": 2,
        "same": 24,
        "kappa": 1.0,
    }
    few = [ballot for ballot in both if ballot.voter == "ada" or ballot.row in ("r-1", "r-2")]
    found = summary(samples, few, NAMES)
    assert found["agreement"] == {"n": 2, "voters": 2, "same": 2, "kappa": None}
    assert "2 rows and said the same on 2 (not enough data" in said_agreement(found)


def test_agreement_of_three_people_does_not_depend_on_their_names() -> None:
    """Cohen's kappa of the first two by name was once the figure for all three, whatever the third
    one said.
    """
    samples = [sample(number) for number in range(24)]
    said = {"ada": "candidate", "ola": "candidate", "zoe": "against"}
    by_name = {
        names: [
            Ballot(
                one["id"], name, said[who] if number % 2 else "against", ("candidate", "against")
            )
            for number, one in enumerate(samples)
            for who, name in zip(said, names, strict=True)
        ]
        for names in (("ada", "ola", "zoe"), ("zoe", "ola", "ada"))
    }
    one, other = (summary(samples, some, NAMES) for some in by_name.values())
    assert one["agreement"] == other["agreement"] and one["agreement"]["kappa"] < 0.5
    assert (one["agreement"]["voters"], one["agreement"]["same"]) == (3, 12)
    assert (
        "Two or more of 3 people voted on 24 rows and all said the same on 12 (Fleiss' kappa 0.25)"
        in said_agreement(one)
    )


def test_fleiss_kappa_is_statsmodels_where_as_many_vote_on_every_row() -> None:
    from statsmodels.stats.inter_rater import aggregate_raters
    from statsmodels.stats.inter_rater import fleiss_kappa as expected

    draw = random.Random(3)
    rows = [
        [draw.choice(("candidate", "candidate", "against", "tie")) for _ in range(4)]
        for _ in range(30)
    ]
    assert fleiss_kappa(rows) == pytest.approx(expected(aggregate_raters(rows)[0]), abs=0.001)
    assert fleiss_kappa([["tie", "tie", "tie"]] * 30) is None and fleiss_kappa(rows[:9]) is None
    assert fleiss_kappa([["tie", "tie"], ["against", "against", "against"]] * 10) == 1.0


def test_a_judge_is_compared_with_what_people_voted() -> None:
    samples = [sample(number) for number in range(12)]
    taken = {one["id"]: "candidate" if number % 2 else "tie" for number, one in enumerate(samples)}
    people = words(samples, voted(samples, lambda order, one: taken[one["id"]]))
    assert people == taken
    found = beside_people(
        {"sentence": "It said something.", "rows": {**taken, "r-0": "against", "r-99": "tie"}},
        people,
    )
    assert (
        found["votes"]["n"] == 12
        and found["votes"]["same"] == 11
        and 0.5 < found["votes"]["kappa"] < 1
    )
    assert "what people's votes say on 11 of 12 rows: kappa 0.8" in found["sentence"]
    before = {"sentence": "Asked before there were votes."}
    assert beside_people(before, people) == before
