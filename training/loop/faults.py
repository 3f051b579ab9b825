"""Translate what a machine refuses into one sentence with the setting that helps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from training.machine.out_of_memory import out_of_memory
from training.models.base_model import BaseModel
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe
from whet.errors import ConfigurationError, StoreError, TrainingError
from whet.store import base_model_digest

FileSignature = list[tuple[str, int, int]]  # name, size, time of change of each file of a folder


@contextmanager
def translate_oom(recipe: Recipe, *, judging: str = "") -> Iterator[None]:
    """Raise TrainingError in place of torch's or Python's own error when memory runs out.

    `judging`: the id of the run whose trained adapter is being evaluated; empty while it trains.
    """

    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and not out_of_memory(error):
            raise
        if judging:
            raise TrainingError(
                "Memory ran out while the trained adapter was judged, which takes the whole base in"
                " 16 bits.",
                hint=(
                    "The training is kept. End what else takes memory, or go to a larger machine,"
                    f" then `whet train resume {judging}`: it judges alone."
                ),
            ) from error
        at_once = recipe.micro_batch or recipe.batch_size
        raise TrainingError(
            f"Memory ran out with {at_once} rows of up to {recipe.max_length} tokens at once.",
            hint=f"Use {', or '.join(_smaller(recipe, at_once))}.",
        ) from error


def _smaller(recipe: Recipe, at_once: int) -> list[str]:
    """What needs less memory, of what the method takes."""
    reads = METHODS[recipe.method].reads
    found = []
    # Which compares the rows of a part with each other
    if at_once > (least := 2 if recipe.method == "kto" else 1):
        half = max(
            part
            for part in range(least, at_once // 2 + 1)
            if recipe.batch_size % part == 0 or part == least
        )
        same = "" if recipe.method == "kto" else ", which changes no result"
        found.append(
            f"--micro-batch {half}{same}"
            if "micro_batch" in reads
            else f"--batch-size {at_once // 2}"
        )
    if "gradient_checkpointing" in reads and not recipe.gradient_checkpointing:
        found.append("--gradient-checkpointing, which changes no result")
    if recipe.method in ("lora", "rslora"):
        found.append("--method qlora")
    return [*found, "a smaller --max-length"]


def require_device(wanted: str, processes: int) -> None:
    """Hide GPUs from this process where the recipe asks for the processor.

    Raises ConfigurationError when it asks for a GPU that is not there, for more processes than
    there are GPUs to share, or for the processor after this process began to use a GPU.
    """

    if wanted == "cpu":
        # Read when CUDA is first used, and by child processes
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if torch.cuda.is_available():
            raise ConfigurationError(
                "The recipe asks for device cpu, but this process uses a GPU already.",
                hint="Set CUDA_VISIBLE_DEVICES to nothing before it starts.",
            )
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "The recipe asks for device cuda, but no GPU can be used here.",
            hint="Use --device auto to train on the processor.",
        )
    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise ConfigurationError(
            f"The recipe asks for {processes} processes, but this machine has"
            f" {torch.cuda.device_count()} GPUs.",
            hint="Each process needs a GPU of its own.",
        )


def file_signature(folder: Path) -> FileSignature:
    """(name, size, time of change) of a folder's files: cheap, and different after any ordinary
    change.
    """
    return sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file()
    )


def require_unchanged(base: BaseModel, before: FileSignature) -> None:
    """Raises TrainingError when the base's files are no longer those that the run loaded;
    `base.digest` was taken then.
    """

    try:
        same = (
            file_signature(base.folder) == before or base_model_digest(base.folder) == base.digest
        )
    except (OSError, StoreError):  # it is gone, or what makes it a model is
        same = False
    if not same:
        raise TrainingError(
            f"The files of {base.name} were changed or removed while the run trained on them, so"
            " its adapter would fit no base.",
            hint=(
                "Keep a base's folder unchanged (put a new edition into a new folder) and train"
                " again."
            ),
        )
