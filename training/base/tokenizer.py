"""The tokenizer of the built-in base: byte-level BPE with single digits, and the chat template.

Byte-level means that any text can be encoded and comes back unchanged; single digits let the
model compare and copy figures digit by digit. ``build`` is deterministic for a corpus seed.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.base.corpus import document

VOCABULARY = 2048
TRAINING_DOCUMENTS = 30_000
CONTEXT_TOKENS = 1024
PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, END, SYSTEM, USER, ASSISTANT, "<|tool|>", "<|spare1|>", "<|spare2|>")

# One token per role, no line breaks: short prompts are fast prompts. Content may be text or a list
# of text parts.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['content'] is string -%}{%- set text = message['content'] -%}
{%- elif message['content'] -%}
{%- set parts = namespace(text='') -%}
{%- for part in message['content'] -%}{%- set parts.text = parts.text + (part['text'] or '') -%}{%- endfor -%}
{%- set text = parts.text -%}
{%- else -%}{%- set text = '' -%}{%- endif -%}
{%- if message['role'] == 'assistant' -%}{{- '<|assistant|>' + text + '<|end|>' -}}
{%- elif message['role'] in ['system', 'developer'] -%}{{- '<|system|>' + text + '<|end|>' -}}
{%- elif message['role'] == 'tool' -%}{{- '<|tool|>' + text + '<|end|>' -}}
{%- else -%}{{- '<|user|>' + text + '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"""


def _texts(seed: str, count: int) -> Iterator[str]:
    """The contents of the first ``count`` documents."""
    for number in range(count):
        for message in document(seed, number):
            yield message["content"]


def build(folder: Path, seed: str) -> None:
    """Train the tokenizer on the corpus of ``seed`` and write its files into ``folder``."""

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, TRAINING_DOCUMENTS), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "model_max_length": CONTEXT_TOKENS,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2) + "\n", encoding="utf-8"
    )


def prompt_text(messages: list[dict[str, str]]) -> str:
    """What the chat template makes of ``messages`` without an opened answer; kept equal to it by a
    test.
    """
    return "".join(f"<|{m['role']}|>{m['content']}{END}" for m in messages)
