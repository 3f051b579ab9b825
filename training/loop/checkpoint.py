"""Checkpoints: everything from which a run goes on to the bit, in one file each, written whole or
not at all.

A file is `step-<step>-<digest>.safetensors`; the digest is of its bytes, so a torn or altered file
is told from a whole one without trusting anything in it. No pickle is read: tensors are
safetensors, the rest is JSON in the header. (TRL's trainers keep files of torch in some of the
tensors, and torch reads those as plain data, `weights_only`.)
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from training.loop.run_folders import CHECKPOINTS
from training.machine.disk_space import translate_disk_full
from whet.errors import TrainingError
from whet.store import canonical_json, digest_bytes

# Of Python's own source: version, numbers, and what is left of a pair of normal ones
RandomState = tuple[int, Sequence[int], float | None]

EVERY_S = 60.0  # what a kill may cost; a checkpoint of an adapter takes some ten milliseconds
# An epoch's end is worth a checkpoint unless one is younger than this: tiny sets have many epochs a
# second
_EPOCH_S = 1.0
_KEPT = 2  # the newest, and the one before it in case the newest does not survive a power cut
_DIGEST_CHARACTERS = 32  # of the 64: 128 bits
_NAME = re.compile(rf"step-(\d{{9}})-([0-9a-f]{{{_DIGEST_CHARACTERS}}})\.safetensors")
_HEADER = "whet"  # key of our JSON in the safetensors metadata


@dataclass
class LoopState:
    """The plain part of a loop's state, after `step` steps."""

    step: int = 0
    before: float = 0.0  # loss on a sample of the rows before the first step
    tokens: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0  # in the loop, over all attempts
    earlier: float = 0.0  # seconds of what this loop learns from, as RLHF's reward model
    # [step, loss, seconds, learning rate] of each step
    history: list[list[float]] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)  # [step, loss]
    best_step: int = 0
    signs: list[str] = field(default_factory=list)
    # [step, answers]: training/loop/samples.py
    samples: list[list[Any]] = field(default_factory=list)
    sampling: float = 0.0  # seconds that samples took; they are in no other figure
    stopped: bool = False  # early: no step follows although there would be more

    @property
    def losses(self) -> list[float]:
        return [point[1] for point in self.history]

    def first_and_last(self) -> tuple[float, float]:
        """Mean loss of the first tenth of the steps, and of the last."""
        losses = self.losses
        tenth = max(1, len(losses) // 10)
        return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint in memory. `tensors` are those of the loop and of the random sources."""

    state: LoopState
    tensors: dict[str, torch.Tensor]
    # Complete, with dtype and threads as the first attempt chose them
    recipe: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run, in its folder. `every_s` 0 keeps one after each step."""

    def __init__(self, folder: Path, *, every_s: float = EVERY_S) -> None:
        self.folder, self.every_s = folder / CHECKPOINTS, every_s
        self._recipe: Mapping[str, object] = {}
        self._identity: dict[str, str] = {}
        self._last_s: float | None = None

    def belongs_to(self, recipe: Mapping[str, object], identity: dict[str, str]) -> None:
        """Say once what later checkpoints are of."""
        self._recipe, self._identity = recipe, identity

    def of_part(self, name: str) -> Checkpoints:
        """Those of a part of the run that comes before what these are of; in their folder, so that
        they go with it.
        """
        made = Checkpoints(self.folder, every_s=self.every_s)
        made.folder = self.folder / name
        made.belongs_to(self._recipe, self._identity)
        return made

    def due(self, seconds: float, *, epoch_ends: bool) -> bool:
        """Whether the loop, `seconds` old, should keep its state now."""
        since = seconds if self._last_s is None else seconds - self._last_s
        return since >= self.every_s or (epoch_ends and since >= _EPOCH_S)

    def write(self, state: LoopState, tensors: dict[str, torch.Tensor]) -> Path:
        """Keep a state; older files go.

        Raises TrainingError when the disk refuses, and what was kept before stays.
        """

        header = canonical_json(
            {
                "state": asdict(state),
                "recipe": self._recipe,
                "identity": self._identity,
                "python": _python_random(),
            }
        ).decode()
        content = save({**tensors, **_torch_random()}, metadata={_HEADER: header})
        path = (
            self.folder
            / f"step-{state.step:09d}-{digest_bytes(content)[:_DIGEST_CHARACTERS]}.safetensors"
        )
        with translate_disk_full(self.folder, "The checkpoint"):
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_whole(path, content)
            for _, old in self._files()[_KEPT:]:
                old.unlink(missing_ok=True)
        self.wrote(state)
        return path

    def wrote(self, state: LoopState) -> None:
        """Count the time to the next one from here."""
        self._last_s = state.seconds

    def newest(self) -> Snapshot | None:
        """The youngest whole checkpoint; damaged ones are passed over, so the worst case is a start
        from nothing.
        """
        found = (_read(path, digest) for digest, path in self._files())
        return next((snapshot for snapshot in found if snapshot is not None), None)

    def resume(self) -> Snapshot | None:
        """`newest`, after a check that it belongs to this run.

        Raises TrainingError naming what differs.
        """
        snapshot = self.newest()
        if snapshot is None:
            return None
        other = [
            name for name, digest in self._identity.items() if snapshot.identity.get(name) != digest
        ]
        if other:
            raise TrainingError(
                f"The checkpoint at step {snapshot.state.step} belongs to another"
                f" {' and another '.join(other)} than this attempt has.",
                hint=(
                    "Put back what was changed and resume, or start a new run with `whet train"
                    " run`."
                ),
            )
        self._last_s = snapshot.state.seconds
        return snapshot

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder beside the checkpoints; it goes at the end, or, after a kill, when
        another attempt asks for it or the checkpoints go.
        """
        folder = self.folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        with translate_disk_full(self.folder, "What training needs beside its checkpoints"):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Nothing goes on from here any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[tuple[str, Path]]:
        """(digest, path), youngest first."""
        with contextlib.suppress(FileNotFoundError):
            named = [
                (match, path)
                for path in self.folder.iterdir()
                if (match := _NAME.fullmatch(path.name))
            ]
            return [
                (match[2], path)
                for match, path in sorted(named, key=lambda pair: pair[0][1], reverse=True)
            ]
        return []


class ReadOnly(Checkpoints):
    """For the other processes of a run, which put checkpoints together with the one that writes
    them, at the same steps.
    """

    def write(self, state: LoopState, tensors: dict[str, torch.Tensor]) -> Path:
        self.wrote(state)
        return self.folder


def restore_random(tensors: dict[str, torch.Tensor], python: RandomState) -> None:
    """Put every random source where it was."""

    version, numbers, gauss = python
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(tensors["random.cpu"])
    for number in range(torch.cuda.device_count()):
        if f"random.cuda{number}" in tensors:
            torch.cuda.set_rng_state(tensors[f"random.cuda{number}"], number)


def _torch_random() -> dict[str, torch.Tensor]:
    states = {
        f"random.cuda{number}": torch.cuda.get_rng_state(number)
        for number in range(torch.cuda.device_count())
    }
    return {"random.cpu": torch.get_rng_state(), **states}


def _python_random() -> RandomState:
    version, numbers, gauss = random.getstate()
    return version, list(numbers), gauss


def _write_whole(path: Path, content: bytes) -> None:
    """Under another name, flushed, then renamed: a reader sees the whole file or none."""
    scratch = path.with_suffix(".partial")
    try:
        with scratch.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    with _opened(path.parent) as handle:
        os.fsync(handle)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _read(path: Path, digest: str) -> Snapshot | None:
    """The checkpoint in a file, or None when the file is not the one that was written."""

    try:
        content = path.read_bytes()
    except OSError:
        return None
    if digest_bytes(content)[:_DIGEST_CHARACTERS] != digest:
        return None
    length = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_HEADER])
    known = {each.name for each in fields(LoopState)}
    if set(header["state"]) != known:
        return None  # written by another release, whose state is not ours
    return Snapshot(
        LoopState(**header["state"]),
        {**load(content), "random.python": header["python"]},
        header["recipe"],
        header["identity"],
    )
