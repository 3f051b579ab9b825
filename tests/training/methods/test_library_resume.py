"""Runs in a library's trainers that are killed go on to the bits of an undisturbed one, keep their
best weights, and stop early, as runs in our own loop do.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.methods.test_methods import preferences
from tests.training.run.small import in_a_fork
from tests.training.test_trainer import read_rows
from tests.training.tiny import facts
from training.data import datasets
from training.data.split import split
from training.loop import checkpoint
from training.loop.checkpoint import Checkpoints, Snapshot
from training.loop.trainer import Step, Trained
from training.methods import preference
from training.methods.families import family
from training.models.base_choice import open_base
from training.plan.identity import identity_of
from training.plan.prepare import Prepared, prepare
from training.recipes.methods import METHODS
from training.recipes.recipe import load_recipe
from whet.context import Context
from whet.errors import TrainingError
from whet.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")

# Everything that is kept between steps is on: parts of a step, held-out rows, an epoch's end
# between two kills; and with RLHF, random numbers.
FIELDS: dict[str, Any] = {
    "rank": 4, "alpha": 8.0, "learning_rate": 5e-3, "epochs": 3.0, "batch_size": 8, "dtype": "float32", "threads": 1, "seed": 3,
}  # fmt: skip
METHOD_FIELDS: dict[str, dict[str, Any]] = {
    "dpo": {"micro_batch": 4},
    "kto": {"micro_batch": 4, "epochs": 2.0},
    "orpo": {"loraplus_lr_ratio": 4.0},
    "rlhf": {"samples": 2, "batch_size": 4},
}


class _Quiet:
    """In place of a reporter, which needs a run's row.

    `worked`: the steps it was told of before the training itself.
    """

    def __init__(self, on_work: Callable[[int], None] = lambda done: None) -> None:
        self.worked: list[int] = []
        self._on_work = on_work

    def working(self, stage: str, done: int, total: int) -> None:
        self.worked.append(done)
        self._on_work(done)

    def stage(self, name: str) -> None:
        pass


@pytest.fixture
def home(sqlite_context: Context, base_folder: Path) -> Context:
    return replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )


@dataclass
class Attempt:
    """One attempt at a run: what it made, and the steps it was told of."""

    weights: Any
    trained: Trained
    told: list[Step]


def _prepared(
    home: Context, method: str, rows: list[dict[str, Any]] | None = None, **fields: Any
) -> Prepared:
    dataset = datasets.save(
        home.store,
        "facts",
        split(read_rows(rows or preferences(24)), datasets.Shares(0.2, 0.2)).parts,
    )
    recipe = replace(load_recipe(method), **{**FIELDS, **METHOD_FIELDS.get(method, {}), **fields})
    return prepare(home, "support", dataset, recipe, open_base(home.settings))


def _attempt(
    prepared: Prepared,
    folder: Path,
    on_step: Callable[[Step], None] = lambda step: None,
    every_s: float = 0.0,
    reporter: _Quiet | None = None,
) -> Attempt:
    """Train as far as it comes, from what the attempt before left in the folder."""
    import torch

    method, told = family(METHODS[prepared.recipe.method]), []
    kept = Checkpoints(folder, every_s=every_s)
    kept.belongs_to(prepared.recipe.as_json(), identity_of(prepared))

    def tell(step: Step) -> None:
        told.append(step)
        on_step(step)

    model = method.build(prepared)
    done = method.run(
        model,
        prepared,
        reporter or _Quiet(),
        pad_id=0,
        loss_of=method.loss(prepared),
        on_step=tell,
        checkpoints=kept,
        resume=kept.resume(),
    )  # type: ignore[arg-type]
    adapter = [
        parameter.detach().flatten()
        for name, parameter in sorted(model.named_parameters())
        if ".lora_" in name and ".default." in name
    ]
    return Attempt(torch.cat(adapter), done, told)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed(prepared: Prepared, folder: Path, at: int, *, torn: bool = False) -> None:
    """An attempt in a fork that is killed with SIGKILL when it tells its step `at`, or, `torn`,
    when half of that step's checkpoint is written.
    """

    def attempt() -> None:
        def half(path: Path, content: bytes, real: Any = checkpoint._write_whole) -> None:
            if int(path.name.split("-")[1]) >= at:
                path.with_suffix(".partial").write_bytes(content[: len(content) // 2])
                _die()
            real(path, content)

        if torn:
            checkpoint._write_whole = half
        _attempt(prepared, folder, lambda step: _die() if step.step >= at and not torn else None)

    status = in_a_fork(attempt)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (
        f"was to be killed at step {at}, but ended with {status}"
    )


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("dpo", "float32"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("dpo", "bfloat16"),
                ("kto", "float32"),
                ("orpo", "float32"),
                ("simpo", "float32"),
                ("rlhf", "float32"),
            )
        ),
    ],
)
def test_a_killed_run_of_a_library_ends_with_the_weights_of_an_undisturbed_one(
    home: Context, tmp_path: Path, method: str, dtype: str
) -> None:
    import torch

    prepared = _prepared(home, method, dtype=dtype)
    undisturbed = _attempt(prepared, tmp_path / "undisturbed", every_s=1e9)
    steps = undisturbed.trained.steps
    assert steps >= 5, "too few steps for the kills below"
    folder = tmp_path / "killed"
    for at, torn in ((2, False), (steps // 2, True), (steps // 2 + 1, False), (steps, False)):
        _killed(prepared, folder, at, torn=torn)
    resumed = _attempt(prepared, folder)
    assert resumed.weights.dtype == getattr(torch, dtype), (
        "each layer would cast its input to what is trained and back"
    )
    assert torch.equal(resumed.weights, undisturbed.weights), "a killed run has other weights"
    assert [step.step for step in resumed.told] == [steps], (
        "it went on from the checkpoint before the last kill"
    )
    one, other = (replace(each.trained, seconds=0.0) for each in (resumed, undisturbed))
    assert one == other, "what is said of the run differs"
    earlier = [each.trained.seconds - each.told[-1].seconds for each in (undisturbed, resumed)]
    assert all((seconds > 0) == (method == "rlhf") for seconds in earlier), (
        "the reward model's time is in the run's, also after kills"
    )
    assert method == "rlhf" or len(one.validation) == FIELDS["epochs"] or method == "kto"
    again = _attempt(prepared, folder)  # killed while it was judged
    assert again.told == [] and torch.equal(again.weights, undisturbed.weights)
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.is_dir()] == [], (
        "the library's files are left behind"
    )


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("dpo", ("nothing", "master.", "file/optimizer.pt", "file/scheduler.pt")),
        pytest.param("rlhf", ("nothing", "file/rng_state.pth", "reward."), marks=pytest.mark.slow),
    ],
)
def test_leaving_out_any_part_of_the_state_would_be_noticed(
    home: Context,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    parts: tuple[str, ...],
) -> None:
    """The fault behind the rule: each part of a checkpoint matters, so equal bits above prove that
    it is there.
    """
    import torch

    prepared = _prepared(home, method)
    # The last weights are kept then, not those of a better step
    prepared = replace(prepared, validation=[], dataset=replace(prepared.dataset, validation=[]))
    undisturbed = _attempt(prepared, tmp_path / "undisturbed", every_s=1e9)
    _killed(prepared, tmp_path / "killed", 4)
    real = Checkpoints.newest
    for number, forgotten in enumerate(parts):

        def newest(self: Checkpoints, forgotten: str = forgotten) -> Snapshot | None:
            found = real(self)
            assert found is not None and found.state.step == 3
            return replace(
                found,
                tensors={
                    name: tensor
                    for name, tensor in found.tensors.items()
                    if not name.startswith(forgotten)
                },
            )

        folder = shutil.copytree(tmp_path / "killed", tmp_path / f"copy{number}")
        monkeypatch.setattr(Checkpoints, "newest", newest)
        same = torch.equal(_attempt(prepared, folder, every_s=1e9).weights, undisturbed.weights)
        assert same == (forgotten == "nothing"), f"without {forgotten}"


@pytest.mark.slow
def test_a_kill_while_the_reward_model_learns_costs_the_steps_since_its_checkpoint(
    home: Context, tmp_path: Path
) -> None:
    import torch

    prepared = _prepared(home, "rlhf", epochs=1.0)
    whole = _Quiet()
    undisturbed = _attempt(prepared, tmp_path / "undisturbed", every_s=1e9, reporter=whole)
    last = whole.worked[-1]
    assert whole.worked == list(range(1, last + 1)) and last >= 3
    folder = tmp_path / "killed"
    status = in_a_fork(
        lambda: _attempt(
            prepared, folder, reporter=_Quiet(lambda done: _die() if done == last - 1 else None)
        )
    )
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    left = _Quiet()
    resumed = _attempt(prepared, folder, reporter=left)
    assert left.worked == [last - 1, last], "the checkpoint before the kill is of the step before"
    assert torch.equal(resumed.weights, undisturbed.weights), (
        "the rewards of a killed reward model taught something else"
    )
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.is_dir()] == [], (
        "the reward model's checkpoints are left behind"
    )


def test_a_full_disk_ends_the_run_with_a_sentence(
    home: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def full(*_: Any, **__: Any) -> None:
        # What torch.save makes of a full disk
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="The checkpoint could not be written: the disk of"):
        _attempt(_prepared(home, "dpo"), tmp_path)


def test_kto_is_not_judged_by_answers_that_are_all_liked(home: Context, tmp_path: Path) -> None:
    """A model that likes everything more would look better and better."""
    rated = [{**row, "rating": 1 if number % 2 else -1} for number, row in enumerate(facts(40))]
    prepared = _prepared(home, "kto", rated, epochs=1.0)
    assert prepared.dataset.validation and all(
        row.rating > 0 for row in prepared.dataset.validation
    )
    assert preference._held_out(prepared) == []
    both = _prepared(home, "kto", preferences(40))
    assert len(preference._held_out(both)) == 2 * len(both.dataset.validation) > 0


def test_a_preference_run_stops_early_and_keeps_its_best_weights(
    home: Context, tmp_path: Path
) -> None:
    """The right answers of the training rows are the wrong ones of the held-out rows: what is
    learned there is worse here.
    """
    import torch

    rows = preferences(30)
    prepared = _prepared(home, "dpo", rows, patience=2, epochs=20.0)
    turned = [
        replace(
            row,
            messages=(*row.messages[:-1], {"role": "assistant", "content": row.rejected}),
            raw={**row.raw, "chosen": row.rejected, "rejected": row.answer},
            rejected=row.answer,
        )
        for row in prepared.dataset.train
    ]
    prepared = replace(prepared, dataset=replace(prepared.dataset, validation=turned))
    made = _attempt(prepared, tmp_path)
    assert made.trained.steps < prepared.steps and made.trained.best_step < made.trained.steps
    assert (
        made.trained.signs
        and made.trained.signs[0].startswith("Overfitting")
        and made.told[-1].signs == tuple(made.trained.signs)
    )
    assert (
        made.told[-1].validation == tuple(made.trained.validation)
        and len(made.trained.validation) == 3
    ), "one check an epoch, and two without a new best"
    assert torch.equal(_attempt(prepared, tmp_path).weights, made.weights), (
        "the best weights are those of the last checkpoint"
    )
