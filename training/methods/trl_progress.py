"""How a TRL trainer's run goes, as our own loop would tell it: steps to the reporter, checks on
held-out rows, and checkpoints from which it goes on.

A checkpoint is one file of ours, whole or not there, as everywhere (`training/loop/checkpoint.py`).
In it lie what is learned, as tensors, and the files in which the library keeps the rest (optimiser,
schedule, random sources, its place in the rows), byte by byte; a run that goes on gives the library
these files back.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.loop.checkpoint import Checkpoints, LoopState, Snapshot
from training.loop.diagnostics import check_divergence, explain_early_stop, require_finite
from training.loop.master_weights import BestCheckpoint, MasterWeights
from training.loop.samples import Sampler
from training.loop.trainer import Step, Trained
from training.machine.disk_space import translate_disk_full
from training.recipes.recipe import Recipe
from whet.errors import TrainingError

_FILE = "file/"  # before the names of the library's files among a checkpoint's tensors


@dataclass
class Progress:
    """One run of a trainer.

    `state` is where it is; it begins as a checkpoint left it, where there is one.
    """

    recipe: Recipe
    on_step: Callable[[Step], None]
    examples: int  # rows of an epoch, as the method counts them
    tokens_per_step: float
    # A step's figure, of what the trainer logs
    read: Callable[[dict[str, float]], float | None] = lambda logs: logs.get("loss")
    # The figure is a loss, whose rise is watched; else only that it stays a number
    falls: bool = True
    checkpoints: Checkpoints | None = None
    resume: Snapshot | None = None
    # Tensors that every checkpoint holds as well
    beside: dict[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        self.state = self.resume.state if self.resume else LoopState()
        self.losses = self.state.losses
        self._tensors = self.resume.tensors if self.resume else {}
        self._began, self._before = self.clock(), self.state.seconds
        self._masters: MasterWeights | None = None
        self._best: BestCheckpoint | None = None
        self._validated = False
        self._model: Any = None

    @contextmanager
    def folder(self) -> Iterator[str]:
        """For the trainer's own files, which do not outlive it.

        A run with checkpoints has it beside them, where what a killed process left is found and
        removed.
        """
        if self.checkpoints is None:
            with tempfile.TemporaryDirectory(prefix="whet-trl-") as made:
                yield made
        else:
            with self.checkpoints.scratch() as folder:
                yield str(folder)

    def train(self, trainer: Trainer) -> None:
        """Train to the end, or from the checkpoint to the end; what stays in the model are the best
        weights.
        """

        # Which prints a line per step to standard output, where data for scripts goes
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_callback(self, lambda: cast(Any, trainer).masters))
        self._validated = trainer.eval_dataset is not None
        self._model = trainer.model
        if self.state.stopped or self.state.step >= trainer.args.max_steps:
            self.begins(MasterWeights(cast(nn.Module, trainer.model)))
        else:
            trainer.train(resume_from_checkpoint=self._unpacked(Path(str(trainer.args.output_dir))))
            self._ends()

    # --- what the trainer tells ---------------------------------------------------------------------------------------

    def begins(self, masters: MasterWeights) -> None:
        """Right before the first step of this attempt: the weights are those of the checkpoint."""
        self._masters, self._best = masters, BestCheckpoint(masters)
        # RLHF's first checkpoint has none: it is written before its policy begins
        if "master.0" in self._tensors:
            masters.load_weights(self._tensors)
        self._best.load(self._tensors, self.state)
        self._began = self.clock()

    def stepped(self, step: int, steps: int) -> tuple[bool, bool]:
        """(whether to look at the held-out rows, whether to keep a checkpoint), after a step."""
        ends = step % math.ceil(self.examples / self.recipe.batch_size) == 0 or step == steps
        due = (
            self.checkpoints is not None
            and step < steps
            and self.checkpoints.due(self._seconds(), epoch_ends=ends)
        )
        return self._validated and ends, due

    def logged(
        self, logs: dict[str, float], step: int, steps: int, tokens: int, *, tell: bool
    ) -> None:
        """The figures of a step. `tokens`: seen so far, where the trainer counts them."""
        figure = self.read(logs)
        if figure is None:
            return
        state, rate = self.state, float(logs.get("learning_rate", 0.0))
        state.step, state.seconds, state.tokens = step, self._seconds(), tokens
        state.history.append([step, float(figure), state.seconds, rate])
        self.losses.append(float(figure))
        check_divergence(
            self.losses if self.falls else self.losses[-1:],
            float(logs.get("grad_norm", 0.0)),
            step,
            self.recipe,
        )
        if self.sampler is not None:
            self._began += self.sampler.sample(self._model, state, steps, self.clock)
        if tell:
            self.tell(steps)

    def checked(self, loss: float, steps: int) -> bool:
        """The loss on held-out rows after a step; returns whether the run should stop here."""
        state = self.state
        assert self._best is not None
        self._best.update(
            state, require_finite(loss, "loss on held-out rows", state.step, self.recipe)
        )
        if sign := explain_early_stop(state.validation, self.losses, self.recipe.patience):
            state.signs.append(sign)
            state.stopped = True
        self.tell(steps)
        return state.stopped

    def tell(self, steps: int) -> None:
        """Say how it goes. Raises what `on_step` raises."""
        state = self.state
        step, loss, seconds, rate = state.history[-1]
        speed, left = (
            self.tokens_per_step * step / max(seconds, 1e-9),
            0 if state.stopped else seconds / step * (steps - step),
        )
        validation = tuple((int(at), value) for at, value in state.validation)
        signs, samples = tuple(state.signs), tuple(state.samples)
        told = Step(int(step), steps, loss, speed, left, seconds, rate, validation, signs, samples)
        self.on_step(told)

    def keep(self, folder: Path) -> None:
        """A checkpoint of the state and of the files that the trainer has just put into `folder`,
        which go.
        """

        files = {
            _FILE + path.name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            for path in sorted(folder.iterdir())
        }
        shutil.rmtree(folder)
        self.write(files)

    def write(self, more: dict[str, torch.Tensor]) -> None:
        """A checkpoint with these tensors too."""
        assert self.checkpoints is not None
        weights = self._masters.weights() if self._masters else {}
        self.checkpoints.write(
            self.state,
            {**self.beside, **more, **weights, **(self._best.tensors() if self._best else {})},
        )

    # ------------------------------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return self._before + self.clock() - self._began

    def _unpacked(self, folder: Path) -> str | None:
        """The library's files of the checkpoint, as it left them; None where the run begins."""
        files = {
            name.removeprefix(_FILE): tensor
            for name, tensor in self._tensors.items()
            if name.startswith(_FILE)
        }
        if not files:
            return None
        found = folder / "resumed"
        with translate_disk_full(folder, "What the checkpoint holds"):
            found.mkdir()
            for name, tensor in files.items():
                (found / name).write_bytes(tensor.numpy().tobytes())
        return str(found)

    def _ends(self) -> None:
        """The best weights stay. A kill while they are judged does not cost the training."""
        assert self._best is not None
        self._best.restore()
        if self.checkpoints is not None and self.losses:
            self.write({})


def _callback(progress: Progress, masters: Callable[[], MasterWeights]) -> TrainerCallback:
    """The TrainerCallback that tells a `Progress` what transformers' loop does: after a step it
    logs, then looks at held-out rows, then keeps a checkpoint.
    """

    class Told(TrainerCallback):
        def on_train_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            progress.begins(masters())

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            control.should_evaluate, control.should_save = progress.stepped(
                state.global_step, state.max_steps
            )

        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: dict[str, float] | None = None,
            **_: object,
        ) -> None:
            progress.logged(
                logs or {},
                state.global_step,
                state.max_steps,
                state.num_input_tokens_seen,
                tell=not control.should_evaluate,
            )

        def on_evaluate(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            **given: Any,
        ) -> None:
            if progress.checked(given["metrics"]["eval_loss"], state.max_steps):
                control.should_training_stop, control.should_save = True, False

        def on_save(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            progress.keep(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")

    return Told()


def trained(progress: Progress, tokens: int, trained_tokens: int) -> Trained:
    """How it went, in the words of our own loop.

    Raises TrainingError when no step was taken: there is nothing to judge or keep.
    """
    losses, state = progress.losses, progress.state
    if not losses:
        raise TrainingError(
            "The run ended without a single step.",
            hint="Give more rows, or use a smaller batch_size.",
        )
    first, last = state.first_and_last()
    return Trained(
        steps=len(losses),
        tokens=tokens,
        trained_tokens=trained_tokens,
        seconds=state.earlier + state.seconds,
        first_loss=first,
        last_loss=last,
        validation=[(int(step), loss) for step, loss in state.validation],
        best_step=state.best_step or len(losses),
        signs=list(state.signs),
        samples=state.samples,
        sampling_seconds=state.sampling,
    )
