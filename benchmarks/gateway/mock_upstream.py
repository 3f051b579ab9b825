"""An upstream that costs next to nothing: vLLM's HTTP surface with canned answers, so that a run
measures the gateway in front of it.

    python -m benchmarks.gateway.mock_upstream PORT

`POST /v1/chat/completions` answers JSON, or a stream of server-sent events: in one write, or one
event every `ms` milliseconds after `POST /mock/pace {"ms": 10}`. As in vLLM, the answer's id is
`chatcmpl-` and the caller's `x-request-id`, and `model` is what was asked for. The rest is what a
gateway needs to trust an engine: `/health`, `/v1/models`, loading of adapters, and
`/v1/completions` with `prompt_logprobs` that follow `log_probability`, from which the adapter of
the benchmark gets its fingerprint. `GET /mock/stats` counts completions asked for and completions
sent in full.

A bare `asyncio.Protocol`, because a web framework here would use more of the core than the load
generator beside it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import lru_cache
from typing import Any, cast

TOKENS = 64  # words in an answer: a short support answer
PROMPT_TOKENS = 60
BASE_MODEL = "mock"
_CREATED = 1_700_000_000  # fixed, so that answers to one model and one length of id have one length
_STARTED = round(time.time(), 2)
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding:"
    b" chunked\r\n\r\n"
)
_LAST_CHUNK = b"0\r\n\r\n"
_USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": TOKENS,
    "total_tokens": PROMPT_TOKENS + TOKENS,
}
WORDS = [f" token{i}" for i in range(TOKENS)]


def log_probability(model: str, position: int, token: int) -> float:
    """What this engine says of one prompt token (natural logarithm).

    Every model but the base answers 4 lower, as a trained adapter differs.
    """
    return -1.0 - (token * 31 + position * 7) % 11 / 4 - (0.0 if model == BASE_MODEL else 4.0)


def events(model: str, answer_id: str, usage: bool) -> list[bytes]:
    """The stream of one answer, event by event, as vLLM sends it."""
    head = {"id": answer_id, "object": "chat.completion.chunk", "created": _CREATED, "model": model}

    def event(delta: dict[str, str], finish: str | None = None) -> bytes:
        return _event(
            {
                **head,
                "choices": [
                    {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
                ],
            }
        )

    stream = [
        event({"role": "assistant", "content": ""}),
        *(event({"content": word}) for word in WORDS),
        event({}, "stop"),
    ]
    if usage:
        stream.append(_event({**head, "choices": [], "usage": _USAGE}))
    return [*stream, b"data: [DONE]\n\n"]


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


def _framed(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _http_json(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def _json(value: Any, status: bytes = b"200 OK") -> bytes:
    return _http_json(_dump(value), status)


def _chat(model: str, answer_id: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(WORDS), "tool_calls": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": _CREATED,
        "model": model,
        "choices": [choice],
        "usage": _USAGE,
    }


# Answers are built once per model and length of id, then the id is put in by one replacement: about
# 1 µs for JSON and 3 µs for a stream.
_ID = "chatcmpl-(id)"  # stands for the answer's id while a template is made


def _hole(id_length: int) -> bytes:
    """As long as the id that will take its place; a header's value cannot hold these bytes, nor can
    JSON.
    """
    return b"\x7f" * id_length


@lru_cache(maxsize=256)
def _chat_template(model: str, id_length: int) -> bytes:
    return _http_json(_dump(_chat(model, _ID)).replace(b"(id)", _hole(id_length)))


@lru_cache(maxsize=256)
def _stream_template(model: str, id_length: int, usage: bool) -> tuple[list[bytes], bytes]:
    """(framed events, the whole response in one piece)."""
    framed = [
        _framed(event.replace(b"(id)", _hole(id_length))) for event in events(model, _ID, usage)
    ]
    return framed, _SSE_HEAD + b"".join(framed) + _LAST_CHUNK


class State:
    """What the one process knows."""

    def __init__(self) -> None:
        self.pace_s = 0.0
        self.asked = 0
        self.sent = 0
        self.adapters: dict[str, str] = {}  # name -> folder

    def models(self) -> bytes:
        names = [
            (BASE_MODEL, BASE_MODEL, None),
            *((name, folder, BASE_MODEL) for name, folder in self.adapters.items()),
        ]
        return _json(
            {
                "object": "list",
                "data": [
                    {
                        "id": name,
                        "object": "model",
                        "created": _CREATED,
                        "owned_by": "vllm",
                        "root": root,
                        "parent": parent,
                        "max_model_len": 4096,
                    }
                    for name, root, parent in names
                ],
            }
        )


def _between(text: bytes, start: bytes, end: bytes) -> bytes:
    begin = text.find(start)
    if begin < 0:
        return b""
    begin += len(start)
    return text[begin : text.find(end, begin)]


class Upstream(asyncio.Protocol):
    """One connection: HTTP/1.1 with keep-alive, one request at a time or pipelined."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Uvloop has its own class with the same methods
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        while self.buffer:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end]
            lowered = head.lower() + b"\r\n"
            if b"transfer-encoding: chunked" in lowered:
                last = self.buffer.find(b"\r\n0\r\n\r\n", end + 2)
                if last < 0:
                    return
                body, self.buffer = (
                    _unframe(self.buffer[end + 4 : last + 2]),
                    self.buffer[last + 7 :],
                )
            else:
                length = int(_between(lowered, b"\r\ncontent-length:", b"\r\n") or 0)
                if len(self.buffer) < end + 4 + length:
                    return
                body, self.buffer = (
                    self.buffer[end + 4 : end + 4 + length],
                    self.buffer[end + 4 + length :],
                )
            self._answer(head, lowered, body)

    def _answer(self, head: bytes, lowered: bytes, body: bytes) -> None:
        if head.startswith(b"POST /v1/chat/completions"):
            self._complete(head, lowered, body)
        elif head.startswith(b"GET /v1/models"):
            self.transport.write(self.state.models())
        elif head.startswith(b"POST "):
            self.transport.write(_post(self.state, head.split(b" ", 2)[1].decode(), body))
        elif head.startswith(b"GET /mock/stats"):
            self.transport.write(_json({"asked": self.state.asked, "sent": self.state.sent}))
        elif head.startswith(b"GET /metrics"):
            self.transport.write(_metrics(self.state))
        else:
            self.transport.write(
                _json({"version": "mock", "model_path": BASE_MODEL, "is_generation": True})
            )

    def _complete(self, head: bytes, lowered: bytes, body: bytes) -> None:
        state = self.state
        state.asked += 1
        at = lowered.find(b"\r\nx-request-id:")
        request_id = _between(head[at:] + b"\r\n", b":", b"\r\n").strip() if at >= 0 else b"mock"
        hole = _hole(len(request_id))
        # A model's name holds no comma
        asked = _between(body, b'"model":', b",").strip(b' "}\r\n').decode()
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self.transport.write(_chat_template(asked, len(request_id)).replace(hole, request_id))
            state.sent += 1
            return
        framed, whole = _stream_template(asked, len(request_id), b'"include_usage":' in body)
        if state.pace_s:
            self.transport.write(_SSE_HEAD)
            loop = asyncio.get_running_loop()
            pieces = iter([piece.replace(hole, request_id) for piece in framed])
            loop.call_later(
                state.pace_s, self._send_next, pieces, loop.time() + state.pace_s, state.pace_s
            )
        else:
            self.transport.write(whole.replace(hole, request_id))
            state.sent += 1

    def _send_next(self, pieces: Any, due: float, pace_s: float) -> None:
        """One event, then the next `pace_s` after this one was due (so a late timer is not added
        up).
        """
        if self.transport.is_closing():
            return
        piece = next(pieces, None)
        if piece is None:
            self.transport.write(_LAST_CHUNK)
            self.state.sent += 1
            return
        self.transport.write(piece)
        asyncio.get_running_loop().call_at(
            due + pace_s, self._send_next, pieces, due + pace_s, pace_s
        )


def _unframe(chunked: bytes) -> bytes:
    body = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        length = int(size, 16)
        body += rest[:length]
        chunked = rest[length + 2 :]
    return body


def _post(state: State, path: str, body: bytes) -> bytes:
    """Everything but chat: rare, so read as JSON."""
    asked: dict[str, Any] = json.loads(body) if body else {}
    if path == "/mock/pace":
        state.pace_s = float(asked["ms"]) / 1000
    elif path == "/v1/load_lora_adapter":
        state.adapters[asked["lora_name"]] = asked["lora_path"]
    elif path == "/v1/unload_lora_adapter":
        state.adapters.pop(asked["lora_name"], None)
    elif path == "/v1/completions":
        return _json(_completion(asked))
    else:
        return _json(
            {
                "error": {
                    "message": f"The mock has no {path}.",
                    "type": "NotFoundError",
                    "code": 404,
                }
            },
            b"404 Not Found",
        )
    return _json({})


def _completion(asked: dict[str, Any]) -> dict[str, Any]:
    model, prompts = asked["model"], asked["prompt"]
    if not isinstance(prompts, list) or (prompts and isinstance(prompts[0], int)):
        prompts = [prompts]
    choices = []
    for index, prompt in enumerate(prompts):
        tokens: list[int] = list(prompt.encode()) if isinstance(prompt, str) else prompt
        known = [
            (
                {
                    str(t): {
                        "logprob": log_probability(model, i, t),
                        "rank": 1,
                        "decoded_token": str(t),
                    }
                }
                if i
                else None
            )
            for i, t in enumerate(tokens)
        ]
        text = WORDS[0] if model == BASE_MODEL else WORDS[1]
        choices.append(
            {
                "index": index,
                "text": text,
                "logprobs": None,
                "finish_reason": "length",
                "prompt_logprobs": known if asked.get("prompt_logprobs") is not None else None,
            }
        )
    return {
        "id": "cmpl-mock",
        "object": "text_completion",
        "created": _CREATED,
        "model": model,
        "choices": choices,
        "usage": _USAGE,
    }


def _metrics(state: State) -> bytes:
    body = (
        f"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {_STARTED}\n# TYPE"
        f" vllm:num_requests_running gauge\nvllm:num_requests_running {state.asked - state.sent}\n#"
        " TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total"
        f" {state.sent * TOKENS}\n"
    ).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length:"
        b" %d\r\n\r\n%s" % (len(body), body)
    )


async def serve(port: int) -> None:
    state = State()
    server = await asyncio.get_running_loop().create_server(
        lambda: Upstream(state), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


def main() -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(int(sys.argv[1])))
    else:
        uvloop.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
