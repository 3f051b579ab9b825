"""A byte-level BPE tokenizer as GGUF knows it: tokens, their types, merges, and the name of its
pre-tokenizer.

llama.cpp has the pre-tokenizers built in and goes by their names. A tokenizer that cuts texts in
another way would be read without an error and encode other tokens, so it is refused here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gguf import TokenType

from training.models.base_model import BaseModel
from whet.errors import InputError

# How Llama 3 and Qwen2 cut texts before BPE; they differ in how many digits stay together.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUT_BY = {_CUT % r"\p{N}": "qwen2", _CUT % r"\p{N}{1,3}": "llama-bpe"}
_NO_NORMALIZER = (None, {"type": "NFC"})  # llama.cpp normalizes nothing; NFC texts stay as they are


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre_tokenizer: str
    eos_id: int
    end_of_turn_id: int
    padding_id: int | None
    bos_id: int | None
    template: str


def vocabulary_of(base: BaseModel) -> Vocabulary:
    """Read the base's tokenizer. Raises InputError for one that llama.cpp has no counterpart of."""
    try:
        content = json.loads((base.folder / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unsupported(base, f"it has no tokenizer.json that can be read ({error})") from error
    model = content["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _unsupported(base, f"its kind is {model.get('type')}, not byte-level BPE")
    name = _pre_tokenizer_name(content)
    if not name or bool(model.get("ignore_merges")) != (name == "llama-bpe"):
        raise _unsupported(base, "it cuts texts in a way that llama.cpp has no name for")
    tokens, types = _tokens(base, content)
    tokenizer = base.tokenizer
    template = tokenizer.chat_template
    eos = tokenizer.eos_token_id
    stops = sorted(base.stop_ids)
    return Vocabulary(
        tokens=tokens,
        types=types,
        merges=[_merge(pair) for pair in model["merges"]],
        pre_tokenizer=name,
        eos_id=stops[0] if eos is None else eos,
        end_of_turn_id=next((token for token in stops if token != eos), stops[0]),
        padding_id=tokenizer.pad_token_id,
        bos_id=tokenizer.bos_token_id,
        template=template if isinstance(template, str) else template["default"],
    )


def _unsupported(base: BaseModel, why: str) -> InputError:
    return InputError(
        f"The tokenizer of {base.name} cannot be written as GGUF: {why}.",
        hint=(
            "Export the merged model (`whet export merge VERSION --to FOLDER`) and convert it with "
            "llama.cpp's own convert_hf_to_gguf.py."
        ),
    )


def _merge(pair: str | list[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)


def _pre_tokenizer_name(content: dict[str, Any]) -> str:
    """Return llama.cpp's name of how the tokenizer cuts texts, or nothing."""
    if content.get("normalizer") not in _NO_NORMALIZER:
        return ""
    first = content.get("pre_tokenizer") or {}
    steps = first["pretokenizers"] if first.get("type") == "Sequence" else [first]
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return ""
    uses_gpt2_cut = steps[-1].get("use_regex", True)
    if len(steps) == 1:
        return "gpt-2" if uses_gpt2_cut else ""
    if len(steps) != 2:
        return ""
    if steps[0] == {"type": "Digits", "individual_digits": True}:
        return "smollm" if uses_gpt2_cut else ""
    is_cut = steps[0].get("type") == "Split" and steps[0].get("behavior") == "Isolated"
    if not is_cut or steps[0].get("invert") or uses_gpt2_cut:
        return ""
    return _CUT_BY.get(steps[0]["pattern"].get("Regex", ""), "")


def _tokens(base: BaseModel, content: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Return every row of the embedding's token and type; rows without a token are unused."""
    rows = int(base.config["vocab_size"])
    named = {number: token for token, number in content["model"]["vocab"].items()}
    types = dict.fromkeys(named, TokenType.NORMAL)
    for added in content.get("added_tokens", ()):
        named[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    tokens = [named.get(number, f"[PAD{number}]") for number in range(rows)]
    return tokens, [int(types.get(number, TokenType.UNUSED)) for number in range(rows)]
