"""Eight planted faults of runs: each is found before the first step or at its first sign, has its
sentence, and leaves nothing behind.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.training.run.small import encoded, fresh, in_a_fork
from tests.training.tiny import build_base, facts, write_rows
from training.commands import train_rows as commands
from training.commands.sources import RowSource, rows_of
from training.loop import checkpoint, faults
from training.loop.checkpoint import Checkpoints
from training.loop.trainer import Step, train
from training.models.base_model import BaseModel
from training.recipes.recipe import Recipe
from training.runs import pipeline
from training.store import runs
from whet.context import Context, open_context
from whet.database import reading
from whet.errors import ConfigurationError, TrainingError, WhetError
from whet.settings import BUILTIN_BASE, load_settings
from whet.tables import adapters, evaluations, training_runs

RECIPE = Recipe(
    rank=4,
    alpha=8.0,
    learning_rate=5e-3,
    epochs=2.0,
    batch_size=8,
    max_length=256,
    dtype="float32",
    threads=1,
)


class Place:
    """A home with a base of its own, and runs by hand in it."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.base = Path(shutil.copytree(base, folder / "base"))
        self.context: Context = open_context(
            load_settings(home=folder / "home", base_model=str(self.base))
        )

    def train(self, recipe: Recipe = RECIPE, rows: int = 40) -> Any:
        """What `whet train run` does after it has read its options."""
        from training.models.base_choice import open_base
        from training.plan.prepare import prepare

        file = write_rows(self.folder / "rows.jsonl", facts(rows))
        dataset = rows_of(self.context, "support", RowSource(file, folds=0)).dataset
        return commands._train(
            self.context,
            prepare(self.context, "support", dataset, recipe, open_base(self.context.settings)),
            as_json=True,
        )

    def fails(self, recipe: Recipe = RECIPE) -> tuple[WhetError, Any]:
        """(the error, the run's row or None) of a run that must not succeed; nothing of it is
        visible.
        """
        with pytest.raises(WhetError) as caught:
            self.train(recipe)
        with reading(self.context.database) as connection:
            row = connection.execute(select(training_runs)).first()
            assert (
                connection.execute(select(adapters)).first() is None
                and connection.execute(select(evaluations)).first() is None
            )
        store = Path(self.context.store.root)
        assert not (store / "adapters").exists() and not list((store / ".tmp").glob("*")), (
            "a half artefact was left"
        )
        if row is not None:
            assert row.state == runs.FAILED and row.error == str(caught.value), (
                "the sentence stands in the run's row"
            )
        return caught.value, row


@pytest.fixture
def place(tmp_path: Path, base_folder: Path) -> Iterator[Place]:
    made = Place(tmp_path, base_folder)
    yield made
    made.context.close()


def _weights_changed(folder: Path, change: Callable[[Any], None]) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(str(file))
    change(tensors)
    save_file(tensors, str(file), metadata={"format": "pt"})


def test_1_a_base_with_a_weight_that_is_no_number_is_found_before_the_first_step(
    place: Place,
) -> None:
    _weights_changed(place.base, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    error, row = place.fails()
    assert "The loss is no number before the first step" in str(error) and "step" not in (
        row.progress or {}
    )
    assert "the base's weights hold NaN or infinity" in str(
        error
    ) and "ower the learning rate" not in str(error), "no rate has changed anything yet"


def test_1_a_base_of_zeros_through_which_no_gradient_passes_stops_at_the_first_step(
    place: Place,
) -> None:
    _weights_changed(place.base, lambda tensors: [tensor.zero_() for tensor in tensors.values()])
    error, row = place.fails()
    assert "No gradient arrives" in str(error) and "step" not in (row.progress or {})


def test_2_a_rate_that_is_far_too_high_is_named_within_sixty_steps(place: Place) -> None:
    shutil.rmtree(place.base)
    # One that knows something, and so has something to lose
    shutil.copytree(BUILTIN_BASE, place.base)
    # So high that it ends like this however a processor rounds: at half of it the loss is back near
    # its beginning by the end on some.
    error, row = place.fails(replace(RECIPE, learning_rate=0.9, alpha=512.0, epochs=12.0))
    assert "diverged: the loss rose from" in str(error) and "it was 0.9" in str(error)
    assert row.progress.get("step", 0) <= 60, "noticed late"


def test_3_overfitting_stops_the_run_early_and_keeps_the_best_weights(
    bases: dict[str, BaseModel],
) -> None:
    """Answers that follow from nothing can only be learned by heart."""
    import random

    chance, base = random.Random(3), bases["chatml"]
    rows = [
        json.dumps(
            {"prompt": f"case {number}", "completion": "".join(chance.choices("abcdefgh", k=12))}
        ).encode()
        for number in range(36)
    ]
    from training.data.rows import read_lines
    from training.models.encode import Encoder

    some = Encoder(base, 256).encode_all(read_lines(rows).rows)[0]
    recipe = replace(RECIPE, rank=16, alpha=64.0, learning_rate=5e-3, epochs=80.0, patience=5)
    done = train(
        fresh(base, recipe), some[:24], some[24:], recipe, pad_id=0, on_step=lambda step: None
    )
    assert done.signs and done.signs[0].startswith("Overfitting: since step"), (
        done.signs or done.validation
    )
    assert (
        done.steps < 240
        and done.best_step == min(done.validation, key=lambda check: check[1])[0] < done.steps
    )


def _out_of_memory(base: BaseModel) -> None:
    """One step under a limit that a step of these rows does not fit into."""
    import torch

    rows = encoded(base, 2)
    long = [replace(rows[0], ids=rows[0].ids * 12, trained=rows[0].trained * 12)] * 512
    model = fresh(base, RECIPE)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))
    torch.set_num_threads(1)
    with (
        pytest.raises(TrainingError, match="Memory ran out with 512 rows") as caught,
        faults.translate_oom(replace(RECIPE, batch_size=512)),
    ):
        train(model, long, [], replace(RECIPE, batch_size=512), pad_id=0, on_step=lambda step: None)
    assert "--micro-batch 256" in caught.value.hint


def test_4_memory_that_runs_out_in_a_step_is_said_with_the_option_that_helps(
    bases: dict[str, BaseModel],
) -> None:
    """For real: torch's allocator on a CPU raises a plain RuntimeError, and a limit on the process
    makes it.
    """
    import torch

    torch.set_num_threads(1)
    assert in_a_fork(lambda: _out_of_memory(bases["chatml"])) == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: out of memory"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_4_every_way_to_run_out_of_memory_is_said_and_other_errors_stay_what_they_are(
    error: Exception,
) -> None:
    import torch

    for raised in (error, torch.OutOfMemoryError("CUDA out of memory")):
        with (
            pytest.raises(TrainingError, match="Memory ran out with 8 rows"),
            faults.translate_oom(RECIPE),
        ):
            raise raised
    with (
        pytest.raises(TrainingError) as caught,
        faults.translate_oom(replace(RECIPE, micro_batch=1)),
    ):
        raise error
    assert "--gradient-checkpointing" in caught.value.hint
    with pytest.raises(RuntimeError, match="shapes"), faults.translate_oom(RECIPE):
        raise RuntimeError("shapes do not match")


def test_5_a_disk_that_fills_up_ends_the_run_and_what_was_kept_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    real, written = checkpoint._write_whole, []

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == 4:
            path.with_suffix(".partial").write_bytes(content[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    place.context = replace(
        place.context,
        settings=place.context.settings.model_copy(update={"checkpoint_interval_s": 0.0}),
    )
    monkeypatch.setattr(checkpoint, "_write_whole", full)
    error, row = place.fails()
    assert (
        "The checkpoint could not be written: the disk of" in str(error)
        and "is full" in str(error)
        and "whet train resume" in str(error)
    )
    kept = Checkpoints(place.context.settings.home / "runs" / row.id)
    newest = kept.newest()
    assert (
        newest is not None
        and newest.state.step == 3
        and torch.isfinite(newest.tensors["master.0"]).all()
    )


def _larger_than_allowed(folder: Path) -> None:
    import torch

    from training.loop.checkpoint import LoopState

    kept = Checkpoints(folder)
    kept.write(LoopState(step=1), {"master.0": torch.zeros(16)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))
    with pytest.raises(TrainingError, match="takes no larger files"):
        kept.write(LoopState(step=2), {"master.0": torch.zeros(1 << 16)})
    newest = kept.newest()
    assert newest is not None and newest.state.step == 1 and len(list(kept.folder.iterdir())) == 1


def test_5_when_the_system_itself_refuses_to_write_no_half_file_stays(tmp_path: Path) -> None:
    assert in_a_fork(lambda: _larger_than_allowed(tmp_path)) == 0


def test_5_a_disk_with_too_little_room_is_refused_before_the_first_step(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    error, row = place.fails()
    assert (
        "The run will write about" in str(error)
        and "WHET_HOME" in str(error)
        and "step" not in row.progress
    )


def test_5_a_store_with_too_little_room_for_the_version_is_refused_before_the_first_step(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be on another disk than the home folder, whose room says nothing of it."""
    usage, store = shutil.disk_usage(place.folder), Path(place.context.store.root)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: (
            usage._replace(free=1000) if store.is_relative_to(path) and path == store else usage
        ),
    )
    error, row = place.fails()
    assert (
        "The run will write about" in str(error)
        and "WHET_STORE_URL" in str(error)
        and "step" not in row.progress
    )


def test_6_a_gpu_that_is_asked_for_and_missing_is_said_before_anything_is_loaded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    error, row = place.fails(replace(RECIPE, device="cuda"))
    assert (
        isinstance(error, ConfigurationError)
        and "no GPU can be used here" in str(error)
        and "--device auto" in str(error)
        and row is None
    )


def test_7_a_base_that_is_not_there_is_said_before_a_run_is_written(place: Place) -> None:
    shutil.rmtree(place.base)
    error, row = place.fails()
    assert (
        isinstance(error, ConfigurationError)
        and "is not a folder on this machine" in str(error)
        and row is None
    )


def test_8_a_base_that_is_changed_while_the_run_trains_on_it_makes_no_adapter(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = build_base(tmp_path / "other", seed=9)

    def swap(self: Any, step: Step) -> None:
        if step.step == 2:
            shutil.copyfile(other / "model.safetensors", place.base / "model.safetensors")

    from training.plan.reporter import Reporter

    monkeypatch.setattr(Reporter, "step", swap)
    monkeypatch.setattr(
        pipeline, "judge", lambda *given, **named: pytest.fail("what fits no base was judged first")
    )
    error, _ = place.fails()
    assert "were changed or removed while the run trained on them" in str(error)


def test_8_a_base_whose_files_are_touched_but_equal_is_the_same_base(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.plan.reporter import Reporter

    monkeypatch.setattr(
        Reporter, "step", lambda self, step: os.utime(place.base / "model.safetensors")
    )
    assert place.train().adapter.label == "support@v1"


def test_8_a_base_that_is_removed_while_the_run_trains_on_it_makes_no_adapter(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.plan.reporter import Reporter

    monkeypatch.setattr(
        Reporter, "step", lambda self, step: shutil.rmtree(place.base, ignore_errors=True)
    )
    error, _ = place.fails()
    assert "were changed or removed while the run trained on them" in str(error)
