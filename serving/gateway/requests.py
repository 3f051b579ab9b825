"""What a client may ask: every field that reaches the engine is named and typed here, and nothing else does.

The engine accepts many more fields, some of which run templates of the caller, fetch addresses, or reach into its
memory. A field that is not listed is refused with its name. Decoding, checking and encoding are one pass in C each.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.gateway.answers import ApiError

MAX_CHOICES = 8  # `n`: each choice occupies a sequence of the engine; it is started with the same limit
_Probability = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Int32 = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Short = Annotated[str, Meta(max_length=256)]
_Stop = str | Annotated[list[str], Meta(max_length=16)] | None
_Json = dict[str, Any]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _FunctionCall(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    function: _FunctionCall
    type: Literal["function"] = "function"
    index: int | UnsetType = UNSET


class _TextPart(msgspec.Struct, forbid_unknown_fields=True):
    """Text only: an image, audio or file part would make the engine fetch what the caller names."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_TextPart] | None = None
    name: str | UnsetType = UNSET
    tool_calls: list[_ToolCall] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType = UNSET
    refusal: str | UnsetType | None = UNSET
    annotations: list[_Json] | UnsetType | None = UNSET  # assistant messages of the OpenAI client carry these back, always empty
    audio: UnsetType | None = UNSET
    function_call: UnsetType | None = UNSET


class Rag(msgspec.Struct, forbid_unknown_fields=True):
    collection: Annotated[str, Meta(min_length=1, max_length=64)]
    top_k: Annotated[int, Meta(ge=1, le=50)] = 4


_Metadata = Annotated[dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)] | int | float | bool | None], Meta(max_length=16)]


class _Common(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Fields of every route. The first four never reach the engine as they are."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    user: _Short | UnsetType | None = UNSET
    metadata: _Metadata | UnsetType | None = UNSET
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | UnsetType | None = UNSET
    top_p: _Probability | UnsetType | None = UNSET
    seed: _Int64 | UnsetType | None = UNSET
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | UnsetType | None = UNSET
    min_p: _Probability | UnsetType | None = UNSET
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | UnsetType | None = UNSET
    presence_penalty: _Penalty | UnsetType | None = UNSET
    frequency_penalty: _Penalty | UnsetType | None = UNSET
    stop: _Stop | UnsetType = UNSET
    stop_token_ids: Annotated[list[_Int32], Meta(max_length=64)] | UnsetType | None = UNSET
    ignore_eos: bool | UnsetType = UNSET
    skip_special_tokens: bool | UnsetType = UNSET
    include_stop_str_in_output: bool | UnsetType = UNSET
    structured_outputs: _Json | UnsetType | None = UNSET


class _Sampled(_Common, kw_only=True):
    """Fields that chat and plain completions share."""

    rag: Rag | UnsetType | None = UNSET
    stream_options: StreamOptions | UnsetType | None = UNSET
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | UnsetType | None = UNSET
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | UnsetType | None = UNSET
    min_tokens: _Int32 | UnsetType = UNSET
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | UnsetType | None = UNSET
    response_format: _Json | UnsetType | None = UNSET
    allowed_token_ids: list[_Int32] | UnsetType | None = UNSET
    bad_words: Annotated[list[str], Meta(max_length=64)] | UnsetType = UNSET
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | UnsetType | None = UNSET
    return_token_ids: bool | UnsetType | None = UNSET


class ChatRequest(_Sampled, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | UnsetType | None = UNSET
    logprobs: bool | UnsetType | None = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType | None = UNSET
    tools: Annotated[list[_Json], Meta(max_length=128)] | UnsetType | None = UNSET
    tool_choice: Literal["none", "auto", "required"] | _Json | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | UnsetType | None = UNSET
    include_reasoning: bool | UnsetType = UNSET
    add_generation_prompt: bool | UnsetType = UNSET
    continue_final_message: bool | UnsetType = UNSET


class CompletionRequest(_Sampled, kw_only=True):
    """POST /v1/completions: one prompt, as text or token ids."""

    prompt: str | Annotated[list[str | _Int32], Meta(min_length=1)]
    echo: bool | UnsetType | None = UNSET
    logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType | None = UNSET
    suffix: UnsetType | None = UNSET
    add_special_tokens: bool | UnsetType = UNSET


class ResponsesRequest(_Common, kw_only=True):
    """POST /v1/responses. Nothing is kept for `previous_response_id`: the interaction log is the only memory."""

    input: str | Annotated[list[_Json], Meta(min_length=1, max_length=10_000)]
    instructions: str | UnsetType | None = UNSET
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    reasoning: _Json | UnsetType | None = UNSET
    store: bool | UnsetType | None = UNSET
    text: _Json | UnsetType | None = UNSET
    tool_choice: Literal["none", "auto", "required"] | _Json | UnsetType = UNSET
    tools: Annotated[list[_Json], Meta(max_length=128)] | UnsetType = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType = UNSET
    truncation: Literal["auto", "disabled"] | UnsetType | None = UNSET
    include: list[str] | UnsetType | None = UNSET


Request = ChatRequest | CompletionRequest | ResponsesRequest

_DECODERS: dict[str, Any] = {
    "chat": msgspec.json.Decoder(ChatRequest),
    "completions": msgspec.json.Decoder(CompletionRequest),
    "responses": msgspec.json.Decoder(ResponsesRequest),
}
_encode = msgspec.json.Encoder().encode


def parse(route: str, body: bytes) -> Request:
    """The checked request. Raises ApiError 400 that names the field and says what is expected."""
    try:
        request: Request = _DECODERS[route].decode(body)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"The body is not valid JSON: {error}. Send one JSON object in UTF-8, without NaN or Infinity.", code="invalid_json") from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply. Send the documented fields.", code="invalid_json") from None
    if isinstance(request, ResponsesRequest):
        _check_items(request)
    elif isinstance(request, CompletionRequest):
        _check_prompt(request)
    return request


def explain(message: str) -> ApiError:
    """msgspec names the place as `$.messages[0].role`; the client gets it as `param`."""
    text, _, place = message.partition(" - at `")
    param = place.rstrip("`").removeprefix("$").removeprefix(".") or None
    if text.startswith("Object contains unknown field"):
        field = text.split("`")[1] if "`" in text else "?"
        param = f"{param}.{field}" if param else field
        return ApiError(
            400,
            f"The field {param!r} is not supported by this gateway. Remove it; docs/gateway.md lists the fields that are passed on.",
            param=param,
            code="unknown_field",
        )
    if text.startswith("Object missing required field"):
        field = text.split("`")[1] if "`" in text else "?"
        param = f"{param}.{field}" if param else field
        return ApiError(400, f"The field {param!r} is missing.", param=param, code="missing_field")
    if param and param.endswith(".type") and "content" in param:
        return ApiError(400, f"{param}: only text parts are accepted; this gateway fetches no images, audio or files.", param=param, code="unsupported_content")
    where = f"{param}: " if param else "The body: "
    return ApiError(400, f"{where}{text[:1].lower()}{text[1:]}.", param=param, code="invalid_value")


def _check_prompt(request: CompletionRequest) -> None:
    """A list is token ids, or holds one text: several prompts in one request would be several answers in one log row."""
    prompt = request.prompt
    if request.echo is True and isinstance(request.logprobs, int):
        # Log-probabilities of prompts can end an engine that was started with the output head open to adapters.
        raise ApiError(
            400,
            "echo together with logprobs asks for log-probabilities of the prompt, which this gateway does not offer. Leave one of them out.",
            param="echo",
            code="unsupported_value",
        )
    if isinstance(prompt, list) and not all(isinstance(part, int) for part in prompt) and (len(prompt) > 1 or isinstance(prompt[0], int)):
        raise ApiError(
            400, "prompt: expected one text or one list of token ids. Send several prompts as several requests.", param="prompt", code="invalid_value"
        )


_ITEM_TYPES = {"message", "function_call", "function_call_output", "reasoning"}
_PART_TYPES = {"input_text", "output_text", "text", "refusal"}


def _check_items(request: ResponsesRequest) -> None:
    """The Responses API has many item and tool kinds; those that fetch or run something are refused."""
    for number, item in enumerate(request.input if isinstance(request.input, list) else []):
        if item.get("type", "message") not in _ITEM_TYPES:
            raise ApiError(
                400,
                f"input[{number}].type {str(item.get('type'))[:40]!r} is not supported: expected one of {', '.join(sorted(_ITEM_TYPES))}.",
                param=f"input[{number}].type",
            )
        for part in item["content"] if isinstance(item.get("content"), list) else []:
            if not isinstance(part, dict) or part.get("type") not in _PART_TYPES:
                raise ApiError(
                    400,
                    f"input[{number}].content: only text parts are accepted; this gateway fetches no images, audio or files.",
                    param=f"input[{number}].content",
                )
    for number, tool in enumerate(request.tools if isinstance(request.tools, list) else []):
        if tool.get("type") != "function":
            raise ApiError(400, f"tools[{number}].type: only 'function' is supported; this gateway runs no tools itself.", param=f"tools[{number}].type")


def logged_body(request: Request) -> bytes:
    """The body for the log: what was asked, less `user` and `metadata`, which have columns of their own."""
    request.user = request.metadata = UNSET
    return _encode(request)


def engine_body(request: Request, engine_model: str, interaction_id: str) -> bytes:
    """The body for the engine. Call it after `logged_body`; the request is in the engine's form from then on."""
    request.model = engine_model
    if isinstance(request, ResponsesRequest):
        request.store = False
        return b'{"request_id":"%s",%s' % (interaction_id.encode(), _encode(request)[1:])
    request.rag = UNSET
    if request.stream:
        options = request.stream_options
        keep = options.continuous_usage_stats if isinstance(options, StreamOptions) else None
        request.stream_options = StreamOptions(include_usage=True, continuous_usage_stats=keep)
    else:
        request.stream_options = UNSET
    return _encode(request)


def wants_usage(request: Request) -> bool:
    """True if the client asked for the usage chunk at the end of its stream."""
    options = getattr(request, "stream_options", None)
    return isinstance(options, StreamOptions) and bool(options.include_usage)
