"""Server-sent events as bytes: what is changed on the way to the client.

Nothing here looks at single events while they stream. Each network read is cut at its last event
boundary, and the constant beginning of the events (id, model) is replaced in one pass. Only the
first events are read, for an error that a stream begins with.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import msgspec

from serving.gateway.engine_errors import EngineError, read_error

DONE = b"data: [DONE]\n\n"
BOUNDARY = b"\n\n"
_ID = re.compile(rb'"id": ?"[^"\\]*"')
_MODEL = re.compile(rb'"model": ?"(?:[^"\\]|\\.)*"')
_RESPONSE_END = re.compile(rb"^event: ?response\.(?:completed|incomplete|failed)$", re.MULTILINE)


class Rewriter:
    """Puts our id and the model name that the client asked for into a response.

    An engine writes `{"id":"…","object":"…","created":…,"model":"…","choices":` the same way into
    every event of a stream, so the whole beginning is one needle. A needle starts with an unescaped
    quote, so it cannot match inside a text.
    """

    def __init__(self, interaction_id: str, model: str) -> None:
        self._id = b'"id":"%s"' % interaction_id.encode()
        self._model = b'"model":%s' % msgspec.json.encode(model)
        self._needles: list[tuple[bytes, bytes]] | None = None

    def _learn(self, data: bytes) -> list[tuple[bytes, bytes]]:
        end = data.find(b'"choices"')
        start = data.find(b'{"id"')
        found_id, found_model = _ID.search(data), _MODEL.search(data)
        if (
            0 <= start < end
            and found_id
            and found_model
            and max(found_id.end(), found_model.end()) <= end
        ):
            needle = data[start:end]
            ours = needle.replace(found_id[0], self._id, 1)
            return [(needle, ours.replace(found_model[0], self._model, 1))]
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
            start = data.rfind(BOUNDARY, 0, at) + 2 if data.rfind(BOUNDARY, 0, at) >= 0 else 0
            end = data.find(BOUNDARY, at)
            data = data[:start] + (data[end + 2 :] if end >= 0 else b"")
    return data


def ends_response(data: bytes) -> bool:
    """True if these events end a stream of the Responses API, which has no `[DONE]`."""
    return b"event: response." in data and _RESPONSE_END.search(data) is not None


class Opening(Enum):
    """What the events that a stream begins with say."""

    UNKNOWN = "nothing yet: an engine sends them before it has looked at the request"
    ANSWER = "the answer has begun"


def read_opening(raw: bytes) -> Opening | EngineError:
    """Read whole events from a stream's start: the error it begins with, if it does.

    Before its first token an engine may send a chunk with the role alone, or the Responses API's
    `response.created`, and then refuse.
    """
    start = 0
    while (end := raw.find(BOUNDARY, start)) >= 0:
        found = _opening_of(raw[start:end])
        if found is not Opening.UNKNOWN:
            return found
        start = end + len(BOUNDARY)
    return Opening.UNKNOWN


def _opening_of(event: bytes) -> Opening | EngineError:
    line = next((line for line in event.split(b"\n") if line.startswith(b"data:")), b"")
    try:
        value = msgspec.json.decode(line[5:].strip())
    except msgspec.DecodeError:
        return Opening.ANSWER if line else Opening.UNKNOWN
    if not isinstance(value, dict):
        return Opening.ANSWER
    if value.get("error") is not None:
        return read_error(value["error"])
    if value.get("type") == "error":
        return read_error(value)
    if "choices" not in value:
        return Opening.UNKNOWN if value.get("type") in _PRELUDES else Opening.ANSWER
    return Opening.UNKNOWN if all(map(_is_role_only, value["choices"])) else Opening.ANSWER


_ERROR_EVENTS = (b'data: {"error"', b"event: error\n")
_PRELUDES = ("response.created", "response.in_progress", "response.queued")


def _is_role_only(choice: Any) -> bool:
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict) or choice.get("finish_reason") is not None:
        return False
    return not any(value for name, value in delta.items() if name != "role")


class StreamEditor:
    """Cuts what arrives of a stream at its event boundaries and edits it for the client."""

    def __init__(self, rewrite: Rewriter, *, without_usage: bool, has_done: bool) -> None:
        """`has_done`: the stream ends with `[DONE]`; those of the Responses API do not."""
        self.has_done = has_done
        self.raw: list[bytes] = []  # everything, as the engine sent it
        self.held = b""  # the last events, which wait for the row
        self.ended = False  # the answer's last event has arrived
        self.error: EngineError | None = None  # that the engine ended the stream with
        self._rewrite = rewrite
        self._without_usage = without_usage
        self._tail = b""  # the beginning of an event

    def feed(self, data: bytes) -> bytes:
        """What may go to the client now; empty while an event is incomplete and at the end."""
        self.raw.append(data)
        if self._tail:
            data = self._tail + data
        if data.endswith(BOUNDARY):
            self._tail = b""
        else:
            cut = data.rfind(BOUNDARY) + len(BOUNDARY)
            if cut < len(BOUNDARY):
                self._tail = data
                return b""
            data, self._tail = data[:cut], data[cut:]
        data = self._without_error(self._rewrite(data))
        if self._without_usage and (b'"choices":[]' in data or b'"choices": []' in data):
            data = without_usage(data)
        if self.error is not None:
            self.held, self.ended = data, True
            return b""
        if self.has_done:
            if data.endswith(DONE):
                self.held, self.ended = data, True
                return b""
        elif self.ended or ends_response(data):
            self.held += data
            self.ended = True
            return b""
        return data

    def _without_error(self, data: bytes) -> bytes:
        """The events before one that is an error. That one is kept here: the client gets it in the
        form in which all our errors come."""
        for mark in _ERROR_EVENTS:
            at = data.find(mark)
            if at == 0 or (at > 0 and data[:at].endswith(BOUNDARY)):
                found = _opening_of(data[at : data.find(BOUNDARY, at)])
                if isinstance(found, EngineError):
                    self.error = found
                    return data[:at]
        return data
