"""What an adapter from elsewhere says of itself: its base, its layers and its method, against what
its files hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import training.adapters.imports
import training.adapters.scope
import training.commands.adapter_import
from tests.training.test_store import RANK, TARGETS, weights_for
from tests.training.tiny import build_base
from training.adapters.imports import import_adapter, read_adapter
from training.adapters.scope import Scope, linear_layers, targeted_layers
from training.models.base_model import BaseModel
from training.store.adapter_store import CONFIG, WEIGHTS
from whet.cli import app
from whet.context import Context
from whet.errors import AdapterError
from whet.registry import ENGINE_LORA_MODULES

THEIRS, OURS = "meta-llama/Llama-2-70b", "acme/kettle-7b"


def write(folder: Path, weights: dict[str, Any], **config: Any) -> Path:
    """A folder in PEFT's format."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file(weights, str(folder / WEIGHTS))
    plain = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 8,
        "target_modules": TARGETS,
        "bias": "none",
    }
    (folder / CONFIG).write_text(json.dumps({**plain, **config}))
    return folder


@pytest.fixture
def sent(base: BaseModel, tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with weights for q_proj and v_proj, and what else its configuration says."""
    return lambda **config: write(tmp_path / "peft", weights_for(base), **config)


def with_matrices(base: BaseModel, modules: list[str]) -> dict[str, Any]:
    import torch

    made = {}
    for module in modules:
        outputs, inputs = base.linear_shapes[module]
        made[f"base_model.model.{module}.lora_A.weight"] = torch.ones(RANK, inputs)
        made[f"base_model.model.{module}.lora_B.weight"] = torch.ones(outputs, RANK)
    return made


def test_an_adapter_of_another_hub_model_is_refused_until_somebody_vouches_for_it(
    base: BaseModel, sent: Callable[..., Path]
) -> None:
    folder, ours = sent(base_model_name_or_path=THEIRS, revision="abc"), replace(base, name=OURS)
    with pytest.raises(AdapterError, match=f"{THEIRS}.*{OURS}.*--accept-base"):
        read_adapter(folder, ours, 64)
    origin = read_adapter(folder, ours, 64, accept_base=True).origin
    assert (origin.folder, origin.base, origin.revision) == ("peft", THEIRS, "abc")
    (notice,) = origin.notices
    assert THEIRS in notice and OURS in notice and "--accept-base" in notice


@pytest.mark.parametrize(
    ("ours", "theirs", "recorded", "noticed"),
    [
        (OURS, OURS, OURS, False),
        (OURS, "Acme/Kettle-7B", "Acme/Kettle-7B", False),
        (OURS, "/elsewhere/models/kettle-7b/", "kettle-7b", False),
        (OURS, "/elsewhere/models/lamp", "lamp", True),
        (OURS, "C:\\models\\lamp", "lamp", True),
        ("chatml", THEIRS, THEIRS, True),
        ("chatml", "acme/ChatML", "acme/ChatML", False),
        ("chatml", "../chatml", "chatml", False),
        ("chatml", "gpt2", "gpt2", True),
        ("chatml", None, None, False),
    ],
)
def test_a_folder_of_another_name_is_a_notice(
    base: BaseModel,
    sent: Callable[..., Path],
    ours: str,
    theirs: str | None,
    recorded: str | None,
    noticed: bool,
) -> None:
    origin = read_adapter(sent(base_model_name_or_path=theirs), replace(base, name=ours), 64).origin
    assert origin.base == recorded, "of a path only the last part: the rest is somebody's machine"
    assert bool(origin.notices) == noticed
    assert not noticed or (str(recorded) in origin.notices[0] and ours in origin.notices[0])


def test_the_declared_base_is_on_the_card_and_in_the_answer(
    base: BaseModel,
    sent: Callable[..., Path],
    sqlite_context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = sent(base_model_name_or_path=THEIRS, revision="abc")
    stored, origin = import_adapter(sqlite_context, folder, "support", base, actor="t")
    assert stored.card["imported"] == {**asdict(origin), "notices": list(origin.notices)}
    assert (origin.base, origin.revision) == (THEIRS, "abc")

    monkeypatch.setattr(
        training.commands.adapter_import, "open_base", lambda settings: replace(base, name=OURS)
    )
    command = ["adapters", "import", str(folder), "--name", "support"]
    environment = {"WHET_HOME": str(sqlite_context.settings.home)}
    refused = CliRunner().invoke(app, command, env=environment)
    assert isinstance(refused.exception, AdapterError) and "--accept-base" in refused.exception.hint
    said = json.loads(
        CliRunner().invoke(app, [*command, "--accept-base", "--json"], env=environment).stdout
    )
    assert (said["adapter"], said["declared_base"], said["declared_revision"]) == (
        "support@v1",
        THEIRS,
        "abc",
    ) and OURS in said["notice"]
    text = CliRunner().invoke(app, [*command, "--accept-base"], env=environment).stdout
    assert (
        re.search(rf"declared_base +{THEIRS}", text)
        and re.search(r"declared_revision +abc", text)
        and OURS in text
    )


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    shape = {"num_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False}
    return BaseModel(
        build_base(tmp_path_factory.mktemp("experts"), architecture="Olmoe", **shape), "experts"
    )


@pytest.mark.seconds
@pytest.mark.parametrize("inner", ["mlp.gate", "mlp.experts.0.gate_proj"])
def test_layers_on_which_the_engine_takes_no_adapter_are_refused(
    experts: BaseModel, tmp_path: Path, inner: str
) -> None:
    module = f"model.layers.0.{inner}"
    folder = write(tmp_path / "peft", with_matrices(experts, [module]), target_modules=[inner])
    with pytest.raises(AdapterError, match=re.escape(module)) as refusal:
        read_adapter(folder, experts, 64)
    assert all(name in refusal.value.hint for name in ENGINE_LORA_MODULES)


def test_what_peft_refuses_is_a_sentence(
    base: BaseModel,
    sent: Callable[..., Path],
    sqlite_context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: object) -> None:
        raise ValueError("Cannot convert PEFT target(s) gate_proj without also targeting up_proj.")

    monkeypatch.setattr(training.adapters.imports, "with_stored", refuses)
    with pytest.raises(AdapterError, match="Cannot convert"):
        import_adapter(sqlite_context, sent(), "support", base, actor="t")


@pytest.mark.parametrize(
    ("declared", "first"),
    [
        ({"target_modules": ["q_proj"]}, "model.layers.0.self_attn.v_proj"),
        ({"target_modules": ["roj"]}, "model.layers.0.self_attn.q_proj"),
        ({"target_modules": r".*\.0\.self_attn\.(q|v)_proj"}, "model.layers.1.self_attn.q_proj"),
        ({"exclude_modules": ["v_proj"]}, "model.layers.0.self_attn.v_proj"),
        (
            {"target_modules": "all-linear", "exclude_modules": r".*\.1\..*"},
            "model.layers.1.self_attn.q_proj",
        ),
        ({"layers_to_transform": [0]}, "model.layers.1.self_attn.q_proj"),
        ({"layers_to_transform": 1, "layers_pattern": "layers"}, "model.layers.0.self_attn.q_proj"),
        (
            {"layers_to_transform": [0, 1], "layers_pattern": ["h"]},
            "model.layers.0.self_attn.q_proj",
        ),
    ],
)
def test_matrices_for_layers_that_the_configuration_leaves_out_are_refused(
    base: BaseModel, sent: Callable[..., Path], declared: dict[str, Any], first: str
) -> None:
    with pytest.raises(AdapterError, match=f"holds matrices for {re.escape(first)}"):
        read_adapter(sent(**declared), base, 64)


@pytest.mark.parametrize(
    "scope",
    [
        {"target_modules": ["q_proj", "down_proj"]},
        {"target_modules": ["self_attn.q_proj", "model.layers.1.mlp.up_proj"]},
        {
            "target_modules": "all-linear",
            "exclude_modules": ["model.layers.0.self_attn.q_proj", "mlp.up_proj"],
        },
        {"target_modules": r".*\.(q|k)_proj", "exclude_modules": r".*\.0\..*"},
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
        {"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
    ],
)
def test_the_scope_is_what_peft_makes_of_it(base: BaseModel, scope: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    made = get_peft_model(base.load_model("float32"), LoraConfig(r=RANK, **scope))
    reached = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
        for name, _ in made.named_parameters()
        if ".lora_A." in name
    }
    assert reached and set(targeted_layers(Scope(**scope), linear_layers(base))) == reached


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        ({"task_type": "SEQ_CLS"}, "the task 'SEQ_CLS'"),
        ({"task_type": ["CAUSAL_LM"]}, "the task a list"),
        ({"use_rslora": "false"}, "use_rslora is 'false'; expected true or false"),
        ({"use_rslora": 0}, "use_rslora is 0; expected true or false"),
        ({"use_dora": "false"}, "use_dora is 'false'; expected true or false"),
        ({"fan_in_fan_out": [True]}, "fan_in_fan_out is a list"),
        ({"kasa_config": {"beta": 1}}, "KaSA"),
        ({"target_modules": None}, "target_modules is None"),
        ({"target_modules": []}, "target_modules is a list"),
        ({"target_modules": ["q_proj", 1]}, "target_modules is a list"),
        ({"exclude_modules": {"v_proj": 1}}, "exclude_modules is an object"),
        ({"layers_to_transform": [True]}, "layers_to_transform is a list"),
        (
            {"layers_to_transform": [0], "layers_pattern": "(x+x+)+y"},
            "layers_pattern is '(x+x+)+y'",
        ),
        ({"layers_pattern": "layers"}, "PEFT refuses"),
        ({"target_modules": ".*_proj", "layers_to_transform": [0]}, "PEFT refuses"),
        ({"target_modules": "(q_proj"}, "cannot be used"),
        ({"target_modules": "(" * 4000}, "cannot be used"),
        ({"target_modules": "q" * 5000}, "5,000 characters"),
        ({"target_modules": "(" + ".*?" * 14 + ")[0-9][A-Z]"}, "timed out"),
        ({"rank_pattern": {"(" + ".*?" * 14 + ")[0-9][A-Z]": 8}}, "timed out"),
        ({"rank_pattern": {"(?R)": 8}}, "cannot be used"),
        ({"target_modules": "(?R)"}, "cannot be used"),
        ({"rank_pattern": {"q_proj": 0}}, "gives 'q_proj' 0; expected a whole number"),
        ({"alpha_pattern": {"q_proj": "8"}}, "gives 'q_proj' '8'; expected a number"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern is a list"),
        ({"modules_to_save": "embed_tokens"}, "modules_to_save is 'embed_tokens'"),
        ({"base_model_name_or_path": "\ud800"}, "base_model_name_or_path is '\\ud800'"),
        ({"base_model_name_or_path": "a\x00b"}, "base_model_name_or_path is 'a\\x00b'"),
        ({"revision": ["abc"]}, "revision is a list"),
    ],
)
def test_a_configuration_that_could_be_read_in_two_ways_is_refused(
    base: BaseModel,
    sent: Callable[..., Path],
    declared: dict[str, Any],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training.adapters.scope, "_PATTERN_SECONDS", 0.2)
    with pytest.raises(AdapterError, match=re.escape(sentence)):
        read_adapter(sent(**declared), base, 64)


def test_a_name_given_twice_is_refused(base: BaseModel, sent: Callable[..., Path]) -> None:
    folder = sent()
    (folder / CONFIG).write_text((folder / CONFIG).read_text()[:-1] + ', "lora_alpha": 800}')
    with pytest.raises(AdapterError, match="names 'lora_alpha' twice"):
        read_adapter(folder, base, 64)


@pytest.mark.parametrize(
    "field",
    ["peft_type", "bias", "init_lora_weights", "r", "target_modules", "revision", "unknown"],
)
def test_lists_within_lists_are_a_sentence_at_every_depth(
    base: BaseModel, sent: Callable[..., Path], field: str
) -> None:
    folder = sent()
    plain = json.loads((folder / CONFIG).read_text())
    for depth in (*range(200, 1000, 50), *range(900, 1000, 3), 100_000):
        rest = json.dumps({name: value for name, value in plain.items() if name != field})
        (folder / CONFIG).write_text(f'{rest[:-1]}, "{field}": {"[" * depth}{"]" * depth}}}')
        if field != "unknown" or depth == 100_000:
            with pytest.raises(AdapterError):
                read_adapter(folder, base, 64)


@pytest.mark.parametrize(
    ("part", "value", "alpha"),
    [("A", 0.0, 8.0), ("B", 0.0, 8.0), ("B", 1e-60, 8.0), ("", 1e-30, 8.0), ("", 1.0, 1e-300)],
    ids=[
        "A is zero",
        "B is zero",
        "B rounds to zero",
        "the product rounds to zero",
        "the scale rounds to zero",
    ],
)
def test_an_adapter_that_changes_nothing_is_refused(
    base: BaseModel, tmp_path: Path, part: str, value: float, alpha: float
) -> None:
    import torch

    weights = {
        name: torch.full(tensor.shape, value, dtype=torch.float64)
        if f"lora_{part}" in name
        else tensor
        for name, tensor in weights_for(base).items()
    }
    with pytest.raises(AdapterError, match="changes nothing"):
        read_adapter(write(tmp_path / "peft", weights, lora_alpha=alpha), base, 64)


def test_an_adapter_that_is_zero_on_some_layers_is_taken(base: BaseModel, tmp_path: Path) -> None:
    import torch

    weights = weights_for(base)
    weights |= {
        name: torch.zeros_like(tensor) for name, tensor in weights.items() if ".layers.0." in name
    }
    adapter = read_adapter(write(tmp_path / "peft", weights), base, 64)
    assert adapter.config["target_modules"] == TARGETS
    assert adapter.weights.keys() == weights.keys()
