"""Dataset versions: the same rows are the same version, splits never change, test rows never leak."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from feedback import assembly, datasets, next_version, queue
from feedback.assembly import Assembled, Example, assemble
from feedback.conversations import row_question
from feedback.queue import Decision
from feedback.similar import question_key
from tests import builders
from tests.feedback.world import ALIAS, CLAIM_MS, NOW, queued, seed_dataset, seed_row
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import InputError, NotFoundError
from whet.tables import datasets as datasets_table
from whet.tables import interactions


def example(
    n: int,
    question: str = "",
    answer: str = "",
    *,
    at: int | None = None,
    user: str | None = None,
    **over: Any,
) -> Example:
    messages = [
        {"role": "system", "content": "You are the support desk of Zenith."},
        {
            "role": "user",
            "content": question or f"Reviewed question {n}: how do I reset device {n * 7919}?",
        },
        {"role": "assistant", "content": answer or f"Hold button {n}."},
    ]
    return Example(
        f"exm_{n:04}",
        {"id": f"exm_{n:04}", "origin": "review", "messages": messages, **over},
        user,
        n if at is None else at,
    )


def seeds(train: int = 40, test: int = 8) -> dict[str, list[dict[str, Any]]]:
    return {
        "train": [seed_row(n) for n in range(train)],
        "validation": [],
        "test": [seed_row(n, split="test") for n in range(test)],
    }


def ids(found: Assembled, split: str) -> list[str]:
    return [row["id"] for row in found.rows[split]]


def split_of(found: Assembled) -> dict[str, str]:
    return {row["id"]: split for split, rows in found.rows.items() for row in rows}


def test_the_order_of_examples_changes_nothing() -> None:
    examples = [example(n) for n in range(60)]
    shuffled = random.Random(1).sample(examples, len(examples))
    assert assemble(seeds(), examples, {}).rows == assemble(seeds(), shuffled, {}).rows


def test_seed_rows_keep_their_split_and_reviewed_rows_are_spread() -> None:
    found = assemble(seeds(), [example(n) for n in range(200)], {})
    where = split_of(found)
    assert all(where[row["id"]] == split for split, rows in seeds().items() for row in rows)
    assert 15 <= sum(where[f"exm_{n:04}"] == "test" for n in range(200)) <= 50


@pytest.mark.parametrize("count", [20, 25, 40])
def test_from_twenty_reviewed_rows_some_are_held_out(count: int) -> None:
    for start in range(0, 400, 40):
        assert (
            sum(
                key.startswith("exm")
                for key in ids(
                    assemble(seeds(), [example(start + n) for n in range(count)], {}), "test"
                )
            )
            >= 1
        )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=60), st.integers(0, 60))
def test_a_row_stays_in_its_split_and_no_training_row_is_a_test_row(
    drawn: list[tuple[int, int]], cut: int
) -> None:
    words = "how do i reset the blue device when its light stays red"
    examples = [
        example(n, question=f"{words} {'please ' * extra}{question}", at=n)
        for n, (question, extra) in enumerate(drawn)
    ]
    first = assemble(seeds(6, 3), examples[:cut], {})
    second = assemble(seeds(6, 3), examples, first.assigned)
    before, after = split_of(first), split_of(second)
    assert all(after[row] == before[row] for row in before.keys() & after.keys())
    held_out = {question_key(row_question(row)) for row in second.rows["test"]}
    assert not held_out & {question_key(row_question(row)) for row in second.rows["train"]}
    listed = {entry["id"] for entry in second.left_out} | after.keys()
    assert {e.id for e in examples} <= listed, "every example is in, or said to be left out"


def test_the_newest_reviewed_answer_stands_and_replaces_the_seed_row() -> None:
    question = seed_row(3)["messages"][1]["content"]
    found = assemble(
        seeds(),
        [
            example(1, question, "old answer", at=1),
            example(2, question.upper(), "new answer", at=2),
        ],
        {},
    )
    answers = [
        row["messages"][-1]["content"]
        for split in found.rows.values()
        for row in split
        if row["messages"][1]["content"].lower() == question.lower()
    ]
    assert answers == ["new answer"]
    assert found.superseded == [
        {"row": "seed-train-3", "split": "train", "by": "exm_0002", "conflict": True}
    ]
    assert found.left_out == [
        {"id": "exm_0001", "why": "a newer reviewed answer to the same question stands: exm_0002"}
    ]


def test_a_reviewed_answer_to_a_test_question_takes_its_place_in_the_test_set() -> None:
    question = seed_row(2, split="test")["messages"][1]["content"]
    found = assemble(seeds(), [example(1, question, "new")], {})
    assert "exm_0001" in ids(found, "test") and "seed-test-2" not in split_of(found)
    later = assemble(seeds(), [example(5, question, "newer", at=9)], found.assigned)
    assert "exm_0005" in ids(later, "test")


def test_the_same_question_within_other_instructions_is_another_question() -> None:
    other = {**seed_row(3), "id": "s"}
    other["messages"] = [{"role": "system", "content": "Answer in German."}, *other["messages"][1:]]
    found = assemble(
        {"train": [seed_row(3), other, seed_row(1)], "validation": [], "test": []},
        [example(1, seed_row(3)["messages"][1]["content"])],
        {},
    )
    assert "s" in ids(found, "train") and [entry["row"] for entry in found.superseded] == [
        "seed-train-3"
    ]


def test_training_rows_that_resemble_a_test_row_are_left_out_and_listed() -> None:
    long = " ".join(f"word{n}" for n in range(80))
    rows = seeds()
    rows["test"].append(seed_row(90, split="test", question=long))
    rows["train"].append(seed_row(91, question=long + "!"))
    rows["train"].append(seed_row(92, question=long.replace("word79", "other")))
    found = assemble(rows, [example(1, long.replace("word0", "first"))], {})
    assert {"seed-train-91", "seed-train-92"} == {entry["id"] for entry in found.left_out}
    assert "exm_0001" in ids(found, "test")


def test_a_copied_answer_to_an_equal_question_is_a_leak_whatever_surrounds_it() -> None:
    answer = "Send it to us with the receipt please."
    rows = seeds()
    rows["test"].append(seed_row(90, split="test", question="Where do I send it?", answer=answer))
    copy = seed_row(91, question="where do i send it", answer=answer)
    copy["messages"][0]["content"] = "Some other instructions."
    rows["train"].append(copy)
    assert [entry["id"] for entry in assemble(rows, [], {}).left_out] == ["seed-train-91"]


def test_caps_of_one_end_user_and_of_one_question() -> None:
    found = assemble(
        seeds(),
        [example(n, user="u") for n in range(30)]
        + [example(100 + n, user=f"v{n}") for n in range(30)],
        {},
    )
    kept = [key for key in split_of(found) if key.startswith("exm")]
    assert sum(int(key[4:]) < 100 for key in kept) == assembly.PER_USER_AT_LEAST
    assert "exm_0029" in kept and "exm_0000" not in kept, "the newest are kept"
    long = " ".join(f"word{n}" for n in range(100))
    near = [example(n, long.replace(f"word{n + 50} ", "x ")) for n in range(5)]
    found = assemble(seeds(), near, {})
    assert len([key for key in split_of(found) if key.startswith("exm")]) <= assembly.PER_GROUP


def test_what_a_cap_keeps_out_of_the_rows_is_judged_by_all_the_same() -> None:
    found = assemble(seeds(), [example(n, user="u") for n in range(30)], {})
    learned = {
        row["id"] for rows in found.rows.values() for row in rows if row["origin"] == "review"
    }
    beside = {row["id"] for row in found.regression}
    assert not learned & beside and learned | beside == {f"exm_{n:04}" for n in range(30)}, (
        "every correction that stands is in one or the other"
    )
    again = example(50, row_question(example(3).row), "Hold it longer.", user="u")
    found = assemble(seeds(), [*(example(n, user="u") for n in range(30)), again], {})
    assert "exm_0003" not in {row["id"] for row in found.regression}, (
        "what a newer review replaced stands no longer"
    )
    assert assemble(seeds(), [example(n) for n in range(3)], {}).regression == []


@pytest.mark.parametrize(
    ("seed_count", "reviewed", "weight"),
    [(400, 100, 4.0), (40, 20, 2.5), (10, 50, 1.0), (0, 5, 1.0)],
)
def test_reviewed_rows_weigh_more_while_they_are_few(
    seed_count: int, reviewed: int, weight: float
) -> None:
    found = assemble(seeds(seed_count), [example(n) for n in range(reviewed)], {})
    assert found.weight == pytest.approx(weight, abs=0.5)
    assert {row.get("weight", 1.0) for row in found.rows["train"] if row["origin"] == "review"} == {
        found.weight
    }
    assert all(
        "weight" not in row
        for row in [*found.rows["test"], *(r for r in found.rows["train"] if r["origin"] == "seed")]
    )


# --- versions in the store and the database ---


def approve(
    context: Context, count: int, at: int = NOW, question: str = "Reviewed at {at}: number {{n}}?"
) -> list[queue.Outcome]:
    items = queued(context, count, at=at, question=question.format(at=at))
    return [
        queue.decide(context.database, item, "ada", Decision("approve"), now=at) for item in items
    ]


def test_a_version_is_the_live_adapters_seed_and_every_standing_example(context: Context) -> None:
    seed = seed_dataset(context)
    outcomes = approve(context, 3)
    version = datasets.build(context, ALIAS, actor="ada", now=NOW)
    assert (version.label, version.parents, sorted(version.example_ids)) == (
        "support@2",
        [seed],
        sorted(o.example_id for o in outcomes),
    )
    rows = datasets.read_rows(context.store, version.path)
    assert {split: len(found) for split, found in rows.items()} == version.rows
    assert {row["id"] for row in rows["train"]} >= {f"seed-train-{n}" for n in range(12)}
    about = context.store.read_json(f"{version.path}/manifest.json")
    assert {"name", "rows", "parents", "example_ids", "digest"} <= about.keys() and about[
        "digest"
    ] == version.digest
    assert datasets.rows_digest(rows) == version.digest, "the digest can be checked from the files"
    assert not context.store.exists(f"{version.path}/regression.jsonl"), "nothing was left out"
    with reading(context.database) as connection:
        first = datasets.find(connection, "support@1")
    assert (first.digest, first.created_by) == (seed, "training")


def test_the_same_rows_are_the_same_version_and_other_rows_the_next(context: Context) -> None:
    seed_dataset(context)
    approve(context, 2)
    first = datasets.build(context, ALIAS, actor="ada", now=NOW)
    assert datasets.build(context, ALIAS, actor="bob", now=NOW + 9) == first
    approve(context, 1, NOW + 50)
    assert datasets.build(context, ALIAS, actor="ada", now=NOW + 60).version == first.version + 1


def test_an_undone_example_is_not_in_the_next_version_and_the_seed_row_returns(
    context: Context,
) -> None:
    seed_dataset(context)
    outcome, _ = approve(context, 2, question=seed_row(4)["messages"][1]["content"] + "{{n}}")
    (item,) = queued(context, 1, question=seed_row(5)["messages"][1]["content"])
    edit = queue.decide(context.database, item, "ada", Decision("edit", "99 euros."), now=NOW)
    first = datasets.build(context, ALIAS, actor="ada", now=NOW)
    assert "seed-train-5" not in {
        row["id"] for row in datasets.read_rows(context.store, first.path)["train"]
    }
    for review in (outcome.review_id, edit.review_id):
        queue.undo(context.database, review, "ada", claim_ms=CLAIM_MS, now=NOW + 1)
    second = datasets.build(context, ALIAS, actor="ada", now=NOW + 2)
    assert outcome.example_id not in second.example_ids
    assert "seed-train-5" in {
        row["id"] for row in datasets.read_rows(context.store, second.path)["train"]
    }


def test_a_later_version_starts_from_the_root_seed_whatever_is_live(context: Context) -> None:
    seed = seed_dataset(context)
    approve(context, 3)
    first = datasets.build(context, ALIAS, actor="ada", now=NOW)
    with writing(context.database) as connection:
        adapter = builders.add_adapter(
            connection, NOW, version=2, dataset=first.digest, card={"dataset_path": first.path}
        )
        builders.add_rollout(connection, NOW, generation=2, stable=adapter)
    approve(context, 2, NOW + 70)
    second = datasets.build(context, ALIAS, actor="ada", now=NOW + 80)
    assert second.parents == [first.digest] and len(second.example_ids) == 5
    ids = [
        row["id"]
        for rows in datasets.read_rows(context.store, second.path).values()
        for row in rows
    ]
    assert len(ids) == len(set(ids)), (
        "reviewed rows come from the examples alone, not from the parent as well"
    )
    assert next_version.ancestors(context.store, second.path)[-1] == f"datasets/{seed}"


def test_without_a_live_adapter_reviewed_examples_are_enough_and_nothing_is_not(
    context: Context,
) -> None:
    with pytest.raises(InputError, match="nothing to train"):
        datasets.build(context, ALIAS, actor="ada", now=NOW)
    approve(context, 3)
    assert datasets.build(context, ALIAS, actor="ada", now=NOW).version == 1


def test_builders_at_once_make_one_version_of_the_same_rows(context: Context) -> None:
    seed_dataset(context)
    approve(context, 3)
    found: list[datasets.DatasetVersion] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        own = open_context(context.settings)
        barrier.wait()
        found.append(datasets.build(own, ALIAS, actor="t", now=NOW))
        own.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4 and len({(v.digest, v.version) for v in found}) == 1
    with reading(context.database) as connection:
        assert (
            connection.execute(select(func.count()).select_from(datasets_table)).scalar_one() == 2
        )


def test_versions_of_different_rows_at_once_get_different_numbers(context: Context) -> None:
    def work(n: int) -> None:
        own = open_context(context.settings)
        barrier.wait()
        datasets.register(
            own,
            builders.digest(n),
            ALIAS,
            f"datasets/{n}",
            {"train": 1, "validation": 0, "test": 0},
            [],
            [],
            actor="t",
            note="",
            now=NOW,
        )
        own.close()

    barrier = threading.Barrier(5)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with reading(context.database) as connection:
        assert sorted(connection.execute(select(datasets_table.c.version)).scalars()) == [
            1,
            2,
            3,
            4,
            5,
        ]


def test_references_differences_and_export(context: Context, tmp_path: Path) -> None:
    seed_dataset(context)
    approve(context, 3)
    version = datasets.build(context, ALIAS, actor="ada", now=NOW)
    with reading(context.database) as connection:
        for reference in ("support@2", "support@v2", "support", version.digest, version.digest[:8]):
            assert datasets.find(connection, reference) == version
        with pytest.raises(NotFoundError):
            datasets.find(connection, "support@99")
        first = datasets.find(connection, "support@1")
    found = datasets.diff(context, first, version)
    assert (
        sum(map(len, found.added.values())) == 3
        and not any(found.removed.values())
        and found.unchanged == 16
    )
    written = datasets.export(context, version, tmp_path / "out")
    assert {file.name for file in written} == {
        "train.jsonl",
        "validation.jsonl",
        "test.jsonl",
        "manifest.json",
    }
    assert all(
        json.loads(line)["id"]
        for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    )
    with pytest.raises(InputError, match="not an empty folder"):
        datasets.export(context, version, tmp_path / "out")


def test_what_a_correction_replaced_is_kept_beside_the_row_and_not_in_it(context: Context) -> None:
    seed_dataset(context)
    (item,) = queued(context, 1, answer="24 months.")
    outcome = queue.decide(context.database, item, "ada", Decision("edit", "36 months."), now=NOW)
    with writing(context.database) as connection:
        connection.execute(interactions.delete())  # retention
    with reading(context.database) as connection:
        (standing,) = next_version.standing_examples(connection, ALIAS)
    assert (standing.id, standing.rejected) == (outcome.example_id, "24 months.")
    version = datasets.build(context, ALIAS, actor="ada", now=NOW)
    rows = [
        row for found in datasets.read_rows(context.store, version.path).values() for row in found
    ]
    assert outcome.example_id in {row["id"] for row in rows} and not any(
        queue.REPLACED in row for row in rows
    )
