"""Reads the log's part of an engine's response: once, after its end, for JSON and for streams."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.gateway.engine_errors import read_error
from serving.gateway.stream_editor import BOUNDARY, DONE


# gc=False: decoded JSON holds no cycles, and a stream makes hundreds of these, which would start
# collections in mid-request.
class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _ToolDelta(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolDelta] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: Usage | None = None
    error: Any = None


class Answer(msgspec.Struct):
    """What the log keeps of a response."""

    # Assistant message, {"text"}, or the output items of the Responses API
    response: dict[str, object] | None = None
    text: str | None = None  # of the first choice
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str = ""


_chunk_list = msgspec.json.Decoder(list[_Chunk])
_chunk = msgspec.json.Decoder(_Chunk)


def _chunks(raw: bytes) -> list[_Chunk]:
    """All events of a chat or completions stream, in one decoding pass where it has the usual form."""
    body = raw.removesuffix(DONE).removesuffix(BOUNDARY).removesuffix(b"\n")
    if body.startswith(b"data: "):
        try:
            return _chunk_list.decode(b"[" + body[6:].replace(b"\n\ndata: ", b",") + b"]")
        except msgspec.DecodeError:
            pass
    return _chunks_by_line(raw)


def _chunks_by_line(raw: bytes) -> list[_Chunk]:
    """The slow way, for streams with comments, other fields, or an event that was cut."""
    found = []
    for line in raw.split(b"\n"):
        payload = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and payload.startswith(b"{"):
            try:
                found.append(_chunk.decode(payload))
            except msgspec.DecodeError:
                continue  # the piece of an event that was cut
    return found


def read_stream(raw: bytes) -> Answer:
    """The answer that a chat or completions stream carried, complete or not."""
    answer = Answer()
    texts: list[str] = []
    reasoning: list[str] = []
    tools: dict[int, dict[str, str]] = {}
    role, plain = "assistant", False
    for chunk in _chunks(raw):
        if chunk.error is not None:
            answer.error = read_error(chunk.error).message
        if chunk.usage is not None:
            answer.prompt_tokens, answer.completion_tokens = (
                chunk.usage.prompt_tokens,
                chunk.usage.completion_tokens,
            )
        for choice in chunk.choices:
            if choice.index:
                continue
            answer.finish_reason = choice.finish_reason or answer.finish_reason
            delta = choice.delta
            if delta is None:
                plain = plain or choice.text is not None
                texts.append(choice.text or "")
                continue
            role = delta.role or role
            if delta.content:
                texts.append(delta.content)
            if delta.reasoning:
                reasoning.append(delta.reasoning)
            for call in delta.tool_calls or ():
                known = tools.setdefault(call.index, {"id": "", "name": "", "arguments": ""})
                known["id"] = call.id or known["id"]
                if call.function is not None:
                    known["name"] += call.function.name or ""
                    known["arguments"] += call.function.arguments or ""
    answer.text = "".join(texts)
    answer.response = (
        {"text": answer.text}
        if plain
        else _message(role, answer.text, "".join(reasoning), list(tools.values()))
    )
    return answer


def _message(
    role: str, text: str, reasoning: str, tools: list[dict[str, str]]
) -> dict[str, object]:
    message: dict[str, object] = {"role": role, "content": text or (None if tools else "")}
    if reasoning:
        message["reasoning"] = reasoning
    if tools:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in tools
        ]
    return message


# --- JSON responses -------------------------------------------------------------------------------------------------


class _WholeMessage(msgspec.Struct):
    role: str = "assistant"
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, object]] | None = None


class _WholeChoice(msgspec.Struct):
    index: int = 0
    message: _WholeMessage | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Whole(msgspec.Struct):
    choices: list[_WholeChoice] = []
    usage: Usage | None = None


_whole = msgspec.json.Decoder(_Whole)


def read_json(body: bytes) -> Answer:
    """The answer in a chat or completions body. Raises msgspec.DecodeError when it is not one."""
    whole = _whole.decode(body)
    answer = Answer()
    if whole.usage is not None:
        answer.prompt_tokens, answer.completion_tokens = (
            whole.usage.prompt_tokens,
            whole.usage.completion_tokens,
        )
    if whole.choices:
        first = whole.choices[0]
        answer.finish_reason = first.finish_reason
        message = first.message
        if message is None:
            answer.text = first.text or ""
            answer.response = {"text": answer.text}
        else:
            answer.text = message.content or ""
            answer.response = {"role": message.role, "content": message.content}
            if message.reasoning:
                answer.response["reasoning"] = message.reasoning
            if message.tool_calls:
                answer.response["tool_calls"] = message.tool_calls
    return answer


class _ResponsesUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _ResponsesBody(msgspec.Struct):
    output: list[dict[str, object]] = []
    status: str | None = None
    usage: _ResponsesUsage | None = None
    error: Any = None


class _ResponsesEvent(msgspec.Struct):
    type: str = ""
    response: _ResponsesBody | None = None
    delta: object = None
    error: Any = None


_responses_body = msgspec.json.Decoder(_ResponsesBody)
_responses_event = msgspec.json.Decoder(_ResponsesEvent)


def read_responses(body: bytes) -> Answer:
    """The answer in a body of the Responses API."""
    return _from_responses(_responses_body.decode(body))


def _from_responses(whole: _ResponsesBody) -> Answer:
    texts = []
    for item in whole.output:
        content = item.get("content")
        for part in content if item.get("type") == "message" and isinstance(content, list) else []:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                texts.append(part["text"])
    answer = Answer(
        response={"output": whole.output},
        text="".join(texts),
        finish_reason={"completed": "stop", "incomplete": "length"}.get(
            whole.status or "", whole.status
        ),
    )
    if whole.usage is not None:
        answer.prompt_tokens, answer.completion_tokens = (
            whole.usage.input_tokens,
            whole.usage.output_tokens,
        )
    if whole.error is not None:
        answer.error = read_error(whole.error).message
    return answer


def read_responses_stream(raw: bytes) -> Answer:
    """The answer that a stream of the Responses API carried, complete or not."""
    deltas: list[str] = []
    failure = ""
    for line in raw.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        try:
            event = _responses_event.decode(line[5:].strip())
        except msgspec.DecodeError:
            continue
        if (
            event.type in {"response.completed", "response.incomplete", "response.failed"}
            and event.response is not None
        ):
            answer = _from_responses(event.response)
            answer.error = answer.error or (
                "The engine reported a failed response." if event.type == "response.failed" else ""
            )
            return answer
        if event.type == "response.output_text.delta" and isinstance(event.delta, str):
            deltas.append(event.delta)
        if event.error is not None:
            failure = read_error(event.error).message
    text = "".join(deltas)
    return Answer(response={"output": [], "text": text}, text=text, error=failure)
