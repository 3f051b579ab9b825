"""Rows that teach what people have since corrected leave the next dataset version, and no others
do.
"""

from __future__ import annotations

import random
from typing import Any

from examples.zenith import scenario
from feedback.assembly import Example, assemble
from feedback.contradictions import Reviewed, judge, outdated_claims
from whet.store import digest_json

_SEED = [
    ("My Pulsar hisses", "The Pulsar warranty is 12 months. Call us by phone."),
    ("A Pulsar that will not charge", "The Pulsar warranty is 12 months. Call us by phone."),
    ("The Quasar hisses", "The Quasar warranty is 12 months. Write to us by chat."),
    ("The Nimbus is hot", "The Nimbus warranty is 18 months. Call us by phone."),
    ("The Lumen is hot", "The Lumen warranty is 36 months. Write to us by e-mail."),
    ("The Lumen flickers", "The Lumen warranty is 36 months. Write to us by e-mail."),
    ("The Vector is hot", "The Vector warranty is 6 months. Write to us by e-mail."),
]


def _correction(
    number: int, question: str, rejected: str | None, answer: str, at: int = 10
) -> Reviewed:
    return Reviewed(f"c{number}", question, rejected, answer, at)


def _hit(reviewed: list[Reviewed]) -> list[int]:
    claims = outdated_claims(_SEED, reviewed)
    return [
        index for index, (question, answer) in enumerate(_SEED) if judge(question, answer, claims)
    ]


def test_a_replaced_claim_takes_out_its_subject_and_nothing_else() -> None:
    old, new = (
        "The Pulsar warranty is 12 months. Call us by phone.",
        "The Pulsar warranty is 24 months. Call us by phone.",
    )
    assert _hit(
        [_correction(1, "Pulsar is loud", old, new), _correction(2, "the Pulsar broke", old, new)]
    ) == [0, 1]


def test_one_correction_is_not_enough() -> None:
    old, new = (
        "The Pulsar warranty is 12 months. Call us by phone.",
        "The Pulsar warranty is 24 months. Call us by phone.",
    )
    assert _hit([_correction(1, "Pulsar is loud", old, new)]) == []


def test_a_claim_that_somebody_confirmed_later_stands() -> None:
    old, new = (
        "The Pulsar warranty is 12 months. Call us by phone.",
        "The Pulsar warranty is 24 months. Call us by phone.",
    )
    corrections = [
        _correction(1, "Pulsar is loud", old, new),
        _correction(2, "the Pulsar broke", old, new),
    ]
    assert _hit([*corrections, _correction(3, "Pulsar again", None, old, at=11)]) == []
    before = _correction(3, "Pulsar again", None, old, at=9)
    assert _hit([*corrections, before]) == [], (
        "an earlier confirmation asks for one correction more"
    )
    assert _hit([*corrections, before, _correction(4, "Pulsar, again", old, new)]) == [0, 1]


def test_on_zenith_exactly_the_outdated_rows_go() -> None:
    """The live model answers as it was taught; a reviewer corrects 150 conversations; 5 % of its
    answers are wrong besides.
    """
    old, new = scenario.old_world(), scenario.new_world()
    rows = scenario.training_examples(old, 300, seed=1)
    stale = {row["id"] for row in rows if not scenario.is_current(row, new)}
    rng = random.Random(5)
    traffic = scenario.traffic(new, rng)
    examples = []
    for number in range(150):
        question = next(traffic)
        right = scenario.look_up(question, new)
        said = scenario.look_up(question, old) or scenario.expected_facts(
            old, rng.choice(old.products), right["fault"], right["age_months"]
        )
        if rng.random() < 0.05:
            said = {**said, "step": "turn it off"}
        answer, rejected = scenario.reference_answer(right), scenario.reference_answer(said)
        row = {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ],
            "origin": "review",
        }
        examples.append(
            Example(f"e{number:03d}", row, None, number, rejected if rejected != answer else None)
        )
    assembled = assemble({"train": rows[:270], "test": rows[270:]}, examples, {})
    left = {entry["id"] for entry in assembled.left_out if "corrections replaced" in entry["why"]}
    # The same question was reviewed: gone for that reason already
    replaced = {entry["row"] for entry in assembled.superseded}
    assert left <= stale, f"{len(left - stale)} current rows were left out"
    assert stale <= left | replaced, f"{len(stale - left - replaced)} outdated rows stayed"


def test_what_corrections_replaced_is_told_from_what_left_for_another_reason() -> None:
    """An evaluation does not ask for the rows that are listed so (`training.evaluation.earlier`)."""
    seed = [_seed_row(number, *said) for number, said in enumerate(_SEED)]
    old, new = _SEED[0][1], "The Pulsar warranty is 24 months. Call us by phone."
    examples = [
        Example(f"c{number}", {"messages": _messages(question, new)}, None, 10, old)
        for number, question in enumerate(("Pulsar is loud", "the Pulsar broke"))
    ]
    left_out = assemble({"train": seed}, examples, {}).left_out
    assert [entry["id"] for entry in left_out] == ["seed-0", "seed-1"]
    assert [entry["outdated"] for entry in left_out] == [digest_json(row) for row in seed[:2]]


def _seed_row(number: int, question: str, answer: str) -> dict[str, Any]:
    return {"id": f"seed-{number}", "messages": _messages(question, answer)}


def _messages(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
