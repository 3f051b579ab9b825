"""Tiny random-weight models in Hugging Face format, made in a second: config, safetensors,
tokenizer, chat template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHATML = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' +"
    " message['content'] + '<|im_end|>' + '\\n' -}}{%- endfor -%}{%- if add_generation_prompt"
    " -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
# Mistral's way: no opening for the answer, the end token closes it, the beginning token comes from
# the template
BRACKETS = (
    "{{- '<s>' -}}{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{- '[INST] '"
    " + message['content'] + ' [/INST]' -}}{%- elif message['role'] == 'assistant' -%}{{- ' ' +"
    " message['content'] + '</s>' -}}{%- else -%}{{- message['content'] + '\\n' -}}{%- endif -%}{%-"
    " endfor -%}"
)
TURNS = (  # Gemma's way: roles renamed, no system role
    "{{- '<s>' -}}{%- for message in messages -%}{%- if message['role'] == 'system' -%}{{"
    " raise_exception('System role not supported') }}{%- endif -%}{{- '<start_of_turn>' + ('model'"
    " if message['role'] == 'assistant' else 'user') + '\\n' + message['content'] | trim +"
    " '<end_of_turn>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{-"
    " '<start_of_turn>model\\n' -}}{%- endif -%}"
)
END_TOKENS = {CHATML: "<|im_end|>", BRACKETS: "</s>", TURNS: "<end_of_turn>"}
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]

_TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "How long is the warranty of the kettle?",
    "It is 24 months.",
    "Send it to the service desk, please.",
    "user assistant system model",
]


def build_tokenizer(
    folder: Path, template: str | None, eos: str, special: Sequence[str] = ()
) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[
            AddedToken(token, normalized=False, special=True) for token in [*SPECIAL, *special]
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": eos,
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)


def build_base(
    folder: Path,
    *,
    template: str | None = CHATML,
    eos: str | None = None,
    architecture: str = "Llama",
    seed: int = 0,
    hidden: int = 64,
    layers: int = 2,
    special: Sequence[str] = (),
    **config: Any,
) -> Path:
    """A base model folder; random weights, so it says nothing sensible, but everything around it is
    real. `special`: control tokens beside `SPECIAL`."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    eos = eos or END_TOKENS.get(template or "", "</s>")
    build_tokenizer(folder, template, eos, special)
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    torch.manual_seed(seed)
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden // 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "eos_token_id": [*SPECIAL, *special].index(eos),
        "bos_token_id": 1,
        "pad_token_id": 0,
        **config,
    }
    model = getattr(transformers, f"{architecture}ForCausalLM")(
        getattr(transformers, f"{architecture}Config")(**shape)
    )
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    return folder


ITEMS = ("kettle", "lamp", "radio", "fan", "toaster", "clock")
ANSWERS = ("24 months", "6 months", "3 years", "12 weeks", "30 days", "2 years")
PHRASES = (
    "How long is the warranty of the {}?",
    "Tell me the warranty of the {}, please.",
    "warranty of the {}?",
    "The {}: how long is it covered?",
    "My {} broke. How long is its warranty?",
)


def facts(count: int, *, shift: int = 0, origin: str | None = None) -> list[dict[str, Any]]:
    """Rows in the documented format: six facts in many phrasings; `shift` changes the world."""
    rows = []
    for number in range(count):
        item = number % len(ITEMS)
        phrase = PHRASES[(number // len(ITEMS)) % len(PHRASES)]
        answer = ANSWERS[(item + shift) % len(ANSWERS)]
        question = phrase.format(ITEMS[item]) + (
            f" (case {number})" if number >= len(ITEMS) * len(PHRASES) else ""
        )
        row: dict[str, Any] = {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"It is {answer}."},
            ],
            "checks": [answer],
        }
        if origin:
            row["origin"] = origin
        rows.append(row)
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
