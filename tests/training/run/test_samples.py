"""Answers sampled while training: they change no weight and no estimate, survive a stop, and are
shown as text.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from tests import builders
from tests.training.methods.test_methods import preferences
from tests.training.run.small import RECIPE, encoded, fresh, weights
from tests.training.run.test_checkpoint import _kept
from tests.training.test_commands import Shell
from tests.training.test_trainer import go, prepared_run, read_rows
from tests.training.tiny import facts, write_rows
from tests.web import NOW, console_client
from training.loop.samples import Sampler, sampled_rows
from training.loop.trainer import Step, Trained, train
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import InputError
from whet.settings import load_settings
from whet.tables import training_runs

PLAIN = replace(RECIPE, epochs=2.0)


@pytest.fixture
def home(sqlite_context: Context, base_folder: Path) -> Context:
    settings = load_settings(home=sqlite_context.settings.home, base_model=str(base_folder))
    return replace(sqlite_context, settings=settings)


def _sampler(base: BaseModel, every: int = 3) -> Sampler:
    return Sampler(Encoder(base, 256), read_rows(facts(6))[3:5], every)


def _train(base: BaseModel, **more: Any) -> tuple[Any, Trained, list[Step]]:
    model, told = fresh(base, PLAIN), list[Step]()
    rows = encoded(base, 32)
    given = {"on_step": told.append, "sampler": _sampler(base), **more}
    return model, train(model, rows, [], PLAIN, pad_id=0, **given), told


@pytest.mark.usefixtures("one_thread")
def test_sampling_changes_no_weight_and_is_told_with_its_step(base: BaseModel) -> None:
    import torch

    model, done, told = _train(base)
    without, bare, _ = _train(base, sampler=None)
    assert torch.equal(weights(model), weights(without)), "dropout draws as it would without"
    assert [step for step, _ in done.samples] == [3, 6, 8], "every third step, and the last one"
    assert [len(step.samples) for step in told] == [0, 0, 1, 1, 1, 2, 2, 3]
    assert all(len(answers) == 2 for _, answers in done.samples)
    assert (bare.samples, bare.sampling_seconds) == ([], 0.0) and done.sampling_seconds > 0


@pytest.mark.usefixtures("one_thread")
def test_the_time_of_samples_is_in_no_other_figure(base: BaseModel) -> None:
    class Slow(Sampler):
        def answer(self, model: Any) -> list[str]:
            now[0] += 100.0
            return ["", ""]

    now = [0.0]
    sampler = Slow(Encoder(base, 256), read_rows(facts(2)), 2)
    _, done, told = _train(base, sampler=sampler, clock=lambda: now[0])
    assert (done.seconds, done.sampling_seconds) == (0.0, 400.0)
    assert all(step.seconds == step.eta_s == 0 for step in told)


@pytest.mark.usefixtures("one_thread")
def test_samples_of_a_stopped_run_are_there_when_it_goes_on(
    base: BaseModel, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stop(step: Step) -> None:
        if step.step == 5:
            raise Stopped

    undisturbed = _train(base)[1].samples
    with pytest.raises(Stopped):
        _train(base, on_step=stop, checkpoints=_kept(tmp_path))
    kept = _kept(tmp_path)
    assert _train(base, checkpoints=kept, resume=kept.resume())[1].samples == undisturbed


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [
        (3, 8, [3, 6, 8]),
        (10, 5, [5]),
        (1, 24, list(range(1, 25))),
        (2, 499, [*range(22, 499, 22), 499]),
    ],
)
def test_samples_are_evenly_spread_and_never_many(
    base: BaseModel, every: int, steps: int, expected: list[int]
) -> None:
    sampler = _sampler(base, every)
    due = [step for step in range(1, steps + 1) if sampler.is_due(step, steps)]
    assert due == expected and len(due) <= 25


def test_the_questions_are_held_out_and_different(base: BaseModel) -> None:
    rows = read_rows([*facts(2), *facts(6)])
    found = sampled_rows([], rows)
    assert len(found) == 3 and len({row.prompt_digest for row in found}) == 3
    assert sampled_rows([], []) == []


@pytest.mark.parametrize("method", ["lora", "dpo"])
@pytest.mark.seconds
def test_a_run_keeps_its_samples_and_counts_their_time_apart(home: Context, method: str) -> None:
    rows = facts(40) if method == "lora" else preferences(40)
    fields: dict[str, Any] = {"rank": 4, "alpha": 8.0, "epochs": 1.0, "learning_rate": 5e-3}
    outcome = go(home, rows, load_recipe(method), sample_every=3, **fields)
    with reading(home.database) as connection:
        progress = connection.execute(select(training_runs.c.progress)).scalar_one()
    samples = progress["samples"]
    steps = [step for step, _ in samples["answers"]]
    assert steps == [*range(3, outcome.trained.steps, 3), outcome.trained.steps]
    assert len(samples["questions"]) == 3 and all("?" in each for each in samples["questions"])
    assert outcome.seconds["sampling"] == outcome.trained.sampling_seconds > 0
    assert outcome.adapter is not None
    assert outcome.adapter.card["recipe"]["sample_every"] == 3
    if method == "lora":
        kept = home.store.read_bytes(outcome.judgement.samples_path or "").split(b"\n")
        asked = [json.loads(line) for line in kept if line]
        said = {row["candidate"]["text"] for row in asked}
        assert set(samples["answers"][-1][1]) <= said, "the last sample is what is judged"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sample_every": -1}, "sample_every"),
        ({"sample_every": 5, "processes": 2}, "several processes"),
        ({"sample_every": 5, "method": "rlhf"}, "The method rlhf has no sample_every"),
    ],
)
def test_what_cannot_be_sampled_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        recipe_from(fields)
    assert "sample_every" in METHODS["lora"].reads


def test_a_run_without_held_out_rows_says_that_nothing_is_sampled(home: Context) -> None:
    prepared, _ = prepared_run(home, facts(24), Recipe(rank=4, sample_every=2))
    assert not any("are sampled" in notice for notice in prepared.notices)
    from training.plan.prepare import prepare

    alone = replace(prepared.dataset, test=[], validation=[])
    again = prepare(home, "support", alone, Recipe(rank=4, sample_every=2), prepared.base)
    assert any("No answers are sampled" in notice for notice in again.notices)


def test_the_page_of_a_run_shows_samples_as_text(sqlite_context: Context) -> None:
    samples = {"questions": ["<b>Why?</b>"], "answers": [[4, ["<img src=x>"]], [8, ["It is 3."]]]}
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        builders.add_run(connection, NOW, dataset=data, state="running", heartbeat_at=NOW)
        run_id, progress = connection.execute(
            select(training_runs.c.id, training_runs.c.progress)
        ).one()
        assert "samples" not in progress
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    assert "Sampled answers" not in client.get(f"/runs/{run_id}").text
    with writing(sqlite_context.database) as connection:
        connection.execute(update(training_runs).values(progress={**progress, "samples": samples}))
    page = client.get(f"/runs/{run_id}").text
    assert "Sampled answers" in page and "It is 3." in page
    assert "&lt;b&gt;Why?" in page and "&lt;img src=x&gt;" in page and "<img src=x" not in page


def test_the_command_shows_samples_as_text(tmp_path: Path, base_folder: Path) -> None:
    shell = Shell(tmp_path / "home", base_folder)
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    quick = ("--rank", "4", "--epochs", "1", "--threads", "1", "--no-report")
    made = shell.json("train", "run", rows, "--sample-every", "4", *quick)
    run = shell.json("train", "show", made["run"])
    assert run["recipe"]["sample_every"] == 4 and run["progress"]["samples"]["answers"]
    context = open_context(load_settings(home=tmp_path / "home", base_model=str(base_folder)))
    planted = "<img src=x onerror=alert(1)> [bold]"
    run["progress"]["samples"] = {"questions": [planted], "answers": [[4, [planted]]]}
    with writing(context.database) as connection:
        connection.execute(update(training_runs).values(progress=run["progress"]))
    context.close()
    said = shell("train", "show", made["run"])
    assert f"sampled: {planted}" in said and f"step 4: {planted}" in said
