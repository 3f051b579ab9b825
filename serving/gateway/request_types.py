"""The requests a client may send, as types: every field that reaches an engine is named here.

The engine accepts many more fields; some run templates of the caller, fetch addresses, or reach
into its memory. `None` means "not said" in every optional field and is never sent on. The single
exception is a message's `content`, where null and absent are kept apart, as engines keep them.
Fields that say what kind of object something is (`type`) are tags, so that encoding always writes
them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_CHOICES = 8  # `n`: each choice occupies a sequence of the engine, which is started with it too
MAX_LOGPROBS = 20  # `top_logprobs`; the engine is started with the same limit
MAX_TEXT_PARTS = 10_000  # of one message or request: more is a mistake, and each costs an object

Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Int31 = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=-1, le=2**31 - 1)]  # -1: no limit
ShortText = Annotated[str, Meta(max_length=256)]
Json = dict[str, Any]
Scalar = str | int | float | bool
MetadataValue = Annotated[str, Meta(max_length=512)] | int | float | bool | None
Metadata = Annotated[dict[Annotated[str, Meta(max_length=64)], MetadataValue], Meta(max_length=16)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


# --- content: text only, since an engine would fetch what another part names -------------------


class _Part(msgspec.Struct, forbid_unknown_fields=True, tag_field="type"):
    """One part of a message's content."""


class TextPart(_Part, tag="text"):
    text: str


class InputTextPart(_Part, tag="input_text"):
    text: str


class OutputTextPart(_Part, tag="output_text"):
    text: str


class RefusalPart(_Part, tag="refusal"):
    refusal: str


class ThinkingPart(_Part, tag="thinking"):
    thinking: str


Part = TextPart | InputTextPart | OutputTextPart | RefusalPart | ThinkingPart
Content = str | Annotated[list[Part | str], Meta(max_length=MAX_TEXT_PARTS)]


# --- tools -------------------------------------------------------------------------------------


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    arguments: str  # JSON text; may be empty


class ToolCall(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    id: str
    function: FunctionCall


class FunctionDefinition(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: Json | None = None  # JSON Schema of the arguments; None: takes none
    strict: bool | None = None


class Tool(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    function: FunctionDefinition


class FunctionName(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]


class NamedToolChoice(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", tag="function"):
    function: FunctionName


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | UnsetType | None = UNSET
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


# --- requests ----------------------------------------------------------------------------------


FilterValue = Scalar | Annotated[list[Scalar], Meta(min_length=1, max_length=100)]


class Rag(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What to retrieve for a request. What is not said follows the default of the alias."""

    collection: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    top_k: Annotated[int, Meta(ge=1, le=50)] | None = None  # passages
    min_score: Probability | None = None  # passages below are left out
    filter: (
        Annotated[dict[Annotated[str, Meta(max_length=64)], FilterValue], Meta(max_length=16)]
        | None
    ) = None  # field of a document's metadata -> the value, or one of the values, that it must have
    mode: Literal["hybrid", "lexical", "vector"] | None = None
    neighbours: Annotated[int, Meta(ge=0, le=5)] | None = None  # passages around each that is found
    on_error: Literal["answer", "fail"] | None = None  # of the search; "answer": without passages


class _Common(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Fields of every route. `user`, `metadata` and `rag` never reach an engine."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    user: ShortText | None = None
    metadata: Metadata | None = None
    rag: Rag | bool | None = None  # false: nothing is retrieved, whatever the alias's default is
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_p: Probability | None = None
    seed: Int64 | None = None
    top_k: Limit | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    stop_token_ids: Annotated[list[Int31], Meta(max_length=64)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    structured_outputs: Json | None = None


class _Sampled(_Common, kw_only=True):
    """Fields that chat and plain completions share."""

    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Int31 | None = None
    min_tokens: Int31 | None = None
    response_format: Json | None = None
    allowed_token_ids: list[Int31] | None = None
    bad_words: Annotated[list[str], Meta(max_length=64)] | None = None
    truncate_prompt_tokens: Limit | None = None
    truncation_side: Literal["left", "right"] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    spaces_between_special_tokens: bool | None = None
    add_special_tokens: bool | None = None


class ChatRequest(_Sampled, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Int31 | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    include_reasoning: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Scalar | None] | None = None


class CompletionRequest(_Sampled, kw_only=True):
    """POST /v1/completions: one prompt, as text or token ids."""

    prompt: str | Annotated[list[str | Int31 | list[Int31]], Meta(min_length=1)]
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class ResponsesRequest(_Common, kw_only=True):
    """POST /v1/responses. Nothing is kept for `previous_response_id`: the log is the only memory."""

    input: str | Annotated[list[Json], Meta(min_length=1, max_length=10_000)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Json | None = None
    include_reasoning: bool | None = None
    store: bool | None = None
    text: Json | None = None
    tool_choice: Literal["none", "auto", "required"] | Json | None = None
    tools: Annotated[list[Json], Meta(max_length=128)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    chat_template_kwargs: dict[str, Scalar | None] | None = None


Request = ChatRequest | CompletionRequest | ResponsesRequest
