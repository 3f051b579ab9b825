"""Adapters that were trained elsewhere: checked as data that somebody else wrote, then stored like our own.

Only `adapter_config.json` and `adapter_model.safetensors` are read. The configuration is rewritten from what was checked, so nothing
unknown in it can reach the engine.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from training.adapter_store import CARD, CONFIG, WEIGHTS, NewAdapter, publish
from training.base_model import BaseModel, compute_dtype, stored_dtype
from training.lora import PREFIX, plain_config
from whet.context import Context
from whet.errors import AdapterError
from whet.registry import Adapter

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_TENSOR = re.compile(re.escape(PREFIX) + r"(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<part>[AB])\.weight")
_MAX_CONFIG_BYTES = 1 << 20
_MAX_CARD_BYTES = 1 << 25  # a card holds log-probabilities of a few thousand tokens
_DTYPES = ("F64", "F32", "F16", "BF16")  # safetensors' names of what LoRA matrices are trained in
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base's weights when they are loaded
# vLLM's CPU build ends when prompt log-probabilities, which parity is measured by, share a batch with a head open to LoRA.
_HEADS = ("lm_head", "embed_out", "embed_tokens")
# What the engine cannot serve, with the words for it. A field that is absent, false, null or empty is fine.
_UNSERVABLE = {
    "use_dora": "DoRA",
    "modules_to_save": "whole layers saved beside the adapter (modules_to_save)",
    "lora_bias": "a bias in the adapter (lora_bias)",
    "rank_pattern": "different ranks by layer (rank_pattern)",
    "alpha_pattern": "different scales by layer (alpha_pattern)",
    "layer_replication": "replicated layers (layer_replication)",
    "alora_invocation_tokens": "an activated LoRA",
    "trainable_token_indices": "trained token embeddings (trainable_token_indices)",
    "target_parameters": "adapters on single parameters (target_parameters)",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "corda_config": "CorDA",
    "loftq_config": "LoftQ",
    "megatron_config": "a Megatron layout",
}


def import_adapter(context: Context, folder: Path, name: str, base: BaseModel, *, actor: str) -> Adapter:
    """Check the folder and store it as a new version of `name`. Raises AdapterError with the reason for a refusal."""
    config, weights = read_adapter(folder, base, context.settings.engine_max_lora_rank)
    return publish(
        context,
        NewAdapter(
            name=name,
            weights=weights,
            config=config,
            base_digest=base.digest,
            template_digest=base.template_digest,
            rank=int(config["r"]),
            created_by=actor,
            card={"base": base.name, "imported": {"from": folder.name}, "fingerprint": _fingerprint(base, config, weights)},
        ),
    )


def read_adapter(folder: Path, base: BaseModel, engine_max_lora_rank: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(configuration as we write it, tensors) of a folder that passes every check. Raises AdapterError."""
    _check_files(folder)
    config = _read_object(folder / CONFIG)
    rank = _check_config(config, engine_max_lora_rank)
    _check_card(folder / CARD, base)
    weights, targets = _read_weights(folder / WEIGHTS, rank, base)
    return plain_config(rank, float(config["lora_alpha"]), targets, rslora=bool(config.get("use_rslora"))), weights


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


def _read_object(path: Path, most_bytes: int = _MAX_CONFIG_BYTES) -> dict[str, Any]:
    try:
        if path.stat().st_size > most_bytes:
            raise AdapterError(f"{path.name} has {path.stat().st_size:,} bytes; expected at most {most_bytes:,}.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number of thousands of digits
        raise AdapterError(f"{path.name} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{path.name} does not hold a JSON object.")
    return value


def _check_config(config: dict[str, Any], engine_max_lora_rank: int) -> int:
    """The rank. Raises AdapterError for anything the engine would refuse or compute differently."""
    if str(config.get("peft_type", "")).upper() != "LORA":
        raise AdapterError(f"The adapter is of the type {config.get('peft_type')!r}; the engine serves LORA.")
    for field, words in _UNSERVABLE.items():
        if config.get(field):
            raise AdapterError(
                f"The adapter uses {words}, which the engine cannot serve.",
                hint="Train it as plain LoRA, or merge it into its base and use that as the base model.",
            )
    if config.get("bias", "none") != "none":
        raise AdapterError(f"The adapter trains biases (bias={config['bias']!r}), which the engine cannot serve.", hint='Train it with bias="none".')
    init = config.get("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise AdapterError(
            f"The adapter was begun with {init!r}, which changes the base's weights as well.",
            hint="Convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion.",
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise AdapterError(f"The adapter's rank is {rank!r}; expected a whole number above 0.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise AdapterError(f"The adapter's lora_alpha is {alpha!r}; expected a number above 0.")
    if rank > engine_max_lora_rank:
        raise AdapterError(
            f"The adapter has rank {rank}; the engine accepts up to {engine_max_lora_rank} (engine_max_lora_rank).",
            hint="Raise WHET_ENGINE_MAX_LORA_RANK and restart the engine, or train with a lower rank.",
        )
    return rank


def _check_card(path: Path, base: BaseModel) -> None:
    """An adapter that Whet exported says which base it belongs to."""
    if not path.is_file():
        return
    card = _read_object(path, _MAX_CARD_BYTES)
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
    """(tensors, names of the layers they belong to). Every tensor must fit a layer of the base, and be finite."""
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
                tensor = file.get_tensor(tensor_name).to(dtype).contiguous()  # checked after: what is finite in float64 may not be here
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
    return weights, sorted({module.rsplit(".", 1)[-1] for module in parts})


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

    model = with_stored(base.load_model(compute_dtype("auto")), config, weights)
    prompts = [base.tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True) for text in _PROBES]
    return fingerprint(model, [list(base.tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts], base.folder)
