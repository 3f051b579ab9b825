"""Compares weights that were saved beside an adapter with those of its base.

PEFT saves embeddings that were resized, and modules that were trained whole (`modules_to_save`).
The engine serves LoRA alone, so they can only be left out, and only where the base has the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import safe_open

from training.adapters.config import DeclaredAdapter
from training.adapters.files import AdapterFiles
from training.adapters.tensors import TensorFiles
from training.adapters.tokenizer import added_tokens
from training.models.base_model import BaseModel
from training.store.adapter_store import WEIGHTS
from whet.errors import AdapterError

_SHOWN_TOKENS = 5  # of those that were added, in a sentence


def check_saved_modules(
    tensors: TensorFiles,
    saved: dict[str, str],
    declared: DeclaredAdapter,
    files: AdapterFiles,
    base: BaseModel,
) -> list[str]:
    """Notices of saved weights that equal the base's. Raises AdapterError for any that do not.

    `saved`: name in the file → tensor of the base that it repeats or replaces.
    """
    for module in declared.scope.modules_to_save:
        if not any(f".{module}." in f".{tensor}" for tensor in saved.values()):
            raise AdapterError(
                f"The adapter was trained with modules_to_save={module!r}, and {WEIGHTS} does not "
                "hold those weights.",
                hint="Save it again with PEFT's save_pretrained; to be served it must be trained "
                "without modules_to_save.",
            )
    for name, tensor in sorted(saved.items()):
        with _base_tensor(base, tensor) as ours:
            _require_equal(name, tensor, tensors.tensor(name), ours, declared, files, base)
    if not saved:
        return []
    names = ", ".join(sorted(set(saved.values()))[:3])
    more = f" and {len(set(saved.values())) - 3} more" if len(set(saved.values())) > 3 else ""
    return [f"Left out, because the base has the same: {names}{more}."]


@contextmanager
def _base_tensor(base: BaseModel, name: str) -> Iterator[torch.Tensor]:
    """A tensor of the base; of a tied head, which its files do not hold, the embeddings."""
    if name not in base.shapes:
        name = next((n for n in base.shapes if n.endswith("embed_tokens.weight")), name)
    for file in sorted(base.folder.glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as opened:
            if name in opened.keys():  # noqa: SIM118
                yield opened.get_tensor(name)
                return
    raise AdapterError(f"{base.name} has no tensor {name}.", hint="Save the adapter alone.")


def _require_equal(
    name: str,
    tensor: str,
    theirs: torch.Tensor,
    ours: torch.Tensor,
    declared: DeclaredAdapter,
    files: AdapterFiles,
    base: BaseModel,
) -> None:
    module = tensor.rpartition(".")[0]
    last = module.rsplit(".", 1)[-1]
    if theirs.dim() == 2 and theirs.shape[1:] == ours.shape[1:] and len(theirs) != len(ours):
        raise _other_vocabulary(name, theirs, ours, files, base)
    if theirs.shape != ours.shape:
        raise AdapterError(
            f"{name} has the shape {list(theirs.shape)}; {base.name} has {list(ours.shape)}.",
            hint="The adapter belongs to another base, or its weights were quantised.",
        )
    # Equal in either dtype: a base in bfloat16 is often trained in float16 or float32.
    rows = ((ours.to(theirs.dtype) != theirs) & (ours != theirs.to(ours.dtype))).reshape(
        len(ours), -1
    )
    changed = int(rows.any(dim=1).sum())
    if changed:
        trained = (
            f"modules_to_save={list(declared.scope.modules_to_save)}"
            if declared.scope.modules_to_save
            else "modules_to_save, trainable_token_indices or trainable embeddings"
        )
        raise AdapterError(
            f"{name} is not the base's: {changed:,} of its {len(ours):,} rows were changed in "
            f"training ({trained}). The engine serves LoRA beside the layers, no changed {last}.",
            hint="Train without it (leave modules_to_save and trainable_token_indices empty; LoRA "
            "on all-linear learns the same task), or merge the adapter into its base and use that "
            "as the base model.",
        )


def _other_vocabulary(
    name: str, theirs: torch.Tensor, ours: torch.Tensor, files: AdapterFiles, base: BaseModel
) -> AdapterError:
    more = len(theirs) - len(ours)
    sizes = f"{name} has {len(theirs):,} rows; {base.name} has {len(ours):,}"
    if more < 0:
        return AdapterError(
            f"{sizes}.", hint="The adapter belongs to another base, with a smaller vocabulary."
        )
    tokens = added_tokens(files.folder, len(ours))
    names = ", ".join(repr(token) for token in tokens[:_SHOWN_TOKENS])
    return AdapterError(
        f"{sizes}: {more:,} tokens were added to the vocabulary before training"
        + (f" ({names}{' and more' if len(tokens) > _SHOWN_TOKENS else ''})" if tokens else "")
        + ", and the base does not know them.",
        hint="If no token was meant to be added, save the adapter again with "
        "save_pretrained(…, save_embedding_layers=False). Else train without new tokens, or "
        "enlarge the base (resize_token_embeddings), save it with its tokenizer and use it as "
        "WHET_BASE_MODEL.",
    )
