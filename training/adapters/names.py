"""Maps the tensor names that trainers write to the layers of a base.

PEFT writes `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`. A state dict that was
saved without PEFT's save_pretrained carries the adapter's name (`.lora_A.default.weight`) and a
segment for every wrapper around the model; other code leaves a prefix out or writes it twice. A
name is taken when exactly one layer of the base can be meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from training.adapters.methods import refuse_other_method
from training.models.base_model import BaseModel
from training.models.lora import PREFIX
from whet.errors import AdapterError
from whet.registry import ENGINE_LORA_MODULES

_LORA = re.compile(
    r"(?P<path>[A-Za-z0-9_.]+)\.lora_(?P<part>[AB])(?:\.(?P<adapter>[A-Za-z0-9_-]{1,100}))?\.weight"
)
_PATH = re.compile(r"[A-Za-z0-9_.]+")
# Segments that wrappers add to the names of the modules they wrap, and who adds them.
_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_fpw_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
    "module": "DistributedDataParallel or DeepSpeed",
}
# Segments that stand before the layers: PEFT's own, the decoder's, and those of models around it.
_PREFIXES = (
    "base_model",
    "model",
    "language_model",
    "text_model",
    "llm",
    "pretrained_model",
)
# PEFT's wrappers around layers that are saved whole, in a state dict that it did not clean.
_SAVED_WHOLE = re.compile(r"\.(?:modules_to_save\.[A-Za-z0-9_-]+|original_module|base_layer)(?=\.)")
_LAYER = re.compile(r"(?P<stack>.*?)(?:^|\.)(?P<number>[0-9]+)\.(?P<inner>.+)")
# vLLM's CPU build ends when prompt log-probabilities, which parity is measured by, share a batch
# with an output head open to LoRA.
HEADS = ("lm_head", "embed_out", "embed_tokens")
_SHOWN = 120  # characters of a stranger's name in a sentence


@dataclass(frozen=True)
class LoraName:
    """A tensor that is one of a layer's two LoRA matrices."""

    name: str  # in the file
    module: str  # of the base
    part: Literal["A", "B"]

    @property
    def stored_name(self) -> str:
        """How PEFT writes it."""
        return f"{PREFIX}{self.module}.lora_{self.part}.weight"


@dataclass
class TensorNames:
    """What the tensors of an adapter file are."""

    lora: list[LoraName] = field(default_factory=list)
    saved: dict[str, str] = field(default_factory=dict)  # name in the file → tensor of the base
    notices: list[str] = field(default_factory=list)
    trainer_prefix: str = ""  # before the layers in the model that was trained, such as `model.`
    base_prefix: str = ""  # the same in the base

    @property
    def modules(self) -> list[str]:
        return sorted({name.module for name in self.lora})


class _Layers:
    """The layers of a base, found by names that lack a prefix or have too many."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.known = base.linear_shapes
        segments = {segment for module in self.known for segment in module.split(".")}
        self.wrappers = {segment for segment in _WRAPPERS if segment not in segments}
        self.by_core: dict[str, list[str]] = {}
        for module in self.known:
            self.by_core.setdefault(self.split(module)[1], []).append(module)
        self.tensors = {self.split(tensor)[1]: tensor for tensor in base.shapes}

    def split(self, path: str) -> tuple[str, str]:
        """(prefix, core) of a path, without wrappers: `model.` and `layers.0.mlp.up_proj`."""
        segments = [part for part in path.split(".") if part not in self.wrappers]
        count = 0
        while count < len(segments) - 1 and segments[count] in _PREFIXES:
            count += 1
        return ".".join([*segments[:count], ""]), ".".join(segments[count:])

    def find(self, path: str) -> list[str]:
        """Layers of the base that the path can mean."""
        clean = ".".join(part for part in path.split(".") if part not in self.wrappers)
        exact = clean
        while exact.startswith(PREFIX):
            exact = exact.removeprefix(PREFIX)
        return [exact] if exact in self.known else self.by_core.get(self.split(path)[1], [])

    def ending_like(self, core: str) -> str | None:
        """A layer whose core ends the given one, which then has a prefix nobody knows."""
        segments = core.split(".")
        tails = (".".join(segments[start:]) for start in range(1, len(segments)))
        return next((self.by_core[tail][0] for tail in tails if tail in self.by_core), None)

    def count_like(self, core: str) -> int:
        """How many layers the base has in the stack that `core` names; 0 when it has no such."""
        wanted = _LAYER.fullmatch(core)
        if wanted is None:
            return 0
        found = (_LAYER.fullmatch(known) for known in self.by_core)
        numbers = [
            int(known["number"])
            for known in found
            if known and (known["stack"], known["inner"]) == (wanted["stack"], wanted["inner"])
        ]
        return max(numbers, default=-1) + 1


def resolve_names(names: Sequence[str], base: BaseModel) -> TensorNames:
    """Says of each tensor which layer's matrix it is, or which tensor of the base it repeats.

    Raises AdapterError for a tensor that is neither, for a layer the base does not have or the
    engine takes no adapter on, and for names that do not all begin alike.
    """
    layers, found = _Layers(base), TensorNames()
    adapters: dict[str, str] = {}  # name of an adapter → a tensor that carries it
    prefixes: dict[str, str] = {}  # what stands before the layers → a tensor that begins so
    taken: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        match = _LORA.fullmatch(name)
        if match is None:
            found.saved[name] = _saved_tensor(name, layers)
            continue
        module = _module(name, match["path"], layers, prefixes)
        part: Literal["A", "B"] = "A" if match["part"] == "A" else "B"
        adapters.setdefault(match["adapter"] or "", name)
        prefixes.setdefault(layers.split(match["path"])[0], name)
        other = taken.setdefault((module, part), name)
        if other != name and len(adapters) == 1:
            raise AdapterError(
                f"{_quoted(other)} and {_quoted(name)} are both lora_{part} of {module}.",
                hint="Save the adapter again with PEFT's save_pretrained.",
            )
        found.lora.append(LoraName(name, module, part))
    _require_one(adapters)
    _require_one_prefix(prefixes)
    if found.lora:
        found.trainer_prefix = next(iter(prefixes)).rpartition(PREFIX)[2]
        found.base_prefix = layers.split(found.lora[0].module)[0]
    found.notices += _rename_notices(found, adapters, prefixes, layers)
    return found


def _module(name: str, path: str, layers: _Layers, prefixes: dict[str, str]) -> str:
    """The layer that a path names. Raises AdapterError by the reason why there is none."""
    candidates = layers.find(path)
    _, core = layers.split(path)
    last = core.rsplit(".", 1)[-1]
    if last in HEADS:
        raise AdapterError(
            f"The adapter changes {core}, a layer that turns words into states or states into "
            "words, which the engine does not open to adapters.",
            hint="Train it on the layers inside the model "
            "(target_modules all-linear leaves the head out).",
        )
    if last not in ENGINE_LORA_MODULES or ".experts." in f".{path}.":
        raise AdapterError(
            f"The adapter has the layer {path.removeprefix(PREFIX)[:_SHOWN]!r}, "
            "on which the engine takes no adapter.",
            hint=f"It takes {', '.join(ENGINE_LORA_MODULES)} outside experts; "
            "train without the others (target_modules).",
        )
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise AdapterError(
            f"{_quoted(name)} can mean {candidates[0]} or {candidates[1]} of {layers.base.name}.",
            hint="Save the adapter with PEFT's save_pretrained, which writes whole names.",
        )
    raise _unknown_layer(name, path, core, layers, prefixes)


def _unknown_layer(
    name: str, path: str, core: str, layers: _Layers, prefixes: dict[str, str]
) -> AdapterError:
    base = layers.base.name
    count = layers.count_like(core)
    if count:
        number = _LAYER.fullmatch(core)
        return AdapterError(
            f"The adapter has the layer {core!r}; {base} has the layers 0 to {count - 1}. It "
            f"belongs to another base, with {int(number['number']) + 1 if number else 0} layers "
            "or more.",
            hint="Set WHET_BASE_MODEL to the base it was trained on.",
        )
    similar = layers.ending_like(core)
    if similar:
        begins = path[: len(path) - len(layers.split(similar)[1])]
        before = next(iter(prefixes.values()), None)
        return AdapterError(
            f"There is no layer {path.removeprefix(PREFIX)[:_SHOWN]!r} in {base}; the nearest is "
            f"{similar!r}. "
            + (
                f"The names begin with {begins[:_SHOWN]!r} from here on, and otherwise before "
                f"({_quoted(before)})."
                if before
                else f"The names begin with {begins[:_SHOWN]!r}, which no known trainer writes."
            ),
            hint="Save the unwrapped model with PEFT's save_pretrained, or rename the tensors to "
            f"begin with {PREFIX}{layers.split(similar)[0]}",
        )
    last = core.rsplit(".", 1)[-1]
    have = next((module for module in layers.known if module.endswith(f".{last}")), None)
    like = have or next(iter(layers.known), "none")
    return AdapterError(
        f"The adapter has the layer {path.removeprefix(PREFIX)[:_SHOWN]!r}; the layers of {base} "
        f"have other names (such as {like}). It was trained on another architecture, or on a model "
        "whose layers were renamed.",
        hint="Set WHET_BASE_MODEL to the base it was trained on.",
    )


def _saved_tensor(name: str, layers: _Layers) -> str:
    """The tensor of the base that a tensor without LoRA repeats. Raises AdapterError."""
    refuse_other_method(name)
    clean = _SAVED_WHOLE.sub("", name)
    module, _, kind = clean.rpartition(".")
    if module and kind in ("weight", "bias") and _PATH.fullmatch(clean):
        core = layers.split(clean)[1]
        if core in layers.tensors:
            return layers.tensors[core]
        if core in {f"{head}.weight" for head in HEADS}:
            return core  # a tied head, which the base's files do not hold a second time
    raise AdapterError(
        f"The tensor {_quoted(name)} is not a LoRA matrix, and {layers.base.name} has none of that "
        "name.",
        hint="Only lora_A and lora_B of linear layers can be served.",
    )


def _require_one(adapters: dict[str, str]) -> None:
    if len(adapters) > 1:
        names = sorted(name or "(no name)" for name in adapters)
        raise AdapterError(
            f"The file holds {len(names)} adapters: {', '.join(names)[:_SHOWN]}.",
            hint="Save one of them with PEFT's save_pretrained(selected_adapters=[…]).",
        )


def _require_one_prefix(prefixes: dict[str, str]) -> None:
    if len(prefixes) > 1:
        (first, one), (second, other), *_ = prefixes.items()
        raise AdapterError(
            f"The tensor names do not all begin alike: {_quoted(one)} with {first!r}, "
            f"{_quoted(other)} with {second!r}. They may be of two models.",
            hint="Save the adapter again with PEFT's save_pretrained.",
        )


def _rename_notices(
    found: TensorNames, adapters: dict[str, str], prefixes: dict[str, str], layers: _Layers
) -> list[str]:
    """What about the names was not as PEFT writes them."""
    if all(lora.name == lora.stored_name for lora in found.lora):
        return []
    used = {segment for lora in found.lora for segment in lora.name.split(".")} & layers.wrappers
    habits = [f"{segment} ({_WRAPPERS[segment]})" for segment in sorted(used)]
    adapter = next(iter(adapters))
    if adapter:
        habits.append(f"the adapter's name ({adapter})")
    sample = found.lora[0]
    expected = layers.split(f"{PREFIX}{sample.module}")[0]
    prefix = next(iter(prefixes))
    if prefix != expected:
        habits.append(f"{prefix or 'nothing'} instead of {expected} before the layers")
    return [
        f"Its tensor names hold {' and '.join(habits)}; each fits exactly one layer of the base, "
        "and they were renamed to PEFT's."
    ]


def _quoted(name: str | None) -> str:
    return repr((name or "")[:_SHOWN])
