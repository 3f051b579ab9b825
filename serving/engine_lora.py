"""LoRA on the CPU engine, its leave to use AMX, and its rest between requests: a plugin that vLLM
loads into its own processes (entry point `vllm.general_plugins`). GPU engines are left alone.

vLLM 0.32's layers for the CPU copy the adapter's matrices once for every *token* of a batch, and
take index -1, which means the base, for the last slot: a request for the base is then answered by
whatever adapter lies there. Here the tokens of one adapter are multiplied together, and the base's
not at all. Measured in benchmarks/README.md.
"""

from __future__ import annotations

import functools
import inspect
import time
from typing import Any

from whet.errors import EngineError

# How long a process of the engine looks for its next work after the last, before it waits for a
# signal. The next step of an answer comes within milliseconds. vLLM's own second is a quarter of a
# processor for an engine that nobody asks anything but the gateway's question every three seconds,
# and training pays for it.
REST_AFTER_S = 0.05
# Between two such looks vLLM yields the processor, a million times a second, and every yield wakes
# the scheduler. A sleep of this length (Linux makes 75 microseconds of it) takes a third off the
# processor time of an answer, and on Linux 6.18 keeps the rest of the machine alive: its scheduler
# let processes that yield so often run for up to half a minute before any other.
LOOK_EVERY_S = 20e-6

_PINNED = (
    "Install the pinned vLLM of requirements/cpu.txt; docs/decisions/0004-lora-on-the-cpu-engine.md"
    " says why."
)

Groups = list[tuple[int, Any]]  # (slot, positions of its tokens; None: all of them)


def register() -> None:
    """What vLLM calls in each of its processes; calling it again changes nothing."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    allow_tiles()
    rest_soon()
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    for name in ("update_metadata", "add_lora_linear", "token_lora_indices"):
        if not hasattr(PunicaWrapperCPU, name):
            raise EngineError(
                f"This vLLM's PunicaWrapperCPU has no {name}, which Whet's LoRA layers for the CPU"
                " stand on.",
                hint=_PINNED,
            )
    PunicaWrapperCPU.update_metadata = update_metadata  # type: ignore[method-assign]
    PunicaWrapperCPU.add_lora_linear = add_lora_linear  # type: ignore[method-assign]


def allow_tiles() -> None:
    """Ask Linux for the use of AMX tiles, which a process must do once before its first such
    instruction or be ended by SIGILL. vLLM's attention uses them where the processor has them and
    asks for nothing; without adapters oneDNN happens to have asked before it, with adapters nobody
    has.
    """
    import torch

    # Not part of torch's public interface; without it an engine on such a processor needs another
    # vLLM
    ask = getattr(torch.cpu, "_init_amx", None)
    if ask is not None and torch.cpu._is_amx_tile_supported():
        ask()


def rest_soon() -> None:
    """Let queues look every `LOOK_EVERY_S` instead of without pause, and those made from now on
    wait for a signal `REST_AFTER_S` after the last work.

    Raises EngineError where this vLLM waits otherwise.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    parameters = inspect.signature(shm_broadcast.SpinCondition.__init__).parameters
    if list(parameters)[-1] != "busy_loop_s":
        raise EngineError(
            f"This vLLM's SpinCondition ends in {list(parameters)[-1]}, where busy_loop_s is"
            " expected.",
            hint=_PINNED,
        )
    if not hasattr(shm_broadcast, "sched_yield"):
        raise EngineError(
            "This vLLM's shm_broadcast has no sched_yield, which Whet replaces by a short sleep.",
            hint=_PINNED,
        )
    shm_broadcast.SpinCondition.__init__.__defaults__ = (REST_AFTER_S,)
    shm_broadcast.sched_yield = functools.partial(time.sleep, LOOK_EVERY_S)


def update_metadata(
    self: Any,
    mapping: Any,
    lora_index_to_id: list[int | None],
    max_loras: int,
    vocab_size: int,
    **_: Any,
) -> None:
    """Once per step: which tokens belong to which slot."""
    from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase

    PunicaWrapperBase.update_metadata(self, mapping, lora_index_to_id, max_loras, vocab_size)
    self.whet_groups = groups_of(self.token_lora_indices.tolist())


def groups_of(indices: list[int]) -> Groups:
    """Slots with the places of their tokens; the base's (below 0) are in none."""
    import torch

    first = indices[0] if indices else -1
    if all(index == first for index in indices):
        return [(first, None)] if first >= 0 else []
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        if index >= 0:
            places.setdefault(index, []).append(place)
    return [(index, torch.tensor(where)) for index, where in places.items()]


def add_lora_linear(
    self: Any,
    y: Any,
    x: Any,
    lora_a_stacked: tuple[Any, ...],
    lora_b_stacked: tuple[Any, ...],
    scale: float,
    output_slices: tuple[int, ...],
    **_: Any,
) -> None:
    """`y += (x A^T) B^T * scale` for each adapter's tokens, in place.

    Stacks: slot x 1 x rank x in, and slot x 1 x out x rank; y: tokens x all outputs of the layer.
    """
    from torch.nn.functional import linear

    y = y.view(-1, y.shape[-1])
    for slot, places in self.whet_groups:
        mine = x if places is None else x[places]
        offset = 0
        for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            inner = linear(mine, a[slot, 0].to(mine.dtype))
            added = linear(inner if scale == 1.0 else inner * scale, b[slot, 0].to(mine.dtype))
            if places is None:
                y[:, offset : offset + width] += added
            else:
                y[places, offset : offset + width] += added
            offset += width
