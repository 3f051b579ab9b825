"""What a stranger's `adapter_config.json` declares: checked, and given on as a few plain values and nothing else."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from math import sqrt
from pathlib import Path, PureWindowsPath
from typing import Any

from training.base_model import BaseModel
from whet.errors import AdapterError

_MAX_CONFIG_BYTES = 1 << 20
_MAX_NAME = 1000  # characters of a base's name, of which a path may be long
_MAX_PATTERN, _PATTERN_SECONDS = 4096, 5.0  # of a regular expression for layers: its length, and the time it gets for all of them
_ALL_LINEAR = "all-linear"
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")  # others change the base's weights when they are loaded
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
    "kasa_config": "KaSA",
    "corda_config": "CorDA",
    "loftq_config": "LoftQ",
    "megatron_config": "a Megatron layout",
}
_BOOLEANS = ("use_rslora", "use_dora", "lora_bias", "use_qalora", "fan_in_fan_out", "inference_mode", "ensure_weight_tying")
_HUB_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_LAYERS_NAME = re.compile(r"[A-Za-z0-9_.]*")  # PEFT makes a regular expression of it


@dataclass(frozen=True)
class Declared:
    """What a configuration says that passed every check."""

    rank: int
    alpha: float
    rslora: bool
    base: str | None  # the hub id of the base it was trained on; of a path the last part, because the rest says only whose machine it was
    revision: str | None
    scope: dict[str, Any]  # the fields by which PEFT chooses layers

    @property
    def scale(self) -> float:
        """What PEFT and the engine multiply the product of the matrices by."""
        return self.alpha / (sqrt(self.rank) if self.rslora else self.rank)


def read_object(path: Path, most_bytes: int = _MAX_CONFIG_BYTES) -> dict[str, Any]:
    """A file that holds one JSON object. Raises AdapterError."""
    try:
        if path.stat().st_size > most_bytes:
            raise AdapterError(f"{path.name} has {path.stat().st_size:,} bytes; expected at most {most_bytes:,}.")
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a name twice, or a number of thousands of digits
        raise AdapterError(f"{path.name} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{path.name} does not hold a JSON object.")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two values they take."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it names {name[:60]!r} twice")
        found[name] = value
    return found


def read_config(path: Path, engine_max_lora_rank: int) -> Declared:
    """Raises AdapterError for anything the engine would refuse, or compute differently than PEFT."""
    config = read_object(path)
    _check_kind(config)
    return Declared(
        rank=_rank(config, engine_max_lora_rank),
        alpha=_alpha(config),
        rslora=bool(config.get("use_rslora")),
        base=_base_name(_name(config, "base_model_name_or_path")),
        revision=_name(config, "revision"),
        scope=_scope(config),
    )


def _check_kind(config: dict[str, Any]) -> None:
    kind, task, bias = config.get("peft_type"), config.get("task_type"), config.get("bias", "none")
    if not isinstance(kind, str) or kind.upper() != "LORA":
        raise AdapterError(f"The adapter is of the type {_shown(kind)}; the engine serves LORA.")
    if task not in (None, "CAUSAL_LM"):
        raise AdapterError(f"The adapter was trained for the task {_shown(task)}; the engine serves CAUSAL_LM.", hint="Train it for a causal language model.")
    for field in _BOOLEANS:
        if not isinstance(config.get(field), bool | None):
            raise AdapterError(f"The adapter's {field} is {_shown(config[field])}; expected true or false.", hint="Write it without quotation marks.")
    for field, words in _UNSERVABLE.items():
        if config.get(field):
            raise AdapterError(
                f"The adapter uses {words}, which the engine cannot serve.",
                hint="Train it as plain LoRA, or merge it into its base and use that as the base model.",
            )
    if bias != "none":
        raise AdapterError(f"The adapter trains biases (bias={_shown(bias)}), which the engine cannot serve.", hint='Train it with bias="none".')
    if config.get("init_lora_weights", True) not in _PLAIN_INITS:
        raise AdapterError(
            f"The adapter was begun with {_shown(config['init_lora_weights'])}, which changes the base's weights as well.",
            hint="Convert it to plain LoRA with PEFT's path_initial_model_for_weight_conversion.",
        )


def _rank(config: dict[str, Any], most: int) -> int:
    rank = config.get("r")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise AdapterError(f"The adapter's rank is {_shown(rank)}; expected a whole number above 0.")
    if rank > most:
        raise AdapterError(
            f"The adapter has rank {rank}; the engine accepts up to {most} (engine_max_lora_rank).",
            hint="Raise WHET_ENGINE_MAX_LORA_RANK and restart the engine, or train with a lower rank.",
        )
    return rank


def _alpha(config: dict[str, Any]) -> float:
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise AdapterError(f"The adapter's lora_alpha is {_shown(alpha)}; expected a number above 0.")
    return float(alpha)


def _shown(value: Any) -> str:
    """For a sentence: lists within lists could be too deep to print."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else "a list" if isinstance(value, list) else "an object"


def _name(config: dict[str, Any], field: str) -> str | None:
    """Text that a card can hold and a terminal print; None for none."""
    value = config.get(field)
    if value is not None and (not isinstance(value, str) or len(value) > _MAX_NAME or not value.isprintable()):
        raise AdapterError(f"The adapter's {field} is {_shown(value)}; expected a name or null.")
    return value or None


def _base_name(given: str | None) -> str | None:
    return given if given is None or _HUB_ID.fullmatch(given) else PureWindowsPath(given).name or None  # which knows both kinds of slashes


def check_base_name(declared: Declared, base: BaseModel, *, accept_base: bool) -> str:
    """A notice when the adapter names another base than ours, else nothing.

    Two hub ids are two models, so then it is an AdapterError, unless somebody says `accept_base`; the name of a folder proves nothing.
    """
    theirs = declared.base
    if theirs is None or theirs.casefold() == base.name.casefold():
        return ""
    sentence = f"The adapter names {theirs} as the base it was trained on; the base here is {base.name}."
    if _HUB_ID.fullmatch(theirs) and _HUB_ID.fullmatch(base.name):
        if not accept_base:
            raise AdapterError(
                sentence, hint="Set WHET_BASE_MODEL to the base it was trained on, or give --accept-base if both are the same weights under two names."
            )
        return f"{sentence} It was accepted all the same (--accept-base)."
    ours = {base.name.rsplit("/", 1)[-1].casefold(), base.folder.name.casefold()}
    return "" if theirs.rsplit("/", 1)[-1].casefold() in ours else f"{sentence} Its layers fit; whether they were trained on these weights is not known."


def _scope(config: dict[str, Any]) -> dict[str, Any]:
    """The fields by which PEFT chooses layers, of the types that it reads. Raises AdapterError."""
    targets, excluded, layers, pattern = (config.get(field) for field in ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"))
    numbers = layers if isinstance(layers, list) else [layers] if layers is not None else []
    for field, value, fine, expected in (
        ("target_modules", targets, bool(targets) and _texts(targets), "a list of layer names, a pattern or all-linear"),
        ("exclude_modules", excluded, excluded is None or _texts(excluded), "a list of layer names or a pattern"),
        ("layers_to_transform", layers, all(isinstance(number, int) and not isinstance(number, bool) for number in numbers), "whole numbers"),
        ("layers_pattern", pattern, pattern is None or (_texts(pattern) and all(map(_LAYERS_NAME.fullmatch, _listed(pattern)))), "a name such as layers"),
    ):
        if not fine:
            raise AdapterError(f"The adapter's {field} is {_shown(value)}; expected {expected}.", hint="Save the adapter again with PEFT's save_pretrained.")
    return {"target_modules": targets, "exclude_modules": excluded, "layers_to_transform": layers, "layers_pattern": pattern}


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def outside_scope(scope: dict[str, Any], modules: list[str]) -> str | None:
    """The first of the layers on which PEFT would put no adapter by this configuration; None when it would on all. Raises AdapterError."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    try:
        config = LoraConfig(**scope)
    except ValueError as error:  # fields that exclude each other
        raise AdapterError(f"PEFT refuses the adapter's configuration: {error}", hint="Save the adapter again with PEFT's save_pretrained.") from error
    if isinstance(config.target_modules, str):
        config.target_modules = modules if config.target_modules.lower() == _ALL_LINEAR else _matching(config.target_modules, modules)
    if isinstance(config.exclude_modules, str):
        config.exclude_modules = _matching(config.exclude_modules, modules)
    return next((module for module in modules if not check_target_module_exists(config, module)), None)


def _matching(pattern: str, names: list[str]) -> list[str]:
    """The names that a stranger's pattern matches whole. It could keep Python's `re` busy for years; `regex`, which transformers brings, can be stopped."""
    import regex

    until = time.monotonic() + _PATTERN_SECONDS
    try:
        if len(pattern) > _MAX_PATTERN:
            raise ValueError(f"it has {len(pattern):,} characters, expected at most {_MAX_PATTERN:,}")
        compiled = regex.compile(pattern)
        return [name for name in names if compiled.fullmatch(name, timeout=max(until - time.monotonic(), 0.01))]
    except (regex.error, ValueError, OverflowError, RecursionError, TimeoutError) as error:
        raise AdapterError(
            f"The pattern for layers {_shown(pattern)} cannot be used: {str(error)[:200]}.", hint="Write target_modules as a list of layer names."
        ) from error
