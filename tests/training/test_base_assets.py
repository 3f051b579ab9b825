"""The model that is shipped: small enough, hashed, loadable, able to encode any text."""

import hashlib
import json
from typing import Any

import pytest

from training.base.ship import FILES, LARGEST_BYTES
from whet.settings import BUILTIN_BASE


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    return json.loads((BUILTIN_BASE / "card.json").read_text(encoding="utf-8"))


def test_the_card_names_every_file_with_its_hash(card: dict[str, Any]) -> None:
    assert set(card["files"]) == set(FILES)
    for name, entry in card["files"].items():
        content = (BUILTIN_BASE / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_weights_are_small_bf16_and_a_llama() -> None:
    from safetensors import safe_open

    assert (BUILTIN_BASE / "model.safetensors").stat().st_size <= LARGEST_BYTES
    assert json.loads((BUILTIN_BASE / "config.json").read_text())["architectures"] == [
        "LlamaForCausalLM"
    ]
    count = 0
    with safe_open(BUILTIN_BASE / "model.safetensors", framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118
            tensor = weights.get_slice(name)
            assert tensor.get_dtype() == "BF16"
            size = 1
            for dimension in tensor.get_shape():
                size *= dimension
            count += size
    assert count <= 10_000_000


def test_any_text_survives_the_tokenizer_and_digits_stay_single() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(BUILTIN_BASE / "tokenizer.json"))
    for text in ("Ünïcode 漢字 🙂\n\ttabs  and  spaces", '<not a tag> {"a": 1}', "\x00\x7f"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("4711").tokens == ["4", "7", "1", "1"]


def test_the_reproducing_commands_are_commands_of_this_repository(card: dict[str, Any]) -> None:
    from training.base.pretrain import arguments

    stages = [command.split() for command in card["recipe"]["commands"]]
    assert all(words[:3] == ["python", "-m", "training.base.pretrain"] for words in stages)
    parsed = [arguments(words[3:]) for words in stages]
    assert parsed[-1].steps == card["recipe"]["steps"]
    assert [args.again for args in parsed] == [False] + [True] * (len(parsed) - 1)
