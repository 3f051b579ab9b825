"""A run's loop in several processes: torchrun starts them, they bring the run to its last
checkpoint, and from there this process goes on alone.

So everything but the loop (checks, estimate, judging, storing, the run's row) stays in one process,
and a run in several is killed and resumed as any other. `python -m training.plan.torchrun PARENT …`
is torchrun itself, save that it ends with its parent.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TypedDict

import torch
from safetensors.torch import save_file
from torch import nn

from training.loop.checkpoint import Checkpoints, Snapshot
from training.loop.trainer import Step
from training.machine.device import device
from training.machine.parent_process import end_with_parent
from training.models.encoded import Encoded
from training.plan.identity import identity_of
from training.plan.prepare import Prepared
from whet.errors import TrainingError
from whet.json_types import JsonObject

# What the processes are told, in a folder that lives as long as they do
ORDER, START = "order.json", "start.safetensors"
LOG = "processes.log"  # in the run's folder: what torchrun and the processes said last
_STOP_S = 15.0  # that torchrun has to end its processes before it is killed, and they with it
# In torchrun's report, of each process that a signal ended
_SIGNAL = re.compile(r"exitcode\s*: -(\d+)")


PlainRow = tuple[list[int], list[int], int, float]  # ids, which are learned, prompt, weight


class Order(TypedDict):
    """What the processes of a run are told."""

    recipe: JsonObject
    base: tuple[str, str]  # folder, name
    train: list[PlainRow]
    validation: list[PlainRow]
    variants: list[list[PlainRow]]
    pad_id: int
    checkpoints: tuple[str, float]  # folder, seconds between two
    identity: dict[str, str]


def in_processes(
    model: nn.Module,
    prepared: Prepared,
    *,
    pad_id: int,
    on_step: Callable[[Step], None],
    checkpoints: Checkpoints,
) -> Snapshot:
    """Train in `recipe.processes` processes, from the newest checkpoint if there is one; returns
    the last checkpoint, after which no step is left.

    Raises TrainingError when a process fails or dies, which ends the others; and whatever `on_step`
    raises.
    """
    _leave_the_gpu(model)
    checkpoints.folder.parent.mkdir(parents=True, exist_ok=True)
    log = checkpoints.folder.parent / LOG
    with TemporaryDirectory(dir=checkpoints.folder.parent) as scratch, log.open("wb") as said:
        _write_order(Path(scratch), model, prepared, pad_id, checkpoints)
        process = subprocess.Popen(
            _command(prepared.recipe.processes, scratch),
            stdout=subprocess.PIPE,
            stderr=said,
            env=_environment(prepared.recipe.threads),
        )
        assert process.stdout is not None
        try:
            error = _follow(process.stdout, on_step)
            status = process.wait()
        finally:
            _stop(process)
    if error is not None:
        raise error
    if status != 0:
        raise _died(log)
    last = checkpoints.resume()
    if last is None:
        raise TrainingError(
            "The processes of the run ended without a checkpoint.",
            hint=f"{log} has what they said.",
        )
    model.to(device())
    return last


def _leave_the_gpu(model: nn.Module) -> None:
    """One of the processes needs the room that this one's model takes there; on a processor nothing
    changes.
    """

    model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _write_order(
    folder: Path, model: nn.Module, prepared: Prepared, pad_id: int, checkpoints: Checkpoints
) -> None:
    if prepared.start_adapter is not None:
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        save_file(
            {
                str(number): parameter.detach().contiguous()
                for number, parameter in enumerate(learned)
            },
            folder / START,
        )
    order: Order = {
        "recipe": prepared.recipe.as_json(),
        "base": (str(prepared.base.folder), prepared.base.name),
        "train": _plain(prepared.train),
        "validation": _plain(prepared.validation),
        "variants": [_plain(rows) for rows in prepared.variants],
        "pad_id": pad_id,
        "checkpoints": (str(checkpoints.folder.parent), checkpoints.every_s),
        "identity": identity_of(prepared),
    }
    (folder / ORDER).write_text(json.dumps(order), encoding="utf-8")


def _plain(rows: Iterable[Encoded]) -> list[PlainRow]:
    return [
        (list(row.ids), list(map(int, row.trained)), row.prompt_tokens, row.weight) for row in rows
    ]


def rows_in(plain: list[PlainRow]) -> list[Encoded]:
    """Rows as an order holds them."""
    return [
        Encoded(tuple(ids), tuple(map(bool, trained)), prompt_tokens, weight)
        for ids, trained, prompt_tokens, weight in plain
    ]


def _command(processes: int, folder: str) -> list[str]:
    launcher = [
        sys.executable,
        "-m",
        "training.plan.torchrun",
        str(os.getpid()),
        "--standalone",
        "--local-addr=127.0.0.1",
        f"--nproc-per-node={processes}",
    ]
    return [*launcher, "-m", "training.runs.rank", folder]


def _environment(threads: int) -> dict[str, str]:
    """All processes are on this machine, so nothing of theirs need be heard outside it."""
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform.startswith("linux") else {}
    return {**os.environ, **loopback, "OMP_NUM_THREADS": str(threads or 1)}


def tell(**values: object) -> None:
    """A line to the process that follows; whole, because others write to the same pipe."""
    os.write(sys.stdout.fileno(), json.dumps(values).encode() + b"\n")


def _follow(lines: IO[bytes], on_step: Callable[[Step], None]) -> TrainingError | None:
    """Hand on each step until the processes are gone; returns the first error that one of them
    told.
    """
    error = None
    for line in lines:
        if line.startswith(b'{"step":'):
            told = json.loads(line)["step"]
            of_lists = {
                "validation": tuple((step, loss) for step, loss in told["validation"]),
                "signs": tuple(told["signs"]),
                "samples": tuple(told["samples"]),
            }
            on_step(Step(**{**told, **of_lists}))
        elif line.startswith(b'{"error":') and error is None:
            message, hint = json.loads(line)["error"]
            error = TrainingError(message, hint=hint)
    return error


def step_line(step: Step) -> None:
    """What rank 0 says after each step."""
    tell(step=asdict(step))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End torchrun, and with it the processes, unless they have ended already."""
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _died(log: Path) -> TrainingError:
    """Torchrun ends the others by SIGTERM, so another signal is the cause; without one a process
    ended by an exception that nobody expected.
    """
    numbers = [
        int(number) for number in _SIGNAL.findall(log.read_text(encoding="utf-8", errors="replace"))
    ]
    names = [signal.Signals(number).name for number in numbers if number != signal.SIGTERM]
    how = (
        f" by {names[0]}"
        + (
            " (the system was out of memory, or somebody killed it)"
            if names[0] == "SIGKILL"
            else ""
        )
        if names
        else ""
    )
    return TrainingError(
        f"A process of the run was ended{how}, so the others were too. Nothing was stored.",
        hint=(
            f"`whet train resume RUN` goes on from its last checkpoint; {log} has what it said"
            " last."
        ),
    )


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    from torch.distributed.run import main

    main(sys.argv[2:])
