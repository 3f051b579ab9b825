"""The configuration of a stored version."""

from __future__ import annotations

from typing import TypedDict


class PlainConfig(TypedDict):
    """`adapter_config.json` of a stored version: a plain LoRA."""

    peft_type: str
    task_type: str
    base_model_name_or_path: None
    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: list[str]
    bias: str
    fan_in_fan_out: bool
    inference_mode: bool
    init_lora_weights: bool
    modules_to_save: None
    use_dora: bool
    use_rslora: bool
