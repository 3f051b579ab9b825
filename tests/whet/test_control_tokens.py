"""Control tokens: which texts they are, and that no text keeps one."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.models.base_model import BaseModel
from whet.base_folder import local_base_folder
from whet.context import Context
from whet.control_tokens import (
    ControlTokens,
    control_tokens_of,
    is_control_text,
    ordered,
    read_control_tokens,
)
from whet.settings import BUILTIN_BASE

CHATML = ControlTokens(("<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|end|>", "é|é"))
# Tokens that overlap, nest, begin or end with spaces, consist of one character or of U+FFFD.
AWKWARD = ("<", ">", "|", " ", "a", "\ufffd", "\n", '"', "\\")
TOKENS = st.lists(st.text(st.sampled_from(AWKWARD), min_size=1, max_size=4), max_size=5)
TEXTS = st.text(st.sampled_from((*AWKWARD, "b")), max_size=40)
FORGED = st.lists(st.sampled_from(("<|im_end|>", "<|im_", "<|", "|>", "s>", "</", "x", "<s>")))


def _write(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_control_tokens_are_read_from_every_file_that_names_them(tmp_path: Path) -> None:
    folder = _write(
        tmp_path / "base",
        tokenizer={
            "added_tokens": [
                {"content": "<|end|>", "special": True},
                {"content": "<tool_call>", "special": False},
            ]
        },
        tokenizer_config={
            "added_tokens_decoder": {
                "7": {"content": "<|user|>", "special": True},
                "8": {"content": "<think>", "special": False},
            },
            "bos_token": "<s>",
            "eos_token": {"content": "</s>"},
            "pad_token": None,
            "add_bos_token": True,
            "extra_special_tokens": {"image_token": "<image>"},
            "additional_special_tokens": ["<a_long_one>", {"content": "[INST]"}],
        },
        special_tokens_map={"unk_token": {"content": "<unk>"}, "sep_token": "[SEP]"},
    )
    expected = {
        "<|end|>", "<|user|>", "<s>", "</s>", "<image>", "<a_long_one>", "[INST]", "<unk>", "[SEP]",
    }  # fmt: skip
    found = read_control_tokens(folder)
    assert set(found) == expected
    assert list(found) == sorted(found, key=len, reverse=True), "longest first"


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"added_tokens": 5, "bos_token": 3}'])
def test_a_folder_without_readable_files_has_no_control_tokens(
    tmp_path: Path, content: str
) -> None:
    assert read_control_tokens(tmp_path / "nowhere") == ()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_text(content)
    assert read_control_tokens(tmp_path) == ()


def test_ordinary_characters_never_count_as_control_tokens() -> None:
    """Else a tokenizer that pads with "!" would take it out of every text."""
    assert ordered(["!", "\n", "  ", "ab", "   \n", "<s>", "\ue000"]) == ("<s>", "\ue000")
    assert not is_control_text("")


@cache
def _builtin_tokenizer() -> Any:
    return BaseModel(BUILTIN_BASE, "the built-in base").tokenizer


def test_the_files_name_all_special_tokens_of_the_loaded_tokenizer() -> None:
    tokenizer = _builtin_tokenizer()
    loaded = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    assert set(read_control_tokens(BUILTIN_BASE)) == loaded


def test_the_installations_tokens_follow_the_files_of_its_base(
    sqlite_context: Context, tmp_path: Path
) -> None:
    folder = _write(tmp_path / "base", tokenizer_config={"eos_token": "<|first|>"})
    settings_ = sqlite_context.settings.model_copy(update={"base_model": str(folder)})
    context = Context(settings_, sqlite_context.database, sqlite_context.store)
    assert control_tokens_of(context) == ("<|first|>",)
    _write(folder, tokenizer_config={"eos_token": "<|another|>"})
    assert control_tokens_of(context) == ("<|another|>",), "files that change are read again"
    shutil.rmtree(folder)
    assert control_tokens_of(context) == ()


def test_a_hub_id_is_resolved_from_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert local_base_folder("whet-tests/nothing-here") is None
    assert local_base_folder("no hub id?") is None
    revision = "0" * 40
    cached = tmp_path / "models--whet-tests--tiny"
    _write((cached / "snapshots" / revision).parent.parent)
    (cached / "snapshots" / revision).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    _write(cached / "snapshots" / revision, tokenizer_config={"eos_token": "<|hub|>"})
    folder = local_base_folder("whet-tests/tiny")
    assert folder is not None
    assert read_control_tokens(folder) == ("<|hub|>",)


def test_a_space_takes_the_effect_of_a_token_away() -> None:
    assert CHATML.neutralise("x<|end|><s>") == "x< |end|>< s>"
    assert CHATML.neutralise("<|<|end|>end|>") == "<|< |end|>end|>"
    assert CHATML.find("a </s> <s>") == "</s>"
    assert CHATML.find("2 < 3 and 5 > 4, |end|") is None
    assert ControlTokens(("\ue000",)).neutralise("a\ue000b") == "a\ufffdb"


def test_text_without_a_token_is_returned_as_the_same_object() -> None:
    text = "".join(["The < warranty", " |end|>"])
    value = {"messages": [{"content": text}], "n": 1, "arguments": "{}"}
    assert CHATML.neutralise(text) is text
    assert CHATML.neutralise_json(value) is value


@given(TOKENS, TEXTS)
@settings(max_examples=300)
def test_no_neutralised_text_contains_a_control_token(tokens: list[str], text: str) -> None:
    control = ControlTokens(tokens)
    neutral = control.neutralise(text)
    assert control.find(neutral) is None
    assert not any(token in neutral for token in tokens)
    if not any(token in text for token in tokens):
        assert neutral is text
    assert control.neutralise(neutral) is neutral


BUILTIN = read_control_tokens(BUILTIN_BASE)
_CUTS = [token[:n] for token in BUILTIN[:3] for n in (1, 2, 5)] + ["|>", "end|>", " ", "<"]


@given(st.lists(st.sampled_from((*BUILTIN, *_CUTS)), max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_real_tokenizer_finds_no_special_token_in_a_neutralised_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    tokenizer = _builtin_tokenizer()
    special = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    neutral = ControlTokens(BUILTIN).neutralise(text)
    ids = tokenizer(neutral, add_special_tokens=False)["input_ids"]
    assert not special & set(ids), neutral
    if ControlTokens(BUILTIN).find(text) is None:
        assert not special & set(tokenizer(text, add_special_tokens=False)["input_ids"])


@given(FORGED)
def test_neutralising_only_adds_spaces_to_ordinary_tokens(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert CHATML.neutralise(text).replace(" ", "") == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | FORGED.map("".join) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(FORGED.map("".join) | st.just("arguments"), inner, max_size=3)
    ),
    max_leaves=12,
)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for part in value.values() for text in _strings(part))]
    return [text for part in value for text in _strings(part)] if isinstance(value, list) else []


@given(JSON)
@settings(max_examples=300)
def test_no_string_of_a_neutralised_value_contains_a_control_token(value: Any) -> None:
    before = json.dumps(value)
    neutral = CHATML.neutralise_json(value)
    assert json.dumps(value) == before, "the value that was given stays as it was"
    assert CHATML.find_json(neutral) is None
    assert not any(token in text for token in CHATML.tokens for text in _strings(neutral))
    assert len(_strings(neutral)) == len(_strings(value)), "no key is lost"
    if CHATML.find_json(value) is None:
        assert neutral is value


def test_two_keys_that_become_equal_stay_two() -> None:
    assert len(CHATML.neutralise_json({"<s>": 1, "< s>": 2})) == 2


@given(JSON)
@settings(max_examples=300)
def test_a_body_without_a_match_has_no_control_token(value: Any) -> None:
    assert CHATML.pattern is not None
    if CHATML.find_json(value) is not None:
        assert CHATML.pattern.search(msgspec.json.encode(value)), "the quick look missed it"


def test_the_pattern_matches_what_an_encoded_body_holds() -> None:
    pattern = ControlTokens(('<"q">', "é|é", "a\nb")).pattern
    assert pattern is not None
    for token in ('<"q">', "é|é", "a\nb"):
        assert pattern.search(msgspec.json.encode({"content": f"x{token}y"}))
    assert not pattern.search(msgspec.json.encode({"content": 'plain "text" \n with é and |'}))
    assert ControlTokens(()).pattern is None


@pytest.mark.parametrize(
    "hidden",
    [r"\u003c|end|>", r"\u003C|\u0065nd|\u003e", r"<\/s>", "<|end|>", r"\u00e9|é", r"\"\u003cs>"],
)
def test_tokens_hidden_by_json_escapes_in_tool_arguments_are_found(hidden: str) -> None:
    """Engines decode a tool call's arguments before the chat template writes them."""
    call = {"function": {"name": "f", "arguments": f'{{"city": "{hidden}", "n": 1.50}}'}}
    assert CHATML.find_json(call) is not None
    neutral = CHATML.neutralise_json(call)["function"]["arguments"]
    decoded = json.loads(neutral)
    assert CHATML.find_json(decoded) is None
    assert "1.50" in neutral, "the rest stays as it was written"


@given(TEXTS | FORGED.map("".join))
@settings(max_examples=300)
def test_arguments_keep_their_value_when_only_escapes_change(text: str) -> None:
    arguments = json.dumps({"value": f"{text}<|end|>"}).replace("<", r"\u003c").replace("/", r"\/")
    neutral = CHATML.neutralise_json({"arguments": arguments})["arguments"]
    assert json.loads(neutral)["value"].replace(" ", "") == f"{text}<|end|>".replace(" ", "")
    assert CHATML.find(json.loads(neutral)["value"]) is None


def test_an_escaped_backslash_is_not_an_escape() -> None:
    call = {"arguments": r'{"regex": "\\u003c|end|>"}'}
    assert CHATML.neutralise_json(call) is call


def test_deep_values_are_searched_without_recursion() -> None:
    deep: Any = "<|end|>"
    for _ in range(50_000):
        deep = [deep]
    assert CHATML.find_json(deep) == "<|end|>"
    inner = CHATML.neutralise_json(deep)
    while isinstance(inner, list):
        inner = inner[0]
    assert inner == "< |end|>"
