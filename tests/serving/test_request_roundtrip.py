"""What the engine would accept from a client, the gateway accepts, and it means the same.

vLLM's own request models are the judge: a client's body is read by them directly, and again after
the gateway has decoded and encoded it. Both must give the same fields, the same sampling parameters
and the same conversation for the chat template. Differences are allowed only where a table of this
file names them.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, get_type_hints

import jinja2
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming as ChatParams,
)
from openai.types.completion_create_params import (
    CompletionCreateParamsNonStreaming as CompletionParams,
)
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming as ResponsesParams,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses import protocol as responses_protocol
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.entrypoints.openai.responses.utils import construct_input_messages, construct_tool_dicts
from vllm.exceptions import VLLMValidationError
from vllm.renderers.chat_utils import parse_chat_messages

from serving.gateway import requests
from serving.gateway.answers import ApiError
from serving.gateway.request_fields import IGNORED, SUBSTITUTES
from serving.gateway.request_normalise import REQUEST_TYPES
from tests.serving.client_requests import chat_requests, completion_requests, responses_requests

pytestmark = pytest.mark.seconds  # importing vLLM's models

Json = dict[str, Any]
STRATEGIES = {
    "chat": chat_requests(),
    "completions": completion_requests(),
    "responses": responses_requests(),
}
ENGINE_MODELS: dict[str, Any] = {
    "chat": ChatCompletionRequest,
    "completions": CompletionRequest,
    "responses": ResponsesRequest,
}
SDK_PARAMS: dict[str, Any] = {
    "chat": ChatParams,
    "completions": CompletionParams,
    "responses": ResponsesParams,
}
EXAMPLES = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

# Fields that the gateway answers for itself, or that the engine never reads; all else is equal.
OWN_FIELDS = {"model", "request_id", "user", "metadata", "messages", "input", *IGNORED}


@dataclass(frozen=True)
class Refusal:
    """A kind of request that the engine would take and the gateway refuses on purpose."""

    route: str  # "" for each
    code: str
    param: str  # a pattern
    reason: str


TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>"
    "{% if message.reasoning %}<think>{{ message.reasoning }}</think>{% endif %}"
    "{% if message.role == 'tool' %}<tool_response>{{ message.content }}</tool_response>"
    "{% elif message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls or () %}<tool_call>"
    '{"name": {{ call.function.name | tojson }}, '
    '"arguments": {{ call.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}{% endfor %}"
)

_TEXT_ONLY = "content is text: an engine would fetch what other parts name"
_LIMIT = "a limit of the gateway, in docs/gateway.md"
REFUSALS = (
    Refusal(
        "",
        "unknown_field",
        "|".join(SUBSTITUTES),
        "some fields of the engine run templates, fetch addresses or reach into its memory",
    ),
    Refusal(
        "",
        "unknown_field",
        r"chat_template_kwargs\..+",
        "the operator names what may reach the template",
    ),
    Refusal(
        "",
        "unknown_field",
        "return_prompt_text|enable_response_messages",
        "prompts are not sent back",
    ),
    Refusal(
        "",
        "invalid_value",
        r"n|top_logprobs|logprobs|logit_bias.*|stop_token_ids|bad_words",
        _LIMIT,
    ),
    Refusal("chat", "invalid_value", "messages", "an empty conversation is a mistake"),
    Refusal("chat", "invalid_value", r"messages\[\d+\]\.role", "roles are OpenAI's six"),
    Refusal("chat", "unsupported_content", r"messages\[\d+\]\.content\[\d+\].*", _TEXT_ONLY),
    Refusal(
        "chat",
        "invalid_value",
        "continue_final_message",
        "a user's message is not continued: it would be learned from as an answer",
    ),
    Refusal(
        "completions",
        "unsupported_value",
        "echo",
        "log-probabilities of the prompt can end an engine whose output head is open to adapters",
    ),
    Refusal(
        "completions",
        "invalid_value",
        "prompt",
        "several prompts in one request would be several answers in one row of the log",
    ),
    Refusal("responses", "invalid_value", "input", "an empty conversation is a mistake"),
    Refusal(
        "responses",
        "unsupported_value",
        r"(input|tools)\[\d+\]\.type",
        "the gateway runs no tools itself",
    ),
)


# --- how the engine reads a body -----------------------------------------------------------------

_NO_MEDIA: Any = SimpleNamespace(multimodal_config=None, enable_prompt_embeds=False)
_MESSAGE_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning")


def _materialize(value: Any) -> Any:
    """Plain data of a validated message; pydantic keeps iterables as one-shot validators."""
    if isinstance(value, dict):
        return {key: _materialize(part) for key, part in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return [_materialize(part) for part in value]


def _known(message: Json) -> Json:
    """The message without what no template knows. `content: null` and no content stay apart."""
    found = {
        key: message[key]
        for key in _MESSAGE_KEYS
        if message.get(key) is not None or (key == "content" and key in message)
    }
    if isinstance(found.get("content"), list):
        found["content"] = [
            {key: part[key] for key in ("type", "text", "refusal") if key in part}
            if isinstance(part, dict)
            else part
            for part in found["content"]
        ]
    if found.get("tool_calls"):
        found["tool_calls"] = [
            {"id": call["id"], "type": call["type"], "function": _function(call["function"])}
            for call in found["tool_calls"]
        ]
    else:
        found.pop("tool_calls", None)  # the engine treats an empty list as none
    return found


def _function(function: Json) -> Json:
    return {"name": function["name"], "arguments": function["arguments"]}


def _conversations(messages: Any) -> list[Any]:
    """What the chat template gets: for templates that take text, and for those that take parts."""
    formats: tuple[Any, ...] = ("string", "openai")
    found = [parse_chat_messages(copy.deepcopy(messages), _NO_MEDIA, one)[0] for one in formats]
    return [[_known(dict(message)) for message in conversation] for conversation in found]


def understood(route: str, body: bytes) -> Json | None:
    """What the engine makes of a body: everything that decides the answer. None if it refuses."""
    try:
        request = ENGINE_MODELS[route].model_validate(json.loads(body))
        if route == "chat" and request.continue_final_message and request.add_generation_prompt:
            return None  # rendering the template refuses it
        if route == "completions" and (
            request.prompt in ([""], [[]]) or request.suffix is not None
        ):
            return None  # later steps refuse both
        fields = {
            name: getattr(request, name)
            for name in type(request).model_fields
            if name not in OWN_FIELDS
        }
        result: Json = {
            "fields": {
                name: _materialize(value) if name == "tools" else value
                for name, value in fields.items()
            }
        }
        if (
            route == "completions"
            and isinstance(request.prompt, list)
            and len(request.prompt) == 1
            and not isinstance(request.prompt[0], int)
        ):
            result["fields"]["prompt"] = request.prompt[0]  # a list of one prompt is that prompt
        result["sampling"] = request.to_sampling_params(100, {})
        if route == "chat":
            messages = [_materialize(message) for message in request.messages]
            result["messages"] = [_known(message) for message in messages]
            result["conversations"] = _conversations(messages)
            result["template"] = request.build_chat_params(None, "string").chat_template_kwargs
        elif route == "responses":
            messages = construct_input_messages(
                request_instructions=request.instructions, request_input=request.input
            )
            result["conversations"] = _conversations(
                [_materialize(message) for message in messages]
            )
            result["template"] = request.build_chat_params(None, "string").chat_template_kwargs
            result["tools"] = construct_tool_dicts(request.tools, request.tool_choice)
    except (
        VLLMValidationError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
    ):  # what vLLM's readers raise on input that they do not foresee
        return None
    return result


# --- how the gateway passes it on ----------------------------------------------------------------

Pass = Callable[[str, bytes], bytes]


def through_gateway(route: str, body: bytes) -> bytes:
    """The body that the engine gets. Raises ApiError when the gateway refuses."""
    request = requests.parse(route, body).request
    requests.logged_body(request)
    return requests.engine_body(request, "base--00000000", "int_0")


def _unless_empty(value: Any) -> Any:
    """None for what asks for nothing: no list, no object, False."""
    return None if value is False or value == [] or value == {} else value


def difference(route: str, body: Json, passing: Pass = through_gateway) -> str:
    """How the engine reads the gateway's body otherwise than the client's; "" if it does not."""
    encoded = json.dumps(body).encode()
    if understood(route, encoded) is None:
        return ""
    direct = understood(
        route,
        json.dumps({name: value for name, value in body.items() if value is not None}).encode(),
    )
    assert direct is not None, "null means absent: a body without its nulls is as good"
    try:
        passed = passing(route, encoded)
    except ApiError as error:
        if any(
            one.route in ("", route)
            and one.code == error.code
            and re.fullmatch(one.param, error.param or "")
            for one in REFUSALS
        ):
            return ""
        return (
            f"the engine takes it, the gateway refuses: {error.code} {error.param}: {error.message}"
        )
    indirect = understood(route, passed)
    if indirect is None:
        return f"the engine takes the client's body and refuses the gateway's: {passed!r}"
    for part in direct:
        if part == "fields":
            direct[part] = {
                name: value
                for name, value in direct[part].items()
                if _unless_empty(value) != _unless_empty(indirect[part][name])
            }
            indirect[part] = {name: indirect[part][name] for name in direct[part]}
        if direct[part] != indirect[part]:
            return f"{part}: the client asked {direct[part]!r}, the engine gets {indirect[part]!r}"
    return ""


@pytest.fixture(autouse=True, scope="module")
def _same_ids() -> Iterator[None]:
    """vLLM gives items without an id a random one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(responses_protocol, "random_uuid", lambda: "0")
        yield


# --- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("route", STRATEGIES)
def test_engine_understands_gateway_as_it_understands_client(route: str) -> None:
    taken = 0

    @EXAMPLES
    @given(STRATEGIES[route])
    def check(body: Json) -> None:
        nonlocal taken
        taken += understood(route, json.dumps(body).encode()) is not None
        found = difference(route, body)
        assert not found, f"{json.dumps(body)}\n{found}"

    check()
    assert taken > EXAMPLES.max_examples / 2, (
        f"the engine takes {taken} of {EXAMPLES.max_examples} requests: too few are good"
    )


def _edit_messages(edit: Callable[[Json], Any]) -> Pass:
    """The gateway with a fault: `edit` changes each message on its way to the engine."""

    def passing(route: str, body: bytes) -> bytes:
        passed = json.loads(through_gateway(route, body))
        for message in passed.get("messages", passed.get("input")):
            if isinstance(message, dict):
                edit(message)
        return json.dumps(passed).encode()

    return passing


def _edit_calls(edit: Callable[[Json], Any]) -> Pass:
    return _edit_messages(lambda message: [edit(call) for call in message.get("tool_calls") or ()])


def _edit_body(edit: Callable[[Json], Any]) -> Pass:
    def passing(route: str, body: bytes) -> bytes:
        passed = json.loads(through_gateway(route, body))
        edit(passed)
        return json.dumps(passed).encode()

    return passing


def _clear(message: Json, name: str) -> None:
    if message.get(name) is None:
        message.pop(name, None)


FAULTS: dict[str, tuple[str, Pass]] = {
    "tool calls lose their type": ("chat", _edit_calls(lambda call: call.pop("type"))),
    "tool calls lose their id": ("chat", _edit_calls(lambda call: call.pop("id"))),
    "arguments are rewritten": (
        "chat",
        _edit_calls(lambda call: call["function"].update(arguments="{}")),
    ),
    "content: null vanishes": ("chat", _edit_messages(lambda message: _clear(message, "content"))),
    "reasoning is lost": (
        "chat",
        _edit_messages(
            lambda message: [message.pop("reasoning", None), message.pop("reasoning_content", None)]
        ),
    ),
    "a tool's result loses its call": (
        "chat",
        _edit_messages(lambda message: message.pop("tool_call_id", None)),
    ),
    "names are lost": ("chat", _edit_messages(lambda message: message.pop("name", None))),
    "tools lose strict": (
        "chat",
        _edit_body(
            lambda body: [tool["function"].pop("strict", None) for tool in body.get("tools", ())]
        ),
    ),
    "the seed is lost": ("completions", _edit_body(lambda body: body.pop("seed", None))),
    "temperature 0 is lost": (
        "completions",
        _edit_body(lambda body: body.get("temperature") == 0 and body.pop("temperature")),
    ),
    "a stop text is lost": ("responses", _edit_body(lambda body: body.pop("stop", None))),
    "reasoning items are lost": (
        "responses",
        _edit_body(
            lambda body: (
                body.update(
                    input=[item for item in body["input"] if item.get("type") != "reasoning"]
                )
                if isinstance(body["input"], list)
                else None
            )
        ),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_property_finds_fault(fault: str) -> None:
    """A property that holds for a broken gateway too would show nothing."""
    route, passing = FAULTS[fault]
    assert find(
        STRATEGIES[route],
        lambda body: bool(difference(route, body, passing)),
        settings=settings(EXAMPLES, max_examples=2000, phases=[Phase.generate]),
    )


def _passed(route: str, body: Json) -> Json:
    passed: Json = json.loads(through_gateway(route, json.dumps(body).encode()))
    return passed


LEAST: dict[str, Json] = {
    "chat": {"model": "base", "messages": [{"role": "user", "content": "hi"}]},
    "completions": {"model": "base", "prompt": "hi"},
    "responses": {"model": "base", "input": "hi"},
}


def _optional_fields(route: str) -> list[str]:
    """Every field that the gateway, the engine or OpenAI's client knows and that may be absent."""
    known = {field.encode_name for field in msgspec.structs.fields(REQUEST_TYPES[route])} | set(
        ENGINE_MODELS[route].model_fields
    )
    return sorted((known | set(get_type_hints(SDK_PARAMS[route]))) - set(LEAST[route]))


@pytest.mark.parametrize(
    ("route", "name"), [(route, name) for route in LEAST for name in _optional_fields(route)]
)
def test_null_means_absent(route: str, name: str) -> None:
    assert _passed(route, {**LEAST[route], name: None}) == _passed(route, LEAST[route])


MESSAGES: dict[str, Json] = {
    "system": {"role": "system", "content": "x"},
    "developer": {"role": "developer", "content": "x"},
    "user": {"role": "user", "content": "x"},
    "assistant": {"role": "assistant", "content": "x"},
    "tool": {"role": "tool", "content": "x", "tool_call_id": "call_1"},
}
ANNOTATIONS = (
    "name",
    "refusal",
    "annotations",
    "audio",
    "function_call",
    "tool_calls",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking_blocks",
    "provider_specific_fields",
    "cache_control",
    "tool_call_id",
    "id",
    "images",
)


@pytest.mark.parametrize("role", MESSAGES)
@pytest.mark.parametrize("name", ANNOTATIONS)
def test_null_in_a_message_means_absent(role: str, name: str) -> None:
    message = MESSAGES[role]
    if name in message:
        pytest.skip("the message has it")
    with_null, without = (
        _passed("chat", {**LEAST["chat"], "messages": [one]})
        for one in ({**message, name: None}, message)
    )
    assert with_null == without


def _number_fields(route: str) -> list[str]:
    """Fields that hold one integer."""
    schema = msgspec.json.schema(REQUEST_TYPES[route])["$defs"][REQUEST_TYPES[route].__name__][
        "properties"
    ]
    kinds = {
        name: [one.get("type") for one in field.get("anyOf", [field])]
        for name, field in schema.items()
    }
    return sorted(
        name for name, found in kinds.items() if "integer" in found and "number" not in found
    )


@pytest.mark.parametrize(
    ("route", "name"), [(route, name) for route in LEAST for name in _number_fields(route)]
)
def test_whole_float_is_an_integer(route: str, name: str) -> None:
    value = 1
    passed = _passed(route, {**LEAST[route], name: float(value)})
    assert passed[name] == value and isinstance(passed[name], int)
    with pytest.raises(ApiError) as refused:
        _passed(route, {**LEAST[route], name: 1.5})
    assert (refused.value.status, refused.value.param) == (400, name)


@pytest.mark.parametrize(
    "arguments", [{}, {"city": "Bonn", "days": [1, 2.5, None], "é": {"deep": True}}]
)
def test_arguments_as_an_object_mean_their_json_text(arguments: Json) -> None:
    """The engine refuses them; some SDKs send them."""

    def chat(given: Any) -> Json:
        call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": given}}
        return {
            **LEAST["chat"],
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                MESSAGES["tool"],
            ],
        }

    def responses(given: Any) -> Json:
        return {
            **LEAST["responses"],
            "input": [
                {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": given}
            ],
        }

    for route, make in (("chat", chat), ("responses", responses)):
        as_object, as_text = (
            understood(route, through_gateway(route, json.dumps(make(one)).encode()))
            for one in (arguments, json.dumps(arguments))
        )
        assert as_object is not None and as_text is not None
        assert as_object["conversations"] == as_text["conversations"]


def test_rendered_prompt_shows_tool_turn_and_reasoning() -> None:
    """Through a template like Hermes' and Qwen's: what it does not see, the model does not."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather?", "cache_control": {"type": "ephemeral"}}
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I must look.",
            "refusal": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "index": 0,
                    "function": {"name": "look_up", "arguments": '{"city": "Bonn"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain"}]},
    ]
    body = {**LEAST["chat"], "messages": messages}
    for sent in (body, _passed("chat", body)):
        request = understood("chat", json.dumps(sent).encode())
        assert request is not None
        assert jinja2.Template(TEMPLATE).render(messages=request["conversations"][0]) == (
            "<|system|>Be brief.<|user|>Weather?<|assistant|><think>I must look.</think>"
            '<tool_call>{"name": "look_up", "arguments": {"city": "Bonn"}}</tool_call>'
            "<|tool|><tool_response>Rain</tool_response>"
        )
