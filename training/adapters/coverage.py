"""Compares the layers that an adapter's file holds with those that its configuration names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from training.adapters.scope import LinearLayers, Scope, targeted_layers
from whet.errors import AdapterError

_LAYER_NUMBER = re.compile(r"(?:^|\.)([0-9]+)\.")
_SHOWN = 4  # names in a sentence


def require_agreement(scope: Scope, present: Iterable[str], linear: LinearLayers) -> None:
    """Raises AdapterError unless the file's layers are those that the configuration names.

    Fewer would be half an adapter, more would be left out by PEFT. `present` are names as in
    `linear`.
    """
    named, held = set(targeted_layers(scope, linear)), set(present)
    if outside := sorted(held - named, key=_in_order):
        raise AdapterError(
            f"The file holds matrices for {outside[0]}, but by adapter_config.json ({scope}) the "
            "adapter is not on that layer, and PEFT would leave them out.",
            hint="Save the adapter again with PEFT's save_pretrained, so that both files say the "
            "same.",
        )
    if missing := sorted(named - held, key=_in_order):
        raise AdapterError(
            f"The file holds matrices for {len(held)} of the {len(named)} layers that "
            f"adapter_config.json names ({scope}): there are none for {_summary(missing, named)}. "
            "It is a part of an adapter.",
            hint="Copy or gather all of it (one process's part of a sharded or pipelined model is "
            "not the whole). If it was trained on these layers only, say so in "
            "adapter_config.json: layers_to_transform, exclude_modules, or the layers' whole names "
            "in target_modules.",
        )


def _in_order(name: str) -> tuple[int, str]:
    number = _LAYER_NUMBER.search(name)
    return (int(number[1]) if number else -1, name)


def _summary(missing: list[str], named: set[str]) -> str:
    """`layers 3 to 5`, `gate_proj and up_proj`, or the first few names."""
    gone = {number for number in map(_number, missing) if number is not None}
    kept = {_number(name) for name in named - set(missing)}
    if gone and not gone & kept and all(_number(name) is not None for name in missing):
        numbers = sorted(gone)
        if numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1:
            return f"layers {numbers[0]} to {numbers[-1]}"
        return ("layer " if len(numbers) == 1 else "layers ") + _few(list(map(str, numbers)))
    kinds = {name.rsplit(".", 1)[-1] for name in missing}
    if not kinds & {name.rsplit(".", 1)[-1] for name in named - set(missing)}:
        return _few(sorted(kinds))
    return _few(missing)


def _number(name: str) -> int | None:
    found = _LAYER_NUMBER.search(name)
    return int(found[1]) if found else None


def _few(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
