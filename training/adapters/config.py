"""Reads what a stranger's `adapter_config.json` declares, as a few checked values."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import sqrt
from pathlib import Path, PureWindowsPath

from training.adapters.methods import check_method, shown
from training.adapters.scope import Scope, read_scope
from training.models.base_model import BaseModel
from whet.errors import AdapterError
from whet.json_types import Json, JsonObject

_MAX_CONFIG_BYTES = 1 << 20
_MAX_NAME = 1000  # characters of a base's name, of which a path may be long
_SAVE_AGAIN = "Save the adapter again with PEFT's save_pretrained, or copy it again."
_HUB_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*/[A-Za-z0-9_-][A-Za-z0-9_.-]*")
# How editions of a model with quantised weights are named on the hub.
_QUANTISED = re.compile(r"[-_.](bnb[-_.]?)?(4bit|8bit|int4|int8|nf4|gptq|awq|fp8)\b", re.IGNORECASE)


@dataclass(frozen=True)
class DeclaredAdapter:
    """What a configuration says that passed every check."""

    rank: int
    alpha: float
    uses_rslora: bool
    base: str | None  # the hub id of the base, or the last part of a path: the rest is private
    revision: str | None
    scope: Scope
    notices: tuple[str, ...]

    def scale(self, rank: int, alpha: float) -> float:
        """What PEFT multiplies the product of a layer's matrices by."""
        return alpha / (sqrt(rank) if self.uses_rslora else rank)


def read_object(path: Path, most_bytes: int = _MAX_CONFIG_BYTES) -> JsonObject:
    """Reads a file that holds one JSON object. Raises AdapterError."""
    try:
        if path.stat().st_size > most_bytes:
            raise AdapterError(
                f"{path.name} has {path.stat().st_size:,} bytes; expected at most {most_bytes:,}.",
                hint=_SAVE_AGAIN,
            )
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_names)
    except (OSError, ValueError, RecursionError) as error:
        # ValueError: not UTF-8, not JSON, a name twice, or a number of thousands of digits
        raise AdapterError(
            f"{path.name} cannot be read as JSON: {error}.", hint=_SAVE_AGAIN
        ) from error
    if not isinstance(value, dict):
        raise AdapterError(f"{path.name} does not hold a JSON object.", hint=_SAVE_AGAIN)
    return value


def _unique_names(pairs: list[tuple[str, Json]]) -> JsonObject:
    """Refuses a name given twice, of which readers take one or the other."""
    found: JsonObject = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it names {name[:60]!r} twice")
        found[name] = value
    return found


def read_config(path: Path) -> DeclaredAdapter:
    """Raises AdapterError for what the engine would refuse, or compute differently than PEFT."""
    config = read_object(path)
    notices = check_method(config)
    if config.get("fan_in_fan_out"):  # PEFT sets it back on linear layers, and warns
        notices.append("fan_in_fan_out was left out: it means nothing on linear layers.")
    return DeclaredAdapter(
        rank=_rank(config),
        alpha=_alpha(config),
        uses_rslora=bool(config.get("use_rslora")),
        base=_base_name(_name(config, "base_model_name_or_path")),
        revision=_name(config, "revision"),
        scope=read_scope(config),
        notices=tuple(notices),
    )


def _rank(config: JsonObject) -> int:
    rank = config.get("r")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise AdapterError(
            f"The adapter's rank is {shown(rank)}; expected a whole number above 0.",
            hint="Write it as r in adapter_config.json.",
        )
    return rank


def require_rank(rank: int, most: int) -> None:
    """Raises AdapterError for a rank above what the engine was started for."""
    if rank > most:
        raise AdapterError(
            f"The adapter has rank {rank}; the engine accepts up to {most} (engine_max_lora_rank).",
            hint="Raise WHET_ENGINE_MAX_LORA_RANK and restart the engine, or train with a lower "
            "rank.",
        )


def _alpha(config: JsonObject) -> float:
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise AdapterError(
            f"The adapter's lora_alpha is {shown(alpha)}; expected a number above 0.",
            hint="Write in adapter_config.json what it was trained with.",
        )
    return float(alpha)


def _name(config: JsonObject, field: str) -> str | None:
    """Text that a card can hold and a terminal print; None for none."""
    value = config.get(field)
    if value is not None and (
        not isinstance(value, str) or len(value) > _MAX_NAME or not value.isprintable()
    ):
        raise AdapterError(
            f"The adapter's {field} is {shown(value)}; expected a name or null.",
            hint="Correct it in adapter_config.json.",
        )
    return value or None


def _base_name(given: str | None) -> str | None:
    """A hub id as it is, of a path the last part. PureWindowsPath knows both kinds of slashes."""
    if given is None or _HUB_ID.fullmatch(given):
        return given
    return PureWindowsPath(given).name or None


def check_base_name(declared: DeclaredAdapter, base: BaseModel, *, accept_base: bool) -> list[str]:
    """Notices when the adapter names another base than ours.

    Two hub ids are two models, so then it is an AdapterError, unless somebody says `accept_base`;
    the name of a folder proves nothing.
    """
    theirs = declared.base
    if theirs is None or theirs.casefold() == base.name.casefold():
        return []
    sentence = (
        f"The adapter names {theirs} as the base it was trained on; the base here is {base.name}."
    )
    if _QUANTISED.search(theirs) and not _QUANTISED.search(base.name):
        sentence += (
            " That name is of quantised weights: on the whole ones the adapter answers slightly "
            "otherwise than in its training."
        )
    if _HUB_ID.fullmatch(theirs) and _HUB_ID.fullmatch(base.name):
        if not accept_base:
            raise AdapterError(
                sentence,
                hint="Set WHET_BASE_MODEL to the base it was trained on, or give --accept-base if "
                "both are the same weights under two names.",
            )
        return [f"{sentence} It was accepted all the same (--accept-base)."]
    ours = {base.name.rsplit("/", 1)[-1].casefold(), base.folder.name.casefold()}
    if theirs.rsplit("/", 1)[-1].casefold() in ours:
        return []
    return [f"{sentence} Its layers fit; whether they were trained on these weights is not known."]
