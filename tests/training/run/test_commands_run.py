"""The run's commands as a person calls them: estimates, a killed run that is resumed, a search."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from tests.training.run.small import killed_at
from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from training.recipes.recipe import Recipe, load_recipe
from whet.cli import app
from whet.context import open_context
from whet.database import reading, writing
from whet.errors import InputError
from whet.settings import load_settings
from whet.tables import adapters, training_runs

_QUICK = ("--rank", "4", "--epochs", "3", "--lr", "5e-3", "--threads", "1", "--seed", "3")


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("WHET_CHECKPOINT_INTERVAL_S", "0")
    return Shell(tmp_path / "home", base_folder)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return str(write_rows(tmp_path / "rows.jsonl", facts(60)))


def _home(tmp_path: Path, base_folder: Path) -> Any:
    return open_context(load_settings(home=tmp_path / "home", base_model=str(base_folder)))


def test_a_dry_run_prints_memory_by_part_and_what_it_costs(shell: Shell, rows: str) -> None:
    found = shell.json("train", "run", rows, "--dry-run", "--price-per-hour", "3600", *_QUICK)
    assert set(found["memory"]) == {
        "process",
        "base",
        "adapter",
        "optimiser",
        "activations",
        "checkpoint",
        "loading",
    } and all(found["memory"].values())
    in_all = found["seconds"] + found["refit_seconds"]
    assert found["cost"] == pytest.approx(in_all, abs=0.1), "a unit a second"
    assert "cost" not in shell.json("train", "run", rows, "--dry-run", *_QUICK)


def test_a_killed_run_is_resumed_to_the_version_it_would_have_made(
    shell: Shell, rows: str, tmp_path: Path, base_folder: Path
) -> None:
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    torch.set_num_threads(1)

    killed_at(9, lambda: shell.json("train", "run", rows, *_QUICK))
    run = shell.json("train", "list")[0]
    assert run["state"] == "running" and run["adapter_digest"] is None
    context = _home(tmp_path, base_folder)
    with writing(context.database) as connection:
        # As if its process had been silent for long
        connection.execute(update(training_runs).values(heartbeat_at=1))
    resumed = shell.json("train", "resume", run["id"])
    assert resumed["run"] == run["id"] and resumed["adapter"] == "support@v1"
    with reading(context.database) as connection:
        row = connection.execute(select(training_runs)).one()
        assert len(connection.execute(select(adapters)).all()) == 1
    context.close()
    assert (row.state, row.attempt, [point[0] for point in row.curve]) == (
        "succeeded",
        2,
        list(range(1, row.progress["steps"] + 1)),
    )
    assert not (tmp_path / "home" / "runs" / run["id"] / "checkpoints").exists(), (
        "a run that ended well keeps no checkpoint"
    )
    shown = (
        EventAccumulator(str(tmp_path / "home" / "runs" / run["id"] / "tensorboard"))
        .Reload()
        .Scalars("loss")
    )
    assert [event.step for event in shown] == [point[0] for point in row.curve], (
        "TensorBoard lacks what the killed attempt had not written yet"
    )
    undisturbed = Shell(tmp_path / "other", base_folder).json("train", "run", rows, *_QUICK)
    assert undisturbed["digest"] == resumed["digest"], "a resumed run made another version"
    assert "has ended: succeeded" in _conflict(shell, "train", "resume", run["id"])


def test_a_killed_run_that_makes_a_folder_goes_on_into_the_same_folder(
    shell: Shell, rows: str, tmp_path: Path, base_folder: Path
) -> None:
    into = tmp_path / "made"
    killed_at(
        5,
        lambda: shell.json("train", "run", rows, "--method", "dora", "--into", str(into), *_QUICK),
    )
    context = _home(tmp_path, base_folder)
    with writing(context.database) as connection:
        # As if its process had been silent for long
        connection.execute(update(training_runs).values(heartbeat_at=1))
    context.close()
    assert not into.exists()
    made = shell.json("train", "resume", shell.json("train", "list")[0]["id"])
    assert (
        made["folder"] == str(into) and (into / "card.json").is_file() and made["adapter"] is None
    )


def test_what_trains_nothing_settles_no_split(shell: Shell, rows: str, tmp_path: Path) -> None:
    """What a run holds out stays held out; a look at the cost holds nothing out."""
    shell.json("train", "run", rows, "--dry-run", *_QUICK)
    assert not list((tmp_path / "home").rglob("splits/*.json"))


def _conflict(shell: Shell, *arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env=shell._environment)
    assert result.exit_code == 1
    return str(result.exception)


def test_a_finished_run_holds_its_estimate_and_how_far_it_was_off(
    shell: Shell, rows: str, tmp_path: Path
) -> None:
    made = shell.json("train", "run", rows, *_QUICK)
    shown = shell.json("train", "show", made["run"])["estimate"]
    said = shell("train", "show", made["run"])
    assert (
        "support@v1" in said
        and re.search(r"\b(\d+) of \1\b", said)
        and "peak of memory" in said
        and "{" not in said
    ), "for people"
    assert made["verdict"] in said and "virtual_tokens" not in said, (
        "what lora reads, and nothing of other methods"
    )
    assert shown["measured"]["seconds"] > 0 and set(shown["error"]) == {
        "seconds",
        "tokens_per_s",
        "peak_memory_bytes",
    } == set(made["estimate_error"])
    assert list(
        (tmp_path / "home" / "runs" / made["run"] / "tensorboard").glob("events.out.tfevents.*")
    ), "TensorBoard follows every run"


def test_a_version_is_said_before_its_report_and_its_report_can_be_left_out(
    shell: Shell, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.runs import report as report_module

    # Which --device cpu sets, for this process and its children
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    seen: list[int | None] = []
    monkeypatch.setattr(
        report_module,
        "survey",
        lambda *_, most_answers, **__: seen.append(most_answers) or print("the report is made"),
    )
    quick = (
        *_QUICK,
        "--dropout",
        "0.1",
        "--set",
        "warmup=0.2",
        "--schedule",
        "linear",
        "--device",
        "cpu",
        "--max-length",
        "4096",
    )
    said = shell("train", "run", rows, *quick)
    assert (
        said.index("stored as support@v1, ")
        < said.index("Next: whet ")
        < said.index("the report is made")
    )
    assert "bounded to" in said and "Report: whet eval report support@v1 (a first look" in said
    assert seen[0] is not None and seen[0] >= 0, "a short run asks few probes"
    recipe = shell.json("train", "show", shell.json("train", "list")[0]["id"])["recipe"]
    assert (recipe["dropout"], recipe["warmup"], recipe["schedule"], recipe["device"]) == (
        0.1,
        0.2,
        "linear",
        "cpu",
    )
    silent = shell("train", "run", rows, *_QUICK, "--no-report")
    assert (
        "the report is made" not in silent
        and "No report was made; `whet eval run support@v2 --test FILE`" in silent
    )
    shell("train", "run", rows, *_QUICK, "--full-report")
    assert seen[1:] == [None]


def test_a_dry_run_shows_the_methods_own_fields(shell: Shell, rows: str) -> None:
    said = shell("train", "run", rows, "--dry-run", *_QUICK)
    (recipe,) = [line for line in said.split("\n") if line.startswith("recipe ")]
    assert "method lora, rank 4" in recipe and not [
        name for name in ("virtual_tokens", "teacher", "beta") if name in recipe
    ]
    assert any(line.startswith("time ") and "tokens/s" in line for line in said.split("\n"))
    assert set(shell.json("train", "run", rows, "--dry-run", *_QUICK)["recipe"]) >= {
        "rank",
        "dropout",
        "warmup",
    }


def test_a_search_finds_a_recipe_within_its_trials_and_goes_on_where_it_stopped(
    shell: Shell, tmp_path: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(90)))
    call = (
        "train",
        "search",
        rows,
        "--params",
        "learning_rate,rank,epochs,batch_size,alpha",
        "--pruner",
        "hyperband",
    )
    first = shell.json(*call, "--trials", "2")
    assert sum(first["trials"].values()) == 2
    second = shell.json(*call, "--trials", "4")
    assert sum(second["trials"].values()) == 4 and second["recipe"] == first["recipe"], (
        "the same search goes on"
    )
    assert second["best"]["validation_loss"] <= first["best"]["validation_loss"]
    recipe = load_recipe(second["recipe"])
    assert (
        recipe.learning_rate == pytest.approx(second["best"]["learning_rate"])
        and recipe.rank == second["best"]["rank"]
        and recipe.threads == 0
    )
    assert set(tomllib.loads(Path(second["recipe"]).read_text())) == {
        field.name for field in fields(Recipe)
    }
    picture = Path(second["picture"]).read_text()
    assert (
        "<svg" in picture
        and "What mattered" in picture
        and "http" not in picture.replace("http://www.w3.org", "")
    ), "nothing is fetched from elsewhere"
    assert shell.json("train", "list") == [], "a search stores no version"


def test_the_search_never_looks_at_the_test_part(tmp_path: Path) -> None:
    from training.data import datasets
    from training.data.rows import read_lines
    from training.data.split import split
    from training.runs.search import with_validation

    parts = split(
        read_lines([json.dumps(row).encode() for row in facts(120)]).rows, datasets.Shares(0.0, 0.1)
    ).parts
    dataset = datasets.Dataset("facts", "d", "p", parts["train"], [], parts["test"])
    made = with_validation(dataset)
    assert (
        made.test == dataset.test
        and len(made.train) + len(made.validation) == len(dataset.train)
        and len(made.validation) >= 8
    )
    assert not {row.prompt_digest for row in made.validation} & {
        row.prompt_digest for row in [*made.train, *made.test]
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "search", "ROWS"), "needs a budget"),
        (("train", "search", "ROWS", "--trials", "1", "--params", "colour"), "found colour"),
        (("train", "search", "ROWS", "--trials", "1", "--pruner", "axe"), "found 'axe'"),
        (("train", "resume", "run_nope"), "no run 'run_nope'"),
        (
            ("train", "run", "ROWS", "--device", "tpu"),
            "device is 'tpu'; expected one of auto, cpu, cuda",
        ),
        (("train", "run", "ROWS", "--set", "colour=red"), "no field 'colour'"),
        (
            ("train", "run", "ROWS", "--dropout", "2"),
            "dropout is 2.0; expected 0 or more and below 1",
        ),
    ],
)
def test_bad_input_gets_its_sentence(
    shell: Shell, rows: str, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in shell.refused(
        *[rows if argument == "ROWS" else argument for argument in arguments]
    )


@pytest.mark.parametrize(
    ("recipe", "parameters", "sentence"),
    [
        ("dpo", ("learning_rate",), "needs more than that"),
        ("distill", ("learning_rate",), "needs more than that"),
        ("ia3", ("rank", "epochs"), "has no rank"),
    ],
)
def test_a_search_refuses_what_its_trials_could_not_try(
    recipe: str, parameters: tuple[str, ...], sentence: str
) -> None:
    from training.runs.search import require_searchable

    with pytest.raises(InputError, match=sentence):
        require_searchable(load_recipe(recipe), parameters)
    require_searchable(load_recipe("lora"), ("learning_rate", "rank", "epochs"))
