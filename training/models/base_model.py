"""The base model on this machine: its folder, identity, tokenizer, template, stop tokens and
weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import (
    StrictDataclassError,
)
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.machine.allocator import LARGE_BYTES, give_large_blocks_back, return_memory
from training.machine.bitsandbytes_import import show_bitsandbytes
from training.machine.device import device
from training.machine.out_of_memory import out_of_memory
from whet.base_config import position_limit
from whet.errors import ConfigurationError, TrainingError
from whet.json_types import JsonObject
from whet.store import base_model_digest, digest_bytes

_SAID = 300  # characters of a library's own words in a sentence
_WANTED = (
    "It must be the folder of a language model in Hugging Face format, with config.json and"
    " safetensors weights."
)
# tokens; of a base that names none (ALiBi, state spaces), so that the engine's limit counts
_NO_LIMIT = 1 << 20
# What configurations of mixtures of experts call their number
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class BaseModel:
    """A base in Hugging Face format. Weights and tokenizer are loaded when first used."""

    folder: Path
    name: str  # what the setting says, for people

    @cached_property
    def digest(self) -> str:
        return base_model_digest(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """`config.json`; the text part of it for models that hold several.

        Raises ConfigurationError when there is none that can be read.
        """
        whole = self._json("config.json")
        part = whole.get("text_config") or whole
        if not isinstance(part, dict):
            raise ConfigurationError(
                f"The text_config in config.json of {self.name} is no JSON object.", hint=_WANTED
            )
        return part

    def _json(self, file: str) -> JsonObject:
        """One of the folder's JSON files. Raises ConfigurationError."""
        try:
            value = json.loads((self.folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigurationError(
                f"{self.name} has no {file} that can be read: {error}.", hint=_WANTED
            ) from error
        if not isinstance(value, dict):
            raise ConfigurationError(f"{file} of {self.name} holds no JSON object.", hint=_WANTED)
        return value

    def _number(self, value: object, field: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigurationError(
                f"The {field} of {self.name} is {value!r}; expected a whole number.",
                hint="Correct it in the model's folder.",
            )
        return value

    @cached_property
    def max_positions(self) -> int:
        """Tokens that the base can attend to. Raises ConfigurationError."""
        return position_limit(self.config, self.name) or _NO_LIMIT

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Raises ConfigurationError when the folder has no tokenizer or no chat template, or a
        tokenizer of another model.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(self.folder), local_files_only=True, trust_remote_code=False
            )
        except StrictDataclassError as error:
            # Of the configuration, which the tokenizer's class is looked up in
            raise ConfigurationError(
                f"config.json of {self.name} contradicts itself: {_one_line(error)}", hint=_WANTED
            ) from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The tokenizer of {self.name} cannot be loaded: {str(error).splitlines()[0]}",
                hint="The folder needs tokenizer.json.",
            ) from error
        if not tokenizer.chat_template:
            raise ConfigurationError(
                f"{self.name} has no chat template, so the engine could not answer conversations"
                " with it.",
                hint=(
                    "Put a chat_template.jinja into the model's folder; the instruction-tuned"
                    " edition of a model has one."
                ),
            )
        self._require_embeddings(tokenizer)
        return tokenizer

    def _require_embeddings(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ConfigurationError for a tokenizer of another model: a token without an embedding
        would end a run, and the engine, where it first occurs.

        A token that was only added to the tokenizer counts where the template or padding uses it:
        transformers adds some by itself, which never occur.
        """
        rows = self._number(self.config.get("vocab_size") or 1 << 31, "vocab_size")
        added, template = (
            {str(token) for token in tokenizer.added_tokens_decoder.values()},
            str(tokenizer.chat_template),
        )
        used = {tokenizer.eos_token, tokenizer.pad_token}
        beyond = {
            token: number
            for token, number in tokenizer.get_vocab().items()
            if number >= rows and (token not in added or token in used or token in template)
        }
        if beyond:
            token = min(beyond, key=lambda each: beyond[each])
            raise ConfigurationError(
                f"The tokenizer of {self.name} knows {token!r} as token {beyond[token]}, but the"
                f" model has embeddings for {rows} tokens, 0 to {rows - 1}.",
                hint=(
                    "Put the tokenizer into the folder that belongs to these weights, or enlarge"
                    " the embeddings (resize_token_embeddings) and save the model."
                ),
            )

    @cached_property
    def template_digest(self) -> str:
        template = self.tokenizer.chat_template
        return digest_bytes(
            (
                template if isinstance(template, str) else json.dumps(template, sort_keys=True)
            ).encode()
        )

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens at which the engine ends an answer: those of the generation config, the config and
        the tokenizer.
        """
        found = [self.config.get("eos_token_id"), self.tokenizer.eos_token_id]
        generation = self.folder / "generation_config.json"
        if generation.is_file():
            found.append(self._json(generation.name).get("eos_token_id"))
        flat = [
            token
            for item in found
            for token in (item if isinstance(item, list) else [item])
            if token is not None
        ]
        if not flat:
            raise ConfigurationError(
                f"{self.name} names no end-of-turn token, so its answers would never end.",
                hint="Set eos_token_id in its generation_config.json.",
            )
        return frozenset(self._number(token, "eos_token_id") for token in flat)

    @cached_property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Name of each layer with a weight matrix → (outputs, inputs), from the headers of the
        weight files.
        """
        found = {
            name.removesuffix(".weight"): shape
            for name, shape in self.shapes.items()
            if name.endswith(".weight")
        }
        return {name: (shape[0], shape[1]) for name, shape in found.items() if len(shape) == 2}

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """Name of each tensor → its shape, from the headers of the weight files.

        Raises ConfigurationError for a file that is torn.
        """

        shapes: dict[str, list[int]] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(str(file), framework="pt") as tensors:
                    slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
                    self._refuse_integers({name: each.get_dtype() for name, each in slices.items()})
                    shapes |= {name: each.get_shape() for name, each in slices.items()}
            except (SafetensorError, OSError) as error:
                raise ConfigurationError(
                    f"{file.name} of {self.name} cannot be read: {error}.",
                    hint="Copy or download the model again.",
                ) from error
        return shapes

    def _refuse_integers(self, kinds: dict[str, str]) -> None:
        """Integers are weights only to whoever knows their scale; without one they would be taken
        for the weights themselves.
        """
        whole = next(
            (
                name
                for name, kind in kinds.items()
                if name.endswith(".weight") and kind[0] in "IUB" and kind != "BF16"
            ),
            None,
        )
        if whole and not self._json("config.json").get("quantization_config"):
            raise ConfigurationError(
                f"{whole} of {self.name} is stored as {kinds[whole]} integers, and config.json has"
                " no quantization_config that says what they stand for.",
                hint=(
                    "Use the model in bfloat16, float16 or float32; to train with little memory"
                    " there is --method qlora."
                ),
            )

    def _largest_bytes(self, dtype: str) -> int:
        """Of the largest matrix, as it is computed with."""

        weights = max((prod(shape) for shape in self.shapes.values()), default=0)
        return weights * (torch.float32 if dtype == "auto" else getattr(torch, dtype)).itemsize

    @property
    def parameters(self) -> int:
        """Weights in all."""
        return sum(map(prod, self.shapes.values()))

    @property
    def _attention(self) -> str:
        """Plain attention where scores are capped (Gemma 2), which torch's kernel does not do."""
        return "eager" if self.config.get("attn_logit_softcapping") else "sdpa"

    @property
    def has_experts(self) -> bool:
        """A mixture of experts: its inner layers are one tensor for all experts, not layers of
        their own.
        """
        return any(self.config.get(name) for name in EXPERT_COUNTS)

    def load_model(
        self, dtype: str, *, four_bits: bool = False, where: str = ""
    ) -> PreTrainedModel:
        """The causal language model, frozen, in evaluation mode, on `where` (`device()` if empty).

        `dtype` is a torch name such as bfloat16, or `auto` for that of the files.

        `four_bits` keeps the linear layers in NF4 with quantised scales (Dettmers et al. 2023) and
        computes in `dtype`.

        Raises ConfigurationError when the weights cannot be loaded, TrainingError when memory does
        not hold them.
        """
        if four_bits:
            show_bitsandbytes()
        there = where or device()
        if there == "cpu" and self._largest_bytes(dtype) >= LARGE_BYTES:
            give_large_blocks_back()
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(self.folder),
                dtype="auto" if dtype == "auto" else getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation=self._attention,
                # Straight to the GPU, not through as much main memory
                **({"device_map": {"": there}} if four_bits or there != "cpu" else {}),
                **({"quantization_config": _nf4(dtype)} if four_bits else {}),
            )
        except (
            OSError,
            ValueError,
            KeyError,
            RuntimeError,
            MemoryError,
            StrictDataclassError,
        ) as error:
            if out_of_memory(error):
                raise TrainingError(
                    f"Memory ran out while {self.name} was loaded: {self.parameters:,} weights.",
                    hint="End what else takes memory, or use a smaller base.",
                ) from error
            raise ConfigurationError(
                f"The base model {self.name} cannot be loaded: {_one_line(error)}", hint=_WANTED
            ) from error
        model: PreTrainedModel = loaded[0]
        self._require_all(sorted(loaded[1]["missing_keys"]))
        model.config.use_cache = False
        model.requires_grad_(False)
        if four_bits and there == "cpu":
            _settle_on_the_processor(model)
        model.train(False)
        return model

    def _require_all(self, missing: list[str]) -> None:
        """Raise ConfigurationError for missing tensors, which transformers fills with random
        numbers, and only warns."""
        if missing:
            raise ConfigurationError(
                f"The weight files of {self.name} lack {missing[0]}"
                + (f" and {len(missing) - 1} more tensors" if missing[1:] else "")
                + " that its config.json asks for.",
                hint=(
                    "Copy or download the model again, with the config.json that belongs to its"
                    " weights."
                ),
            )


def _settle_on_the_processor(model: nn.Module) -> None:
    """What a 4-bit model needs on a CPU beside its weights: what stays in 16 bits is a view of the
    mapped files, which would keep all of them in memory; and on processors with bfloat16
    instructions bitsandbytes packs the weights of a model that answers for a product without a
    gradient, and never unpacks them to train.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    modules: list[Any] = list(model.modules())
    for module in modules:
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return_memory()


def _one_line(error: Exception) -> str:
    """What a library says over many lines, whose last ones often hold the cause."""
    return " ".join(str(error).split())[:_SAID]


def _nf4(dtype: str) -> BitsAndBytesConfig:
    quantised: Any = BitsAndBytesConfig  # has no types
    made: BitsAndBytesConfig = quantised(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return made
