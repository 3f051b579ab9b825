"""Merges adapter versions of one base into a new version, by PEFT's `add_weighted_adapter`.

What is combined are weights, not answers: the result knows something of each, and nothing says how
much before it is evaluated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraModel

from training.adapters.imports import probe_fingerprint, target_names
from training.adapters.scope import linear_layers
from training.adapters.tensors import to_one_dtype
from training.machine.device import stored_dtype
from training.models.base_model import BaseModel
from training.models.lora import PREFIX, cast_parameters, plain_config, with_stored
from training.store.adapter_publish import NewAdapter, publish, read_weights
from training.store.adapter_store import require_base
from whet.context import Context
from whet.errors import AdapterError, InputError
from whet.registry import Adapter

# PEFT's names (`combination_type`). cat and svd compute the weighted sum of the updates; the others
# sum the two matrices apart, which is a rough approximation, or leave small values out before.
_PRUNING = (
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)
COMBINATIONS = ("cat", "svd", "linear", *_PRUNING)
DEFAULT_DENSITY = 0.5  # share of the values that pruning keeps, as in PEFT's examples
_SEED = 0  # DARE leaves values out at random: the same call gives the same version
_MERGED = "merged"


@dataclass(frozen=True)
class MergeRecipe:
    """How versions are combined; `weights` has one for each of them, in order."""

    weights: tuple[float, ...]
    combination: str = "cat"
    density: float | None = None

    def check(self, count: int) -> None:
        """Raises InputError."""
        if count < 2:
            raise InputError(
                f"{count} version to merge; expected two or more.",
                hint="whet adapters merge support@v1 billing@v3 --name both",
            )
        if len(self.weights) != count:
            raise InputError(
                f"{len(self.weights)} weights for {count} versions.",
                hint="Give one weight for each version, in their order: --weights 0.7,0.3",
            )
        if not all(math.isfinite(weight) and weight for weight in self.weights):
            raise InputError(
                f"The weights are {', '.join(map(str, self.weights))}; expected numbers other "
                "than zero.",
                hint="Leave a version out instead of giving it no weight.",
            )
        if self.combination not in COMBINATIONS:
            raise InputError(
                f"The combination is {self.combination!r}; expected one of "
                f"{', '.join(COMBINATIONS)}.",
                hint="cat is the exact weighted sum.",
            )
        if self.density is not None and self.combination not in _PRUNING:
            raise InputError(
                f"--density is of combinations that leave values out, and {self.combination} "
                "does not.",
                hint=f"Leave it out, or use one of {', '.join(_PRUNING)}.",
            )
        if self.density is not None and not 0 < self.density <= 1:
            raise InputError(
                f"The density is {self.density}; expected a share above 0, at most 1.",
                hint="0.5 keeps the larger half.",
            )


def merge_adapters(
    context: Context,
    versions: list[Adapter],
    recipe: MergeRecipe,
    name: str,
    base: BaseModel,
    *,
    actor: str,
) -> Adapter:
    """Stores the weighted combination as a new version of `name`.

    Raises InputError for a recipe that does not fit, AdapterError for versions that cannot be
    combined, StoreError.
    """
    recipe.check(len(versions))
    if len({version.digest for version in versions}) < len(versions):
        raise InputError("One version is named twice.", hint="Give it a larger weight instead.")
    for version in versions:
        require_base(version, base.digest, base.name)
    if recipe.combination == "cat":
        _require_room(versions, context.settings.engine_max_lora_rank)
    weights, rank = _combine(context, versions, recipe, base)
    modules = sorted({key.removeprefix(PREFIX).rsplit(".", 2)[0] for key in weights})
    config = plain_config(rank, float(rank), target_names(modules, linear_layers(base)))
    sources = [
        {"adapter": version.label, "digest": version.digest, "weight": weight}
        for version, weight in zip(versions, recipe.weights, strict=True)
    ]
    merged = {
        "from": sources,
        "combination": recipe.combination,
        "density": _density(recipe),
    }
    return publish(
        context,
        NewAdapter(
            name=name,
            weights=weights,
            config=config,
            base_digest=base.digest,
            template_digest=base.template_digest,
            rank=rank,
            created_by=actor,
            card={
                "base": base.name,
                "merged": merged,
                "fingerprint": probe_fingerprint(base, config, weights),
            },
        ),
    )


def _density(recipe: MergeRecipe) -> float | None:
    return (recipe.density or DEFAULT_DENSITY) if recipe.combination in _PRUNING else None


def _require_room(versions: list[Adapter], most: int) -> None:
    """`cat` adds the ranks up."""
    total = sum(version.rank for version in versions)
    if total > most:
        ranks = " + ".join(str(version.rank) for version in versions)
        raise AdapterError(
            f"cat would make rank {total} ({ranks}); the engine accepts up to {most} "
            "(engine_max_lora_rank).",
            hint="Use --combination svd, which keeps the largest rank, or raise "
            "WHET_ENGINE_MAX_LORA_RANK and restart the engine.",
        )


def _combine(
    context: Context, versions: list[Adapter], recipe: MergeRecipe, base: BaseModel
) -> tuple[dict[str, torch.Tensor], int]:
    """(stored name → matrix, rank) of the combination, whose scale is 1. Raises AdapterError."""
    model: Any = base.load_model("auto", where="cpu")
    names = [f"version_{number}" for number in range(len(versions))]
    for own, version in zip(names, versions, strict=True):
        weights, config = read_weights(context, version)
        model = with_stored(model, config, weights, own)
        loaded = model.named_parameters()
        cast_parameters((p for key, p in loaded if f".{own}." in key), torch.float32)
        for key, tensor in weights.items():  # the base's dtype may have rounded them
            model.get_parameter(key.replace(".weight", f".{own}.weight")).data = tensor.float()
    torch.manual_seed(_SEED)
    try:
        cast(LoraModel, model.base_model).add_weighted_adapter(
            names,
            list(recipe.weights),
            _MERGED,
            combination_type=cast(Any, recipe.combination),
            svd_full_matrices=False,  # the vectors beyond the rank are not used
            density=_density(recipe),
        )
    except (ValueError, RuntimeError) as error:
        ranks = ", ".join(f"{version.label} {version.rank}" for version in versions)
        raise AdapterError(
            f"PEFT cannot combine the versions by {recipe.combination} (ranks {ranks}): "
            f"{' '.join(str(error).split())[:300]}",
            hint="cat and svd take versions of different ranks.",
        ) from error
    state = get_peft_model_state_dict(model, adapter_name=_MERGED, save_embedding_layers=False)
    found = {key: tensor.detach().float() for key, tensor in sorted(state.items())}
    rank = int(model.peft_config[_MERGED].r)
    return to_one_dtype(found, getattr(torch, stored_dtype())), rank
