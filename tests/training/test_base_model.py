"""Folders that are no base, or one that contradicts itself: each is refused with what is wrong,
before anything is trained on it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.adapters.copies import whole_folder
from training.models.base_model import BaseModel
from whet.errors import ConfigurationError, StoreError, TrainingError

_UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def copied(base_folder: Path, tmp_path: Path) -> BaseModel:
    """A base of its own, to spoil."""
    return BaseModel(Path(shutil.copytree(base_folder, tmp_path / "kettle")), "kettle")


def _rewrite(base: BaseModel, file: str, **values: Any) -> None:
    path = base.folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _weights(base: BaseModel, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from safetensors.torch import load_file, save_file

    file = str(base.folder / "model.safetensors")
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def _without(tensors: dict[str, Any], name: str) -> dict[str, Any]:
    return {each: tensor for each, tensor in tensors.items() if each != name}


def test_a_tensor_that_the_files_lack_is_named_and_not_made_up(copied: BaseModel) -> None:
    """Transformers fills it with random numbers and warns."""
    _weights(copied, lambda tensors: _without(tensors, _UP))
    with pytest.raises(
        ConfigurationError, match=f"kettle lack {_UP} that its config.json asks for"
    ):
        copied.load_model("float32")


def test_a_configuration_with_more_layers_than_the_weights_is_refused(copied: BaseModel) -> None:
    _rewrite(copied, "config.json", num_hidden_layers=3)
    with pytest.raises(
        ConfigurationError, match=r"lack model\.layers\.2\.\S+ and \d+ more tensors"
    ):
        copied.load_model("float32")


def test_a_tokenizer_with_more_tokens_than_the_model_has_embeddings_is_refused_before_a_row_is_encoded(
    copied: BaseModel,
) -> None:
    _rewrite(copied, "config.json", vocab_size=100)
    with pytest.raises(ConfigurationError, match="embeddings for 100 tokens, 0 to 99"):
        _ = copied.tokenizer


def test_an_added_token_without_an_embedding_is_refused_only_where_it_is_used(
    copied: BaseModel,
) -> None:
    """Some classes of tokenizers add one by themselves, which no text and no template ever holds."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(copied.folder))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|unused|>"]})
    tokenizer.save_pretrained(str(copied.folder))
    assert (
        BaseModel(copied.folder, "kettle").tokenizer.convert_tokens_to_ids("<|unused|>")
        == copied.config["vocab_size"]
    )
    template = copied.folder / "chat_template.jinja"
    template.write_text("{{- '<|unused|>' -}}" + template.read_text())
    with pytest.raises(ConfigurationError, match=r"'<\|unused\|>' as token"):
        _ = BaseModel(copied.folder, "kettle").tokenizer


def test_integer_weights_that_nothing_gives_a_scale_to_are_refused(copied: BaseModel) -> None:
    import torch

    _weights(copied, lambda tensors: {**tensors, _UP: tensors[_UP].to(torch.int8)})
    with pytest.raises(
        ConfigurationError, match=f"{_UP} of kettle is stored as I8 integers.*quantization_config"
    ):
        _ = copied.shapes


def test_integer_weights_with_their_quantisation_are_left_to_the_library_that_reads_them(
    copied: BaseModel,
) -> None:
    import torch

    _weights(copied, lambda tensors: {**tensors, _UP: tensors[_UP].to(torch.int8)})
    _rewrite(
        copied,
        "config.json",
        quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True},
    )
    assert _UP in copied.shapes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_attention_heads": 3}, "multiple of the number of attention heads"),
        ({"eos_token_id": "end"}, "eos_token_id"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_said_in_one_line_with_its_cause(
    copied: BaseModel, values: dict[str, Any], words: str
) -> None:
    _rewrite(copied, "config.json", **values)
    with pytest.raises(ConfigurationError) as caught:
        _ = copied.tokenizer
    assert words in caught.value.message and "\n" not in caught.value.message


def test_a_length_that_is_no_number_is_said(copied: BaseModel) -> None:
    _rewrite(copied, "config.json", max_position_embeddings="many")
    with pytest.raises(ConfigurationError, match="max_position_embeddings of kettle is 'many'"):
        _ = copied.max_positions


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{not json", "no generation_config.json that can be read"),
        ('{"eos_token_id": "end"}', "is 'end'"),
    ],
)
def test_an_end_of_turn_that_cannot_be_read_is_said(
    copied: BaseModel, text: str, words: str
) -> None:
    (copied.folder / "generation_config.json").write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        _ = copied.stop_ids


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_memory_that_runs_out_while_the_base_is_loaded_is_no_fault_of_its_folder(
    copied: BaseModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from transformers import AutoModelForCausalLM

    def full(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(TrainingError, match="Memory ran out while kettle was loaded"):
        copied.load_model("float32")


def test_a_disk_that_is_full_while_a_model_is_written_is_said_and_nothing_is_left(
    tmp_path: Path,
) -> None:
    """Safetensors raises an error of its own, which is no OSError."""
    from safetensors import SafetensorError

    def full(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(
        StoreError, match="merged cannot be written: I/O error: No space left on device"
    ):
        whole_folder(tmp_path / "merged", full)
    assert not list(tmp_path.iterdir())
