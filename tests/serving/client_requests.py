"""Hypothesis strategies for what clients send: every message and field kind of each route.

The requests are well-typed JSON, as SDKs write them, with the oddities that SDKs are known for:
nulls for whatever is optional, whole floats for integers, provider fields in messages, and the same
thing said in several forms.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]
Values = st.SearchStrategy[Any]

_TEXT = st.one_of(
    st.sampled_from(["", "hi", "Grüße 漢字 🙂", "two\nlines", '{"a": 1}', "\u2028", "null"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8),
)
_NAME = st.sampled_from(["look_up", "send-mail", "f1"])
_SCHEMA = st.sampled_from(
    [
        {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        {"type": "object", "properties": {"n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
        {"type": "object", "properties": {}},
        {},
    ]
)
_EXTRA = {
    "cache_control": st.just({"type": "ephemeral"}),
    "provider_specific_fields": st.sampled_from([None, {"refusal": None}]),
    "extra_content": st.just({"google": {"thought_signature": "x"}}),
}


def _some(draw: st.DrawFn, fields: dict[str, Values], *, at_most: int) -> Json:
    """Draws values for at most `at_most` of the fields: all of them would hide what one does."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=at_most))
    return {name: draw(fields[name]) for name in names}


def _whole(low: int, high: int) -> Values:
    """An integer, half of the time written as a float."""
    return st.integers(low, high).flatmap(lambda value: st.sampled_from([value, float(value)]))


def _number(low: float, high: float) -> Values:
    return st.one_of(
        st.floats(low, high, allow_nan=False), st.sampled_from([low, high]), st.just(int(high))
    )


def _or_null(values: Values) -> Values:
    return st.one_of(values, st.none())


# --- messages of chat ----------------------------------------------------------------------------


_PART = {
    "text": st.fixed_dictionaries(
        {"type": st.just("text"), "text": _TEXT}, optional={"annotations": st.just([]), **_EXTRA}
    ),
    "bare text": _TEXT,
    "refusal": st.fixed_dictionaries({"type": st.just("refusal"), "refusal": _TEXT}),
    "thinking": st.fixed_dictionaries(
        {"type": st.just("thinking"), "thinking": _TEXT}, optional={"closed": st.booleans()}
    ),
    "tool_reference": st.just({"type": "tool_reference", "name": "f1"}),
    "image": st.just({"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}),
}


def _parts(*kinds: str) -> Values:
    return st.one_of(
        st.lists(_PART["text"], max_size=3),
        st.lists(st.one_of(*(_PART[kind] for kind in ("text", *kinds))), max_size=3),
    )


@st.composite
def _plain_messages(draw: st.DrawFn) -> Json:
    """A message of the system, the developer or the user."""
    message: Json = {"role": draw(st.sampled_from(["system", "developer", "user"]))}
    if draw(st.integers(0, 9)):  # now and then `content` is missing
        message["content"] = draw(st.one_of(_TEXT, _parts("bare text", "image", "tool_reference")))
    return message | _some(draw, {"name": st.sampled_from(["bob", "a_b"]), **_EXTRA}, at_most=1)


_OBJECT = st.one_of(_SCHEMA, st.just({"city": "Bonn", "days": [1, 2.5, None], "deep": {"é": True}}))
_ARGUMENTS = st.one_of(
    st.sampled_from(["", "{}", "[]", "42", '"blue"', "null", "{not json", ' { "a" : 1 } ']),
    _OBJECT.map(json.dumps),
    _OBJECT,  # an object where OpenAI's API has text
    _TEXT,
)
_TOOL_CALL = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["call_1", "call_2", ""]),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": _NAME, "arguments": _ARGUMENTS}),
    },
    optional={"index": _whole(0, 3), **_EXTRA},
)
_ANSWER_FIELDS: dict[str, Values] = {
    "tool_calls": st.one_of(
        st.none(),
        st.just([]),
        st.lists(_TOOL_CALL, min_size=1, max_size=3),
        st.lists(_TOOL_CALL, min_size=1, max_size=3),
    ),
    "reasoning": _or_null(_TEXT),
    "reasoning_content": _or_null(_TEXT),
    "refusal": _or_null(_TEXT),
    "annotations": st.sampled_from(
        [
            None,
            [],
            [
                {
                    "type": "url_citation",
                    "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1},
                }
            ],
        ]
    ),
    "audio": st.none(),
    "function_call": st.sampled_from([None, None, {"name": "f1", "arguments": "{}"}]),
    "name": st.just("assistant_1"),
    **_EXTRA,
}


@st.composite
def _answers(draw: st.DrawFn) -> Json:
    """A message of the assistant, as SDKs send it back."""
    message: Json = {"role": "assistant"}
    if draw(st.integers(0, 9)):
        message["content"] = draw(
            st.one_of(_TEXT, st.none(), _parts("refusal", "thinking", "bare text"))
        )
    return message | _some(draw, _ANSWER_FIELDS, at_most=5)


_RESULTS = st.fixed_dictionaries(
    {"role": st.just("tool"), "content": st.one_of(_TEXT, _parts())},
    optional={"tool_call_id": st.sampled_from(["call_1", "call_2", None]), "name": _NAME, **_EXTRA},
)
_OTHERS = st.one_of(
    st.fixed_dictionaries({"role": st.just("function"), "name": _NAME, "content": _or_null(_TEXT)}),
    st.fixed_dictionaries({"role": st.just("critic"), "content": _TEXT}),
)
_USUAL = st.one_of(_plain_messages(), _answers(), _RESULTS)
_MESSAGES = st.one_of(
    st.lists(_USUAL, min_size=1, max_size=5),
    st.lists(_USUAL, max_size=5),
    st.lists(st.one_of(_USUAL, _OTHERS), min_size=1, max_size=3),
)

# --- fields --------------------------------------------------------------------------------------

_FUNCTION = st.fixed_dictionaries(
    {"name": _NAME},
    optional={
        "description": _or_null(_TEXT),
        "parameters": _or_null(_SCHEMA),
        "strict": st.sampled_from([True, False, None]),
    },
)
_CHAT_TOOLS = st.lists(
    st.fixed_dictionaries(
        {"function": _FUNCTION}, optional={"type": st.just("function"), **_EXTRA}
    ),
    min_size=1,
    max_size=3,
)
_RESPONSE_FORMAT = st.one_of(
    st.just({"type": "text"}),
    st.just({"type": "json_object"}),
    st.fixed_dictionaries(
        {
            "type": st.just("json_schema"),
            "json_schema": st.fixed_dictionaries(
                {"name": _NAME, "schema": _SCHEMA},
                optional={
                    "strict": st.sampled_from([True, False, None]),
                    "description": _or_null(_TEXT),
                },
            ),
        }
    ),
    st.just(
        {
            "type": "structural_tag",
            "structures": [{"begin": "<a>", "schema": {"type": "object"}, "end": "</a>"}],
            "triggers": ["<a>"],
        }
    ),
    st.just(
        {
            "type": "structural_tag",
            "format": {"type": "json_schema", "json_schema": {"type": "object"}},
        }
    ),
)
_STRUCTURED = st.one_of(
    st.fixed_dictionaries(
        {"json": st.one_of(_SCHEMA, _SCHEMA.map(json.dumps))},
        optional={"disable_any_whitespace": st.booleans()},
    ),
    st.just({"regex": "[a-z]+"}),
    st.just({"choice": ["yes", "nö"]}),
    st.just({"choice": ["yes"], "json": None, "regex": None, "grammar": None}),
    st.just({"grammar": 'root ::= "a"'}),
    st.just({"json_object": True}),
    st.just(
        {"structural_tag": json.dumps({"type": "structural_tag", "format": {"type": "any_text"}})}
    ),
)
_SHARED: dict[str, Values] = {
    "temperature": _or_null(_number(0, 2)),
    "top_p": _or_null(_number(0.1, 1)),
    "seed": _or_null(_whole(-(2**31), 2**31)),
    "top_k": _or_null(_whole(0, 50)),
    "min_p": _or_null(_number(0, 1)),
    "repetition_penalty": _or_null(_number(0.5, 2)),
    "presence_penalty": _or_null(_number(-2, 2)),
    "frequency_penalty": _or_null(_number(-2, 2)),
    "stop": _or_null(st.one_of(st.just("\n"), st.lists(st.sampled_from(["a", "bé"]), max_size=4))),
    "stop_token_ids": _or_null(st.lists(_whole(0, 300), max_size=3)),
    "ignore_eos": st.booleans(),
    "skip_special_tokens": st.booleans(),
    "include_stop_str_in_output": st.booleans(),
    "structured_outputs": _or_null(_STRUCTURED),
    "logit_bias": _or_null(
        st.dictionaries(st.sampled_from(["1", "17"]), _number(-100, 100), max_size=2)
    ),
    "user": _or_null(st.just("customer-17")),
    "metadata": _or_null(st.just({"session": "s1"})),
}
_SAMPLED: dict[str, Values] = {
    **_SHARED,
    "n": _whole(1, 8),
    "max_tokens": _or_null(_whole(1, 4000)),
    "min_tokens": _whole(0, 5),
    "response_format": _or_null(_RESPONSE_FORMAT),
    "allowed_token_ids": _or_null(st.lists(_whole(0, 300), min_size=1, max_size=3)),
    "bad_words": st.lists(st.sampled_from(["a", "bé"]), max_size=2),
    "truncate_prompt_tokens": _or_null(_whole(-1, 500)),
    "return_token_ids": st.sampled_from([True, False, None]),
    "stream_options": st.none(),
}
_CHAT: dict[str, Values] = {
    **_SAMPLED,
    "n": _or_null(_whole(1, 8)),
    "max_completion_tokens": _or_null(_whole(1, 4000)),
    "logprobs": st.sampled_from([False, None]),
    "top_logprobs": st.sampled_from([0, 0.0, None]),
    "parallel_tool_calls": st.sampled_from([True, False, None]),
    "reasoning_effort": st.sampled_from(
        ["none", "minimal", "low", "medium", "high", "xhigh", "max", None]
    ),
    "include_reasoning": st.booleans(),
    "add_generation_prompt": st.booleans(),
    "continue_final_message": st.booleans(),
    "service_tier": st.sampled_from([None, "auto"]),
    "store": st.sampled_from([None, False, True]),
    "prompt_cache_key": st.sampled_from([None, "k"]),
    "safety_identifier": st.sampled_from([None, "u1"]),
    "verbosity": st.sampled_from([None, "low"]),
    "modalities": st.sampled_from([None, ["text"]]),
    "functions": st.none(),
    "function_call": st.none(),
    "tools": st.none(),
    "tool_choice": st.sampled_from([None, "none"]),
}
# What only the engine offers, and values beyond the gateway's bounds: refused with a sentence.
_BEYOND: dict[str, Values] = {
    "prompt_logprobs": st.just(1),
    "use_beam_search": st.booleans(),
    "cache_salt": st.just("abc"),
    "priority": st.sampled_from([0, 1]),
    "vllm_xargs": st.sampled_from([{}, {"a": 1}]),
    "kv_transfer_params": st.sampled_from([{}, {"a": 1}]),
    "length_penalty": st.sampled_from([1.0, 2.0]),
    "thinking_token_budget": st.just(3),
    "watermarking": st.just(True),
    "session_id": st.just("s"),
    "return_tokens_as_token_ids": st.booleans(),
    "spaces_between_special_tokens": st.booleans(),
    "add_special_tokens": st.booleans(),
    "truncation_side": st.sampled_from(["left", "right", None]),
    "n": st.just(9),
    "logit_bias": st.just({"1": 150}),
    "top_k": st.just(-1),
    "seed": st.sampled_from([2**63 - 1, -(2**63)]),
    "max_tokens": st.just(0),
    "stop_token_ids": st.just(list(range(65))),
    "bad_words": st.just(["a"] * 65),
}
_BEYOND_CHAT: dict[str, Values] = {
    **_BEYOND,
    "max_completion_tokens": st.just(0),
    "documents": st.just([{"text": "x"}]),
    "echo": st.booleans(),
    "chat_template": st.just("x"),
    "chat_template_kwargs": st.sampled_from([{}, {"enable_thinking": False}]),
    "mm_processor_kwargs": st.just({}),
    "media_io_kwargs": st.just({}),
    "return_prompt_text": st.booleans(),
    "request_id": st.just("mine"),
}
_STREAM_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "include_usage": st.sampled_from([True, False, None]),
        "continuous_usage_stats": st.booleans(),
    },
)


def _stream(draw: st.DrawFn) -> Json:
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return {"stream": True, "stream_options": draw(_STREAM_OPTIONS)}
    return {"stream": draw(st.sampled_from([True, False, None]))} if kind == 1 else {}


@st.composite
def chat_requests(draw: st.DrawFn) -> Json:
    """A body for POST /v1/chat/completions."""
    body: Json = {"model": "base", "messages": draw(_MESSAGES)}
    body |= {**_some(draw, _CHAT, at_most=4), **_stream(draw)}
    if not draw(st.integers(0, 2)):
        tools: list[Json] = draw(_CHAT_TOOLS)
        body["tools"] = tools
        named = {"type": "function", "function": {"name": tools[0]["function"]["name"]}}
        if choice := draw(
            st.sampled_from([None, ("auto",), ("none",), ("required",), (None,), (named,)])
        ):
            body["tool_choice"] = choice[0]
    if not draw(st.integers(0, 5)):
        body |= {
            "logprobs": True,
            "top_logprobs": draw(_or_null(st.one_of(_whole(0, 20), st.just(-1)))),
        }
    return body if draw(st.integers(0, 3)) else body | _some(draw, _BEYOND_CHAT, at_most=2)


_COMPLETION: dict[str, Values] = {
    **_SAMPLED,
    "echo": st.sampled_from([True, False, None]),
    "logprobs": st.sampled_from([None, 0, 3, 5.0]),
    "suffix": st.none(),
    "add_special_tokens": st.booleans(),
    "best_of": st.sampled_from([None, 1]),
}


@st.composite
def completion_requests(draw: st.DrawFn) -> Json:
    """A body for POST /v1/completions."""
    ids = st.lists(_whole(0, 300), min_size=1, max_size=4)
    prompt = draw(
        st.one_of(
            _TEXT,
            ids,
            ids.map(lambda one: [one]),
            _TEXT.map(lambda one: [one]),
            st.just(["a", "b"]),
        )
    )
    body = {"model": "base", "prompt": prompt} | _some(draw, _COMPLETION, at_most=5) | _stream(draw)
    return (
        body
        if draw(st.integers(0, 3))
        else body | _some(draw, {**_BEYOND, "suffix": st.sampled_from(["", "b"])}, at_most=2)
    )


# --- items of responses --------------------------------------------------------------------------

_INPUT_TEXT = st.fixed_dictionaries(
    {"type": st.just("input_text"), "text": _TEXT},
    optional={"cache_control": st.just({"type": "ephemeral"})},
)
_OUTPUT_TEXT: Values = st.fixed_dictionaries(
    {"type": st.just("output_text"), "text": _TEXT},
    optional={"annotations": st.just([]), "logprobs": st.sampled_from([None, []])},
)
_STATUS = st.sampled_from(["completed", "incomplete", "in_progress"])
_ITEMS = st.one_of(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "system", "developer"]),
            "content": st.one_of(_TEXT, st.lists(_INPUT_TEXT, min_size=1, max_size=2)),
        },
        optional={"type": st.just("message"), "status": _STATUS},
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": _TEXT}, optional={"type": st.just("message")}
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("message"),
            "role": st.just("assistant"),
            "content": st.lists(_OUTPUT_TEXT, min_size=1, max_size=2),
        },
        optional={"id": st.just("msg_1"), "status": _STATUS},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("function_call"),
            "call_id": st.just("call_1"),
            "name": _NAME,
            "arguments": _ARGUMENTS,
        },
        optional={
            "id": st.sampled_from(["fc_1", None]),
            "status": st.sampled_from(["completed", None]),
            "namespace": st.none(),
        },
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("function_call_output"),
            "call_id": st.just("call_1"),
            "output": st.one_of(_TEXT, st.lists(_INPUT_TEXT, min_size=1, max_size=2)),
        },
        optional={"id": st.just("fo_1"), "status": st.just("completed")},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("reasoning"),
            "summary": st.sampled_from([[], [{"type": "summary_text", "text": "short"}]]),
        },
        optional={
            "id": st.just("rs_1"),
            "content": st.sampled_from([None, [{"type": "reasoning_text", "text": "I think"}]]),
            "encrypted_content": st.none(),
            "status": st.sampled_from(["completed", None]),
        },
    ),
)
_BEYOND_ITEMS = st.just(
    {"type": "custom_tool_call", "call_id": "call_1", "name": "f1", "input": "x"}
)
_BEYOND_RESPONSE: dict[str, Values] = {
    "previous_response_id": st.just("resp_1"),
    "background": st.just(True),
    "max_tool_calls": st.just(1),
    "service_tier": st.just("flex"),
    "cache_salt": st.just("abc"),
    "vllm_xargs": st.just({}),
    "enable_response_messages": st.booleans(),
    "chat_template_kwargs": st.just({"enable_thinking": False}),
    "tools": st.sampled_from([[{"type": "web_search"}], [{"type": "custom", "name": "f1"}]]),
}
_RESPONSE_TOOLS = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("function"), "name": _NAME},
        optional={
            "parameters": _or_null(_SCHEMA),
            "strict": st.sampled_from([True, False, None]),
            "description": _or_null(_TEXT),
        },
    ),
    min_size=1,
    max_size=3,
)
_RESPONSE: dict[str, Values] = {
    **_SHARED,
    "instructions": _or_null(_TEXT),
    "max_output_tokens": _or_null(_whole(1, 4000)),
    "parallel_tool_calls": st.sampled_from([True, False, None]),
    "reasoning": _or_null(
        st.sampled_from(
            [
                {},
                {"effort": "low"},
                {"effort": None, "summary": None},
                {"effort": "high", "summary": "auto"},
            ]
        )
    ),
    "store": st.sampled_from([True, False, None]),
    "text": _or_null(
        st.one_of(
            st.just({"format": {"type": "text"}}),
            st.just({"format": {"type": "json_object"}, "verbosity": "low"}),
            _SCHEMA.map(
                lambda schema: {
                    "format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
                }
            ),
            st.just({"verbosity": None}),
        )
    ),
    "top_logprobs": st.sampled_from([0, 3, 5.0, None]),
    "truncation": st.sampled_from(["auto", "disabled", None]),
    "include": st.sampled_from(
        [None, [], ["message.output_text.logprobs"], ["reasoning.encrypted_content"]]
    ),
    "include_reasoning": st.booleans(),
    "service_tier": st.just("auto"),
    "prompt_cache_key": st.sampled_from([None, "k"]),
    "safety_identifier": st.sampled_from([None, "u1"]),
    "background": st.sampled_from([None, False]),
    "previous_response_id": st.none(),
    "conversation": st.none(),
    "prompt": st.none(),
    "max_tool_calls": st.none(),
    "stream_options": st.none(),
    "tool_choice": st.sampled_from(["auto", "none"]),
    "tools": st.just([]),
    "stream": st.sampled_from([True, False, None]),
}


@st.composite
def responses_requests(draw: st.DrawFn) -> Json:
    """A body for POST /v1/responses."""
    body: Json = {
        "model": "base",
        "input": draw(
            st.one_of(
                _TEXT,
                st.lists(_ITEMS, min_size=1, max_size=5),
                st.lists(st.one_of(_ITEMS, _BEYOND_ITEMS), max_size=2),
            )
        ),
    }
    body |= _some(draw, _RESPONSE, at_most=4)
    if not draw(st.integers(0, 2)):
        tools: list[Json] = draw(_RESPONSE_TOOLS)
        body["tools"] = tools
        named = {"type": "function", "name": tools[0]["name"]}
        if choice := draw(st.sampled_from([None, ("auto",), ("none",), ("required",), (named,)])):
            body["tool_choice"] = choice[0]
    return body if draw(st.integers(0, 3)) else body | _some(draw, _BEYOND_RESPONSE, at_most=2)
