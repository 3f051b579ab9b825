"""Says which fields and tensors of a stranger's adapter the engine cannot serve, and why.

The engine serves plain LoRA: two matrices beside a linear layer, scaled by one number.
"""

from __future__ import annotations

import re
from dataclasses import fields

from peft import LoraConfig, PeftType

from whet.errors import AdapterError
from whet.json_types import JsonObject

_TRAIN_LORA = "Train it as plain LoRA"
_OR_MERGE = (
    f"{_TRAIN_LORA}, or merge it into its base (PEFT's merge_and_unload) and use that as the base "
    "model."
)
# Methods of PEFT that put something before the words or choose between adapters as they go, so that
# no merging makes a plain model of them.
_NOT_MERGEABLE = {
    "PREFIX_TUNING": "a prefix (prefix tuning)",
    "PROMPT_TUNING": "a soft prompt (prompt tuning)",
    "MULTITASK_PROMPT_TUNING": "a soft prompt (multitask prompt tuning)",
    "P_TUNING": "a soft prompt (p-tuning)",
    "ADAPTION_PROMPT": "a prompt inside the attention (LLaMA-Adapter)",
    "CPT": "a soft prompt (context-aware prompt tuning)",
    "CARTRIDGE": "a trained key-value cache (Cartridges)",
    "XLORA": "a mixture of adapters (X-LoRA)",
    "POLY": "a mixture of adapters (Poly)",
}
_MERGEABLE = {
    "IA3": "(IA)³",
    "ADALORA": "AdaLoRA",
    "LOHA": "LoHa",
    "LOKR": "LoKr",
    "OFT": "OFT",
    "BOFT": "BOFT",
    "VERA": "VeRA",
    "VBLORA": "VB-LoRA",
    "FOURIERFT": "FourierFT",
    "LN_TUNING": "trained layer norms (LN tuning)",
    "HRA": "HRA",
    "MISS": "MiSS",
    "RANDLORA": "RandLoRA",
    "TRAINABLE_TOKENS": "trained token embeddings (trainable tokens)",
}
# Fields that make it another method than plain LoRA, with the words for it and what to do. A field
# that is absent, false, null or empty is fine.
_UNSERVABLE = {
    "use_dora": ("DoRA (use_dora)", _OR_MERGE),
    "lora_bias": ("a bias in the adapter (lora_bias)", "Train it with lora_bias=False."),
    "layer_replication": ("replicated layers (layer_replication)", _OR_MERGE),
    "alora_invocation_tokens": ("an activated LoRA (alora_invocation_tokens)", f"{_TRAIN_LORA}."),
    "trainable_token_indices": (
        "trained token embeddings (trainable_token_indices)",
        "Train it without them, in the words the base has; or merge it into its base and use that "
        "as the base model.",
    ),
    "target_parameters": ("adapters on single parameters (target_parameters)", _OR_MERGE),
    "use_qalora": ("QALoRA (use_qalora)", f"{_TRAIN_LORA}."),
    "use_bdlora": ("block-diagonal LoRA (use_bdlora)", _OR_MERGE),
    "kasa_config": ("KaSA (kasa_config)", _OR_MERGE),
    "arrow_config": ("a mixture of adapters (arrow_config)", f"{_TRAIN_LORA}."),
    "velora_config": ("VeLoRA (velora_config)", _OR_MERGE),
    "monteclora_config": ("MonteCLoRA (monteclora_config)", _OR_MERGE),
    "megatron_config": ("a Megatron layout (megatron_config)", "Save it for a plain model."),
}
# Ways to begin that change only where the two matrices start: loaded, they are plain LoRA.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")
_STARTS_THAT_CHANGE_THE_BASE = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "loftq": "LoftQ",
    "lora_ga": "LoRA-GA",
}
_BOOLEANS = (
    "use_rslora",
    "use_dora",
    "lora_bias",
    "use_qalora",
    "fan_in_fan_out",
    "inference_mode",
    "ensure_weight_tying",
)
_KNOWN_FIELDS = {field.name for field in fields(LoraConfig)} | {"peft_version", "task_type"}
_SHOWN = 120  # characters of a stranger's value in a sentence
# Parts of tensor names by which other methods are known, what they are, and what to do instead.
_FOREIGN = (
    (r"\.lora_magnitude_vector", "a magnitude of DoRA (use_dora)", "Train it as plain LoRA."),
    (r"\.lora_[AB](\.[^.]+)?\.bias", "a bias in the adapter (lora_bias)", "Train it without."),
    (
        r"\.lora_embedding_[AB]",
        "LoRA on the embeddings",
        "Leave embed_tokens and lm_head out of target_modules.",
    ),
    (
        r"\.trainable_tokens_(delta|original|indices)|\.token_adapter\.",
        "a set of trained token embeddings (trainable_token_indices)",
        "Train it without trainable_token_indices.",
    ),
    (r"\.(lora_a|lora_b)$", "LoRA of MLX", "Merge it with mlx_lm.fuse, or train with PEFT."),
    (
        r"lora_(up|down)\.weight|\.alpha$|^lora_(unet|te)",
        "LoRA of an image model's trainer (kohya, diffusers)",
        "Whet serves adapters of language models.",
    ),
    (r"\.hada_w[12]", "a matrix of LoHa", "Train it as plain LoRA."),
    (r"\.lokr_w[12]", "a matrix of LoKr", "Train it as plain LoRA."),
    (r"\.lora_E|\.ranknum", "a vector of AdaLoRA", "Train it as plain LoRA."),
    (r"\.ia3_l", "a vector of (IA)³", "Train it as plain LoRA."),
    (r"\.(vera_lambda|vera_[AB])", "a vector of VeRA", "Train it as plain LoRA."),
    (r"\.(oft_[rR]|boft_[RrSs])", "a rotation of OFT", "Train it as plain LoRA."),
    (r"prompt_embeddings|prompt_encoder", "a prompt or prefix", "Train it as plain LoRA."),
    (
        r"\.(absmax|quant_map|quant_state|SCB|qweight|qzeros|scales)\b",
        "a part of the quantised weights of its base",
        "Save the adapter alone, with PEFT's save_pretrained.",
    ),
    (
        r"_flat_param|\.__metadata__",
        "a flattened parameter of FSDP",
        "Gather them when it is saved (state_dict_type FULL_STATE_DICT).",
    ),
)


def check_method(config: JsonObject) -> list[str]:
    """Returns what to know of fields that were left out. Raises AdapterError for another method."""
    _check_type(config)
    for field in _BOOLEANS:
        if not isinstance(config.get(field), bool | None):
            raise AdapterError(
                f"The adapter's {field} is {shown(config[field])}; expected true or false.",
                hint="Write it without quotation marks.",
            )
    for field, (method, hint) in _UNSERVABLE.items():
        if config.get(field):
            raise AdapterError(
                f"The adapter uses {method}, which the engine cannot serve.", hint=hint
            )
    if (bias := config.get("bias", "none")) not in ("none", None):
        raise AdapterError(
            f"The adapter trains biases (bias={shown(bias)}), which the engine cannot serve.",
            hint='Train it with bias="none".',
        )
    _check_start(config.get("init_lora_weights", True))
    return _unknown_fields(config)


def _check_type(config: JsonObject) -> None:
    kind, task = config.get("peft_type"), config.get("task_type")
    if "peft_type" not in config and {"fine_tune_type", "lora_parameters"} & config.keys():
        raise AdapterError(
            "adapter_config.json is of an MLX adapter; expected PEFT's.",
            hint="Merge it with mlx_lm.fuse and set WHET_BASE_MODEL to the result, or train it "
            "with PEFT.",
        )
    name = kind.upper() if isinstance(kind, str) else None
    if name in _NOT_MERGEABLE:
        raise AdapterError(
            f"The adapter is {_NOT_MERGEABLE[name]} (peft_type {name}); the engine serves LORA.",
            hint=f"{_TRAIN_LORA}: it cannot be converted or merged.",
        )
    if name != "LORA":
        method = _MERGEABLE.get(name or "") or (name if name in PeftType.__members__ else None)
        raise AdapterError(
            f"The adapter is of the type {shown(kind)}; the engine serves LORA.",
            hint=f"It is {method}. {_OR_MERGE}"
            if method
            else f"{_TRAIN_LORA} with PEFT, whose configuration says peft_type LORA.",
        )
    if task not in (None, "CAUSAL_LM"):
        raise AdapterError(
            f"The adapter was trained for the task {shown(task)}; the engine serves CAUSAL_LM.",
            hint="Train it for a causal language model.",
        )


def _check_start(start: object) -> None:
    """Raises AdapterError for a start that took a part of the base's weights into the adapter."""
    if start is None or isinstance(start, bool):
        return
    name = start.lower() if isinstance(start, str) else ""
    if name in _PLAIN_STARTS:
        return
    changing = next((k for k in _STARTS_THAT_CHANGE_THE_BASE if name.startswith(k)), None)
    if changing == "loftq":
        raise AdapterError(
            f"The adapter was begun with {shown(start)} (LoftQ), which changes the base's weights "
            "as well: it fits the base that LoftQ made, not the one from the hub.",
            hint="Save that base too and use it as the base model, or train with "
            "init_lora_weights=true.",
        )
    if changing:
        raise AdapterError(
            f"The adapter was begun with {shown(start)} "
            f"({_STARTS_THAT_CHANGE_THE_BASE[changing]}), which changes the base's weights as "
            "well: on the base as it is, it computes something else than it was trained to.",
            hint="Convert it to plain LoRA: save_pretrained(…, "
            "path_initial_model_for_weight_conversion=FOLDER_OF_THE_ADAPTER_BEFORE_TRAINING).",
        )
    raise AdapterError(
        f"The adapter was begun with {shown(start)}, which is not known to leave the base's "
        "weights as they are.",
        hint="Train it with init_lora_weights=true.",
    )


def _unknown_fields(config: JsonObject) -> list[str]:
    """Fields of a newer PEFT. One that switches something on may change what is computed."""
    unknown = [name for name, value in config.items() if name not in _KNOWN_FIELDS and value]
    for name in sorted(unknown):
        if name.startswith("use_") or name.endswith("_config"):
            raise AdapterError(
                f"The adapter's configuration has {shown(name)}, which PEFT's LoRA here does not "
                "know: it may be another method than plain LoRA.",
                hint="Train it without that option; if it changes nothing that is computed, remove "
                "the field from adapter_config.json.",
            )
    names = ", ".join(shown(name) for name in sorted(unknown)[:5])
    return [f"Left out of its configuration, because LoRA has no such fields: {names}."] * bool(
        unknown
    )


def refuse_other_method(tensor: str) -> None:
    """Raises AdapterError for a tensor's name that another method than plain LoRA writes."""
    for pattern, method, hint in _FOREIGN:
        if re.search(pattern, tensor):
            raise AdapterError(
                f"The tensor {shown(tensor)} is {method}, which the engine cannot serve.",
                hint=hint,
            )


def shown(value: object) -> str:
    """Writes a stranger's value for a sentence: lists within lists could be too deep to print."""
    if isinstance(value, str | int | float | None):
        return repr(value)[:_SHOWN]
    return "a list" if isinstance(value, list) else "an object"
