"""Adapter folders of other trainers: the same version as PEFT's own, or the sentence that helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.training.adapter_folders import (
    Case,
    Trainer,
    add_embeddings,
    checkpoints,
    randomize,
    rename,
    replace_first,
    shard,
)
from training.adapters.copies import export_adapter
from training.adapters.imports import ImportedAdapter, import_adapter, read_adapter
from training.models.base_choice import open_base
from training.models.lora import with_stored
from training.store.adapter_store import CONFIG, WEIGHTS
from whet.cli import app
from whet.context import Context
from whet.errors import AdapterError
from whet.settings import Settings

MOST = 64  # rank
pytestmark = pytest.mark.seconds


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(open_base(Settings()), tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def plain(trainer: Trainer) -> ImportedAdapter:
    return read_adapter(trainer.plain, trainer.base, MOST)


def assert_same(adapter: ImportedAdapter, expected: ImportedAdapter) -> None:
    """The digest is taken of the configuration and the weights, so equal ones are one version."""
    assert adapter.config == expected.config
    assert adapter.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        assert adapter.weights[name].dtype == tensor.dtype, name
        assert torch.equal(adapter.weights[name], tensor), name


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found


# Folders by PEFT ---------------------------------------------------------------------------------


def compiled(trainer: Trainer) -> Path:
    model = trainer.wrapped()
    layers = model.base_model.model.model.layers
    for number in range(len(layers)):
        layers[number] = torch.compile(layers[number])  # nothing is compiled before it is called
    model.save_pretrained(trainer.root / "compiled")
    return trainer.root / "compiled"


def state_dict_of_compiled(trainer: Trainer) -> Path:
    folder = trainer.changed("state-dict-compiled")
    state = torch.compile(trainer.wrapped()).state_dict()
    save_file({n: t for n, t in state.items() if "lora_" in n}, folder / WEIGHTS)
    return folder


def whole_state_dict(trainer: Trainer) -> Path:
    folder = trainer.changed("state-dict-whole")
    state = {name: t.clone() for name, t in trainer.wrapped().state_dict().items()}
    save_file(state, folder / WEIGHTS)
    return folder


def named(trainer: Trainer) -> Path:
    model = get_peft_model(
        trainer.model(), trainer.lora(), adapter_name="support", autocast_adapter_dtype=False
    )
    randomize(model)
    model.save_pretrained(trainer.root / "named")  # into named/support/
    return trainer.root / "named"


def without_head(trainer: Trainer) -> Path:
    model = get_peft_model(
        trainer.model().model, trainer.lora(task_type=None), autocast_adapter_dtype=False
    )
    randomize(model)
    model.save_pretrained(trainer.root / "without-head")
    return trainer.root / "without-head"


def saved_embeddings(trainer: Trainer) -> Path:
    trainer.wrapped().save_pretrained(trainer.root / "saved", save_embedding_layers=True)
    return trainer.root / "saved"


def untrained_modules(trainer: Trainer) -> Path:
    model = get_peft_model(
        trainer.model(),
        trainer.lora(modules_to_save=["embed_tokens"]),
        autocast_adapter_dtype=False,
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    randomize(model)
    model.save_pretrained(trainer.root / "modules-equal")
    return trainer.root / "modules-equal"


def with_byte_order_mark(trainer: Trainer) -> Path:
    folder = trainer.changed("mark")
    (folder / CONFIG).write_text("\ufeff" + (folder / CONFIG).read_text())
    return folder


def with_tokenizer(trainer: Trainer, name: str, added: str) -> Path:
    folder = trainer.changed(name)
    trainer.base.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(trainer.base.tokenizer.chat_template + added)
    return folder


def with_added_token(trainer: Trainer) -> Path:
    folder = with_tokenizer(trainer, "token", "")
    (folder / "added_tokens.json").write_text('{"<tool>": 2047}')
    return folder


SAME: list[Case] = [
    (
        "a state dict",
        lambda t: t.changed("default", rename(".weight", ".default.weight")),
        "default",
    ),
    (
        "another adapter name",
        lambda t: t.changed("policy", rename(".weight", ".policy.weight")),
        "the adapter's name",
    ),
    (
        "no base_model.model.",
        lambda t: t.changed("bare", rename("base_model.model.", "")),
        "model. instead of base_model.model.model.",
    ),
    (
        "PEFT's prefix twice",
        lambda t: t.changed("twice", rename("base_model.model.", "base_model.model." * 2)),
        "renamed",
    ),
    ("no model.", lambda t: t.changed("no-model", rename("model.model.", "model.")), "renamed"),
    (
        "nothing before the layers",
        lambda t: t.changed("core", rename("base_model.model.model.", "")),
        "nothing instead",
    ),
    (
        "model. twice",
        lambda t: t.changed("mm", rename("model.layers", "model.model.layers")),
        "renamed",
    ),
    (
        "language_model.model.",
        lambda t: t.changed("lm", rename("model.model.", "model.language_model.model.")),
        "language_model",
    ),
    (
        "model.language_model.",
        lambda t: t.changed("unsloth", rename("model.layers", "model.language_model.layers")),
        "language_model",
    ),
    (
        "TRL's value head",
        lambda t: t.changed(
            "value-head", rename("base_model.model", "pretrained_model.base_model.model")
        ),
        "pretrained_model",
    ),
    ("a base without its head", without_head, "renamed"),
    ("compiled layers", compiled, "torch.compile"),
    ("the state dict of a compiled model", state_dict_of_compiled, "torch.compile"),
    (
        "FSDP around the layers",
        lambda t: t.changed("fsdp", rename("self_attn", "_fsdp_wrapped_module.self_attn")),
        "FSDP",
    ),
    (
        "FSDP and checkpointing",
        lambda t: t.changed(
            "fsdp-checkpoint",
            rename("base_model.", "_fsdp_wrapped_module._checkpoint_wrapped_module.base_model."),
        ),
        "activation checkpointing",
    ),
    ("DDP or DeepSpeed", lambda t: t.changed("ddp", rename("base_", "module.base_")), "DeepSpeed"),
    (
        "all of them",
        lambda t: t.changed(
            "all",
            lambda x: rename("base_model.model.", "module._orig_mod.")(
                rename(".weight", ".default.weight")(x)
            ),
        ),
        "torch.compile",
    ),
    ("saved embeddings", saved_embeddings, "Left out, because the base has the same"),
    ("a saved module that was not trained", untrained_modules, "model.embed_tokens.weight"),
    (
        "saved embeddings in float32",
        lambda t: t.changed("e32", add_embeddings(t, lambda w: w.float())),
        "embed_tokens",
    ),
    (
        "saved embeddings in float16",
        lambda t: t.changed("e16", add_embeddings(t, lambda w: w.half())),
        "embed_tokens",
    ),
    ("the whole state dict", whole_state_dict, "more"),
    ("a named adapter", named, "The adapter lies in support/"),
    ("a folder of a trainer", lambda t: checkpoints(t, 500), "optimizer.pt"),
    ("shards", lambda t: shard(t.changed("shards")), ""),
    ("PEFT's own float32", lambda t: t.peft("float32", dtype="float32"), ""),
    ("float16", lambda t: t.changed("half", lambda x: {n: v.half() for n, v in x.items()}), ""),
    ("float64", lambda t: t.changed("double", lambda x: {n: v.double() for n, v in x.items()}), ""),
    (
        "a transposed view",
        lambda t: t.changed("view", replace_first(lambda w: w.t().contiguous().t())),
        "",
    ),
    (
        "fan_in_fan_out",
        lambda t: t.changed("fan", fan_in_fan_out=True),
        "fan_in_fan_out was left out",
    ),
    ("a start of random values", lambda t: t.changed("gaussian", init_lora_weights="gaussian"), ""),
    (
        "EVA's start",
        lambda t: t.changed("eva", init_lora_weights="eva", eva_config={"rho": 2.0}),
        "",
    ),
    ("MiCA's start", lambda t: t.changed("mica", init_lora_weights="mica"), ""),
    (
        "fields of a newer PEFT",
        lambda t: t.changed("newer", alpha_schedule=[1], use_new=False, x_config={}),
        "'alpha_schedule'",
    ),
    (
        "patterns without effect",
        lambda t: t.changed("patterns", rank_pattern={"c_attn": 4}, alpha_pattern={"q_proj": 16}),
        "",
    ),
    (
        "the rank in a pattern alone",
        lambda t: t.changed(
            "rank-pattern", r=4, lora_alpha=8, rank_pattern={".*proj": 8}, alpha_pattern={".*": 16}
        ),
        "",
    ),
    (
        "a list of targets",
        lambda t: t.changed(
            "list",
            target_modules=[
                "self_attn.q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            ],
        ),
        "",
    ),
    (
        "a regular expression of targets",
        lambda t: t.changed("regex", target_modules=r".*\.(self_attn|mlp)\..*_proj"),
        "",
    ),
    (
        "a pattern for the model around it",
        lambda t: t.changed(
            "around",
            rename("model.layers", "model.language_model.layers"),
            target_modules=r".*language_model.*(self_attn|mlp).*_proj",
            r=4,
            rank_pattern={"language_model.layers.*": 8},
        ),
        "language_model",
    ),
    ("a configuration with a byte order mark", with_byte_order_mark, ""),
    ("the base's own tokenizer beside it", lambda t: with_tokenizer(t, "own", ""), ""),
    ("another template", lambda t: with_tokenizer(t, "template", "!"), "The chat template"),
    ("tokens that the base has not", with_added_token, "'<tool>'. The base reads them"),
    (
        "a quantised base's name",
        lambda t: t.changed("bnb", base_model_name_or_path="/models/base-bnb-4bit"),
        "quantised weights",
    ),
]


@pytest.mark.parametrize(("make", "notice"), [case[1:] for case in SAME], ids=[c[0] for c in SAME])
def test_same_version_as_pefts_own_folder(
    trainer: Trainer, plain: ImportedAdapter, make: Callable[[Trainer], Path], notice: str
) -> None:
    adapter = read_adapter(make(trainer), trainer.base, MOST)
    assert_same(adapter, plain)
    said = " ".join(adapter.origin.notices)
    assert notice in said if notice else not said, "what was renamed or left out is said"


COMPUTED: list[tuple[str, dict[str, Any]]] = [
    ("some layers", {"layers_to_transform": [0, 2], "target_modules": ["q_proj", "up_proj"]}),
    ("a pattern of layers", {"target_modules": r".*\.[135]\.self_attn\.(q|v)_proj"}),
    ("excluded layers", {"exclude_modules": r".*\.0\.mlp\..*"}),
    ("ranks", {"rank_pattern": {"q_proj": 4, r"layers\.[01]\.mlp\.up_proj": 16}}),
    ("scales", {"alpha_pattern": {"q_proj": 8, "layers.1.self_attn.v_proj": 24.5}}),
    (
        "ranks and scales of rsLoRA",
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"v_proj": 5}, "use_rslora": True},
    ),
    ("rsLoRA", {"use_rslora": True}),
]


@pytest.mark.parametrize("config", [c[1] for c in COMPUTED], ids=[c[0] for c in COMPUTED])
def test_accepted_adapter_computes_what_peft_computes(
    trainer: Trainer, config: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    folder = trainer.peft(f"computed-{request.node.callspec.id}", "float32", **config)
    theirs = logits(PeftModel.from_pretrained(trainer.model("float32"), folder).eval())
    adapter = read_adapter(folder, trainer.base, MOST)
    ours = logits(with_stored(trainer.model("float32"), adapter.config, adapter.weights))
    without_adapter = logits(trainer.model("float32"))
    effect = float((theirs - without_adapter).abs().mean())
    difference = float((theirs - ours).abs().mean())
    # What a scale that is no power of two loses, rounded to bfloat16 once: 2^-9 of a matrix.
    assert difference < 0.005 * effect, "the rounding of lora_B is all that may differ"
    exact = "alpha" not in str(config)
    assert not exact or torch.allclose(theirs, ours, atol=1e-4), "nothing was rounded"


def test_pissa_converted_by_peft_computes_what_it_was_trained_to(trainer: Trainer) -> None:
    config = {"init_lora_weights": "pissa_niter_4", "target_modules": ["q_proj", "v_proj"]}
    model = get_peft_model(trainer.model("float32"), trainer.lora(**config))
    initial, converted = trainer.root / "pissa-initial", trainer.root / "pissa-converted"
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(initial)
    model.peft_config["default"].init_lora_weights = "pissa_niter_4"
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data *= 1.5  # a training
    trained = logits(model.eval())
    model.save_pretrained(converted, path_initial_model_for_weight_conversion=str(initial))
    adapter = read_adapter(converted, trainer.base, MOST)
    ours = with_stored(
        trainer.model("float32"), adapter.config, {n: t.float() for n, t in adapter.weights.items()}
    )
    assert torch.allclose(trained, logits(ours), atol=0.05)
    assert not torch.allclose(trained, logits(trainer.model("float32")), atol=0.05)


def test_part_of_the_layers_goes_out_and_comes_back_as_the_same_version(
    trainer: Trainer, sqlite_context: Context, tmp_path: Path
) -> None:
    folder = trainer.peft("some-layers", layers_to_transform=[0, 2], target_modules=["q_proj"])
    stored, _ = import_adapter(sqlite_context, folder, "support", trainer.base, actor="t")
    export_adapter(sqlite_context, stored, tmp_path / "out")
    declared = json.loads((tmp_path / "out" / CONFIG).read_text())["target_modules"]
    assert declared == [f"model.layers.{number}.self_attn.q_proj" for number in (0, 2)]
    assert (
        import_adapter(sqlite_context, tmp_path / "out", "support", trainer.base, actor="t")[
            0
        ].digest
        == stored.digest
    )


def test_command_prints_what_it_knows_and_nothing_empty(
    trainer: Trainer, sqlite_context: Context
) -> None:
    folder = trainer.changed("printed", rename("base_model.model.", "_orig_mod."))
    environment = {"WHET_HOME": str(sqlite_context.settings.home)}

    def printed(path: Path, *options: str) -> str:
        command = ["adapters", "import", str(path), "--name", "support", *options]
        return CliRunner().invoke(app, command, env=environment).stdout

    text = printed(folder)
    assert "support@v1" in text and "torch.compile" in text
    assert not [
        line
        for line in text.splitlines()
        if line.rstrip().endswith("None") or len(line.split()) < 2
    ]
    first, plain = (
        json.loads(printed(folder, "--json")),
        json.loads(printed(trainer.plain, "--json")),
    )
    assert first["digest"] == plain["digest"] and plain["adapter"] == "support@v1"
    assert "stored before, as support@v1" in plain["notice"]
    other = trainer.peft("other", use_rslora=True)
    assert "notice" not in printed(other), "nothing to say, no line"


def test_float32_weights_keep_their_digits(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trainer.changed("digits", lambda x: {n: t.float() * 1.0001 for n, t in x.items()})
    held = load_file(folder / WEIGHTS)
    for name in ("float32", "bfloat16"):
        monkeypatch.setattr("training.adapters.imports.stored_dtype", lambda stored=name: stored)
        weights = read_adapter(folder, trainer.base, MOST).weights
        assert all(torch.equal(t, held[n].to(getattr(torch, name))) for n, t in weights.items())


def test_name_that_two_stacks_of_layers_share_is_refused(trainer: Trainer) -> None:
    base = replace(trainer.base)
    shapes = dict(trainer.base.shapes)
    shapes |= {
        n.replace("model.", "language_model.", 1): s for n, s in shapes.items() if "layers" in n
    }
    base.__dict__["shapes"] = shapes
    folder = trainer.changed("stacks", rename("base_model.model.model.", ""))
    with pytest.raises(AdapterError, match=r"can mean model\.layers.* or language_model\.layers"):
        read_adapter(folder, base, MOST)
