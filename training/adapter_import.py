"""Adapters that were trained elsewhere: checked as data that somebody else wrote, then stored like our own.

Only `adapter_config.json` and `adapter_model.safetensors` are read. The configuration is rewritten from what was checked, so nothing
unknown in it can reach the engine.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from training.adapter_config import check_base_name, outside_scope, read_config, read_object
from training.adapter_store import CARD, CONFIG, WEIGHTS, NewAdapter, publish
from training.base_model import BaseModel
from training.device import compute_dtype, stored_dtype
from training.encode import Encoder
from training.lora import PREFIX, plain_config
from whet.context import Context
from whet.errors import AdapterError
from whet.registry import ENGINE_LORA_MODULES, Adapter

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_TENSOR = re.compile(re.escape(PREFIX) + r"(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<part>[AB])\.weight")
_MAX_CARD_BYTES = 1 << 25  # a card holds log-probabilities of a few thousand tokens
_DTYPES = ("F64", "F32", "F16", "BF16")  # safetensors' names of what LoRA matrices are trained in
# vLLM's CPU build ends when prompt log-probabilities, which parity is measured by, share a batch with a head open to LoRA.
_HEADS = ("lm_head", "embed_out", "embed_tokens")


def import_adapter(context: Context, folder: Path, name: str, base: BaseModel, *, actor: str, accept_base: bool = False) -> tuple[Adapter, dict[str, Any]]:
    """Check the folder and store it as a new version of `name`; beside it comes its origin, see `read_adapter`. Raises AdapterError with the reason for a refusal."""
    config, weights, origin = read_adapter(folder, base, context.settings.engine_max_lora_rank, accept_base=accept_base)
    stored = publish(
        context,
        NewAdapter(
            name=name,
            weights=weights,
            config=config,
            base_digest=base.digest,
            template_digest=base.template_digest,
            rank=int(config["r"]),
            created_by=actor,
            card={"base": base.name, "imported": origin, "fingerprint": _fingerprint(base, config, weights)},
        ),
    )
    return stored, origin


def read_adapter(
    folder: Path, base: BaseModel, engine_max_lora_rank: int, *, accept_base: bool = False
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """(configuration as we write it, tensors, origin) of a folder that passes every check. Raises AdapterError.

    The origin is what the folder says of itself, which nothing proves: `{"from": its name, "base", "revision", "notice": what to know of that base}`.
    """
    _check_files(folder)
    declared = read_config(folder / CONFIG, engine_max_lora_rank)
    _check_card(folder / CARD, base)
    origin = {"from": folder.name, "base": declared.base, "revision": declared.revision, "notice": check_base_name(declared, base, accept_base=accept_base)}
    weights, modules = _read_weights(folder / WEIGHTS, declared.rank, base)
    outside = outside_scope(declared.scope, modules)
    if outside is not None:
        raise AdapterError(
            f"{WEIGHTS} holds matrices for {outside}, but by {CONFIG} the adapter is not on that layer, and PEFT would leave them out.",
            hint="Save the adapter again with PEFT's save_pretrained, so that both files say the same.",
        )
    if not _changes_something(weights, modules, declared.scale):
        raise AdapterError(
            "The adapter is zero on every layer once it is rounded to what the engine computes in: it changes nothing.",
            hint="Its training did not start, or another checkpoint was meant.",
        )
    targets = sorted({module.rsplit(".", 1)[-1] for module in modules})
    return plain_config(declared.rank, declared.alpha, targets, rslora=declared.rslora), weights, origin


def _check_files(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        raise AdapterError(f"{folder} is {'a link' if folder.is_symlink() else 'not a folder'}.", hint=f"Name the folder that holds {CONFIG} and {WEIGHTS}.")
    for parent, folders, files in os.walk(folder, followlinks=False):
        for entry in (*folders, *files):
            path = Path(parent) / entry
            if path.is_symlink():
                raise AdapterError(f"{path.relative_to(folder)} is a link; an adapter is plain files.", hint="Copy the file itself into the folder.")
            if path.suffix.lower() in _PICKLES:
                raise AdapterError(
                    f"{path.relative_to(folder)} is a pickle, which can run code when it is read; expected {WEIGHTS} and no pickles.",
                    hint="Save the adapter again with safe_serialization=True and remove the file.",
                )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise AdapterError(f"{folder} has no file {name}.", hint="Save the adapter with PEFT's save_pretrained and safetensors.")


def _check_card(path: Path, base: BaseModel) -> None:
    """An adapter that Whet exported says which base it belongs to."""
    if not path.is_file():
        return
    card = read_object(path, _MAX_CARD_BYTES)
    if card.get("base_digest") not in (None, base.digest):
        raise AdapterError(
            f"The adapter belongs to the base {str(card['base_digest'])[:8]}; {base.name} is {base.digest[:8]}.",
            hint="Set WHET_BASE_MODEL to the base it was trained on.",
        )
    if card.get("template_digest") not in (None, base.template_digest):
        raise AdapterError(
            "The adapter was trained with another chat template than the base has now.",
            hint="Restore the template in the base's folder, or train the adapter again.",
        )


def _read_weights(path: Path, rank: int, base: BaseModel) -> tuple[dict[str, Any], list[str]]:
    """(tensors, layers they belong to, sorted). Every tensor must fit a layer of the base, and be finite."""
    import torch
    from safetensors import SafetensorError, safe_open

    shapes = base.linear_shapes
    dtype = getattr(torch, stored_dtype())
    weights: dict[str, Any] = {}
    parts: dict[str, set[str]] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            for tensor_name in sorted(file.keys()):
                match = _TENSOR.fullmatch(tensor_name)
                if match is None:
                    raise AdapterError(
                        f"{WEIGHTS} holds {tensor_name[:120]!r}, which is not a LoRA matrix.", hint="Only lora_A and lora_B of linear layers can be served."
                    )
                module = match["module"]
                if module.rsplit(".", 1)[-1] in _HEADS:
                    raise AdapterError(
                        f"The adapter changes {module}, the layer that turns states into words, which the engine does not open to adapters.",
                        hint="Train it on the layers inside the model (target_modules all-linear leaves the head out).",
                    )
                if module.rsplit(".", 1)[-1] not in ENGINE_LORA_MODULES or ".experts." in f".{module}.":
                    raise AdapterError(
                        f"The adapter has the layer {module[:120]!r}, on which the engine takes no adapter.",
                        hint=f"It takes {', '.join(ENGINE_LORA_MODULES)} outside experts; train without the others (target_modules).",
                    )
                if module not in shapes:
                    raise AdapterError(
                        f"The adapter has the layer {module[:120]!r}, which {base.name} has not: it belongs to another base.",
                        hint="Set WHET_BASE_MODEL to the base it was trained on.",
                    )
                outputs, inputs = shapes[module]
                expected = [rank, inputs] if match["part"] == "A" else [outputs, rank]
                found = list(file.get_slice(tensor_name).get_shape())
                if found != expected:
                    raise AdapterError(
                        f"{tensor_name} has the shape {found}; with rank {rank} on {base.name} it is {expected}.",
                        hint="The adapter belongs to another base, or its configuration names another rank.",
                    )
                kind = file.get_slice(tensor_name).get_dtype()
                if kind not in _DTYPES:
                    raise AdapterError(f"{tensor_name} is stored as {kind}; expected one of {', '.join(_DTYPES)}.", hint="Save it in bfloat16 or float32.")
                tensor = file.get_tensor(tensor_name)
                if tensor.dtype != torch.bfloat16:  # which every machine takes as it is: one adapter is one version on all of them
                    tensor = tensor.to(dtype)
                tensor = tensor.contiguous()  # checked only now: what is finite in float64 may not be here
                if not bool(torch.isfinite(tensor).all()):
                    raise AdapterError(
                        f"{tensor_name} holds NaN or Infinity; expected finite weights.", hint="The training that made it went wrong; train again."
                    )
                weights[tensor_name] = tensor
                parts.setdefault(module, set()).add(match["part"])
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{WEIGHTS} is not a whole safetensors file: {error}.", hint="Copy or save it again.") from error
    if not weights:
        raise AdapterError(f"{WEIGHTS} holds no tensor.")
    half = next((module for module, found in parts.items() if found != {"A", "B"}), None)
    if half is not None:
        raise AdapterError(f"The layer {half} has only one of lora_A and lora_B.")
    return weights, sorted(parts)


def _changes_something(weights: dict[str, Any], modules: list[str], scale: float) -> bool:
    """Whether the scaled product of the two matrices is other than zero on any layer, after rounding."""
    matrices = ((weights[f"{PREFIX}{module}.lora_A.weight"].float(), weights[f"{PREFIX}{module}.lora_B.weight"].float()) for module in modules)
    return any(bool((scale * (b @ a)).any()) for a, b in matrices)


# An imported adapter comes without held-out rows; any text shows whether engine and trainer agree.
_PROBES = (
    "Hello, can you help me?",
    "How long is the warranty, and what do I have to send in?",
    "Thank you. What is the next step?",
    "My order 4711 has not arrived.",
)


def _fingerprint(base: BaseModel, config: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    from training.fingerprint import fingerprint
    from training.lora import with_stored

    model = base.load_model(compute_dtype("auto"))
    try:
        model = with_stored(model, config, weights)
    except (ValueError, KeyError, RuntimeError) as error:  # a base whose layers PEFT rearranges: it knows more kinds than the checks above
        raise AdapterError(f"PEFT cannot put the adapter on {base.name}: {str(error)[:300]}", hint="Train it on other layers (target_modules).") from error
    prompts = [base.tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True) for text in _PROBES]
    ids = [list(base.tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts]
    return fingerprint(model, ids, base.folder, Encoder(base, base.max_positions))
