"""Says which layers of a base an adapter's configuration names, as PEFT would.

PEFT chooses layers by `target_modules`, `exclude_modules`, `layers_to_transform` and
`layers_pattern`, and gives single layers another rank or alpha by `rank_pattern` and
`alpha_pattern`. Patterns are a stranger's: they are matched with a limit of time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import regex
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from transformers import AutoConfig, AutoModelForCausalLM

from training.adapters.methods import shown
from training.models.base_model import BaseModel
from whet.errors import AdapterError, ConfigurationError
from whet.json_types import JsonObject

_ALL_LINEAR = "all-linear"
# Of a regular expression for layers: its length, and the time all of an adapter's patterns get.
_MAX_PATTERN, _PATTERN_SECONDS = 4096, 5.0
_UNUSABLE = (
    regex.error,
    ValueError,
    OverflowError,
    RecursionError,
    MemoryError,  # what `regex` raises for `(?R)`
    TimeoutError,
)
Number = TypeVar("Number", int, float)
_LAYERS_NAME = re.compile(r"[A-Za-z0-9_.]*")  # PEFT makes a regular expression of it
_SAVE_AGAIN = "Save the adapter again with PEFT's save_pretrained."


@dataclass(frozen=True)
class Scope:
    """The fields by which PEFT chooses layers and gives them their rank and alpha."""

    target_modules: str | list[str]
    exclude_modules: str | list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: tuple[str, ...] = ()
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """The fields that are set, for a sentence."""
        parts = [f"target_modules={_brief(self.target_modules)}"]
        if self.exclude_modules:
            parts.append(f"exclude_modules={_brief(self.exclude_modules)}")
        if self.layers_to_transform is not None:
            parts.append(f"layers_to_transform={str(self.layers_to_transform)[:60]}")
        return ", ".join(parts)


def _brief(value: str | list[str]) -> str:
    return value[:60] if isinstance(value, str) else ", ".join(sorted(value))[:60]


@dataclass(frozen=True)
class LinearLayers:
    """The linear layers of a base by the names PEFT sees, and which of them is the output head."""

    names: tuple[str, ...]
    head: str | None

    def renamed(self, old: str, new: str) -> LinearLayers:
        """The same layers in a model whose layers' names begin with `new` instead of `old`."""
        names = {n: new + n.removeprefix(old) if n.startswith(old) else n for n in self.names}
        return LinearLayers(tuple(names.values()), names[self.head] if self.head else None)


def read_scope(config: JsonObject) -> Scope:
    """Reads the fields, of the types that PEFT reads. Raises AdapterError."""
    targets = _read_texts(
        config, "target_modules", "a list of layer names, a pattern or all-linear"
    )
    if not targets:
        raise _refuse("target_modules", targets, "a list of layer names, a pattern or all-linear")
    excluded = _read_texts(config, "exclude_modules", "a list of layer names or a pattern")
    layers = _read_layers(config)
    pattern = _read_texts(config, "layers_pattern", "a name such as layers")
    if pattern is not None and not all(map(_LAYERS_NAME.fullmatch, _as_list(pattern))):
        raise _refuse("layers_pattern", pattern, "a name such as layers")
    saved = _read_texts(config, "modules_to_save", "a list of module names")
    if isinstance(saved, str):
        raise _refuse("modules_to_save", saved, "a list of module names")
    return Scope(
        targets,
        excluded,
        layers,
        pattern,
        tuple(saved or ()),
        _numbers(config, "rank_pattern", int),
        _numbers(config, "alpha_pattern", float),
    )


def _refuse(name: str, value: object, expected: str) -> AdapterError:
    return AdapterError(
        f"The adapter's {name} is {shown(value)}; expected {expected}.", hint=_SAVE_AGAIN
    )


def _read_texts(config: JsonObject, name: str, expected: str) -> str | list[str] | None:
    """Return a text or a list of texts; None where there is none. Raises AdapterError."""
    value = config.get(name)
    if value is None or isinstance(value, str):
        return value
    texts = [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(texts) < len(value):
        raise _refuse(name, value, expected)
    return texts


def _read_layers(config: JsonObject) -> list[int] | int | None:
    """Return `layers_to_transform`. Raises AdapterError."""
    value = config.get("layers_to_transform")
    numbers = value if isinstance(value, list) else [value] if value is not None else []
    layers = [item for item in numbers if isinstance(item, int) and not isinstance(item, bool)]
    if len(layers) < len(numbers):
        raise _refuse("layers_to_transform", value, "whole numbers")
    return layers if isinstance(value, list) else next(iter(layers), None)


def _numbers(config: JsonObject, name: str, kind: type[Number]) -> dict[str, Number]:
    """A pattern for layer names → a number above 0. Raises AdapterError."""
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise AdapterError(
            f"The adapter's {name} is {shown(value)}; expected an object of layer names and "
            "numbers.",
            hint=_SAVE_AGAIN,
        )
    found: dict[str, Number] = {}
    for layer, number in value.items():
        right = isinstance(number, int) or (kind is float and isinstance(number, float))
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or not right
            or not 0 < number < 1e6
        ):
            raise AdapterError(
                f"The adapter's {name} gives {shown(layer)} {shown(number)}; expected a "
                f"{'whole ' if kind is int else ''}number above 0.",
                hint=_SAVE_AGAIN,
            )
        found[layer] = kind(number)
    return found


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def linear_layers(base: BaseModel) -> LinearLayers:
    """Builds the base without weights and lists its linear layers. Raises ConfigurationError."""
    try:
        config = AutoConfig.from_pretrained(str(base.folder), local_files_only=True)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ConfigurationError(
            f"The base model {base.name} cannot be built: {' '.join(str(error).split())[:300]}",
            hint="It must be the folder of a language model in Hugging Face format.",
        ) from error
    head = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return LinearLayers(tuple(linear), next((n for n, m in linear.items() if m is head), None))


def targeted_layers(scope: Scope, linear: LinearLayers) -> list[str]:
    """The linear layers on which PEFT would put an adapter. Raises AdapterError."""
    try:
        config = LoraConfig(
            target_modules=scope.target_modules,
            exclude_modules=scope.exclude_modules,
            layers_to_transform=scope.layers_to_transform,
            layers_pattern=scope.layers_pattern,
        )
    except ValueError as error:  # fields that exclude each other
        raise AdapterError(
            f"PEFT refuses the adapter's configuration: {error}", hint=_SAVE_AGAIN
        ) from error
    until = time.monotonic() + _PATTERN_SECONDS
    if isinstance(config.target_modules, str):
        if config.target_modules.lower() == _ALL_LINEAR:
            config.target_modules = [name for name in linear.names if name != linear.head]
        else:
            config.target_modules = _matching(config.target_modules, linear.names, until)
    if isinstance(config.exclude_modules, str):
        config.exclude_modules = _matching(config.exclude_modules, linear.names, until)
    return [
        name
        for name in linear.names
        if check_target_module_exists(config, name)
        and not any(_is_inside(name, saved) for saved in scope.modules_to_save)
    ]


def _is_inside(name: str, module: str) -> bool:
    """Whether a layer is the module, or lies in one whose name ends with it, as PEFT reads it."""
    return f".{module}." in f".{name}."


def layer_numbers(
    pattern: Mapping[str, Number], names: Iterable[str], default: Number
) -> dict[str, Number]:
    """Layer → the number of the first entry of `rank_pattern` or `alpha_pattern` that names it.

    PEFT's rule (`get_pattern_key`): an entry is a regular expression for the end of a layer's name,
    from a dot on. Raises AdapterError for one that cannot be used.
    """
    until = time.monotonic() + _PATTERN_SECONDS
    found = dict.fromkeys(names, default)
    if not pattern:
        return found
    left = list(found)
    for entry, number in pattern.items():
        matching = set(_matching(rf"(.*\.)?({entry})", left, until))
        found |= dict.fromkeys(matching, number)
        left = [name for name in left if name not in matching]
    return found


def _matching(pattern: str, names: Iterable[str], until: float) -> list[str]:
    """The names that a stranger's pattern matches whole.

    It could keep Python's `re` busy for years; `regex`, which transformers brings, can be stopped.
    """
    try:
        if len(pattern) > _MAX_PATTERN:
            raise ValueError(
                f"it has {len(pattern):,} characters, expected at most {_MAX_PATTERN:,}"
            )
        compiled = regex.compile(pattern)
        return [
            name
            for name in names
            if compiled.fullmatch(name, timeout=max(until - time.monotonic(), 0.01))
        ]
    except _UNUSABLE as error:
        reason = str(error)[:200] or "it calls itself without end"
        raise AdapterError(
            f"The pattern for layers {shown(pattern)} cannot be used: {reason}.",
            hint="Write target_modules as a list of layer names.",
        ) from error
