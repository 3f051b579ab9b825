"""What a recipe may ask: a place for its result, an adapter that the engine serves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from training.recipes.methods import ADAPTER, METHODS, OPTIONAL_FIELDS
from training.recipes.recipe import Recipe
from whet.errors import InputError


def relevant_fields(recipe: Mapping[str, object]) -> dict[str, object]:
    """Of a recipe as it is stored, what its method reads: how hard DPO holds to its start says
    nothing about a LoRA run. All of one whose method is not known.
    """
    method = METHODS.get(str(recipe.get("method", "")))
    unread = OPTIONAL_FIELDS - method.reads if method else ()
    return {name: value for name, value in recipe.items() if name not in unread}


def check_into(recipe: Recipe, into: Path | None) -> None:
    """Raises InputError when the engine cannot serve what the method makes and there is no folder
    for it, or the other way round.
    """
    method = METHODS[recipe.method]
    if method.engine == ADAPTER and into is not None:
        raise InputError(
            f"The method {method.name} makes a version in the store; --into belongs to methods that"
            " cannot.",
            hint="Leave --into out.",
        )
    if method.engine != ADAPTER and into is None:
        raise InputError(
            method.said, hint="Say where it goes: --into FOLDER, a folder that does not exist yet."
        )
    if into is not None and into.exists():
        raise InputError(f"{into} exists already.", hint="Name a folder that does not.")


def check_servable(recipe: Recipe, engine_max_lora_rank: int) -> None:
    """Raises InputError for a rank that the engine would refuse after an hour of training."""
    if METHODS[recipe.method].engine != ADAPTER or recipe.served_rank <= engine_max_lora_rank:
        return
    limit, doubled = engine_max_lora_rank, ""
    if recipe.changes_base:
        limit //= 2
        doubled = (
            f" A run with {recipe.init_lora_weights} and rank {recipe.rank} makes a version of rank"
            f" {recipe.served_rank}: what the base gave to the matrices is subtracted again."
        )
    raise InputError(
        f"Rank {recipe.served_rank} cannot be served: the engine accepts up to "
        f"{engine_max_lora_rank} (engine_max_lora_rank).{doubled}",
        hint=(
            f"Train with --rank {limit} or less, or raise WHET_ENGINE_MAX_LORA_RANK and restart "
            "the engine."
        ),
    )
