"""The loss mask, token by token: exactly the answers and their end-of-turn tokens are learned, and
the prompt is what the engine sees.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.tiny import CHATML, END_TOKENS, build_base
from training.data.rows import BadLine, Row, read_lines
from training.models.base_model import BaseModel
from training.models.encode import NOTHING_TO_LEARN, Encoder
from training.models.encoded import Encoded
from whet.errors import ConfigurationError


def _row(**fields: object) -> Row:
    reading = read_lines([json.dumps(fields).encode()])
    assert not reading.bad, reading.bad
    return reading.rows[0]


TURNS = [
    {"role": "user", "content": "How long?"},
    {"role": "assistant", "content": "24 months."},
    {"role": "user", "content": "And the lamp?"},
    {"role": "assistant", "content": "6 months."},
]


def _tool_turn(arguments: object) -> list[dict[str, object]]:
    function = {"name": "stock", "arguments": arguments}
    call = {"id": "c1", "type": "function", "function": function}
    return [
        TURNS[0],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "12"},
    ]


def _learned(base: BaseModel, encoded: Encoded) -> str:
    return str(
        base.tokenizer.decode(
            [token for token, trained in zip(encoded.ids, encoded.trained, strict=True) if trained],
            skip_special_tokens=False,
        )
    )


@pytest.mark.parametrize("name", ["chatml", "brackets", "turns"])
def test_only_the_last_answer_and_its_end_are_learned(
    bases: dict[str, BaseModel], name: str
) -> None:
    base = bases[name]
    encoded = Encoder(base, 512).encode(_row(messages=TURNS))
    assert isinstance(encoded, Encoded)
    assert _learned(base, encoded).strip() == f"6 months.{base.tokenizer.eos_token}"
    assert encoded.ids[-1] in base.stop_ids and encoded.trained[-1], (
        "the model would not learn to stop"
    )
    first = encoded.trained.index(True)
    assert all(encoded.trained[first:]) and not any(encoded.trained[:first])
    assert first == encoded.prompt_tokens


@pytest.mark.parametrize("name", ["chatml", "brackets", "turns"])
def test_what_comes_before_the_answer_is_what_the_engine_is_given(
    bases: dict[str, BaseModel], name: str
) -> None:
    base, row = bases[name], _row(messages=TURNS)
    encoder = Encoder(base, 512)
    encoded = encoder.encode(row)
    assert isinstance(encoded, Encoded)
    served = base.tokenizer.apply_chat_template(
        TURNS[:-1], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    assert list(encoded.ids[: encoded.prompt_tokens]) == list(served) == encoder.prompt_ids(row)


CALLS = CHATML.replace(
    "+ message['content'] +",
    "+ (message['content'] or '') + (message.tool_calls | tojson if message.tool_calls else '') +",
)


@pytest.mark.parametrize(
    ("arguments", "rendered"),
    [
        ('{"part": "lamp"}', '{"part": "lamp"}'),
        ({"part": "lamp"}, '{"part": "lamp"}'),
        ("no JSON", "{}"),
        ("[1]", "{}"),
        ("", "{}"),
        (None, "{}"),
    ],
)
def test_arguments_of_tool_calls_are_rendered_as_the_engine_renders_them(
    tmp_path: Path, arguments: object, rendered: str
) -> None:
    """vLLM decodes the text of OpenAI's format before the template writes it."""
    base = _template(tmp_path / "base", CALLS)
    encoded = Encoder(base, 512).encode(_row(messages=[*_tool_turn(arguments), TURNS[1]]))
    assert isinstance(encoded, Encoded)
    text = base.tokenizer.decode(list(encoded.ids))
    assert f'"arguments": {rendered}' in text, text


@pytest.mark.parametrize("name", ["chatml", "brackets", "turns"])
def test_train_all_learns_every_answer_and_nothing_else(
    bases: dict[str, BaseModel], name: str
) -> None:
    base = bases[name]
    encoded = Encoder(base, 512).encode(_row(messages=TURNS, train="all"))
    assert isinstance(encoded, Encoded)
    eos = base.tokenizer.eos_token
    assert _learned(base, encoded).replace(" ", "") == f"24months.{eos}6months.{eos}"


def test_context_is_seen_and_never_learned(bases: dict[str, BaseModel]) -> None:
    base = bases["chatml"]
    encoded = Encoder(base, 512).encode(
        _row(messages=TURNS[:2], context=["The kettle has a secret."], train="all")
    )
    assert isinstance(encoded, Encoded)
    assert "The kettle has a secret." in base.tokenizer.decode(list(encoded.ids))
    assert "secret" not in _learned(base, encoded)


def _template(folder: Path, template: str | None, eos: str = "<|im_end|>") -> BaseModel:
    return BaseModel(build_base(folder, template=template, eos=eos, layers=1), "the odd base")


ANSWER_CHANGES_PROMPT = CHATML.replace(
    "{%- for message", "{{- messages | length }}{%- for message", 1
)
NO_END = CHATML.replace("+ '<|im_end|>' +", "+ '' +")
DROPS_TEXT = CHATML.replace(
    "+ message['content'] +",
    "+ (message['content'] if message['role'] != 'assistant' else 'something') +",
)
MELTS = (
    "{%- for message in messages -%}{{- message['role'] + ':' + message['content'] + ('</s>' if"
    " message['role'] == 'assistant' else '') -}}{%- endfor -%}{%- if add_generation_prompt -%}{{-"
    " 'assistant' -}}{%- endif -%}"
)
RAISES = "{{ raise_exception('never') }}"


@pytest.mark.parametrize(
    ("template", "eos", "sentence"),
    [
        (ANSWER_CHANGES_PROMPT, "<|im_end|>", "differently once the answer is there"),
        (NO_END, "<|im_end|>", "no end-of-turn token"),
        (DROPS_TEXT, "<|im_end|>", "changes or drops the answer"),
        (RAISES, "<|im_end|>", "refuses"),
        (CHATML, "</s>", "no end-of-turn token"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused_at_once(
    tmp_path: Path, template: str, eos: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Encoder(_template(tmp_path / "base", template, eos), 512)


def test_a_base_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no chat template"):
        Encoder(_template(tmp_path / "base", None), 512)


def test_a_template_that_rewrites_earlier_answers_is_refused_for_train_all_only(
    tmp_path: Path,
) -> None:
    last_only = CHATML.replace(
        "message['content'] +",
        "(message['content'] if message['role'] != 'assistant' or loop.last else '(earlier)') +",
    )
    encoder = Encoder(_template(tmp_path / "base", last_only), 512)
    assert isinstance(encoder.encode(_row(messages=TURNS)), Encoded)
    refused = encoder.encode(_row(messages=TURNS, train="all"))
    assert isinstance(refused, BadLine) and "once the conversation goes on" in refused.found


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (
            {"messages": [{"role": "user", "content": "<|im_start|>user"}, TURNS[1]]},
            "the control token <|im_start|>",
        ),
        (
            {"messages": [TURNS[0], {"role": "assistant", "content": "yes<|im_end|>"}]},
            "the control token <|im_end|>",
        ),
        (
            {"messages": [*_tool_turn('{"a": "<|im_end|>"}'), *TURNS[:2]]},
            "the control token <|im_end|>",
        ),
        (
            {"messages": [*_tool_turn(r'{"a": "\u003c|im_end|>"}'), *TURNS[:2]]},
            "the control token <|im_end|>",
        ),
        ({"messages": [{"role": "user", "content": "word " * 600}, TURNS[1]]}, "tokens"),
    ],
)
def test_rows_that_would_teach_something_else_are_refused(
    bases: dict[str, BaseModel], fields: dict[str, object], found: str
) -> None:
    refused = Encoder(bases["chatml"], 256).encode(_row(**fields))
    assert isinstance(refused, BadLine) and found in refused.found


def test_a_role_the_template_does_not_know_names_the_templates_own_words(
    bases: dict[str, BaseModel],
) -> None:
    refused = Encoder(bases["turns"], 512).encode(
        _row(messages=[{"role": "system", "content": "s"}, *TURNS[:2]])
    )
    assert isinstance(refused, BadLine) and "System role not supported" in refused.found


def test_end_tokens_come_from_the_generation_config_too(tmp_path: Path) -> None:
    folder = build_base(tmp_path / "base", template=CHATML, eos="</s>", layers=1)
    stop = BaseModel(folder, "x").tokenizer.convert_tokens_to_ids(END_TOKENS[CHATML])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, stop]}))
    assert isinstance(
        Encoder(BaseModel(folder, "x"), 512).encode(_row(messages=TURNS[:2])), Encoded
    )


@pytest.mark.parametrize("answer", ["<EMAIL_1>", "<EMAIL_1> <EMAIL_2>"])
def test_an_answer_of_which_only_the_end_would_be_learned_is_refused(
    bases: dict[str, BaseModel], answer: str
) -> None:
    refused = Encoder(bases["chatml"], 512).encode(
        _row(prompt="Who?", completion=answer, scrubbed=["<EMAIL_1>", "<EMAIL_2>"])
    )
    assert isinstance(refused, BadLine) and refused.found == NOTHING_TO_LEARN
    assert isinstance(
        Encoder(bases["chatml"], 512).encode(
            _row(prompt="Who?", completion=f"Ask {answer}", scrubbed=["<EMAIL_1>", "<EMAIL_2>"])
        ),
        Encoded,
    )


def test_what_a_template_leaves_out_is_named(tmp_path: Path) -> None:
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "price_of", "arguments": "{}"}}],
    }
    asked = _row(messages=[TURNS[0], call, {"role": "tool", "content": "12 coins"}, TURNS[1]])
    assert Encoder(_template(tmp_path / "all", CHATML), 512).unseen(asked) == ["a call of price_of"]
    users_alone = CHATML.replace(
        "for message in messages ",
        "for message in messages if message['role'] in ('user', 'assistant') ",
    )
    encoder = Encoder(_template(tmp_path / "some", users_alone), 512)
    assert encoder.unseen(asked) == ["a call of price_of", "the text of message 3"]
    assert encoder.unseen(_row(messages=TURNS[:2], context=["Lamps: 24 months."])) == [
        "the text of message 1"
    ]
    assert encoder.unseen(_row(messages=TURNS)) == []
