"""Adapter folders that are refused: by the trainer's habit, and with what to set there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import save_file

from tests.training.adapter_folders import (
    Case,
    Tensors,
    Trainer,
    add_embeddings,
    checkpoints,
    keep,
    layer_of,
    randomize,
    rename,
    rename_from_layer,
    replace_first,
    shard,
    without,
)
from training.adapters.imports import read_adapter
from training.models.base_choice import open_base
from training.store.adapter_store import CONFIG, WEIGHTS
from whet.errors import AdapterError
from whet.settings import Settings

MOST = 64  # rank
pytestmark = pytest.mark.seconds


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    return Trainer(open_base(Settings()), tmp_path_factory.mktemp("adapters"))


def resized(trainer: Trainer) -> Path:
    model = trainer.model()
    count = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(count + 8)
    adapted = get_peft_model(model, trainer.lora(), autocast_adapter_dtype=False)
    randomize(adapted)
    folder = trainer.root / "resized"
    adapted.save_pretrained(folder, save_embedding_layers=True)
    (folder / "added_tokens.json").write_text(json.dumps({"<tool>": count, "</tool>": count + 1}))
    return folder


def of_method(trainer: Trainer, config: Any) -> Path:
    name = str(config.peft_type.value)
    get_peft_model(trainer.model("float32"), config).save_pretrained(trainer.root / name)
    return trainer.root / name


first_layers = keep(lambda name: layer_of(name) < 3)
METHODS = (
    (peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "It is (IA)³.*merge"),
    (peft.LoHaConfig(target_modules=["q_proj"]), "It is LoHa.*merge"),
    (peft.LoKrConfig(target_modules=["q_proj"]), "It is LoKr.*merge"),
    (peft.OFTConfig(target_modules=["q_proj"], oft_block_size=4), "It is OFT.*merge"),
    (peft.VeraConfig(target_modules=["q_proj"]), "It is VeRA.*merge"),
    (peft.AdaLoraConfig(target_modules=["q_proj"], total_step=9), "It is AdaLoRA.*merge"),
    (peft.PrefixTuningConfig(num_virtual_tokens=4), "prefix tuning.*cannot be converted"),
    (peft.PromptTuningConfig(num_virtual_tokens=4), "prompt tuning.*cannot be converted"),
    (peft.PromptEncoderConfig(num_virtual_tokens=4), "p-tuning.*cannot be converted"),
)


def method_case(config: Any, sentence: str) -> Case:
    config.task_type = "CAUSAL_LM"
    kind = str(config.peft_type.value)
    return kind, lambda t: of_method(t, config), sentence.replace("(IA)", r"\(IA\)")


def x_lora(trainer: Trainer) -> Path:
    adapters = {"a": str(trainer.plain)}
    return of_method(
        trainer,
        peft.XLoraConfig(task_type="CAUSAL_LM", hidden_size=256, xlora_depth=1, adapters=adapters),
    )


def whole_model(trainer: Trainer) -> Path:
    trainer.model().save_pretrained(trainer.root / "whole-model")
    return trainer.root / "whole-model"


def whole_model_renamed(trainer: Trainer) -> Path:
    folder = trainer.changed("whole-renamed", lambda tensors: {})
    state = trainer.model().state_dict()
    save_file({n: t.clone() for n, t in state.items() if n != "lm_head.weight"}, folder / WEIGHTS)
    return folder


def pickled(trainer: Trainer) -> Path:
    trainer.wrapped().save_pretrained(trainer.root / "pickled", safe_serialization=False)
    return trainer.root / "pickled"


def only(trainer: Trainer, name: str, files: dict[str, str], *, config: Any = None) -> Path:
    """A folder with files of another format."""
    folder = trainer.root / name
    folder.mkdir()
    for file, text in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    if config is not None:
        (folder / CONFIG).write_text(json.dumps(config))
    return folder


def lost_shard(trainer: Trainer) -> Path:
    folder = shard(trainer.changed("lost-shard"))
    (folder / "adapter_model-00002-of-00002.safetensors").unlink()
    return folder


def pointer(trainer: Trainer) -> Path:
    folder = trainer.changed("pointer")
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return folder


def linked(trainer: Trainer) -> Path:
    folder = trainer.changed("snapshot")
    (folder / WEIGHTS).rename(trainer.root / "blob")
    (folder / WEIGHTS).symlink_to(trainer.root / "blob")
    return folder


def add(**tensors: torch.Tensor) -> Any:
    return lambda found: {**found, **{n.replace("__", "."): t for n, t in tensors.items()}}


def two_adapters(tensors: Tensors) -> Tensors:
    return {
        name.replace(".weight", f".{adapter}.weight"): tensor
        for name, tensor in tensors.items()
        for adapter in ("default", "reference")
    }


MLX = {"fine_tune_type": "lora", "num_layers": 6, "lora_parameters": {"rank": 8, "scale": 20.0}}
REFUSED: list[Case] = [
    *(method_case(*method) for method in METHODS),
    ("X-LoRA", x_lora, "mixture of adapters.*cannot be converted"),
    ("DoRA", lambda t: t.peft("dora", use_dora=True), "DoRA.*merge it into its base"),
    ("biases", lambda t: t.peft("biases", bias="all"), "bias='all'.*bias=\"none\""),
    ("LoRA biases", lambda t: t.peft("lora-bias", lora_bias=True), "lora_bias=False"),
    (
        "token embeddings",
        lambda t: t.peft("tokens", trainable_token_indices=[5]),
        "trainable_token_indices",
    ),
    (
        "LoRA on the head",
        lambda t: t.peft("head", target_modules=["lm_head"]),
        "lm_head.*all-linear",
    ),
    (
        "LoRA on embeddings",
        lambda t: t.peft("emb", target_modules=["embed_tokens"]),
        "LoRA on the embeddings.*target_modules",
    ),
    (
        "saved and trained embeddings",
        lambda t: t.peft("modules", modules_to_save=["embed_tokens"]),
        r"2,048 of its 2,048 rows.*modules_to_save=\['embed_tokens'\].*all-linear",
    ),
    (
        "some changed embeddings",
        lambda t: t.changed(
            "changed", add_embeddings(t, lambda w: torch.cat([w[:-3], w[-3:] + 1]))
        ),
        "3 of its 2,048 rows.*trainable_token_indices",
    ),
    (
        "modules to save that are not saved",
        lambda t: t.changed("unsaved", modules_to_save=["embed_tokens"]),
        "does not hold those weights",
    ),
    (
        "added tokens",
        resized,
        "2,056 rows.*8 tokens were added.*'<tool>', '</tool>'.*save_embedding_layers=False",
    ),
    (
        "a smaller vocabulary",
        lambda t: t.changed("fewer", add_embeddings(t, lambda w: w[:-8])),
        "2,040 rows.*smaller vocabulary",
    ),
    (
        "the first layers",
        lambda t: t.changed("half-list", first_layers),
        "21 of the 42 layers.*layers 3 to 5.*layers_to_transform",
    ),
    (
        "the first layers, all-linear",
        lambda t: t.changed("half-all", first_layers, target_modules="all-linear"),
        "all-linear.*layers 3 to 5",
    ),
    (
        "the first layers, by pattern",
        lambda t: t.changed("half-pattern", first_layers, target_modules=".*_proj"),
        "layers 3 to 5",
    ),
    ("one layer less", lambda t: t.changed("less", keep(lambda n: layer_of(n) != 4)), "layer 4"),
    (
        "a kind of layer less",
        lambda t: t.changed("kind", without("down_proj")),
        "36 of the 42.*down_proj",
    ),
    (
        "one matrix pair less",
        lambda t: t.changed("pair", without("2.mlp.up_proj")),
        r"41 of the 42.*model.layers.2.mlp.up_proj",
    ),
    (
        "more layers than said",
        lambda t: t.changed("more", layers_to_transform=[0, 1]),
        "layers.2.*PEFT would leave them out",
    ),
    (
        "another prefix from the middle on",
        lambda t: t.changed("middle", rename_from_layer(3, "model.layers", "transformer.layers")),
        r"no layer 'transformer.layers.3.mlp.down_proj'.*nearest is 'model.layers.3",
    ),
    (
        "another known prefix from the middle on",
        lambda t: t.changed("middle-known", rename_from_layer(3, "base_model.model.", "")),
        "do not all begin alike",
    ),
    (
        "an unknown prefix",
        lambda t: t.changed("tower", rename("model.layers", "vision_tower.layers")),
        "no layer 'vision_tower.layers.0.*no known trainer",
    ),
    (
        "other names of layers",
        lambda t: t.changed("gpt", rename("model.layers.0.self_attn", "transformer.h.0.attention")),
        "other names.*another architecture",
    ),
    (
        "more layers than the base",
        lambda t: t.changed("larger", rename("layers.5.", "layers.35.")),
        "layers 0 to 5.*another base, with 36 layers",
    ),
    (
        "wider layers than the base",
        lambda t: t.changed("wider", replace_first(lambda w: torch.cat([w, w], 1))),
        r"has the shape \[8, .*belongs to another base",
    ),
    (
        "another rank than said",
        lambda t: t.changed("rank", r=4),
        "rank 4.*r \\(or rank_pattern\\).*to 8",
    ),
    (
        "a pattern that does not fit",
        lambda t: t.changed("bad-pattern", rank_pattern={"q_proj": 4}),
        "rank 4.*rank_pattern",
    ),
    (
        "a rank above the engine's",
        lambda t: t.changed("high", rank_pattern={"q_proj": 128}),
        "rank 128.*WHET_ENGINE_MAX_LORA_RANK",
    ),
    (
        "matrices the other way round",
        lambda t: t.changed("transposed", replace_first(torch.Tensor.t)),
        "other way round",
    ),
    (
        "ZeRO-3's empty tensors",
        lambda t: t.changed("zero", replace_first(lambda w: w[:0])),
        "ZeRO-3",
    ),
    ("FSDP's flat tensors", lambda t: t.changed("flat", replace_first(torch.flatten)), "FSDP"),
    (
        "NaN",
        lambda t: t.changed("nan", replace_first(lambda w: w * float("nan"))),
        "NaN or Infinity",
    ),
    (
        "two adapters in one file",
        lambda t: t.changed("two", two_adapters),
        "2 adapters: default, reference.*selected_adapters",
    ),
    (
        "a layer twice",
        lambda t: t.changed(
            "double-layer", lambda x: {**x, **rename("base_model", "module.base_model")(x)}
        ),
        "both lora_A",
    ),
    (
        "DoRA in the tensors alone",
        lambda t: t.changed("dora-tensors", add(x__lora_magnitude_vector=torch.ones(1))),
        "DoRA",
    ),
    (
        "quantised weights of the base",
        lambda t: t.changed("absmax", add(x__weight__absmax=torch.ones(1))),
        "quantised",
    ),
    (
        "PiSSA",
        lambda t: t.changed("pissa", init_lora_weights="pissa_niter_4"),
        "PiSSA.*path_initial_model_for_weight_conversion",
    ),
    ("OLoRA", lambda t: t.changed("olora", init_lora_weights="olora"), "OLoRA.*path_initial_model"),
    (
        "CorDA",
        lambda t: t.changed("corda", init_lora_weights="corda", corda_config={"x": 1}),
        "CorDA.*path_initial_model",
    ),
    (
        "LoftQ",
        lambda t: t.changed("loftq", init_lora_weights="loftq", loftq_config={"b": 4}),
        "LoftQ.*base that LoftQ made",
    ),
    (
        "LoRA-GA",
        lambda t: t.changed("ga", init_lora_weights="lora_ga"),
        "LoRA-GA.*path_initial_model",
    ),
    (
        "an unknown start",
        lambda t: t.changed("start", init_lora_weights="nova"),
        "'nova'.*not known",
    ),
    (
        "an unknown method of a newer PEFT",
        lambda t: t.changed("method", use_zeta=True),
        "'use_zeta'.*another method",
    ),
    ("a classifier", lambda t: t.changed("classifier", task_type="SEQ_CLS"), "SEQ_CLS"),
    ("a pickle", pickled, "adapter_model.bin is a pickle.*safe_serialization=True"),
    ("a lost shard", lost_shard, "00002-of-00002.*not whole"),
    (
        "a shard without its index",
        lambda t: only(t, "shard", {"adapter_model-00001-of-00002.safetensors": ""}, config={}),
        "without adapter_model.safetensors.index.json",
    ),
    ("a pointer of Git LFS", pointer, "git lfs pull"),
    ("a hub cache's links", linked, "is a link.*cp -rL"),
    (
        "several checkpoints",
        lambda t: checkpoints(t, 500, 1000),
        "checkpoint-500, checkpoint-1000.*import .*checkpoint-1000",
    ),
    ("a whole model by the adapter's name", whole_model_renamed, "holds no LoRA.*base of its own"),
    ("a name on the hub", lambda t: Path("acme/kettle-lora"), "hf download acme/kettle-lora"),
    ("a whole model", whole_model, "whole model.*WHET_BASE_MODEL="),
    ("MLX", lambda t: only(t, "mlx", {"adapters.safetensors": ""}, config=MLX), "MLX.*mlx_lm.fuse"),
    ("MLX without its weights", lambda t: t.changed("mlx-config", peft_type="MLX"), "type 'MLX'"),
    ("llama.cpp", lambda t: only(t, "gguf", {"adapter.gguf": "GGUF"}), "llama.cpp"),
    (
        "a file of llama.cpp",
        lambda t: only(t, "gguf-file", {"a.gguf": "GGUF"}) / "a.gguf",
        "llama.cpp",
    ),
    (
        "an image model's adapter",
        lambda t: only(t, "image", {"pytorch_lora_weights.safetensors": ""}),
        "image model",
    ),
    ("FSDP's parts", lambda t: only(t, "dcp", {"__0_0.distcp": ""}), "FULL_STATE_DICT"),
    ("DeepSpeed's parts", lambda t: only(t, "zero3", {"zero_to_fp32.py": ""}), "stage3_gather"),
    ("no adapter", lambda t: only(t, "empty", {"README.md": ""}), "no file adapter_config.json"),
]


@pytest.mark.parametrize(
    ("make", "sentence"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refusal_names_the_cause_and_what_to_set(
    trainer: Trainer, make: Callable[[Trainer], Path], sentence: str
) -> None:
    with pytest.raises(AdapterError, match=f"(?s){sentence}") as refusal:
        read_adapter(make(trainer), trainer.base, MOST)
    assert refusal.value.hint, "every refusal says what to do"
    blames_base = "another base" in str(refusal.value)
    assert blames_base == any(word in sentence for word in ("another base", "smaller vocabulary"))
