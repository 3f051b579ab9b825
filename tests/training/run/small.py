"""A tiny model to train, rows for it, and forks that may be killed without hurting the test."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.training.tiny import facts
from training.data.rows import read_lines
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.kernels import fuse_lora, use_short_attention
from training.models.lora import add_lora
from training.recipes.recipe import Recipe

# Everything that draws random numbers or keeps state between steps is on: dropout, validation with
# a best step, gradient accumulation.
RECIPE = Recipe(
    rank=4,
    alpha=8.0,
    dropout=0.1,
    learning_rate=5e-3,
    epochs=6.0,
    batch_size=8,
    micro_batch=4,
    max_length=256,
    dtype="float32",
    threads=1,
    patience=0,
)


def encoded(base: BaseModel, count: int = 48, **over: Any) -> list[Encoded]:
    rows = read_lines([json.dumps({**row, **over}).encode() for row in facts(count)]).rows
    return Encoder(base, 256).encode_all(rows)[0]


def fresh(base: BaseModel, recipe: Recipe = RECIPE, *, fused: bool = True) -> Any:
    model = add_lora(base.load_model(recipe.dtype), recipe)
    if fused:
        fuse_lora(model)
        use_short_attention(model.get_base_model())
    return model


def weights(model: Any) -> Any:
    """All of the adapter's weights in one vector."""
    import torch

    return torch.cat(
        [
            parameter.detach().flatten()
            for name, parameter in sorted(model.named_parameters())
            if ".lora_" in name
        ]
    )


def in_a_fork(work: Callable[[], None]) -> int:
    """Do something in a copy of this process; returns its wait status.

    The copy runs no clean-up, as a killed process does not.
    """
    return os.waitpid(begun_in_a_fork(work), 0)[1]


def begun_in_a_fork(work: Callable[[], None], said: Path | None = None) -> int:
    """Begin to do something in a copy of this process; returns its id.

    `said` is the file for the traceback of an error, where somebody reads it.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        # Transformers reads weights in threads of its own, and torch, forked, now and then takes
        # their pool for one that did not come along.
        os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            if said is not None:
                said.write_text(traceback.format_exc())
        finally:
            os._exit(status)
    return pid


def killed_at(step: int, work: Callable[[], None]) -> None:
    """Do something in a fork that SIGKILLs itself when a run's reporter has told this step."""
    from training.plan.reporter import Reporter

    def dies() -> None:
        real = Reporter.step

        def told(self: Reporter, at: Any) -> None:
            real(self, at)
            if at.step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        Reporter.step = told  # type: ignore[method-assign]
        work()

    status = in_a_fork(dies)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (
        f"the work ended by itself before step {step}, with the status {status}"
    )


def until(
    reached: Callable[[], Any], what: str, process: Any = None, within_s: float = 240.0
) -> Any:
    """The first true value of `reached()`; fails when it does not come, or when the process that
    was to bring it has ended before.
    """
    ends = time.monotonic() + within_s
    while not (found := reached()):
        assert process is None or process.poll() is None, (
            f"{what} did not come: {process.communicate()}"
        )
        assert time.monotonic() < ends, f"{what} did not come within {within_s:.0f} s"
        time.sleep(0.1)
    return found


def with_dtype(dtype: str) -> Recipe:
    return replace(RECIPE, dtype=dtype)
