"""The CPU engine's LoRA layers as Whet computes them: each token by its own adapter, the base's
tokens by none.
"""

from __future__ import annotations

import os
import resource
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine_lora import REST_AFTER_S, add_lora_linear, allow_tiles, groups_of, rest_soon
from whet.errors import EngineError

SLOTS, RANK, WIDTH, SLICES = 3, 4, 6, (5, 2)


@settings(deadline=None)  # the first example imports torch
@given(st.lists(st.integers(-1, SLOTS - 1), max_size=40))
def test_every_adapter_s_token_is_in_one_group_and_the_base_s_in_none(indices: list[int]) -> None:
    found = {}
    for slot, places in groups_of(indices):
        for place in range(len(indices)) if places is None else places.tolist():
            assert place not in found
            found[place] = slot
    assert found == {place: index for place, index in enumerate(indices) if index >= 0}


@pytest.mark.parametrize("indices", [[0, 0, 0], [-1, -1], [-1, 2, 0, 2, -1, 1], [2]], ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_layer_gives_each_token_what_its_own_adapter_adds(
    indices: list[int], scale: float
) -> None:
    import torch

    torch.manual_seed(3)
    a = tuple(torch.randn(SLOTS, 1, RANK, WIDTH) for _ in SLICES)
    b = tuple(torch.randn(SLOTS, 1, width, RANK) for width in SLICES)
    x, y = torch.randn(len(indices), WIDTH), torch.randn(len(indices), sum(SLICES))
    expected = y.clone()
    for token, slot in enumerate(indices):
        if slot >= 0:
            expected[token] += torch.cat(
                [
                    scale * (x[token] @ one[slot, 0].T) @ two[slot, 0].T
                    for one, two in zip(a, b, strict=True)
                ]
            )
    add_lora_linear(SimpleNamespace(whet_groups=groups_of(indices)), y, x, a, b, scale, SLICES)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("has_tiles", [True, False])
def test_leave_to_use_tiles_is_asked_for_where_there_are_any(
    has_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the engine's worker is ended by SIGILL at its first request;
    tests/serving/test_real_engine.py dies then, on such a processor.
    """
    import torch

    asked: list[bool] = []
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: asked.append(True))
    allow_tiles()
    assert asked == ([True] if has_tiles else []), (
        "torch was asked for the tiles although the processor has none, or was not although it has"
    )


class _Waits:
    def __init__(self, is_reader: bool, busy_loop_s: float = 1) -> None:
        self.busy_loop_s = busy_loop_s


class _WaitsOtherwise:
    def __init__(self, is_reader: bool, spins: int = 100) -> None:
        self.spins = spins


def _vllm_with(monkeypatch: pytest.MonkeyPatch, condition: type, *, yields: bool = True) -> Any:
    """Importing vLLM itself takes half a minute; that the engine rests is looked at on a real one
    (tests/serving/test_real_engine.py).
    """
    name = "vllm.distributed.device_communicators.shm_broadcast"
    for part in ("vllm", "vllm.distributed", "vllm.distributed.device_communicators"):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    module = ModuleType(name)
    module.SpinCondition = condition  # type: ignore[attr-defined]
    if yields:
        module.sched_yield = os.sched_yield  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    sys.modules["vllm.distributed.device_communicators"].shm_broadcast = module  # type: ignore[attr-defined]
    return module


def test_queues_that_are_made_from_now_on_rest_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    _vllm_with(monkeypatch, _Waits)
    rest_soon()
    assert _Waits(True).busy_loop_s == REST_AFTER_S


def test_between_two_looks_at_a_queue_a_process_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = _vllm_with(monkeypatch, _Waits)
    rest_soon()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(20):
        vllm.sched_yield()
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw >= before + 20, (
        "a look that gives the processor away without sleeping comes back at once"
    )


def test_a_vllm_that_waits_otherwise_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _vllm_with(monkeypatch, _WaitsOtherwise)
    with pytest.raises(EngineError, match="ends in spins"):
        rest_soon()
    _vllm_with(monkeypatch, _Waits, yields=False)
    with pytest.raises(EngineError, match="has no sched_yield"):
        rest_soon()
