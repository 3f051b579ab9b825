"""TRL's trainers inside a run of ours: our tokens go in, steps and the wish to cancel come out, and the same things stop them.

TRL tokenises by its own reading of a chat template. Ours is proved to be what the engine sees, so the rows go in as token ids and TRL's
preparation is left out (`Ready`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from training.methods.loop import on_plain_base
from training.methods.pairs import at_once
from training.prepare import Prepared
from training.run.signs import watch
from training.trainer import FLOOR, Step, Trained, total_steps
from whet.errors import TrainingError

__all__ = ["Ready", "arguments", "callback", "float32_adapter", "go", "on_one_gpu", "on_plain_base", "scratch_folder", "trained"]


class Ready:
    """Put before a TRL trainer among the bases of a class: its rows are tokens already."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


def float32_adapter(model: Any) -> Any:
    """Cast what is trained to float32: TRL's optimiser sees these parameters themselves, and in bfloat16 small updates would be lost."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return model


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Trainers insist on a folder; nothing stays in it."""
    with tempfile.TemporaryDirectory(prefix="whet-trl-") as folder:
        yield folder


def on_one_gpu(config: Any) -> Any:
    """The trainer's arguments, which then know of one GPU at most: transformers counts all that it sees and puts the model into DataParallel, which TRL's trainers
    refuse and ORPO's does not expect. A run of ours has one."""
    config._n_gpu = min(config.n_gpu, 1)  # read first: that is when transformers counts, and it counts once
    return config


def arguments(prepared: Prepared, folder: str, rows: int) -> dict[str, Any]:
    """What transformers' TrainingArguments share; `rows` is the number of training rows."""
    import torch

    recipe = prepared.recipe
    steps = total_steps(rows, recipe)
    schedule: dict[str, Any] = {"lr_scheduler_type": {"cosine": "cosine_with_min_lr", "linear": "linear", "constant": "constant_with_warmup"}[recipe.schedule]}
    if recipe.schedule == "cosine":
        schedule["lr_scheduler_kwargs"] = {"min_lr_rate": FLOOR}
    return {
        "output_dir": folder,
        "per_device_train_batch_size": at_once(recipe),
        "gradient_accumulation_steps": recipe.batch_size // at_once(recipe),
        "max_steps": steps,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": max(1, round(recipe.warmup * steps)),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "seed": recipe.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,  # the base computes in the recipe's dtype already; autocast would cast what is float32 on purpose
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # which would put an earlier mean in place of a loss that is no number, and `watch` never saw it
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **schedule,
    }


def callback(
    prepared: Prepared,
    on_step: Callable[[Step], None],
    tokens_per_step: float,
    read: Callable[[dict[str, float]], float | None],
    *,
    falls: bool = True,
    signs: Sequence[str] = (),
) -> Any:
    """A TrainerCallback that tells `on_step` of every step. `read` takes the step's figure from what the trainer logs.

    `falls`: the figure is a loss, whose rise is watched; else only that it stays a number. `signs` are told with every step. `losses`, `signs` and `seconds`
    stay on the object.
    """
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.signs = list(signs)
            self.began = time.monotonic()

        @property
        def seconds(self) -> float:
            return time.monotonic() - self.began

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            logs = logs or {}
            figure = read(logs)
            if figure is None:
                return
            self.losses.append(float(figure))
            watch(self.losses if falls else self.losses[-1:], float(logs.get("grad_norm", 0.0)), state.global_step, prepared.recipe)
            done, steps, seconds = state.global_step, state.max_steps, self.seconds
            speed, left = tokens_per_step * done / max(seconds, 1e-9), seconds / max(done, 1) * (steps - done)
            on_step(Step(done, steps, self.losses[-1], speed, left, seconds, float(logs.get("learning_rate", 0.0)), signs=tuple(self.signs)))

    return Told()


def go(trainer: Any) -> Any:
    """Train, without the line per step that transformers prints to standard output, where data for scripts goes; returns the trainer."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


def trained(told: Any, tokens: int, trained_tokens: int) -> Trained:
    """How it went, in the words of our own loop. Raises TrainingError when no step was taken: there is nothing to judge or keep."""
    losses = told.losses
    if not losses:
        raise TrainingError("The run ended without a single step.", hint="Give more rows, or use a smaller batch_size.")
    tenth = max(1, len(losses) // 10)
    return Trained(
        steps=len(losses),
        tokens=tokens,
        trained_tokens=trained_tokens,
        seconds=told.seconds,
        first_loss=sum(losses[:tenth]) / tenth,
        last_loss=sum(losses[-tenth:]) / tenth,
        best_step=len(losses),
        signs=list(told.signs),
    )
