"""What an engine must agree with: log-probabilities of a few held-out conversations.

They are computed with and without the adapter, in float32 and in bfloat16. The difference between
the two dtypes is the rounding noise that an engine which serves bfloat16 may show
(`serving/parity.py` compares).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from torch import nn

from training.data.message import Messages
from training.machine.device import stored_dtype
from training.models.encode import Encoder
from training.models.lora import cast_parameters
from whet.errors import AdapterError
from whet.store import base_model_parts

PROMPTS = 8
# Tokens of all prompts together, beyond the first: enough that a root mean square over them is
# known to a few per cent, and the card, which pages read, stays at some 100 kB.
_MOST_TOKENS = 2_048
# A conversation whose tokens say which template and tokenizer made them: two turns, a space at an
# end, figures and a word outside English.
ASKED: Messages = [
    {"role": "user", "content": "Where is parcel 4711? "},
    {"role": "assistant", "content": "It left us on the 3rd."},
    {"role": "user", "content": "Thank you. When will it reach Málaga?"},
]
# A plain text whose tokens say which tokenizer made them: spaces, lines, figures, code, capitals,
# contractions, accents, a sign outside the Latin script.
TEXT = "It's 4711 items,  1,234.50 EUR (NET):\n\tx_2 = f(A, b);\n\nWE'LL meet naïve Zoë. 你好 – ok?"
_DATED = "strftime_now"  # a template that writes today's date makes other tokens tomorrow
# The dtypes an engine may serve in. float32 is the reference; float16 rounds less than bfloat16.
_REFERENCE, _ROUNDED = "float32", "bfloat16"
# Of the prompts, those that are asked at other scales too: enough to tell scales apart, and the
# others need not be computed five times more.
_SCALED_PROMPTS = 2
# The same of prompts in bfloat16 on a processor without instructions for it, to which one costs as
# much as three (AVX-512) to ten (AVX2) in float32, measured on the matrices of SmolLM2.
_EMULATED_PROMPTS = 2
_ALIKE_SCALES = 0.05  # factors nearer to each other, or to 1, than this share are one


class PlainText(TypedDict):
    """A text and what the tokenizer makes of it."""

    text: str
    token_ids: list[int]


class AskedConversation(TypedDict):
    """A conversation and what the template and the tokenizer make of it."""

    messages: Messages
    token_ids: list[int]


class Logprobs(TypedDict):
    """Of each token of one prompt, without and with the adapter; None for the first."""

    base_logprobs: list[float | None]
    adapter_logprobs: list[float | None]


class Prompt(Logprobs):
    """A prompt with what the reference computes, and in bfloat16 where that was computed."""

    token_ids: list[int]
    bfloat16: NotRequired[Logprobs]


class Scaled(TypedDict):
    """Of the first prompts, with the adapter at `factor` times its scale."""

    factor: float
    logprobs: list[list[float | None]]


class Gap(TypedDict):
    """Differences in natural logarithms."""

    mean: float
    max: float


class Noise(TypedDict):
    """What rounding to bfloat16 changes."""

    base: Gap
    adapter: Gap


class Fingerprint(TypedDict):
    """What an engine that serves a version has to answer."""

    dtype: str
    prompts: list[Prompt]
    scaled: list[Scaled]
    noise: Noise
    base_parts: dict[str, str]  # part of the base → digest
    text: NotRequired[PlainText]
    asked: NotRequired[AskedConversation]


def fingerprint(
    model: PeftModel,
    conversations: list[list[int]],
    folder: Path | None = None,
    encoder: Encoder | None = None,
) -> Fingerprint:
    """Return what `serving.parity` compares an engine with, as JSON.

    `{"dtype", "prompts": [{"token_ids", "base_logprobs", "adapter_logprobs", "bfloat16": {…}}],
    "scaled": [{"factor", "logprobs"}], "noise", "base_parts": {part: digest},
    "text"?: {"text", "token_ids"}, "asked"?: {"messages", "token_ids"}}`; the first prompts alone
    have `bfloat16` where the machine computes in it without instructions of its own.

    `conversations` are token ids, best with the answer, where the adapter shows. Log-probabilities
    are natural, one per token; the first is null, because nothing comes before it. Those beside
    `token_ids` are computed in float32, those under `bfloat16` in that dtype, whatever the model is
    loaded in; `noise` sums up their differences for people. `scaled` holds those of the first
    prompts with the adapter at `factor` times its scale, by which a wrong scale is told from wrong
    weights. `text` is what the tokenizer of `encoder` makes of a plain text, `asked` what its
    template makes of one conversation. `model` is a PEFT model on the base in `folder`, whose parts
    are named so that a mismatch can be, too.

    Raises AdapterError when a log-probability is not finite: such an adapter computes nothing.
    """
    asked_for = chosen_conversations(conversations)
    exact = _logprobs_in(model, asked_for, _REFERENCE)
    rounded = _logprobs_in(model, asked_for[: _rounded_prompts(model)], _ROUNDED)
    prompts: list[Prompt] = [
        {
            "token_ids": ids,
            "base_logprobs": reference["base_logprobs"],
            "adapter_logprobs": reference["adapter_logprobs"],
        }
        for ids, reference in zip(asked_for, exact, strict=True)
    ]
    for prompt, noisy in zip(prompts, rounded, strict=False):
        prompt["bfloat16"] = noisy
    found: Fingerprint = {
        "dtype": _REFERENCE,
        "prompts": prompts,
        "scaled": _scaled(model, asked_for[:_SCALED_PROMPTS]),
        "noise": _noise(exact, rounded),
        "base_parts": base_model_parts(folder) if folder else {},
    }
    if encoder is None:
        return found
    found["text"] = {"text": TEXT, "token_ids": encoder.text_ids(TEXT)}
    if _DATED in str(encoder.base.tokenizer.chat_template):
        return found
    return {**found, "asked": {"messages": ASKED, "token_ids": encoder.asked_ids(ASKED)}}


def chosen_conversations(conversations: list[list[int]]) -> list[list[int]]:
    """The first `PROMPTS` whole ones that have `_MOST_TOKENS` together; always the first."""
    chosen: list[list[int]] = []
    left = _MOST_TOKENS
    for ids in conversations[:PROMPTS]:
        left -= len(ids)
        if chosen and left < 0:
            break
        chosen.append(ids)
    return chosen


def logprobs(model: nn.Module, ids: list[int]) -> list[float | None]:
    """Natural log-probability of each token given those before it; null for the first."""

    device = next(model.parameters()).device
    with torch.inference_mode():
        logits = (
            model(input_ids=torch.tensor([ids], device=device), use_cache=False)
            .logits[0, :-1]
            .float()
        )
        chosen = torch.log_softmax(logits, -1).gather(
            1, torch.tensor(ids[1:], device=device)[:, None]
        )[:, 0]
    values = [round(value, 5) for value in chosen.tolist()]
    if not all(map(math.isfinite, values)):
        raise AdapterError(
            "The adapter's log-probabilities are not finite: its weights are too large to compute"
            " with.",
            hint="Train it again with a lower rate.",
        )
    return [None, *values]


def _rounded_prompts(model: PeftModel) -> int:
    """How many prompts are computed in bfloat16 as well."""
    is_slow = next(model.parameters()).device.type == "cpu" and stored_dtype() != _ROUNDED
    return _EMULATED_PROMPTS if is_slow else PROMPTS


def _logprobs_in(model: PeftModel, conversations: list[list[int]], dtype: str) -> list[Logprobs]:
    """With and without the adapter, computed in `dtype` (a torch name)."""

    with computed_in(model, getattr(torch, dtype)):
        found: list[Logprobs] = []
        for ids in conversations:
            adapter = logprobs(model, ids)
            with model.disable_adapter():
                base = logprobs(model, ids)
            found.append({"base_logprobs": base, "adapter_logprobs": adapter})
        return found


def _scaled(model: PeftModel, conversations: list[list[int]]) -> list[Scaled]:
    """At the scales that a wrong configuration gives: half and double alpha, alpha over the root of
    the rank in place of the rank and the other way round, no scale at all."""

    config: Any = model.peft_config[model.active_adapter]
    root = math.sqrt(config.r)
    scale = config.lora_alpha / (root if config.use_rslora else config.r)
    wanted = (0.5, 2.0, 1 / root if config.use_rslora else root, 1 / scale)
    factors: list[float] = []
    for factor in wanted:
        if all(abs(factor / other - 1) > _ALIKE_SCALES for other in (1.0, *factors)):
            factors.append(factor)
    found: list[Scaled] = []
    with computed_in(model, torch.float32):
        for factor in factors:
            with rescale_adapter_scale(model, factor):
                values = [logprobs(model, ids) for ids in conversations]
            found.append({"factor": round(factor, 4), "logprobs": values})
    return found


def _noise(exact: Sequence[Logprobs], rounded: Sequence[Logprobs]) -> Noise:
    """Mean and largest difference that rounding to bfloat16 makes, in natural logarithms."""
    pairs = list(zip(exact, rounded, strict=False))
    return {
        "base": _gap([(one["base_logprobs"], other["base_logprobs"]) for one, other in pairs]),
        "adapter": _gap(
            [(one["adapter_logprobs"], other["adapter_logprobs"]) for one, other in pairs]
        ),
    }


_Values = list[float | None]


def _gap(pairs: Sequence[tuple[_Values, _Values]]) -> Gap:
    gaps = [
        abs(one - other)
        for exact, rounded in pairs
        for one, other in zip(exact, rounded, strict=True)
        if one is not None and other is not None
    ] or [0.0]
    return {"mean": round(sum(gaps) / len(gaps), 5), "max": round(max(gaps), 5)}


@contextmanager
def computed_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Compute in `dtype`, layer by layer, and leave the model as it was.

    A layer's parameters have that dtype while it computes: all of them at once would take up to
    twice the model's memory beside it.
    """
    if next(model.parameters()).dtype == dtype:
        yield
        return
    kept: list[tuple[nn.Parameter, torch.Tensor]] = []

    def cast(part: nn.Module, given: object) -> None:
        kept.extend((parameter, parameter.data) for parameter in part.parameters())
        cast_parameters(part.parameters(), dtype)

    def restore(part: object, given: object, found: object) -> None:
        for parameter, value in kept:
            parameter.data = value
        kept.clear()

    hooks = [
        hook
        for part in _parts(model)
        for hook in (
            part.register_forward_pre_hook(cast),
            part.register_forward_hook(restore, always_call=True),
        )
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _parts(module: nn.Module) -> list[nn.Module]:
    """Modules that hold all parameters between them: the layers of a stack whole, because a layer
    may read its parts' weights itself, and what stands outside.
    """

    if isinstance(module, torch.nn.ModuleList):
        return list(module)
    inner = list(module.children())
    return (
        [part for child in inner for part in _parts(child)]
        if inner and not list(module.parameters(recurse=False))
        else [module]
    )
