"""What a run may not need: a second base in memory, a whole model in float32, activations that a
recipe gives up.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.training.run.small import RECIPE, encoded, fresh
from training.loop.faults import translate_oom
from training.loop.loss import batch_loss, mean_loss
from training.loop.throughput import choose_threads
from training.loop.trainer import Trained
from training.methods.loop import free_model, place
from training.models import base_model
from training.models import fingerprint as module
from training.models.base_model import BaseModel
from training.models.fingerprint import computed_in, fingerprint, logprobs
from training.models.lora import cast_parameters, merged_once, trainable
from training.plan.estimates import compared, memory_by_part, peak_of
from training.recipes.recipe import load_recipe
from whet.errors import InputError, TrainingError

PLAIN = replace(RECIPE, dropout=0.0, micro_batch=0, threads=1)
IDS = [5, 9, 11, 20, 31, 7, 13, 40]


def _bfloat16(base: BaseModel) -> Any:
    """A model that computes in bfloat16, with an adapter that does something."""
    import torch

    model = fresh(base, replace(PLAIN, dtype="bfloat16"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    return model.eval()


@contextmanager
def _widest(model: Any) -> Iterator[list[float]]:
    """The largest share of the model's weights that was float32 while any part of it computed."""
    import torch

    found = [0.0]
    total = sum(parameter.numel() for parameter in model.parameters())

    def look(*_: Any) -> None:
        wide = {
            id(parameter): parameter.numel()
            for parameter in model.parameters()
            if parameter.dtype == torch.float32
        }
        found[0] = max(found[0], sum(wide.values()) / total)

    hooks = [
        part.register_forward_pre_hook(look)
        for part in model.modules()
        if not list(part.children())
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "planted: all at once"])
def test_rounding_noise_is_measured_with_one_layer_in_float32_at_a_time(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, planted: bool
) -> None:
    import torch

    model = _bfloat16(base)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    if planted:
        monkeypatch.setattr(module, "_parts", lambda whole: [whole])
    with _widest(model) as widest, computed_in(model, torch.float32):
        exact = logprobs(model, IDS)
    assert (widest[0] == 1.0) if planted else (0.0 < widest[0] <= 0.6), (
        f"{100 * widest[0]:.0f} % of the weights were float32 at once"
    )
    after = dict(model.named_parameters())
    assert all(
        torch.equal(after[name], value) and after[name].dtype == value.dtype
        for name, value in before.items()
    ), "the model is what it was"
    cast_parameters(model.parameters(), torch.float32)
    assert exact == logprobs(model, IDS), "the figures are those of the whole model in float32"


def test_a_failure_while_a_layer_is_float32_leaves_the_model_as_it_was(base: BaseModel) -> None:
    import torch

    model = _bfloat16(base)
    last = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList)][-1][-1]
    hook = last.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError), computed_in(model, torch.float32):
        logprobs(model, IDS)
    hook.remove()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    fingerprint(model, [IDS])


def test_layers_are_merged_one_by_one_to_the_bits_of_a_whole_model_merged_in_float32(
    base: BaseModel,
) -> None:
    import torch

    whole = _bfloat16(base)
    cast_parameters(whole.parameters(), torch.float32)
    expected = whole.merge_and_unload()
    cast_parameters(expected.parameters(), torch.bfloat16)
    merged = merged_once(_bfloat16(base), "bfloat16")
    found = dict(merged.named_parameters())
    assert found and not hasattr(merged, "peft_config")
    assert all(torch.equal(found[name], value) for name, value in expected.named_parameters())
    assert any(
        not torch.equal(found[name], value)
        for name, value in base.load_model("bfloat16").named_parameters()
    ), "an adapter without effect proves nothing"


def test_a_model_that_is_let_go_holds_nothing_whoever_still_has_it(base: BaseModel) -> None:
    for four_bits in (False, True):
        model = base.load_model("bfloat16", four_bits=four_bits)
        held = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters())
        free_model(model)
        assert (
            held > 0
            and sum(parameter.untyped_storage().nbytes() for parameter in model.parameters()) == 0
        )


def _gradients(model: Any, rows: list[Any]) -> Any:
    import torch

    from training.loop.batches import collate

    model.train()
    batch_loss(model, collate(rows, 0, "cpu")).backward()
    found = torch.cat(
        [
            parameter.grad.flatten().float()
            for name, parameter in sorted(model.named_parameters())
            if parameter.grad is not None
        ]
    )
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "planted: packed to answer"])
def test_a_base_in_4_bits_has_its_gradients_after_it_has_answered(
    base: BaseModel, planted: bool
) -> None:
    """Validation, and the loss before the first step, are computed between steps of training."""
    import torch
    from bitsandbytes.functional import has_avx512bf16

    rows = encoded(base, 8)
    model = trainable(base, replace(PLAIN, method="qlora", dtype="bfloat16"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    for module_ in model.modules():
        if planted and hasattr(module_, "support_avx512bf16_for_cpu"):
            module_.support_avx512bf16_for_cpu = has_avx512bf16()
    before = _gradients(model, rows)
    mean_loss(model, rows, PLAIN, 0)
    assert torch.equal(_gradients(model, rows), before) is not (planted and has_avx512bf16()), (
        "the gradient no longer passes through the frozen layers"
    )


@pytest.mark.parametrize(
    ("needed", "free", "where"),
    [(16, 24, "cuda"), (16, 20, "cuda"), (16, 19, "cpu"), (26, 22, "cpu")],
)
def test_a_base_that_was_held_in_4_bits_is_judged_where_it_has_room_in_16(
    needed: int, free: int, where: str
) -> None:
    assert place(needed << 30, free << 30) == where


def test_what_is_measured_before_the_first_step_gives_activations_up_as_the_run_will(
    base: BaseModel,
) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer

    for wanted in (True, False):
        model, rows = fresh(base, PLAIN), encoded(base, 12)
        layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
        seen: list[bool] = []
        hook = layers[1].register_forward_pre_hook(
            lambda part, _, seen=seen: seen.append(part.gradient_checkpointing)
        )
        recipe = replace(PLAIN, gradient_checkpointing=wanted)
        choose_threads(model, rows, recipe, 0)
        memory_by_part(model, rows, recipe, 0, batch_loss, validated=False)
        hook.remove()
        assert seen and set(seen) == {wanted}
        assert not any(layer.gradient_checkpointing for layer in layers), "and nothing of it stays"
        assert not model.get_input_embeddings()._forward_hooks


def test_an_estimate_is_held_against_the_steps_that_were_taken() -> None:
    """And not against the tokens: answers that came out shorter took no less where the longest of
    each step did not.
    """
    expected = {
        "seconds": 100.0,
        "tokens": 4000,
        "steps": 40,
        "tokens_per_s": 40,
        "peak_memory_bytes": 900,
    }
    trained = Trained(
        steps=20, tokens=1000, trained_tokens=500, seconds=62.5, first_loss=1.0, last_loss=0.5
    )
    found = compared(expected, trained, 1000)
    assert found["measured"] == {"seconds": 62.5, "tokens_per_s": 16, "peak_memory_bytes": 1000}
    assert found["error"] == {"seconds": -0.2, "tokens_per_s": 1.5, "peak_memory_bytes": -0.1}
    assert compared(expected, trained, 1000, processes=2)["error"] == {}, (
        "the estimate is of one process"
    )


def test_judging_in_16_bits_is_told_beside_the_peak_of_training() -> None:
    memory = {
        "process": 1,
        "base": 4,
        "adapter": 1,
        "optimiser": 1,
        "activations": 3,
        "checkpoint": 1,
        "loading": 5,
        "judging": 16,
    }
    assert peak_of(memory) == 10


def test_a_recipe_for_little_memory_computes_few_rows_at_once() -> None:
    recipe = load_recipe("qlora")
    assert recipe.gradient_checkpointing and recipe.micro_batch < recipe.batch_size


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ["--micro-batch 4", "--gradient-checkpointing", "--method qlora", "--max-length"]),
        ({"micro_batch": 1}, ["--gradient-checkpointing", "--method qlora", "--max-length"]),
        ({"micro_batch": 1, "gradient_checkpointing": True}, ["--method qlora", "--max-length"]),
        ({"method": "qlora", "micro_batch": 1, "gradient_checkpointing": True}, ["--max-length"]),
        ({"method": "prefix", "rank": 32, "alpha": 64.0}, ["--micro-batch 4", "--max-length"]),
        (
            {"method": "dpo", "batch_size": 12, "micro_batch": 6},
            ["--micro-batch 3, which", "--gradient-checkpointing", "--max-length"],
        ),
        (
            {"method": "kto", "micro_batch": 4},
            ["--micro-batch 2, or", "--gradient-checkpointing", "--max-length"],
        ),
        ({"method": "kto", "micro_batch": 2}, ["--gradient-checkpointing", "--max-length"]),
        ({"method": "rlhf"}, ["--batch-size 4", "--gradient-checkpointing", "--max-length"]),
    ],
)
def test_what_is_said_when_memory_runs_out_is_what_the_method_takes(
    fields: dict[str, Any], said: list[str]
) -> None:
    plain = replace(load_recipe("lora"), batch_size=8)
    recipe = replace(plain, **fields)
    with pytest.raises(TrainingError) as caught, translate_oom(recipe):
        raise RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"
        )
    hint = caught.value.hint or ""
    assert all(option in hint for option in said) and hint.count("--") == len(said)
    for option in said[:-1]:  # each can be given
        name = option.split()[0].removeprefix("--").replace("-", "_")
        value: Any = {
            "micro_batch": 1,
            "batch_size": 4,
            "gradient_checkpointing": True,
            "method": "qlora",
        }[name]
        replace(recipe, **{name: value})


def test_memory_that_runs_out_while_judging_keeps_the_training() -> None:
    with (
        pytest.raises(TrainingError, match="judged") as caught,
        translate_oom(PLAIN, judging="run-1"),
    ):
        raise MemoryError
    assert "whet train resume run-1" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": -1},
        {"seed": 1 << 70},
        {"method": "ia3", "weight_decay": 0.1},
        {"epochs": 0.0},
        {"rank": 0},
    ],
)
def test_a_recipe_that_would_fail_in_a_library_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(name for name in reversed(fields))):
        replace(load_recipe("ia3" if fields.get("method") == "ia3" else "lora"), **fields)


# Blocks of 64 MiB that come and go between small ones that stay, as a 4-bit base's matrices do;
# prints how many MiB of them are resident in the end.
_UNPACKING = """
import resource, sys
from pathlib import Path
from training.machine.allocator import give_large_blocks_back, keep_memory
import torch
keep_memory()
if sys.argv[1] == "back":
    give_large_blocks_back()
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
torch.ones(1 << 18)  # what torch loads with its first tensor
kept, before = [], resident()
for size in range(8):
    large = torch.ones((64 + 8 * size) << 18)
    kept.append(torch.ones(1 << 18))
    del large
print((resident() - before) >> 20)
"""


@pytest.mark.parametrize(("asked", "least", "most"), [("back", 0, 40), ("planted", 64, 1000)])
def test_unpacked_matrices_leave_no_holes_behind(asked: str, least: int, most: int) -> None:
    """Planted: without it the heap keeps a hole for each, into which the next one does not fit."""
    done = subprocess.run(
        [sys.executable, "-c", _UNPACKING, asked], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert least <= int(done.stdout) <= most


@pytest.mark.parametrize(("large", "asked"), [(1 << 40, False), (1, True)])
def test_large_blocks_go_back_for_a_base_with_large_matrices_alone(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, large: int, asked: bool
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(base_model, "LARGE_BYTES", large)
    monkeypatch.setattr(base_model, "give_large_blocks_back", lambda: seen.append(True))
    base.load_model("float32")
    assert bool(seen) is asked
