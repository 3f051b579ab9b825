"""GGUF files: what transformers' own reader and llama.cpp find in them is the model that was
written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from tests.training.test_commands import Shell
from tests.training.tiny import BRACKETS, CHATML, TURNS, build_base, facts, write_rows
from training.adapters.gguf_export import write_model
from training.models.base_choice import open_base
from training.models.base_model import BaseModel
from training.models.ollama import modelfile, ollama_template, turn_texts
from whet.errors import InputError
from whet.settings import load_settings

# SmolLM2's: a system turn of its own where the conversation has none.
LED = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ABOUT = {"name": "desk", "version": "v1", "description": "a test"}
TEXTS = ("How long is the warranty of the kettle in 2024?", "naïve café 日本語\n\n  x=3, it's ok")
# Largest difference of log-probabilities on random weights: rounding of each type.
NOISE = {"f32": 1e-4, "bf16": 1e-4, "f16": 0.01, "q8_0": 0.3}


# How Qwen's tokenizers cut texts; transformers' reader takes it from the architecture.
QWEN = {
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {
                    "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
                    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
                },
                "behavior": "Isolated",
                "invert": False,
            },
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": False,
                "use_regex": False,
            },
        ],
    },
}


def read_back(file: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    there: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **there)
    config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, quantization_config=config, dtype=torch.float32, **there
    )
    return model.eval(), tokenizer


def logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits.float(), -1)


@pytest.mark.parametrize(
    ("architecture", "kind", "over"),
    [
        ("Llama", "f16", {}),
        ("Llama", "q8_0", {"tie_word_embeddings": False, "hidden": 96}),
        ("Qwen2", "bf16", {"tie_word_embeddings": False}),
        ("Qwen3", "f32", {"rope_theta": 500_000.0, "head_dim": 128}),
    ],
)
def test_what_is_read_back_is_the_model_its_tokenizer_and_its_template(
    tmp_path: Path, architecture: str, kind: str, over: dict[str, Any]
) -> None:
    folder = build_base(tmp_path / "base", architecture=architecture, **over)
    base = _changed(folder, "tokenizer.json", QWEN if architecture != "Llama" else {})
    model = base.load_model("float32", where="cpu").eval()
    file = tmp_path / "model.gguf"
    write_model(model, base, file, kind, ABOUT)
    found, tokenizer = read_back(file)
    for text in TEXTS:
        ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        difference = (logprobs(model, ids) - logprobs(found, ids)).abs().max().item()
        assert difference < NOISE[kind]
    assert tokenizer.chat_template == base.tokenizer.chat_template
    assert tokenizer.eos_token == base.tokenizer.eos_token
    assert list(tmp_path.glob(".*")) == [], "no scratch file is left"


def test_the_built_in_base_is_read_back_to_the_bit(tmp_path: Path) -> None:
    base = open_base(load_settings(home=tmp_path / "home"))
    model = base.load_model("float32", where="cpu").eval()
    write_model(model, base, tmp_path / "base.gguf", "bf16", ABOUT)
    found, tokenizer = read_back(tmp_path / "base.gguf")
    ids = base.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"] == ids
    assert torch.equal(logprobs(model, ids), logprobs(found, ids))
    fields = gguf.GGUFReader(tmp_path / "base.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert fields["general.name"].contents() == "desk"


def _changed(folder: Path, file: str, change: dict[str, Any]) -> BaseModel:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    return BaseModel(folder, "tiny")


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"architectures": ["GemmaForCausalLM"]}, "its architecture is GemmaFor"),
        ("config.json", {"rope_scaling": {"type": "yarn"}, "rope_parameters": None}, "scaled"),
        ("config.json", {"hidden_act": "gelu"}, "its activation is gelu"),
        ("config.json", {"attention_bias": True}, "have biases"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "cuts texts in a way"),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "cuts texts in a way"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    tmp_path: Path, file: str, change: dict[str, Any], reason: str
) -> None:
    base = _changed(build_base(tmp_path / "base"), file, change)
    with pytest.raises(InputError, match=reason) as refused:
        write_model(torch.nn.Module(), base, tmp_path / "m.gguf", "f16", ABOUT)
    assert "convert_hf_to_gguf.py" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, "{{ .System }}<|im_end|>\n{{ end }}<|im_start|>user\n{{ .Prompt }}"),
        (LED, "{{ else }}<|im_start|>system\nBe kind.<|im_end|>\n{{ end }}<|im_start|>user"),
        (TURNS, ""),  # knows no system turn
        (BRACKETS, ""),  # writes the first turn otherwise than the next ones
    ],
)
def test_ollamas_template_is_read_off_the_chat_template(
    tmp_path: Path, template: str, expected: str
) -> None:
    base = BaseModel(build_base(tmp_path / "base", template=template, eos="<|im_end|>"), "tiny")
    turns = turn_texts(base.tokenizer)
    assert bool(turns) == bool(expected)
    assert turns is None or expected in ollama_template(turns)
    text, notice = modelfile(base, "desk.gguf", context_tokens=512)
    assert text.startswith("FROM ./desk.gguf\nPARAMETER num_ctx 512\n")
    assert ("TEMPLATE" in text) == bool(expected) == (not notice)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A home with `desk@v1`, trained on the built-in base."""
    folder = tmp_path_factory.mktemp("gguf")
    builtin = load_settings(home=folder / "home").resolved_base_model
    made = Shell(folder / "home", Path(builtin))
    rows = str(write_rows(folder / "rows.jsonl", facts(60)))
    quick = ("--alias", "desk", "--rank", "8", "--epochs", "2", "--threads", "1", "--no-report")
    made("train", "run", rows, *quick, "--no-split")
    return made


def test_a_version_is_exported_with_a_modelfile_beside_it(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "desk.gguf"
    made = shell.json("export", "gguf", "desk@v1", "--out", str(file), "--type", "q8_0")
    assert made["bytes"] == file.stat().st_size and made["notices"] == []
    assert 'PARAMETER stop "<|end|>"' in (tmp_path / "desk.Modelfile").read_text()
    assert "exists already" in shell.refused("export", "gguf", "desk@v1", "--out", str(file))
    elsewhere = str(tmp_path / "other.gguf")
    said = shell.refused("export", "gguf", "desk@v1", "--out", elsewhere, "--type", "q4_k_m")
    assert "expected one of f32, f16, bf16, q8_0" in said and not Path(elsewhere).exists()


def test_an_adapter_alone_holds_its_matrices_and_scale(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "lora.gguf"
    said = shell("export", "gguf", "desk@v1", "--adapter", "--out", str(file))
    assert "--lora lora.gguf" in said and not (tmp_path / "lora.Modelfile").exists()
    read = gguf.GGUFReader(file)
    assert read.fields["adapter.lora.alpha"].contents() == 16.0
    shapes = {each.name: tuple(each.shape) for each in read.tensors}
    assert shapes["blk.0.attn_q.weight.lora_a"] == (256, 8)
    assert shapes["blk.0.attn_q.weight.lora_b"] == (8, 256)


@pytest.mark.slow
def test_llama_cpp_answers_as_the_version_does(shell: Shell, tmp_path: Path) -> None:
    """The merged model, and the base's file with the adapter beside it."""
    pytest.importorskip("xllamacpp", reason="`make setup-llamacpp` installs it")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shell("export", "gguf", "desk@v1", "--out", str(tmp_path / "merged.gguf"))
    shell("export", "gguf", "desk@v1", "--adapter", "--out", str(tmp_path / "lora.gguf"))
    shell("export", "merge", "desk@v1", "--to", str(tmp_path / "merged"))
    base = open_base(load_settings(home=tmp_path / "home"))
    model = base.load_model("float32", where="cpu")
    write_model(model, base, tmp_path / "base.gguf", "f16", ABOUT)
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "merged")
    asked = [{"role": "user", "content": "How long is the warranty of the kettle?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    out = merged.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)
    expected = tokenizer.decode(out[0][len(ids) :], skip_special_tokens=True)
    for files in (("merged.gguf",), ("base.gguf", "lora.gguf")):
        answer = _asked_llama_cpp([str(tmp_path / file) for file in files], asked)
        assert answer["choices"][0]["message"]["content"] == expected
        assert answer["usage"]["prompt_tokens"] == len(ids), "template and tokenizer are ours"


def _asked_llama_cpp(files: list[str], messages: list[dict[str, str]]) -> dict[str, Any]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.use_jinja = files[0], 256, 1, True
    params.cpuparams.n_threads = 1
    if files[1:]:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = files[1], 1.0
        params.lora_adapters = [lora]
    server = xllamacpp.Server(params)
    body = {"messages": messages, "max_tokens": 16, "temperature": 0}
    return dict(server.handle_chat_completions(body))
