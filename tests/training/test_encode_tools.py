"""Calls of tools as answers: what is learned is what the model has to produce, template by
template.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.training.tiny import build_base
from tests.training.tool_templates import HIDE_CALLS, SHOW_CALLS
from training.data.rows import BadLine, Row, read_objects
from training.data.shapes import is_visible
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded

TOOL = {
    "type": "function",
    "function": {
        "name": "stock",
        "description": "Pieces in stock.",
        "parameters": {"type": "object", "properties": {"part": {"type": "string"}}},
    },
}
USER = {"role": "user", "content": "How many lamps?"}
WORDS = {"role": "assistant", "content": "Twelve."}
ONE_CALL = ("llama-3.1",)  # templates that take one call in a turn


def _call(arguments: Any, name: str = "stock", number: int = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call{number:05}", "type": "function", "function": function}


def _calling(*calls: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def _result(content: Any = "12", number: int = 0) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call{number:05}", "content": content}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    folder = tmp_path_factory.mktemp("tool-bases")
    return {
        name: Encoder(
            BaseModel(
                build_base(folder / name, template=template, eos=eos, special=special, layers=1),
                name,
            ),
            512,
        )
        for name, (template, eos, special) in {**SHOW_CALLS, **HIDE_CALLS}.items()
    }


def _row(*messages: dict[str, Any], **fields: Any) -> Row:
    reading = read_objects([(1, {"messages": list(messages), **fields})], unit="row", asked=True)
    assert not reading.bad, str(reading.bad[0])
    return reading.rows[0]


def _encoded(encoder: Encoder, row: Row) -> Encoded:
    found = encoder.encode(row)
    assert isinstance(found, Encoded), str(found)
    return found


def _learned(encoder: Encoder, encoded: Encoded) -> str:
    ids = [token for token, trained in zip(encoded.ids, encoded.trained, strict=True) if trained]
    return encoder.decode_whole(ids)


@pytest.mark.parametrize("name", SHOW_CALLS)
@pytest.mark.parametrize("tools", [[TOOL], []], ids=["tools", "no tools"])
def test_a_final_call_is_learned_with_its_end(
    encoders: dict[str, Encoder], name: str, tools: list[Any]
) -> None:
    encoder = encoders[name]
    row = _row(USER, _calling(_call({"part": "lamp"})), tools=tools)
    encoded = _encoded(encoder, row)
    learned = _learned(encoder, encoded)
    assert "stock" in learned and "lamp" in learned, learned
    assert encoded.ids[-1] in encoder.base.stop_ids and encoded.trained[-1]
    assert list(encoded.ids[: encoded.prompt_tokens]) == encoder.prompt_ids(row)
    assert not any(encoded.trained[: encoded.prompt_tokens]), "the question is not learned"
    assert ("Pieces in stock." in encoder.decode_whole(encoder.prompt_ids(row))) == bool(tools)
    assert "Pieces in stock." not in learned


@pytest.mark.parametrize("name", SHOW_CALLS)
def test_arguments_as_text_and_as_object_are_the_same_tokens(
    encoders: dict[str, Encoder], name: str
) -> None:
    arguments = {"part": "Lampe für 5 €", "many": 3, "deep": {"a": [1, None, True]}}
    forms = (arguments, json.dumps(arguments), json.dumps(arguments, ensure_ascii=False))
    found = [_encoded(encoders[name], _row(USER, _calling(_call(form)))) for form in forms]
    assert len({(row.ids, row.trained) for row in found}) == 1


@pytest.mark.parametrize("name", SHOW_CALLS)
def test_calls_before_the_answer_are_learned_only_with_train_all(
    encoders: dict[str, Encoder], name: str
) -> None:
    encoder = encoders[name]
    messages = (USER, _calling(_call({"part": "lamp"})), _result(), WORDS)
    last = _learned(encoder, _encoded(encoder, _row(*messages, tools=[TOOL])))
    assert "stock" not in last and "Twelve." in last
    found = encoder.encode(_row(*messages, tools=[TOOL], train="all"))
    if isinstance(found, BadLine):  # a template that writes an earlier turn in another way
        assert name == "qwen3" and "once the conversation goes on" in found.found
        return
    learned = _learned(encoder, found)
    assert "lamp" in learned and "Twelve." in learned and "12" not in learned.replace("Twelve", "")


@pytest.mark.parametrize("name", SHOW_CALLS)
def test_several_calls_of_one_turn(encoders: dict[str, Encoder], name: str) -> None:
    calls = (_call({"part": "lamp"}), _call({"part": "fan"}, number=1))
    found = encoders[name].encode(_row(USER, _calling(*calls), tools=[TOOL]))
    if name in ONE_CALL:
        assert isinstance(found, BadLine) and "one call in a turn" in found.found
        return
    assert isinstance(found, Encoded)
    learned = _learned(encoders[name], found)
    assert learned.index("lamp") < learned.index("fan")


@pytest.mark.parametrize("name", SHOW_CALLS)
def test_results_may_be_texts_or_parts_and_several(encoders: dict[str, Encoder], name: str) -> None:
    calls = [_call({"part": "lamp"})]
    results = [_result([{"type": "text", "text": "12"}])]
    if name not in ONE_CALL:
        calls.append(_call({"part": "fan"}, number=1))
        results.append(_result(None, number=1))
    row = _row(USER, _calling(*calls), *results, WORDS, tools=[TOOL])
    encoded = _encoded(encoders[name], row)
    assert "12" in encoders[name].decode_whole(list(encoded.ids))
    assert _learned(encoders[name], encoded).count("Twelve.") == 1


@pytest.mark.parametrize("name", HIDE_CALLS)
def test_a_final_call_that_the_template_leaves_out_is_refused_in_one_sentence(
    encoders: dict[str, Encoder], name: str
) -> None:
    for content in (None, "One moment."):
        refused = encoders[name].encode(_row(USER, _calling(_call({}), content=content)))
        assert isinstance(refused, BadLine), "an empty answer would be learned"
        assert refused.found == (
            "the call of stock as the answer, which the base's chat template leaves out"
        )


@pytest.mark.parametrize("name", ["smollm2", "smollm3"])
def test_an_earlier_call_that_the_template_leaves_out_is_not_learned_and_named(
    encoders: dict[str, Encoder], name: str
) -> None:
    row = _row(USER, _calling(_call({})), _result(), WORDS, tools=[TOOL], train="all")
    encoder = encoders[name]
    assert _learned(encoder, _encoded(encoder, row)) == "Twelve.<|im_end|>"
    unseen = encoder.unseen(row)
    assert "a call of stock" in unseen
    assert ("the tools" in unseen) == (name == "smollm2")


@pytest.mark.parametrize("name", SHOW_CALLS)
def test_nothing_is_named_as_unseen_where_all_is_shown(
    encoders: dict[str, Encoder], name: str
) -> None:
    assert encoders[name].unseen(_row(USER, _calling(_call({})), tools=[TOOL])) == []


def test_a_template_that_writes_names_alone_is_refused(tmp_path: Path) -> None:
    names = SHOW_CALLS["qwen2.5"][0].replace("call.function.arguments | tojson", "'{}'")
    encoder = Encoder(
        BaseModel(build_base(tmp_path / "base", template=names, eos="<|im_end|>", layers=1), "x"),
        512,
    )
    refused = encoder.encode(_row(USER, _calling(_call({"part": "lamp"}))))
    assert isinstance(refused, BadLine)
    assert refused.found.startswith("the arguments of the call of stock")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"tools": "none"}, "'tools' is a text"),
        ({"tools": {"a": 1}}, "'tools' is an object"),
        ({"tools": [{"type": "function"}]}, "tool 1 is"),
        ({"tools": [{"name": "f", "parameters": []}]}, "parameters of tool 1"),
        ({"messages": [USER, _calling(_call("no JSON"))]}, "the arguments 'no JSON' of the call"),
        ({"messages": [USER, _calling(_call([1]))]}, "the arguments '[1]' of the call of stock"),
        ({"messages": [USER, _calling({"id": "x"})]}, "a call without a name in message 2"),
        ({"messages": [USER, _calling(_call({}, name=" "))]}, "a call without a name"),
        ({"messages": [USER, {**WORDS, "tool_calls": "f"}]}, "'tool_calls' of message 2 is a text"),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": []}]}, "null"),
    ],
)
def test_calls_and_tools_that_cannot_be_learned_are_named(
    fields: dict[str, Any], found: str
) -> None:
    row = {"messages": [USER, WORDS], **fields}
    reading = read_objects([(1, row)], unit="row", asked=True)
    assert [found in bad.found for bad in reading.bad] == [True], str(reading)


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]]])
def test_tools_are_taken_as_objects_as_text_and_without_the_outer_object(tools: Any) -> None:
    assert _row(USER, WORDS, tools=tools).tools == (TOOL,)
    assert _row(USER, WORDS, functions=tools).tools == (TOOL,)


def test_tools_have_the_fields_and_the_order_that_the_engine_gives_to_the_template() -> None:
    shuffled = {"function": {"parameters": {}, "extra": 1, "name": "f"}, "type": "function"}
    (tool,) = _row(USER, WORDS, tools=[shuffled]).tools
    assert next(iter(tool.items())) == ("type", "function")
    assert list(tool["function"].items()) == [
        ("name", "f"), ("description", None), ("parameters", {}),
    ]  # fmt: skip


def test_other_calls_or_tools_make_another_question() -> None:
    history = [
        (USER, _calling(_call({"part": part})), _result(), WORDS) for part in ("lamp", "fan")
    ]
    digests = {_row(*messages).prompt_digest for messages in history}
    digests |= {_row(*history[0], tools=[TOOL]).prompt_digest}
    assert len(digests) == 3


# --- the property -----------------------------------------------------------------------------

_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), min_size=1, max_size=30
).filter(is_visible)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)
_NAME = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)


@st.composite
def _conversations(draw: st.DrawFn, calls_at_most: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": draw(_TEXT)}]
    for turn in range(draw(st.integers(0, 2))):
        some = _drawn_calls(draw, calls_at_most, turn)
        messages.append(some)
        results = [draw(_TEXT) for _ in some["tool_calls"]]
        messages += [_result(text, number) for number, text in enumerate(results)]
    answer = _drawn_calls(draw, calls_at_most, 9) if draw(st.booleans()) else None
    messages.append(answer or {"role": "assistant", "content": draw(_TEXT)})
    tools = [TOOL] if draw(st.booleans()) else []
    return {"messages": messages, "tools": tools, "train": draw(st.sampled_from(["last", "all"]))}


def _drawn_calls(draw: st.DrawFn, at_most: int, turn: int) -> dict[str, Any]:
    arguments = st.dictionaries(_TEXT, _JSON, max_size=3)
    calls = [
        _call(draw(arguments | arguments.map(json.dumps)), draw(_NAME), 10 * turn + number)
        for number in range(draw(st.integers(1, at_most)))
    ]
    return _calling(*calls, content=draw(st.none() | _TEXT))


@pytest.mark.parametrize("name", SHOW_CALLS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_learned_is_what_the_model_has_to_produce(
    encoders: dict[str, Encoder], name: str, data: st.DataObject
) -> None:
    """For random conversations the learned tokens of a turn are, decoded, exactly what follows the
    opening of the answer up to its end; and what precedes them is what the engine is given."""
    encoder = encoders[name]
    raw = data.draw(_conversations(1 if name in ONE_CALL else 3))
    row = _row(*raw["messages"], tools=raw["tools"], train=raw["train"])
    encoder.max_length = 1 << 20
    encoded = encoder.encode(row)
    if isinstance(encoded, BadLine):  # what cannot be learned exactly is refused, never bent
        reasons = ("melt into", "once the conversation goes on", "changes or drops")
        assert any(reason in encoded.found for reason in reasons), str(encoded)
        return
    tokenizer, messages = encoder.base.tokenizer, encoder._conversation(row)

    def rendered(some: list[dict[str, Any]], *, opened: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                some, tools=list(row.tools) or None, tokenize=False, add_generation_prompt=opened
            )
        )

    expected = []
    turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    for turn in turns if row.mode == "all" else turns[-1:]:
        prompt = rendered(messages[:turn], opened=True)
        whole = rendered(messages[: turn + 1], opened=False)
        assert whole.startswith(prompt)
        expected.append(whole[len(prompt) :].rstrip("\n"))
    assert _learned(encoder, encoded) == "".join(expected)
    assert list(encoded.ids[: encoded.prompt_tokens]) == encoder.prompt_ids(row)
