"""What is found out about a base model's folder before an engine is started on it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whet import base_check, doctor_base
from whet.base_check import Problem, check_base, read_weights
from whet.base_config import position_limit
from whet.doctor_base import check_base_model, check_engine_settings
from whet.errors import ConfigurationError
from whet.plugins import ProcessSpec
from whet.settings import load_settings
from whet.up import preflight

CONFIG = {
    "model_type": "llama",
    "num_attention_heads": 4,
    "hidden_size": 128,
    "max_position_embeddings": 2048,
    "dtype": "bfloat16",
}


def write_weights(file: Path, dtype: str = "BF16", values: int = 4) -> None:
    size = {"BF16": 2, "F32": 4, "I8": 1, "F8_E4M3": 1}[dtype] * values
    header = json.dumps(
        {"a.weight": {"dtype": dtype, "shape": [values], "data_offsets": [0, size]}}
    ).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * size)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_weights(folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def problems(base: Path, **settings: Any) -> list[Problem]:
    return list(check_base(base, load_settings(home=base.parent, **settings), on_gpu=False))


def set_config(base: Path, **values: Any) -> None:
    (base / "config.json").write_text(json.dumps({**CONFIG, **values}))


def cut_weights(base: Path) -> None:
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def lfs_pointer(base: Path) -> None:
    (base / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid 1\n")


def pickled(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")


def lacks_shard(base: Path) -> None:
    index = {"weight_map": {"a.weight": "model.safetensors", "b.weight": "model-2.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda base: base.rename(base.parent / "other"), "does not exist"),
    "no configuration": (lambda base: (base / "config.json").unlink(), "config.json is missing"),
    "torn configuration": (
        lambda base: (base / "config.json").write_text("{"),
        "config.json cannot be read",
    ),
    "configuration is a list": (
        lambda base: (base / "config.json").write_text("[]"),
        "holds no JSON object",
    ),
    "no weights": (lambda base: (base / "model.safetensors").unlink(), "holds no weights"),
    "pickled weights": (pickled, "it holds pytorch_model.bin"),
    "torn weights": (cut_weights, "bytes expected"),
    "empty weights": (
        lambda base: (base / "model.safetensors").write_bytes(b""),
        "not a whole safetensors file",
    ),
    "LFS pointer": (lfs_pointer, "Git LFS pointer"),
    "missing shard": (lacks_shard, "model-2.safetensors"),
    "no tokenizer": (lambda base: (base / "tokenizer.json").unlink(), "has no tokenizer"),
    "torn tokenizer": (
        lambda base: (base / "tokenizer.json").write_text('{"a"'),
        "tokenizer.json cannot be read",
    ),
    "no template": (lambda base: (base / "chat_template.jinja").unlink(), "has no chat template"),
    "torn template": (
        lambda base: (base / "chat_template.jinja").write_text("{% for message in messages"),
        "chat template",
    ),
    "float64": (lambda base: set_config(base, dtype="float64"), "says the dtype float64"),
    "float8 weights": (
        lambda base: write_weights(base / "model.safetensors", "F8_E4M3"),
        "stored as F8_E4M3",
    ),
    "integers": (lambda base: write_weights(base / "model.safetensors", "I8"), "stored as I8"),
    "no positions": (
        lambda base: set_config(base, max_position_embeddings="many"),
        "max_position_embeddings of",
    ),
    "no architecture": (lambda base: set_config(base, model_type=""), "neither model_type"),
}


def test_a_good_base_has_no_problem(base: Path) -> None:
    assert problems(base) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_a_folder_is_a_sentence_before_the_start(base: Path, fault: str) -> None:
    plant, words = FAULTS[fault]
    plant(base)
    found = problems(base)
    assert [each for each in found if words in each.found and each.is_certain and each.todo], found
    settings = load_settings(home=base.parent, base_model=str(base))
    assert next(iter(check_base_model(settings))).verdict == "fail"
    with pytest.raises(ConfigurationError, match="Nothing was started"):
        try:
            preflight.check_base_model([ProcessSpec("engine", ["x"])], settings)
        except ConfigurationError as error:
            raise ConfigurationError(str(error)) from error
    assert preflight.check_base_model([ProcessSpec("gateway", ["x"])], settings) == []


@pytest.mark.parametrize(
    "template",
    [
        "{% generation %}{{ messages }}{% endgeneration %}",
        "{%- generation -%}{{ messages }}{%- endgeneration -%}",
        "{% for message in messages %}{% break %}{% endfor %}",
        "{{ strftime_now('%d') | tojson }}{{ raise_exception('no') if x is mapping }}",
    ],
)
def test_templates_as_transformers_takes_them_are_taken(base: Path, template: str) -> None:
    (base / "chat_template.jinja").write_text(template)
    assert problems(base) == []
    (base / "chat_template.jinja").unlink()
    own = {"chat_template": [{"name": "default", "template": template}]}
    (base / "tokenizer_config.json").write_text(json.dumps(own))
    assert problems(base) == []
    own = {"chat_template": [{"name": "default", "template": "{% for"}]}
    (base / "tokenizer_config.json").write_text(json.dumps(own))
    assert "chat template" in problems(base)[0].found


def test_heads_without_a_kernel_are_a_doubt_on_the_cpu_alone(base: Path) -> None:
    set_config(base, num_attention_heads=8)
    found = problems(base)
    assert len(found) == 1 and "attention heads of 16" in found[0].found and not found[0].is_certain
    settings = load_settings(home=base.parent)
    assert list(check_base(base, settings, on_gpu=True)) == []


def test_too_little_memory_is_said_with_its_parts(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 bytes of weights
    monkeypatch.setattr(base_check, "available_memory_bytes", lambda: (3 << 30) + 8)
    assert problems(base) == []  # 2 for the engine, 1 for the cache, hardly any weights
    found = problems(base, engine_kv_cache_gib=4)
    assert "needs about 6.0 GiB" in found[0].found and "3.0 GiB are free" in found[0].found
    assert problems(base, engine_kv_cache_gib=4, engine_urls="http://elsewhere:8001") == []


def test_quantised_weights_with_their_configuration_are_taken(base: Path) -> None:
    write_weights(base / "model.safetensors", "I8")
    set_config(base, quantization_config={"quant_method": "gptq"})
    assert problems(base) == []


def test_weights_are_counted_from_their_headers(base: Path) -> None:
    assert (read_weights(base).bytes, read_weights(base).dtypes) == (8, {"BF16": 1})


def test_fewer_positions_than_the_setting_are_a_note(base: Path) -> None:
    set_config(base, max_position_embeddings=512)
    settings = load_settings(home=base.parent, base_model=str(base))
    ok, positions = check_base_model(settings)
    assert (ok.verdict, positions.verdict) == ("ok", "note")
    assert "512 positions, engine_max_model_len is 1024" in positions.found


def test_a_rank_beyond_the_engines_is_a_failed_check(tmp_path: Path) -> None:
    assert list(check_engine_settings(load_settings(home=tmp_path))) == []
    (found,) = check_engine_settings(load_settings(home=tmp_path, engine_max_lora_rank=1000))
    assert found.verdict == "fail" and "up to 512" in found.found
    assert (
        list(
            check_engine_settings(
                load_settings(home=tmp_path, engine_max_lora_rank=1000, engine_max_loras=0)
            )
        )
        == []
    )


def test_a_hub_id_that_is_not_here_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_base, "local_base_folder", lambda _source: None)
    (found,) = check_base_model(load_settings(home=tmp_path, base_model="org/model"))
    assert found.verdict == "note" and "hub" in found.found


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 4096, "seq_length": 2048}, 2048),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 131072),  # Command-R
        ({"text_config": {"max_position_embeddings": 256}}, 256),
        ({}, None),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "linear", "factor": 4.0}}, 2048),
        (
            {"max_position_embeddings": 512, "rope_scaling": {"rope_type": "dynamic", "factor": 2}},
            1024,
        ),
        ({"max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn", "factor": 4}}, 512),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"type": "longrope", "long_factor": [1]},
            },
            131072,
        ),
        ({"max_position_embeddings": 512, "rope_scaling": None}, 512),
        (
            {
                "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            },
            512,
        ),
        (
            {
                "max_position_embeddings": 512,
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            4096,
        ),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 512,
                "rope_scaling": {"rope_type": "linear", "factor": 8},
            },
            512,
        ),
        (
            {
                "max_position_embeddings": 512,
                "rope_scaling": {"rope_type": "linear", "factor": None},
            },
            512,
        ),
    ],
)
def test_positions_are_read_as_the_engine_reads_them(
    config: dict[str, Any], limit: int | None
) -> None:
    assert position_limit(config) == limit


@pytest.mark.parametrize("value", [0, -1, "512", True, [512]])
def test_positions_that_are_no_number_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected a number above 0"):
        position_limit({"max_position_embeddings": value})
