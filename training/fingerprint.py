"""What an engine must agree with: the trainer's log-probabilities of a few held-out conversations, with and without the adapter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.encode import Encoder
from training.lora import cast_parameters
from whet.errors import AdapterError
from whet.store import base_model_parts

PROMPTS = 8
# A conversation whose tokens say which template and tokenizer made them: two turns, a space at an end, figures and a word outside English.
ASKED = [
    {"role": "user", "content": "Where is parcel 4711? "},
    {"role": "assistant", "content": "It left us on the 3rd."},
    {"role": "user", "content": "Thank you. When will it reach Málaga?"},
]
_DATED = "strftime_now"  # a template that writes today's date makes other tokens tomorrow
# Measured between this code and the engine on a 5 M-parameter bfloat16 base: mean differences of 0.002 and 0.007, largest 0.016 and
# 0.05; base and adapter differ by 3.8 on average. A wrong template, scale or base is off by orders of magnitude, so there is room:
# the floor is about seven times what was measured, and bases whose bfloat16 is noisier get more, by their own noise.
_MEAN_FLOOR, _LARGEST_FLOOR = 0.05, 0.5
_TIMES_NOISE = 4.0


def fingerprint(model: Any, conversations: list[list[int]], folder: Path | None = None, encoder: Encoder | None = None) -> dict[str, Any]:
    """`{"prompts": [{"token_ids", "base_logprobs", "adapter_logprobs"}], "tolerance": {"mean", "max", "why"}, "base_parts": {part: digest}, "asked"?: {"messages", "token_ids"}}`.

    `conversations` are token ids, best with the answer, where the adapter shows. Log-probabilities are natural, one per token; the first is null, because
    nothing comes before it. `asked` is what the template of `encoder` makes of one conversation. `model` is a PEFT model on the base in `folder`, whose parts are named so that a mismatch can be, too.

    Raises AdapterError when a log-probability is not finite: such an adapter computes nothing.
    """
    prompts = []
    largest_noise = total_noise = count = 0.0
    for ids in conversations[:PROMPTS]:
        adapter = logprobs(model, ids)
        with model.disable_adapter():
            base = logprobs(model, ids)
        for rough, exact in zip(adapter[1:], _exact(model, ids)[1:], strict=True):
            noise = abs(float(rough or 0.0) - float(exact or 0.0))
            largest_noise, total_noise, count = max(largest_noise, noise), total_noise + noise, count + 1
        prompts.append({"token_ids": ids, "base_logprobs": base, "adapter_logprobs": adapter})
    mean_noise = total_noise / max(count, 1.0)
    tolerance = {
        "mean": round(max(_MEAN_FLOOR, _TIMES_NOISE * mean_noise), 4),
        "max": round(max(_LARGEST_FLOOR, _TIMES_NOISE * largest_noise), 4),
        "why": f"About seven times the difference measured between trainer and engine, or four times this model's own rounding noise (mean {mean_noise:.4f}, largest {largest_noise:.3f}).",
    }
    asked = {"asked": {"messages": ASKED, "token_ids": encoder.asked_ids(ASKED)}} if encoder and _DATED not in str(encoder.base.tokenizer.chat_template) else {}
    return {"prompts": prompts, "tolerance": tolerance, "base_parts": base_model_parts(folder) if folder else {}, **asked}


def logprobs(model: Any, ids: list[int]) -> list[float | None]:
    """Natural log-probability of each token given those before it; null for the first."""
    import torch

    device = next(model.parameters()).device
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, :-1].float()
        chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:], device=device)[:, None])[:, 0]
    values = [round(value, 5) for value in chosen.tolist()]
    if not all(map(math.isfinite, values)):
        raise AdapterError(
            "The adapter's log-probabilities are not finite: its weights are too large to compute with.", hint="Train it again with a lower rate."
        )
    return [None, *values]


def _exact(model: Any, ids: list[int]) -> list[float | None]:
    """The same with float32 parameters: the difference is the rounding noise of the compute dtype."""
    import torch

    if next(model.parameters()).dtype == torch.float32:
        return logprobs(model, ids)
    with _each_part_in_float32(model):
        return logprobs(model, ids)


@contextmanager
def _each_part_in_float32(model: Any) -> Iterator[None]:
    """A layer's parameters are float32 while it computes, and what they were after it: all at once would take twice the model's memory beside it."""
    import torch

    narrow: list[tuple[Any, Any]] = []

    def widen(part: Any, given: Any) -> None:
        narrow.extend((parameter, parameter.data) for parameter in part.parameters())
        cast_parameters(part.parameters(), torch.float32)

    def give_back(part: Any, given: Any, found: Any) -> None:
        for parameter, value in narrow:
            parameter.data = value
        narrow.clear()

    hooks = [hook for part in _parts(model) for hook in (part.register_forward_pre_hook(widen), part.register_forward_hook(give_back, always_call=True))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _parts(module: Any) -> list[Any]:
    """Modules that hold all parameters between them: the layers of a stack whole, because a layer may read its parts' weights itself, and what stands outside."""
    import torch

    if isinstance(module, torch.nn.ModuleList):
        return list(module)
    inner = list(module.children())
    return [part for child in inner for part in _parts(child)] if inner and not list(module.parameters(recurse=False)) else [module]
