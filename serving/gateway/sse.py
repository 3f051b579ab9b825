"""Server-sent events as bytes: what is changed on the way to the client, and what is read of them afterwards.

Nothing here looks at single events while they stream. Each network read is cut at its last event boundary, the
constant beginning of the events (id, model) is replaced in one pass, and the text is parsed once, after the end.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from serving.gateway.engine_errors import read_error

DONE = b"data: [DONE]\n\n"
_BOUNDARY = b"\n\n"
_ERROR_WITHIN = 64  # bytes from a stream's start: an event that is an error names it there
_ID = re.compile(rb'"id": ?"[^"\\]*"')
_MODEL = re.compile(rb'"model": ?"(?:[^"\\]|\\.)*"')
_RESPONSE_END = re.compile(rb"^event: ?response\.(?:completed|incomplete|failed)$", re.MULTILINE)


class Rewriter:
    """Puts our id and the model name that the client asked for into a response.

    An engine writes `{"id":"…","object":"…","created":…,"model":"…","choices":` the same way into every event of a stream, so
    the whole beginning is one needle. A needle starts with an unescaped quote, so it cannot match inside a text.
    """

    def __init__(self, interaction_id: str, model: str) -> None:
        self._id = b'"id":"%s"' % interaction_id.encode()
        self._model = b'"model":%s' % msgspec.json.encode(model)
        self._needles: list[tuple[bytes, bytes]] | None = None

    def _learn(self, data: bytes) -> list[tuple[bytes, bytes]]:
        end = data.find(b'"choices"')
        start = data.find(b'{"id"')
        found_id, found_model = _ID.search(data), _MODEL.search(data)
        if 0 <= start < end and found_id and found_model and found_id.end() <= end and found_model.end() <= end:
            needle = data[start:end]
            return [(needle, needle.replace(found_id[0], self._id, 1).replace(found_model[0], self._model, 1))]
        pairs = ((found_id, self._id), (found_model, self._model))
        return [(found[0], ours) for found, ours in pairs if found]

    def __call__(self, data: bytes) -> bytes:
        if self._needles is None:
            self._needles = self._learn(data)
        for needle, ours in self._needles:
            data = data.replace(needle, ours)
        return data

    def once(self, body: bytes) -> bytes:
        """The same for a JSON body, where each occurs once, near its beginning."""
        for needle, ours in self._learn(body[:4096]):
            body = body.replace(needle, ours, 1)
        return body


def without_usage(data: bytes) -> bytes:
    """Whole events less those that carry usage alone, for a client that did not ask for it."""
    for mark in (b'"choices":[]', b'"choices": []'):
        while (at := data.find(mark)) >= 0:
            start = data.rfind(_BOUNDARY, 0, at) + 2 if data.rfind(_BOUNDARY, 0, at) >= 0 else 0
            end = data.find(_BOUNDARY, at)
            data = data[:start] + (data[end + 2 :] if end >= 0 else b"")
    return data


def ends_response(data: bytes) -> bool:
    """True if these events end a stream of the Responses API, which has no `[DONE]`."""
    return b"event: response." in data and _RESPONSE_END.search(data) is not None


def leading_error(raw: bytes) -> Any:
    """The error that a stream begins with, decoded; None for a stream that begins well."""
    if b"error" not in raw[:_ERROR_WITHIN]:
        return None
    for line in raw[: raw.find(_BOUNDARY)].split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        try:
            event = msgspec.json.decode(line[5:].strip())
        except msgspec.DecodeError:
            return None
        if isinstance(event, dict) and event.get("error") is not None:
            return event["error"]
        if isinstance(event, dict) and event.get("type") == "error":
            return event
    return None


class StreamEditor:
    """Cuts what arrives of a stream at its event boundaries and edits it for the client."""

    def __init__(self, rewrite: Rewriter, *, without_usage: bool, has_done: bool) -> None:
        """`has_done`: the stream ends with `[DONE]`; those of the Responses API do not."""
        self.has_done = has_done
        self.raw: list[bytes] = []  # everything, as the engine sent it
        self.held = b""  # the last events, which wait for the row
        self.ended = False  # the answer's last event has arrived
        self.has_event = False  # one whole event has arrived
        self._rewrite = rewrite
        self._without_usage = without_usage
        self._tail = b""  # the beginning of an event

    def feed(self, data: bytes) -> bytes:
        """What may go to the client now; empty while an event is incomplete and at the end."""
        self.raw.append(data)
        if self._tail:
            data = self._tail + data
        if data.endswith(_BOUNDARY):
            self._tail = b""
        else:
            cut = data.rfind(_BOUNDARY) + len(_BOUNDARY)
            if cut < len(_BOUNDARY):
                self._tail = data
                return b""
            data, self._tail = data[:cut], data[cut:]
        self.has_event = True
        data = self._rewrite(data)
        if self._without_usage and (b'"choices":[]' in data or b'"choices": []' in data):
            data = without_usage(data)
        if self.has_done:
            if data.endswith(DONE):
                self.held, self.ended = data, True
                return b""
        elif self.ended or ends_response(data):
            self.held += data
            self.ended = True
            return b""
        return data


# --- after the end --------------------------------------------------------------------------------------------------


# gc=False: decoded JSON holds no cycles, and a stream makes hundreds of these, which would start collections in mid-request.
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

    response: dict[str, object] | None = None  # assistant message, {"text"}, or the output items of the Responses API
    text: str | None = None  # of the first choice
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str = ""


_chunk_list = msgspec.json.Decoder(list[_Chunk])
_chunk = msgspec.json.Decoder(_Chunk)


def _chunks(raw: bytes) -> list[_Chunk]:
    """All events of a chat or completions stream, in one decoding pass where it has the usual form."""
    body = raw.removesuffix(DONE).removesuffix(_BOUNDARY).removesuffix(b"\n")
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
            answer.prompt_tokens, answer.completion_tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
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
    answer.response = {"text": answer.text} if plain else _message(role, answer.text, "".join(reasoning), list(tools.values()))
    return answer


def _message(role: str, text: str, reasoning: str, tools: list[dict[str, str]]) -> dict[str, object]:
    message: dict[str, object] = {"role": role, "content": text or (None if tools else "")}
    if reasoning:
        message["reasoning"] = reasoning
    if tools:
        message["tool_calls"] = [{"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}} for call in tools]
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
        answer.prompt_tokens, answer.completion_tokens = whole.usage.prompt_tokens, whole.usage.completion_tokens
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
        finish_reason={"completed": "stop", "incomplete": "length"}.get(whole.status or "", whole.status),
    )
    if whole.usage is not None:
        answer.prompt_tokens, answer.completion_tokens = whole.usage.input_tokens, whole.usage.output_tokens
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
        if event.type in {"response.completed", "response.incomplete", "response.failed"} and event.response is not None:
            answer = _from_responses(event.response)
            answer.error = answer.error or ("The engine reported a failed response." if event.type == "response.failed" else "")
            return answer
        if event.type == "response.output_text.delta" and isinstance(event.delta, str):
            deltas.append(event.delta)
        if event.error is not None:
            failure = read_error(event.error).message
    text = "".join(deltas)
    return Answer(response={"output": [], "text": text}, text=text, error=failure)
