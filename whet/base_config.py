"""Reads what a base model's `config.json` says about its context length, without loading anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from whet.errors import ConfigurationError

# Parts of a multimodal configuration that describe the language model.
_TEXT_PARTS = ("text_config", "llm_config", "language_config")
# Fields in which architectures keep their number of positions; the smallest counts, as in vLLM.
POSITION_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# RoPE types whose `max_position_embeddings` is the length after scaling. Of the others (linear,
# dynamic) it is the length before, and `factor` multiplies it.
_SCALED_ALREADY = frozenset(
    {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
)


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a `config.json` that describes the language model."""
    parts = (config.get(name) for name in _TEXT_PARTS)
    return next((part for part in parts if isinstance(part, Mapping)), config)


def position_limit(config: Mapping[str, Any], name: str = "the base model") -> int | None:
    """Return the largest number of tokens that the base can attend to; None if it names no limit.

    Read as vLLM reads it: the smallest of `POSITION_FIELDS`, times the factor of a RoPE scaling
    that is not in it already. Raises ConfigurationError, which says `name`, for a field that is no
    positive number.
    """
    text = text_config(config)
    found = [
        _positive(text[key], key, name) for key in POSITION_FIELDS if text.get(key) is not None
    ]
    if text.get("model_max_length") is not None:  # Command-R: the only one that counts
        found = [_positive(text["model_max_length"], "model_max_length", name)]
    if not found:
        return None
    scaled = min(found) * _rope_factor(text, name)
    return int(scaled) if math.isfinite(scaled) else None


def _rope_factor(text: Mapping[str, Any], name: str) -> float:
    if "gemma3" in str(text.get("model_type", "")):  # its positions are those after scaling
        return 1.0
    factor = 1.0
    for scaling in _rope_scalings(text):
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind not in _SCALED_ALREADY and scaling.get("factor") is not None:
            factor = _positive(scaling["factor"], "RoPE factor", name)
    return factor


def _rope_scalings(text: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the RoPE settings: one for all layers, or one for each kind of layer."""
    given = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(given, Mapping):
        return
    by_layer = [part for part in given.values() if isinstance(part, Mapping)]
    yield from by_layer or [given]


def _positive(value: Any, key: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigurationError(
            f"The {key} of {name} is {value!r}; expected a number above 0.",
            hint="Correct it in config.json of the model's folder.",
        )
    return float(value)
