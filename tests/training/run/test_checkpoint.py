"""A run that is killed goes on to the same bits; a checkpoint that is torn, altered or another
run's is never gone on from.
"""

from __future__ import annotations

import copy
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.run.small import RECIPE, encoded, fresh, in_a_fork, weights, with_dtype
from training.loop import checkpoint
from training.loop.checkpoint import Checkpoints, LoopState, Snapshot
from training.loop.trainer import Step, train
from training.models.base_model import BaseModel
from whet.errors import TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")

IDENTITY = {"recipe": "r", "base": "b"}


def _kept(folder: Path, every_s: float = 0.0) -> Checkpoints:
    made = Checkpoints(folder, every_s=every_s)
    made.belongs_to(RECIPE.__class__().as_json(), IDENTITY)
    return made


def _train(
    base: BaseModel,
    recipe: Any,
    *,
    folder: Path | None = None,
    on_step: Any = lambda step: None,
    model: Any = None,
) -> Any:
    rows = encoded(base, 40)
    model = model or fresh(base, recipe)
    kept = _kept(folder) if folder else None
    done = train(
        model,
        rows[:32],
        rows[32:],
        recipe,
        pad_id=0,
        on_step=on_step,
        checkpoints=kept,
        resume=kept.resume() if kept else None,
    )
    return model, done


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kills(base: BaseModel, recipe: Any, folder: Path, count: int, seed: int) -> None:
    """Train in forks that are killed with SIGKILL `count` times: at a step, and before, in and
    after the writing of a checkpoint.
    """
    chance = random.Random(seed)
    untrained = fresh(base, recipe)  # loaded once: each fork has its own copy of it
    for number in range(count):
        at, place = (
            chance.randrange(1, 4),
            chance.choice(["step", "write", "flush", "rename", "clean"]),
        )

        def attempt(at: int = at, place: str = place) -> None:
            left = [at]

            def doomed(*_: object, **__: object) -> bool:
                left[0] -= 1
                if left[0] <= 0:
                    _die()
                return True

            def dying(real: Any) -> Any:
                return lambda *given, **named: doomed() and real(*given, **named)

            def torn(path: Path, content: bytes, real: Any = checkpoint._write_whole) -> None:
                left[0] -= 1
                if left[0] <= 0:
                    path.with_suffix(".partial").write_bytes(content[: len(content) // 2])
                    _die()
                real(path, content)

            if place == "flush":
                os.fsync = dying(os.fsync)
            elif place == "rename":
                Path.replace = dying(Path.replace)  # type: ignore[method-assign]
            elif place == "clean":
                Path.unlink = dying(Path.unlink)  # type: ignore[method-assign]
            elif place == "write":
                checkpoint._write_whole = torn
            _train(
                base,
                recipe,
                folder=folder,
                on_step=doomed if place == "step" else lambda step: None,
                model=untrained,
            )

        status = in_a_fork(attempt)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (
            f"attempt {number} was to be killed ({place}), but ended with {status}"
        )


@pytest.mark.parametrize(("dtype", "kills"), [("float32", 6), ("bfloat16", 3)])
def test_a_run_killed_at_random_steps_ends_with_the_weights_of_an_undisturbed_one(
    base: BaseModel, dtype: str, kills: int, tmp_path: Path
) -> None:
    _same_after_kills(base, with_dtype(dtype), kills, tmp_path)


@pytest.mark.slow
def test_fifty_kills_change_no_bit(base: BaseModel, tmp_path: Path) -> None:
    _same_after_kills(base, replace(RECIPE, epochs=30.0), 50, tmp_path)


def _same_after_kills(base: BaseModel, recipe: Any, kills: int, folder: Path) -> None:
    import torch

    undisturbed, expected = _train(base, recipe)
    _kills(base, recipe, folder, kills, 7)
    assert _kept(folder).newest() is not None, "no attempt got as far as a checkpoint"
    resumed, done = _train(base, recipe, folder=folder)
    assert torch.equal(weights(resumed), weights(undisturbed)), "a killed run has other weights"
    assert (done.validation, done.best_step, done.tokens, done.first_loss, done.last_loss) == (
        expected.validation, expected.best_step, expected.tokens, expected.first_loss, expected.last_loss
    )  # fmt: skip


def test_leaving_out_any_part_of_the_state_would_be_noticed(
    base: BaseModel, tmp_path: Path
) -> None:
    """The fault behind the rule: each part of a checkpoint matters, so equal bits above prove that
    it is there.
    """
    import torch

    undisturbed, _ = _train(base, RECIPE)
    _kills(base, RECIPE, tmp_path, 2, 7)
    rows, untrained = encoded(base, 40), fresh(base)
    for forgotten in ("nothing", "optimiser", "random", "master"):
        snapshot = _kept(tmp_path).newest()
        assert snapshot is not None and 0 < snapshot.state.step < 24
        for name, tensor in snapshot.tensors.items():
            if name == "random.cpu" and forgotten == "random":
                tensor.copy_(torch.Generator().manual_seed(99).get_state())
            elif name.startswith(forgotten) and forgotten != "random":
                tensor.zero_()
        model = copy.deepcopy(untrained)
        train(
            model,
            rows[:32],
            rows[32:],
            RECIPE,
            pad_id=0,
            on_step=lambda step: None,
            resume=snapshot,
        )
        assert torch.equal(weights(model), weights(undisturbed)) == (forgotten == "nothing"), (
            f"without {forgotten}"
        )


def _two(folder: Path) -> tuple[Checkpoints, list[Path]]:
    """Checkpoints of step 1 and 2, the older first."""
    import torch

    kept = _kept(folder)
    paths = [
        kept.write(
            LoopState(step=step, history=[[step, 1.0, 0.1, 1e-3]]),
            {"master.0": torch.full((64,), float(step))},
        )
        for step in (1, 2)
    ]
    return kept, paths


def _lengths(size: int, header: int) -> list[int]:
    """Every class of length at which a file may be torn: nothing, in the length field, in the
    header, at its end, in the tensors, all but a byte.
    """
    return [
        0,
        1,
        7,
        8,
        9,
        header // 2,
        8 + header - 1,
        8 + header,
        8 + header + 1,
        size // 2,
        size - 1,
    ]


def test_a_torn_checkpoint_gives_way_to_the_one_before_and_then_to_a_start_from_nothing(
    tmp_path: Path,
) -> None:
    kept, (older, newer) = _two(tmp_path)
    whole = {path: path.read_bytes() for path in (older, newer)}
    header = int.from_bytes(whole[newer][:8], "little")
    for length in _lengths(len(whole[newer]), header):
        newer.write_bytes(whole[newer][:length])
        older.write_bytes(whole[older])
        found = kept.resume()
        assert (
            found is not None
            and found.state.step == 1
            and float(found.tensors["master.0"][0]) == 1.0
        ), f"torn at {length} of {len(whole[newer])}"
        older.write_bytes(whole[older][:length])
        assert kept.resume() is None, f"both torn at {length}"


def test_a_checkpoint_with_one_changed_bit_is_not_gone_on_from(tmp_path: Path) -> None:
    kept, (_older, newer) = _two(tmp_path)
    content = bytearray(newer.read_bytes())
    content[-1] ^= 1
    newer.write_bytes(content)
    found = kept.resume()
    assert found is not None and found.state.step == 1


def test_without_its_digest_a_changed_checkpoint_would_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault behind the rule above."""
    kept, (_, newer) = _two(tmp_path)
    content = bytearray(newer.read_bytes())
    content[-1] ^= 1
    newer.write_bytes(content)
    digest = newer.stem.rsplit("-", 1)[1]
    monkeypatch.setattr(checkpoint, "digest_bytes", lambda content: digest + 32 * "0")
    found = kept.resume()
    assert found is not None and found.state.step == 2


def test_two_checkpoints_are_kept_and_none_when_the_run_has_ended_well(tmp_path: Path) -> None:
    import torch

    kept = _kept(tmp_path)
    for step in range(1, 6):
        kept.write(LoopState(step=step), {"master.0": torch.zeros(4)})
    assert [path.name.split("-")[1] for path in sorted(kept.folder.iterdir())] == [
        "000000004",
        "000000005",
    ]
    kept.remove()
    assert kept.newest() is None and not kept.folder.exists()


@pytest.mark.parametrize("name", ["recipe", "base"])
def test_a_checkpoint_of_something_else_is_refused_by_name(tmp_path: Path, name: str) -> None:
    kept, _ = _two(tmp_path)
    kept.belongs_to({}, {**IDENTITY, name: "another"})
    with pytest.raises(TrainingError, match=f"another {name} than") as caught:
        kept.resume()
    assert "whet train run" in caught.value.hint


def test_checkpoints_come_at_intervals_and_epoch_ends_but_not_at_every_tiny_epoch(
    tmp_path: Path,
) -> None:
    import torch

    kept = _kept(tmp_path, every_s=60.0)
    assert (
        not kept.due(0.5, epoch_ends=True)
        and kept.due(2.0, epoch_ends=True)
        and not kept.due(59.0, epoch_ends=False)
        and kept.due(60.0, epoch_ends=False)
    )
    kept.write(LoopState(seconds=100.0), {"master.0": torch.zeros(1)})
    assert not kept.due(159.0, epoch_ends=False) and kept.due(160.0, epoch_ends=False)


def test_a_run_that_had_ended_takes_no_further_step(base: BaseModel, tmp_path: Path) -> None:
    import torch

    first, done = _train(base, RECIPE, folder=tmp_path)
    seen: list[Step] = []
    again, resumed = _train(base, RECIPE, folder=tmp_path, on_step=seen.append)
    assert (
        seen == []
        and resumed == replace(done, seconds=resumed.seconds)
        and torch.equal(weights(first), weights(again))
    )


def test_a_snapshot_holds_plain_data_and_tensors_only(base: BaseModel, tmp_path: Path) -> None:
    _train(base, replace(RECIPE, epochs=1.0), folder=tmp_path)
    found = _kept(tmp_path).newest()
    assert (
        isinstance(found, Snapshot)
        and found.state.step == 4
        and {name.split(".")[0] for name in found.tensors}
        == {"master", "optimiser", "best", "random"}
    )
