"""Request shapes after what vLLM's own server tests cover, and what is compared of their answers.

A shape is one request. It goes to the engine directly and through the gateway; `observe` keeps of
each answer what a client could build on, so that both can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.serving.engine_differences import BROKEN_OFF, FAILED_STREAM

Json = dict[str, Any]
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
USER = {"role": "user", "content": "The quick"}
LEAST: dict[str, Json] = {
    CHAT: {"messages": [USER], "max_tokens": 4, "temperature": 0},
    COMPLETIONS: {"prompt": "The quick", "max_tokens": 4, "temperature": 0},
    RESPONSES: {"input": "The quick", "max_output_tokens": 4, "temperature": 0},
}
_NAMES = {CHAT: "chat", COMPLETIONS: "completions", RESPONSES: "responses"}


@dataclass(frozen=True)
class Shape:
    """`model` names who is asked; a test translates it for the engine and for the gateway."""

    id: str
    path: str
    body: Json | bytes | None = None
    method: str = "POST"
    model: str | None = "base"


def _both(path: str, name: str, fields: Json, *, model: str = "base") -> Iterator[Shape]:
    """The request as it is, and streamed."""
    body = {**LEAST[path], **fields}
    body = {key: value for key, value in body.items() if value is not ...}
    yield Shape(f"{_NAMES[path]}/{name}", path, body, model=model)
    if "stream" not in fields:
        yield Shape(f"{_NAMES[path]}/{name}/stream", path, {**body, "stream": True}, model=model)


_AT_ONCE = {"logit_bias": {"0": 100}}  # token 0 ends an answer

# --- every field with every kind of value -------------------------------------------------------

_SHARED: dict[str, Json] = {
    "temperature": {"valid": 0.0, "null": None, "type": "hot", "low": -1, "high": 3},
    "top_p": {"valid": 0.5, "null": None, "type": "x", "zero": 0, "high": 1.5},
    "top_k": {"valid": 5, "all": -1, "null": None, "type": "x", "low": -5, "float": 5.0},
    "min_p": {"valid": 0.1, "null": None, "type": "x", "high": 2},
    "repetition_penalty": {"valid": 1.2, "null": None, "type": "x", "zero": 0, "low": -1},
    "presence_penalty": {"valid": 1, "null": None, "type": "x", "high": 3},
    "frequency_penalty": {"valid": 1, "null": None, "type": "x", "low": -3},
    "seed": {"valid": 7, "null": None, "type": "x", "high": 2**63, "float": 7.0},
    "stop": {"text": "q", "list": ["q", "é"], "null": None, "type": 5, "empty": [], "items": [1]},
    "stop_token_ids": {"valid": [33], "null": None, "type": "x", "empty": [], "low": [-1]},
    "ignore_eos": {"valid": True, "null": None, "type": "x"},
    "skip_special_tokens": {"valid": False, "null": None, "type": "x"},
    "include_stop_str_in_output": {"valid": True, "null": None, "type": "x"},
    "logit_bias": {
        "valid": {"40": 100},
        "null": None,
        "type": "x",
        "empty": {},
        "high": {"40": 150},
        "unknown token": {"999999": 1},
        "no number": {"a": 1},
    },
    "structured_outputs": {
        "choice": {"choice": ["yes", "no"]},
        "regex": {"regex": "[ab]{2}"},
        "null": None,
        "type": "x",
        "empty": {},
        "empty choice": {"choice": []},
        "bad regex": {"regex": "["},
        "two": {"choice": ["a"], "regex": "b"},
        "grammar": {"grammar": 'root ::= "ab"'},
        "bad grammar": {"grammar": "root ::="},
        "json": {"json": {"enum": ["b"]}},
        "json text": {"json": '{"enum": ["b"]}'},
    },
    "user": {"valid": "customer-17", "null": None, "type": 5, "empty": ""},
    "metadata": {"valid": {"a": "b"}, "null": None, "type": "x", "empty": {}},
}
_SAMPLED: dict[str, Json] = {
    "n": {"valid": 2, "null": None, "type": "x", "zero": 0, "high": 9, "low": -1, "float": 2.0},
    "max_tokens": {
        "valid": 2,
        "type": "x",
        "zero": 0,
        "low": -1,
        "high": 10**6,
        "float": 3.0,
        "half": 2.5,
    },
    "min_tokens": {"valid": 2, "null": None, "type": "x", "low": -1, "above max": 99},
    "response_format": {
        "text": {"type": "text"},
        "json_object": {"type": "json_object"},
        "null": None,
        "schema": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["b"]}}},
        "no schema": {"type": "json_schema"},
        "type": "x",
        "empty": {},
        "kind": {"type": "xml"},
        "bad schema": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "no type"}},
        },
    },
    "allowed_token_ids": {
        "valid": [40, 41],
        "null": None,
        "type": "x",
        "empty": [],
        "high": [10**6],
    },
    "bad_words": {"valid": ["a"], "null": None, "type": "x", "empty": []},
    "truncate_prompt_tokens": {"valid": 3, "null": None, "type": "x", "all": -1, "low": -2},
    "return_token_ids": {"valid": True, "null": None, "type": "x"},
}
_SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["b"]}},
    "required": ["a"],
    "additionalProperties": False,
}
_TOOL = {"type": "function", "function": {"name": "look_up", "parameters": _SCHEMA, "strict": True}}
_FLAT_TOOL = {"type": "function", "name": "look_up", "parameters": _SCHEMA, "strict": True}
FIELDS: dict[str, dict[str, Json]] = {
    CHAT: {
        **_SHARED,
        **_SAMPLED,
        "messages": {"null": None, "type": "x", "empty": [], "absent": ..., "items": ["x"]},
        "max_completion_tokens": {"valid": 2, "null": None, "type": "x", "low": -1},
        "logprobs": {"valid": True, "null": None, "type": "x"},
        "top_logprobs": {"alone": 2, "null": None, "type": "x", "high": 21, "zero": 0},
        "tools": {"valid": [_TOOL], "null": None, "type": "x", "empty": [], "nonsense": [{"a": 1}]},
        "tool_choice": {
            "none": "none",
            "auto": "auto",
            "required": "required",
            "null": None,
            "type": 5,
        },
        "parallel_tool_calls": {"valid": False, "null": None, "type": "x"},
        "reasoning_effort": {"valid": "low", "null": None, "type": "x"},
        "include_reasoning": {"valid": False, "null": None, "type": "x"},
        "add_generation_prompt": {"valid": False, "null": None, "type": "x"},
        "continue_final_message": {"null": None, "type": "x", "of user": True},
        "service_tier": {"valid": "auto", "null": None, "type": 5},
        "store": {"valid": True, "null": None},
        "chat_template": {"valid": "{{ messages }}", "null": None},
        "documents": {"valid": [{"text": "x"}], "null": None, "empty": []},
        "prompt_logprobs": {"valid": 1, "null": None},
        "echo": {"valid": True, "false": False, "null": None},
        "priority": {"valid": 1, "zero": 0, "null": None},
        "cache_salt": {"valid": "salt", "null": None},
        "unheard_of": {"valid": 1, "null": None},
    },
    COMPLETIONS: {
        **_SHARED,
        **_SAMPLED,
        "prompt": {
            "ids": [41, 42],
            "one text": ["The quick"],
            "one of ids": [[41, 42]],
            "null": None,
            "two texts": ["a", "b"],
            "empty": "",
            "empty list": [],
            "type": 5,
            "absent": ...,
            "negative": [-1],
            "unknown id": [10**6],
            "mixed": ["a", 1],
        },
        "logprobs": {"valid": 3, "zero": 0, "null": None, "type": "x", "high": 21, "low": -1},
        "echo": {"valid": True, "null": None, "type": "x"},
        "suffix": {"valid": "x", "null": None},
        "add_special_tokens": {"valid": False, "null": None, "type": "x"},
        "best_of": {"one": 1, "two": 2, "null": None},
        "unheard_of": {"valid": 1, "null": None},
    },
    RESPONSES: {
        **_SHARED,
        "input": {
            "null": None,
            "type": 5,
            "empty": [],
            "empty text": "",
            "absent": ...,
            "items": ["x"],
        },
        "instructions": {"valid": "Be brief.", "null": None, "type": 5, "empty": ""},
        "max_output_tokens": {"valid": 2, "type": "x", "zero": 0, "low": -1, "float": 2.0},
        "parallel_tool_calls": {"valid": False, "null": None, "type": "x"},
        "reasoning": {"valid": {"effort": "low"}, "null": None, "type": "x", "empty": {}},
        "text": {
            "format": {"format": {"type": "text"}},
            "null": None,
            "type": "x",
            "empty": {},
            "schema": {"format": {"type": "json_schema", "name": "x", "schema": {"enum": ["b"]}}},
        },
        "tools": {
            "valid": [_FLAT_TOOL],
            "null": None,
            "type": "x",
            "empty": [],
            "search": [{"type": "web_search"}],
        },
        "tool_choice": {
            "none": "none",
            "auto": "auto",
            "required": "required",
            "null": None,
            "type": 5,
        },
        "top_logprobs": {"valid": 2, "null": None, "type": "x", "high": 21},
        "truncation": {"valid": "disabled", "auto": "auto", "null": None, "type": "x"},
        "include": {
            "valid": ["message.output_text.logprobs"],
            "null": None,
            "empty": [],
            "type": ["x"],
        },
        "store": {"valid": True, "null": None, "false": False},
        "background": {"valid": True, "false": False, "null": None},
        "previous_response_id": {"valid": "resp_1", "null": None},
        "prompt": {"valid": {"id": "x"}, "null": None},
        "service_tier": {"valid": "auto", "null": None},
        "unheard_of": {"valid": 1, "null": None},
    },
}


def field_shapes() -> Iterator[Shape]:
    """Every field of every route with every kind of value, plain and streamed."""
    for path, fields in FIELDS.items():
        for name, values in fields.items():
            for kind, value in values.items():
                yield from _both(path, f"{name}: {kind}", {**_beside(name, value), name: value})


def _beside(name: str, value: Any) -> Json:
    """What makes an answer repeatable or short where the value alone would not."""
    if name == "temperature" and value is None:
        return {"seed": 3}
    return _AT_ONCE if isinstance(value, int) and value > 1000 else {}


# --- whole requests -----------------------------------------------------------------------------


def _call(arguments: Any) -> Json:
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": "look_up", "arguments": arguments},
    }


def _asked(arguments: Any, **more: Any) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": [_call(arguments)], **more}


_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "fox"}
_TEXT_PART = {"type": "text", "text": "The quick"}
CONVERSATIONS: dict[str, Any] = {
    "system": [{"role": "system", "content": "Be brief."}, USER],
    "developer": [{"role": "developer", "content": "Be brief."}, USER],
    "answered": [USER, {"role": "assistant", "content": "fox"}, USER],
    "parts": [{"role": "user", "content": [_TEXT_PART, _TEXT_PART]}],
    "no parts": [{"role": "user", "content": []}],
    "text among parts": [{"role": "user", "content": ["The quick", _TEXT_PART]}],
    "cache_control": [
        {"role": "user", "content": [{**_TEXT_PART, "cache_control": {"type": "ephemeral"}}]}
    ],
    "empty text": [{"role": "user", "content": ""}],
    "null content of user": [{"role": "user", "content": None}],
    "no content": [{"role": "user"}],
    "name": [{**USER, "name": "bob"}],
    "null name": [{**USER, "name": None}],
    "unknown field": [{**USER, "mood": "good"}],
    "unknown role": [{"role": "critic", "content": "x"}],
    "no role": [{"content": "x"}],
    "image": [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}],
        }
    ],
    "tool turn": [USER, _asked('{"a": "b"}'), _RESULT],
    "tool turn, empty arguments": [USER, _asked(""), _RESULT],
    "tool turn, broken arguments": [USER, _asked("{no"), _RESULT],
    "tool turn, object arguments": [USER, _asked({"a": "b"}), _RESULT],
    "tool turn, result in parts": [USER, _asked("{}"), {**_RESULT, "content": [_TEXT_PART]}],
    "tool turn, null result": [USER, _asked("{}"), {**_RESULT, "content": None}],
    "tool turn, two calls": [
        USER,
        {**_asked("{}"), "tool_calls": [_call("{}"), _call("{}")]},
        _RESULT,
    ],
    "tool turn, text beside the call": [USER, _asked("{}", content="wait"), _RESULT],
    "tool call without type": [
        USER,
        {**_asked("{}"), "tool_calls": [{**_call("{}"), "type": ...}]},
    ],
    "tool call without id": [USER, {**_asked("{}"), "tool_calls": [{**_call("{}"), "id": ...}]}],
    "reasoning": [USER, {"role": "assistant", "content": "fox", "reasoning": "r"}, USER],
    "reasoning_content": [
        USER,
        {"role": "assistant", "content": "fox", "reasoning_content": "r"},
        USER,
    ],
    "client's nulls": [
        USER,
        {
            "role": "assistant",
            "content": "fox",
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": None,
            "reasoning": None,
        },
        USER,
    ],
    "provider fields": [
        USER,
        {"role": "assistant", "content": "fox", "provider_specific_fields": {"a": 1}},
        USER,
    ],
    "answer last": [USER, {"role": "assistant", "content": "brown"}],
}
_ITEM = {"role": "user", "content": [{"type": "input_text", "text": "The quick"}]}
_CALL_ITEM = {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"}
_RESULT_ITEM = {"type": "function_call_output", "call_id": "call_1", "output": "fox"}
INPUTS: dict[str, Any] = {
    "message": [_ITEM],
    "typed message": [{"type": "message", **_ITEM}],
    "text content": [{"role": "user", "content": "The quick"}],
    "answered": [_ITEM, {"role": "assistant", "content": "fox"}, _ITEM],
    "output item": [
        _ITEM,
        {
            "type": "message",
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "fox", "annotations": []}],
        },
        _ITEM,
    ],
    "output item without id": [
        _ITEM,
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "fox"}],
        },
        _ITEM,
    ],
    "tool turn": [_ITEM, _CALL_ITEM, _RESULT_ITEM],
    "tool turn, object arguments": [_ITEM, {**_CALL_ITEM, "arguments": {}}, _RESULT_ITEM],
    "tool turn, nulls": [_ITEM, {**_CALL_ITEM, "id": None, "status": None}, _RESULT_ITEM],
    "reasoning": [
        _ITEM,
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "r"}],
        },
        _ITEM,
    ],
    "image": [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "http://127.0.0.1:1/a.png", "detail": "auto"}
            ],
        }
    ],
    "unknown item": [{"type": "item_reference", "id": "x"}],
    "unknown role": [{"role": "critic", "content": "x"}],
}
REQUESTS: dict[str, tuple[str, Json]] = {
    "logprobs": (CHAT, {"logprobs": True, "top_logprobs": 2}),
    "logprobs, none on top": (CHAT, {"logprobs": True, "top_logprobs": 0}),
    "two choices with logprobs": (CHAT, {"n": 2, "logprobs": True, "top_logprobs": 1}),
    "seeded": (CHAT, {"temperature": 1, "seed": 3}),
    "two seeded choices": (CHAT, {"temperature": 1, "seed": 3, "n": 2}),
    "ends at a stop token": (CHAT, {"logit_bias": {"0": 100}}),
    "echo": (COMPLETIONS, {"echo": True}),
    "echo alone": (COMPLETIONS, {"echo": True, "max_tokens": 0}),
    "echo with logprobs": (COMPLETIONS, {"echo": True, "logprobs": 1}),
    "logprobs ": (COMPLETIONS, {"logprobs": 2}),
    "token ids": (COMPLETIONS, {"prompt": [41, 42], "return_token_ids": True}),
    "tool auto": (CHAT, {"tools": [_TOOL]}),
    "tool required": (CHAT, {"tools": [_TOOL], "tool_choice": "required", "max_tokens": 80}),
    "tool named": (
        CHAT,
        {
            "tools": [_TOOL],
            "tool_choice": {"type": "function", "function": {"name": "look_up"}},
            "max_tokens": 80,
        },
    ),
    "tool named, not there": (
        CHAT,
        {"tools": [_TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
    ),
    "tool of no parameters": (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    "tool without name": (CHAT, {"tools": [{"type": "function", "function": {}}]}),
    "no tools, auto": (CHAT, {"tools": [], "tool_choice": "auto"}),
    "no tools, none": (CHAT, {"tools": [], "tool_choice": "none"}),
    "continued": (
        CHAT,
        {
            "messages": [USER, {"role": "assistant", "content": "brown"}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    ),
    "continued, prompt too": (
        CHAT,
        {
            "messages": [USER, {"role": "assistant", "content": "brown"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
    ),
    "continued alone": (
        CHAT,
        {
            "messages": [USER, {"role": "assistant", "content": "brown"}],
            "continue_final_message": True,
        },
    ),
    "too long": (CHAT, {"messages": [{"role": "user", "content": "word " * 9000}]}),
    "too long ": (COMPLETIONS, {"prompt": "word " * 9000}),
    "too long  ": (RESPONSES, {"input": "word " * 9000}),
    "adds up to too much": (CHAT, {"max_tokens": 8190, **_AT_ONCE}),
    "tool": (RESPONSES, {"tools": [_FLAT_TOOL]}),
    "tool required ": (
        RESPONSES,
        {"tools": [_FLAT_TOOL], "tool_choice": "required", "max_output_tokens": 80},
    ),
    "tool named ": (
        RESPONSES,
        {
            "tools": [_FLAT_TOOL],
            "tool_choice": {"type": "function", "name": "look_up"},
            "max_output_tokens": 80,
        },
    ),
    "logprobs  ": (RESPONSES, {"top_logprobs": 2, "include": ["message.output_text.logprobs"]}),
}
STREAM_OPTIONS: dict[str, Any] = {
    "absent": ...,
    "null": None,
    "empty": {},
    "usage": {"include_usage": True},
    "no usage": {"include_usage": False},
    "null usage": {"include_usage": None},
    "continuous": {"include_usage": True, "continuous_usage_stats": True},
    "continuous alone": {"continuous_usage_stats": True},
    "continuous, no usage": {"include_usage": False, "continuous_usage_stats": True},
    "type": "x",
    "unknown": {"include_obfuscation": False},
}


def _without_dots(value: Any) -> Any:
    """Drops keys whose value is `...`."""
    if isinstance(value, dict):
        return {key: _without_dots(each) for key, each in value.items() if each is not ...}
    return [_without_dots(each) for each in value] if isinstance(value, list) else value


def usual_shapes() -> Iterator[Shape]:
    """Conversations, items, tools, streams, adapters, bodies and other routes."""
    for name, messages in CONVERSATIONS.items():
        yield from _both(CHAT, name, {"messages": _without_dots(messages)})
    for name, items in INPUTS.items():
        yield from _both(RESPONSES, name, {"input": items})
    for name, (path, fields) in REQUESTS.items():
        yield from _both(path, name.strip(), fields)
    for path in (CHAT, COMPLETIONS):
        for name, options in STREAM_OPTIONS.items():
            fields = {"stream_options": options, "stream": True}
            yield from _both(path, f"stream_options: {name}", fields)
            yield from _both(path, f"unstreamed options: {name}", {**fields, "stream": False})
    for path in LEAST:
        for model in ("support", "support@v2", "nobody"):
            yield from _both(path, f"model {model}", {}, model=model)
        name = _NAMES[path]
        for value in (None, "true", 1):
            yield Shape(f"{name}/stream: {value!r}", path, {**LEAST[path], "stream": value})
        yield Shape(f"{name}/no model", path, LEAST[path], model=None)
        for kind, raw in (
            ("broken", b'{"model":'),
            ("list", b"[]"),
            ("text", b'"x"'),
            ("empty", b""),
        ):
            yield Shape(f"{name}/body {kind}", path, raw, model=None)
        yield Shape(f"{name}/GET", path, method="GET", model=None)
    yield Shape("models/list", "/v1/models", method="GET", model=None)
    yield Shape("models/POST", "/v1/models", {}, model=None)
    yield Shape("models/unknown path", "/v1/nothing", {}, model=None)
    tokenized: tuple[tuple[str, Json], ...] = (
        ("prompt", {"prompt": "The quick"}),
        ("messages", {"messages": [USER]}),
        ("texts", {"prompt": "The quick", "return_token_strs": True}),
        ("neither", {}),
        ("type", {"prompt": 5}),
    )
    for name, body in tokenized:
        yield Shape(f"tokenize/{name}", "/v1/tokenize", body)
    for name, tokens in (("ids", [41, 42]), ("none", []), ("type", "x"), ("neither", ...)):
        yield Shape(f"detokenize/{name}", "/v1/detokenize", _without_dots({"tokens": tokens}))


# --- what is compared ---------------------------------------------------------------------------

# Whatever is new with every request, or is the gateway's own name for something.
_UNSTABLE = {
    "id",
    "created",
    "created_at",
    "model",
    "item_id",
    "call_id",
    "request_id",
    "sequence_number",
}
_STREAMED_PIECES = {"token_ids", "content", "logprobs"}


@dataclass
class Observed:
    """What a client could build on, of one answer."""

    status: int  # of HTTP, or BROKEN_OFF, or FAILED_STREAM
    param: str | None = None  # of an error
    body: Any = None  # of an answer that is whole, without what changes from request to request
    texts: dict[str, str] = field(default_factory=dict)  # of a stream, by choice and kind
    finish: dict[str, Any] = field(default_factory=dict)
    usage: list[Any] = field(default_factory=list)  # the last one, and in how many chunks
    chunks: list[str] = field(default_factory=list)  # the kinds of events, by their keys
    end: str = ""  # the last event of a stream

    def aspects(self) -> Iterator[tuple[str, Any]]:
        yield "status", self.status
        if self.status != 200:
            yield "param", self.param
            return
        yield "body", self.body
        yield "texts", self.texts
        yield "finish", self.finish
        yield "usage", self.usage
        yield "chunks", self.chunks
        yield "end", self.end


def observe(client: httpx.Client, shape: Shape, model: str | None, path: str) -> Observed:
    """Sends `shape` for `model` to `path` of a server and reads the answer to its end."""
    body = shape.body
    if isinstance(body, dict):
        body = json.dumps(body if model is None else {"model": model, **body}).encode()
    # A connection each: the engine closes one after an error of its own, at any moment.
    headers = {"content-type": "application/json", "connection": "close"}
    try:
        answer = client.request(shape.method, path, content=body, headers=headers)
    except (httpx.RemoteProtocolError, httpx.ReadError):
        return Observed(BROKEN_OFF)
    observed = Observed(answer.status_code)
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        _read_stream(answer.text, observed)
    elif answer.status_code >= 400:
        error = answer.json().get("error") if answer.text.startswith("{") else None
        observed.param = error.get("param") if isinstance(error, dict) else None
    elif answer.text:
        observed.body = _stable(answer.json())
    return observed


def _stable(value: Any) -> Any:
    """The value without what differs between two answers to one request; numbers rounded."""
    if isinstance(value, dict):
        return {key: _stable(each) for key, each in value.items() if key not in _UNSTABLE}
    if isinstance(value, list):
        return [_stable(each) for each in value]
    return round(value, 2) if isinstance(value, float) else value


def _read_stream(text: str, observed: Observed) -> None:
    events: list[Json] = []
    with_usage, last_usage = 0, None
    for event in text.split("\n\n"):
        data = "".join(line[5:].strip() for line in event.splitlines() if line.startswith("data:"))
        if not data:
            continue
        if data == "[DONE]":
            observed.end = data
            continue
        value = json.loads(data)
        observed.end = str(value.get("type") or value.get("object") or "error")
        if "error" in value or value.get("type") == "error":
            error = value.get("error", value)
            observed.status, observed.param = FAILED_STREAM, error.get("param")
        events.append(value)
        if usage := value.get("usage"):
            with_usage, last_usage = with_usage + 1, usage
        _read_pieces(value, observed)
    observed.usage = [last_usage, "once" if with_usage == 1 else "often" if with_usage else "never"]
    observed.chunks = sorted(_kinds(events))


def _kinds(events: list[Json]) -> set[str]:
    """Events by their type, chunks by their keys and those of their first choice.

    The chunks that continue an answer count as one: a reader who is a little late gets two of them
    as one.
    """
    kinds, begun = set(), False
    going_on: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    for value in events:
        if "type" in value and "choices" not in value:
            kinds.add(str(value["type"]))
            continue
        choice = (value.get("choices") or [{}])[0]
        keys = (
            {key for key, each in value.items() if each is not None}, set(choice),
            set(choice.get("delta") or ()),
        )  # fmt: skip
        if choice and begun:
            going_on = tuple(a | b for a, b in zip(going_on, keys, strict=True))
        else:
            kinds.add(" ".join(str(sorted(some)) for some in keys))
            begun = begun or bool(choice)
    if any(going_on):
        kinds.add(" ".join(str(sorted(some)) for some in going_on))
    return kinds


def _read_pieces(value: Json, observed: Observed) -> None:
    if isinstance(value.get("delta"), str):  # an event of the Responses API
        key = str(value["type"])
        observed.texts[key] = observed.texts.get(key, "") + value["delta"]
    if isinstance(value.get("response"), dict):
        response = _stable(value["response"])
        observed.finish[str(value["type"])] = {
            name: response.get(name) for name in ("status", "output", "usage", "incomplete_details")
        }
    for choice in value.get("choices") or ():
        index, delta = choice["index"], choice.get("delta") or {}
        calls = [(call.get("function") or {}) for call in delta.get("tool_calls") or ()]
        pieces = {
            "text": choice.get("text") or delta.get("content") or "",
            "reasoning": delta.get("reasoning") or "",
            "tool": "".join(call.get("name") or "" for call in calls),
            "arguments": "".join(call.get("arguments") or "" for call in calls),
            "tokens": "".join(f"{token} " for token in choice.get("token_ids") or ()),
        }
        for name, piece in pieces.items():
            if piece:
                key = f"{index} {name}"
                observed.texts[key] = observed.texts.get(key, "") + piece
        if choice.get("finish_reason"):
            observed.finish[str(index)] = [choice["finish_reason"], choice.get("stop_reason")]
