"""Imports adapters that were trained elsewhere: checked as a stranger's data, stored like our own.

Only `adapter_config.json` and safetensors files are read. The configuration is rewritten from what
was checked, so nothing unknown in it can reach the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from training.adapters.config import check_base_name, read_config, read_object, require_rank
from training.adapters.coverage import require_agreement
from training.adapters.files import find_adapter_files
from training.adapters.names import TensorNames, resolve_names
from training.adapters.saved_modules import check_saved_modules
from training.adapters.scope import (
    LinearLayers,
    Number,
    Scope,
    layer_numbers,
    linear_layers,
    targeted_layers,
)
from training.adapters.tensors import (
    changes_something,
    make_uniform,
    open_tensors,
    read_matrices,
    to_one_dtype,
)
from training.adapters.tokenizer import tokenizer_notices
from training.machine.device import compute_dtype, stored_dtype
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.fingerprint import Fingerprint, fingerprint
from training.models.lora import plain_config, with_stored
from training.store.adapter_config import PlainConfig
from training.store.adapter_publish import NewAdapter, publish
from training.store.adapter_store import CARD
from whet.context import Context
from whet.errors import AdapterError
from whet.registry import Adapter

_MAX_CARD_BYTES = 1 << 25  # a card holds log-probabilities of a few thousand tokens


@dataclass(frozen=True)
class AdapterOrigin:
    """What a folder says of itself, which nothing proves, and what was done to its content."""

    folder: str  # its last part
    base: str | None
    revision: str | None
    notices: tuple[str, ...]  # what was left out, renamed or converted, in sentences


@dataclass(frozen=True)
class ImportedAdapter:
    """An adapter that passed every check, as it is stored."""

    config: PlainConfig
    weights: dict[str, torch.Tensor]
    origin: AdapterOrigin


def import_adapter(
    context: Context,
    folder: Path,
    name: str,
    base: BaseModel,
    *,
    actor: str,
    accept_base: bool = False,
) -> tuple[Adapter, AdapterOrigin]:
    """Checks the folder and stores it as a new version of `name`.

    Raises AdapterError with the reason for a refusal.
    """
    most = context.settings.engine_max_lora_rank
    adapter = read_adapter(folder, base, most, accept_base=accept_base)
    card = {
        "base": base.name,
        "imported": asdict(adapter.origin),
        "fingerprint": probe_fingerprint(base, adapter.config, adapter.weights),
    }
    stored = publish(
        context,
        NewAdapter(
            name=name,
            weights=adapter.weights,
            config=adapter.config,
            base_digest=base.digest,
            template_digest=base.template_digest,
            rank=int(adapter.config["r"]),
            created_by=actor,
            card=card,
        ),
    )
    return stored, adapter.origin


def read_adapter(
    folder: Path, base: BaseModel, engine_max_lora_rank: int, *, accept_base: bool = False
) -> ImportedAdapter:
    """Reads a folder, checks it against the base and writes it in one form. Raises AdapterError."""
    files = find_adapter_files(folder)
    declared = read_config(files.config)
    _check_card(files.folder / CARD, base)
    notices = [*check_base_name(declared, base, accept_base=accept_base), *files.notices]
    with open_tensors(files.weights) as tensors:
        if not tensors.names:
            raise AdapterError(
                f"{files.weights[0].name} holds no tensor.", hint="Save the adapter again."
            )
        names = resolve_names(tensors.names, base)
        if not names.lora:
            raise AdapterError(
                f"{files.weights[0].name} holds no LoRA matrix, only {len(names.saved)} weights "
                "of a model itself.",
                hint="Save the adapter with PEFT's save_pretrained. A model that was trained "
                "whole is a base of its own (WHET_BASE_MODEL).",
            )
        saved = check_saved_modules(tensors, names.saved, declared, files, base)
        linear = linear_layers(base)
        seen = _names_in_training(names, declared.scope, linear)
        ranks = _by_module(declared.scope.rank_pattern, seen, declared.rank)
        alphas = _by_module(declared.scope.alpha_pattern, seen, declared.alpha)
        require_rank(max(ranks.values()), engine_max_lora_rank)
        matrices = read_matrices(tensors, names.lora, ranks, base)
        matrices = to_one_dtype(matrices, getattr(torch, stored_dtype()))
    adapter = make_uniform(matrices, declared, ranks, alphas)
    if not changes_something(adapter, declared.scale(adapter.rank, adapter.alpha)):
        raise AdapterError(
            "The adapter is zero on every layer once it is rounded to what the engine computes "
            "in: it changes nothing.",
            hint="Its training did not start, or another checkpoint was meant.",
        )
    notices += [*tokenizer_notices(files.folder, base), *declared.notices]
    notices += [*names.notices, *saved]
    notices += [adapter.notice] if adapter.notice else []
    config = plain_config(
        adapter.rank,
        adapter.alpha,
        target_names(names.modules, linear),
        rslora=adapter.uses_rslora,
    )
    origin = AdapterOrigin(folder.name, declared.base, declared.revision, tuple(notices))
    return ImportedAdapter(config, adapter.weights, origin)


def _by_module(
    pattern: Mapping[str, Number], seen: dict[str, str], default: Number
) -> dict[str, Number]:
    """Layer of the base's files → its rank or alpha; patterns match the names PEFT sees."""
    numbers = layer_numbers(pattern, seen.values(), default)
    return {module: numbers[name] for module, name in seen.items()}


def _names_in_training(names: TensorNames, scope: Scope, linear: LinearLayers) -> dict[str, str]:
    """Layer as the base's files name it → as it was named when the configuration was written.

    That decides what patterns of the configuration match. A model may have been trained inside
    another one (`model.language_model.layers`), or its adapter renamed afterwards, so the trainer's
    names are tried first and then the base's.

    Raises AdapterError when by neither the layers in the file are those of the configuration.
    """
    in_model = _names_in_model(names.modules, linear)
    old, new = names.base_prefix, names.trainer_prefix
    if new != old and all(name.startswith(old) for name in in_model.values()):
        renamed = {m: new + name.removeprefix(old) for m, name in in_model.items()}
        try:
            require_agreement(scope, renamed.values(), linear.renamed(old, new))
        except AdapterError:
            pass  # the base's own names decide, and say what is wrong
        else:
            return renamed
    require_agreement(scope, in_model.values(), linear)
    return in_model


def _names_in_model(modules: list[str], linear: LinearLayers) -> dict[str, str]:
    """Layer as the base's files name it → as the built model does, which is nearly always the same.

    A model that stands within another has a prefix more in one of the two.
    """
    known = set(linear.names)
    found = {}
    for module in modules:
        tail = module.split("layers.", 1)[-1]
        like = [name for name in linear.names if name.endswith(f"layers.{tail}")]
        found[module] = module if module in known or len(like) != 1 else like[0]
    return found


def target_names(modules: list[str], linear: LinearLayers) -> list[str]:
    """`target_modules` of the stored configuration: kinds of layers where all of a kind are in it,
    else whole names, so that the configuration never says more than the weights hold."""
    kinds = sorted({module.rsplit(".", 1)[-1] for module in modules})
    return kinds if set(targeted_layers(Scope(kinds), linear)) <= set(modules) else sorted(modules)


def _check_card(path: Path, base: BaseModel) -> None:
    """An adapter that Whet exported says which base it belongs to."""
    if not path.is_file():
        return
    card = read_object(path, _MAX_CARD_BYTES)
    if card.get("base_digest") not in (None, base.digest):
        raise AdapterError(
            f"The adapter belongs to the base {str(card['base_digest'])[:8]}; "
            f"{base.name} is {base.digest[:8]}.",
            hint="Set WHET_BASE_MODEL to the base it was trained on.",
        )
    if card.get("template_digest") not in (None, base.template_digest):
        raise AdapterError(
            "The adapter was trained with another chat template than the base has now.",
            hint="Restore the template in the base's folder, or train the adapter again.",
        )


# An imported or merged adapter comes without held-out rows; any text shows whether engine and
# trainer agree.
_PROBES = (
    "Hello, can you help me?",
    "How long is the warranty, and what do I have to send in?",
    "Thank you. What is the next step?",
    "My order 4711 has not arrived.",
)


def probe_fingerprint(
    base: BaseModel, config: PlainConfig, weights: dict[str, torch.Tensor]
) -> Fingerprint:
    """The log-probabilities of a few general questions that an engine has to agree with.

    Raises AdapterError when PEFT cannot put the adapter on the base.
    """
    loaded = base.load_model(compute_dtype("auto"))
    try:
        model = with_stored(loaded, config, weights)
    except (ValueError, KeyError, RuntimeError) as error:
        # a base whose layers PEFT rearranges: it knows more kinds than the checks above
        raise AdapterError(
            f"PEFT cannot put the adapter on {base.name}: {str(error)[:300]}",
            hint="Train it on other layers (target_modules).",
        ) from error
    prompts = [
        base.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in _PROBES
    ]
    ids = [list(base.tokenizer(p, add_special_tokens=False)["input_ids"]) for p in prompts]
    return fingerprint(model, ids, base.folder, Encoder(base, base.max_positions))
