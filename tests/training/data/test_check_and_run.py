"""`whet data check` and `whet train run` take and refuse the same files, for the same reasons."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.people_files import (
    CHATS,
    PAIRS,
    PREFERENCE,
    RATED,
    READ,
    Case,
    answer,
    document,
    folder,
    lines,
    saved,
    user,
)
from training.commands.sources import RowSource, rows_of
from training.data.formats import read_options
from training.models.base_choice import open_base
from training.plan.prepare import prepare
from training.recipes.methods import find
from training.recipes.recipe import load_recipe
from training.runs.row_check import check
from whet.context import Context
from whet.errors import InputError

MANY = [{"prompt": f"What is part {n}?", "completion": f"Part {n} is a lamp."} for n in range(40)]
HELD_OUT = [{"prompt": "Who mends the red one?", "completion": "Ann does."}]
LONG = {"prompt": "word " * 3000, "completion": "a"}
LONG_QUESTION = " ".join(f"word{n}" for n in range(40))
COPIES = [  # conversations of one beginning, in groups that cannot be parted
    {"prompt": f"{LONG_QUESTION} {n % 7}", "completion": f"It is {n}.", "group": f"g{n}"}
    for n in range(60)
]
BAD = [{**row, "rating": -1} for row in MANY[:3]]


def _run(context: Context, path: Path, case: Case, method: str, test: Path | None) -> str:
    """What a run says before it loads the base; "" when it would start."""
    try:
        options = read_options(case.columns, case.encoding)
        source = RowSource(path, test=test, options=options, method=find(method))
        rows = rows_of(context, "support", source).dataset
        prepare(
            context,
            "support",
            rows,
            load_recipe(method),
            open_base(context.settings),
            drop_leaks=False,
        )
    except InputError as error:
        return error.message
    return ""


def _check(context: Context, path: Path, case: Case, method: str, test: Path | None) -> list[str]:
    try:
        options = read_options(case.columns, case.encoding)
        found = check(context, path, test=test, method_name=method, options=options)
    except InputError as error:
        return [error.message]
    return [finding["found"] for finding in found["findings"] if finding["severity"] == "error"]


FILES: list[tuple[Case, str]] = [
    (Case("good.jsonl", lines(*MANY)), "lora"),
    (Case("bad-answers.jsonl", lines(*MANY, *BAD)), "lora"),
    (Case("bad-answers-kto.jsonl", lines(*RATED, *BAD)), "kto"),
    (
        Case("label.jsonl", lines(*({**row, "label": n % 2 == 0} for n, row in enumerate(MANY)))),
        "lora",
    ),
    (
        Case(
            "label-kto.jsonl", lines(*({**row, "label": n % 2 == 0} for n, row in enumerate(MANY)))
        ),
        "kto",
    ),
    (Case("unrated-kto.jsonl", lines(*MANY)), "kto"),
    (Case("pairs-dpo.jsonl", lines(PREFERENCE)), "dpo"),
    (Case("pairs-long.jsonl", lines(*MANY, {**PREFERENCE, "rejected": "word " * 3000})), "lora"),
    (Case("pairs-long-dpo.jsonl", lines({**PREFERENCE, "rejected": "word " * 3000})), "dpo"),
    (Case("answers-dpo.jsonl", lines(*MANY)), "dpo"),
    (Case("long.jsonl", lines(LONG)), "lora"),
    (Case("weightless.jsonl", lines({"messages": [user("q"), answer("a", weight=0)]})), "lora"),
    (Case("empty.jsonl", lines()), "lora"),
    (Case("spaces.jsonl", lines({"prompt": "q", "completion": " "})), "lora"),
    (Case("control.jsonl", lines(*MANY, {"prompt": "q", "completion": "<|end|>"})), "lora"),
    (Case("own-parts", saved({"train": MANY, "test": HELD_OUT})), "lora"),
    (Case("own-leaking-parts", saved({"train": MANY, "test": MANY[:2]})), "lora"),
    (
        Case(
            "own-bad-test",
            folder({"train.jsonl": lines(*MANY), "test.jsonl": lines({"prompt": "q"})}),
        ),
        "lora",
    ),
    (
        Case("own-long-test", folder({"train.jsonl": lines(*MANY), "test.jsonl": lines(LONG)})),
        "lora",
    ),
    (
        Case(
            "own-long-validation",
            folder({"train.jsonl": lines(*MANY), "validation.jsonl": lines(LONG)}),
        ),
        "lora",
    ),
    (
        Case(
            "own-leaking-validation",
            folder({"train.jsonl": lines(*MANY), "validation.jsonl": lines(*MANY[:30])}),
        ),
        "lora",
    ),
    (Case("near-copies.jsonl", lines(*COPIES)), "lora"),
    (Case("three.jsonl", lines(*MANY[:3])), "lora"),
    *(
        (Case(f"one-{n}.jsonl", lines(row)), "lora")
        for n, row in enumerate([*MANY[:2], *PAIRS[:2]])
    ),
    (Case("two-rated.jsonl", lines(*RATED)), "kto"),
    (Case("unreadable.json", document({"data": PAIRS, "rows": CHATS})), "lora"),
]
# What a run says in other words than a check, which names all lines.
_SAME = ("rated as bad", "no chosen and rejected", "neither preferences nor rated", "lists under")


@pytest.mark.parametrize(
    ("case", "method"), FILES, ids=lambda value: value.name if isinstance(value, Case) else ""
)
def test_check_and_run_take_the_same_files(
    context: Context, tmp_path: Path, case: Case, method: str
) -> None:
    path = tmp_path / case.name
    case.write(path)
    said, errors = (
        _run(context, path, case, method, None),
        _check(context, path, case, method, None),
    )
    assert bool(said) == bool(errors), f"run: {said!r}; check: {errors}"
    if any(words in said for words in _SAME):
        assert said in errors


@pytest.mark.slow
@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_every_file_that_can_be_read_is_taken_by_both_or_neither(
    context: Context, tmp_path: Path, case: Case
) -> None:
    case.write(tmp_path / case.name)
    path = tmp_path / case.name / case.part if case.part else tmp_path / case.name
    method = "kto" if case.name.startswith("kto") else "lora"
    said, errors = (
        _run(context, path, case, method, None),
        _check(context, path, case, method, None),
    )
    assert bool(said) == bool(errors), f"run: {said!r}; check: {errors}"


def test_a_part_of_the_folder_can_be_the_test_set(context: Context, tmp_path: Path) -> None:
    saved({"train": MANY, "holdout": HELD_OUT})(tmp_path / "ds")
    rows = rows_of(context, "support", RowSource(tmp_path / "ds", test=Path("holdout"))).dataset
    assert [row.answer for row in rows.test] == ["Ann does."] and len(rows.train) == len(MANY)


def test_bad_answers_are_left_out_on_request_and_counted(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines(*MANY, *({**row, "label": False} for row in BAD[:2]))(path)
    source = RowSource(path, no_split=True, skip_bad=True, method=find("lora"))
    made = rows_of(context, "support", source)
    rows, notices = made.dataset, made.notices
    assert all(row.rating == 0 for row in rows.train) and len(rows.train) == len(MANY)
    assert any("2 lines are left out (41-42)" in notice for notice in notices)
