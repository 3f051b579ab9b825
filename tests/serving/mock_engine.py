"""An engine for tests: vLLM's HTTP interface with invented answers and faults that a test switches
on.

It runs in a thread with its own event loop, on a port of its own, so that a gateway in the test's
loop, or in another process, can use it. Answers name the version that gave them: the text is `NAME
NAME NAME …`, the name being the model's.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

BASE = "base--mock"


@dataclass
class Faults:
    """What the engine does wrong from now on."""

    cut_after: int | None = None  # break the connection after this many chunks
    error_after: int | None = None  # an error event, then [DONE], after this many chunks
    eof_after: int | None = None  # end the transfer properly, without [DONE]
    hang: bool = False  # take requests and never answer
    hang_list: bool = False  # never say which names there are
    refuse_status: int | None = None  # answer completions with this status
    drop: int = 0  # close this many connections before any byte
    chunk_delay_s: float = 0.0
    start_delay_s: float = 0.0
    split_bytes: int | None = None  # write streams in pieces of this size, in the middle of events
    finish_reason: str = "stop"
    other_template: bool = False  # make other tokens of a conversation than training did
    other_tokenizer: bool = False  # … and of a plain text
    no_tokenize: bool = False  # an engine that does not say what it makes of one
    wrong_logprobs: set[str] = field(default_factory=set)  # adapters that answer unlike in training
    same_as_base: set[str] = field(default_factory=set)  # adapters that load and are not applied
    load_status: dict[str, int] = field(default_factory=dict)  # adapter -> status of its load


def token_logprob(model: str, tokens: list[int], at: int) -> float:
    """The number this mock gives for a token: any fixed function that differs between models."""
    return (
        -1.0
        - (math.sin(tokens[at] * 1.7 + at) + 1)
        - (0.0 if model == BASE else 0.5 + (sum(model.encode()) % 7) / 10)
    )


def fingerprint(name: str) -> dict[str, Any]:
    """What training would have put into the card of the adapter that the engine knows as `name`."""
    prompts = []
    for tokens in ([5, 6, 7, 8], [9, 10, 11]):
        values = {
            model: [None, *(token_logprob(model, tokens, at) for at in range(1, len(tokens)))]
            for model in (BASE, name)
        }
        prompts.append(
            {"token_ids": tokens, "base_logprobs": values[BASE], "adapter_logprobs": values[name]}
        )
    messages = [{"role": "user", "content": "Where is it?"}]
    return {
        "prompts": prompts,
        "tolerance": {"mean": 0.01, "max": 0.05},
        "text": {"text": "Where?", "token_ids": rendered([{"content": "Where?"}])},
        "asked": {"messages": messages, "token_ids": rendered(messages)},
    }


def rendered(messages: list[dict[str, Any]], other: bool = False) -> list[int]:
    """This mock's template and tokenizer: any fixed function of a conversation; `other` ends it
    otherwise.
    """
    return [
        *(ord(letter) for message in messages for letter in message["content"]),
        9 if other else 8,
    ]


class MockEngine:
    """`with MockEngine() as engine: engine.url`."""

    def __init__(self, port: int = 0, *, words: int = 8) -> None:
        self.port = port
        self.words = words
        self.faults = Faults()
        self.adapters: dict[str, str] = {}
        self.seen: list[dict[str, Any]] = []  # bodies of completions
        self.seen_headers: list[dict[str, str]] = []
        self.loads: list[str] = []
        self.aborted = 0  # completions whose client went away
        self.running = 0
        self.started_at = time.time()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> MockEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, or start again after `stop` with nothing loaded, on the same port."""
        self.adapters, self.started_at = {}, time.time()
        self._ready.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10), "the mock engine did not start"

    def stop(self) -> None:
        """Break every connection and go away, as a killed process does."""
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            self._loop = None

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        app.add_routes([
            web.get("/health", self._health), web.get("/metrics", self._metrics), web.get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat), web.post("/v1/completions", self._completions), web.post("/v1/responses", self._responses),
            web.post("/v1/load_lora_adapter", self._load), web.post("/v1/unload_lora_adapter", self._unload),
            web.post("/tokenize", self._tokenize),
        ])  # fmt: skip
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self._ready.set()
        await self._stop.wait()
        await site.stop()
        for connection in list(runner.server.connections):  # type: ignore[union-attr]
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    # --- what is not a completion -----------------------------------------------------------------------------------

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            text=(
                "# HELP process_start_time_seconds x\nprocess_start_time_seconds"
                f" {self.started_at}\n"
            )
        )

    async def _models(self, _: web.Request) -> web.Response:
        while self.faults.hang_list:
            await asyncio.sleep(0.02)
        cards = [
            {"id": BASE, "root": "/base", "parent": None},
            *({"id": name, "root": path, "parent": BASE} for name, path in self.adapters.items()),
        ]
        return web.json_response({"object": "list", "data": cards})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["lora_name"]
        self.loads.append(name)
        if name in self.adapters:
            return web.json_response(
                {
                    "error": {
                        "message": f"The lora adapter '{name}' has already been loaded.",
                        "type": "InvalidUserInput",
                        "code": 400,
                    }
                },
                status=400,
            )
        if status := self.faults.load_status.get(name):
            return web.json_response(
                {
                    "error": {
                        "message": "the adapter cannot be loaded",
                        "type": "InternalServerError",
                        "code": status,
                    }
                },
                status=status,
            )
        self.adapters[name] = body["lora_path"]
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        self.adapters.pop((await request.json())["lora_name"], None)
        return web.Response(text="Success")

    # --- completions ------------------------------------------------------------------------------------------------

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, "chat")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, "completions")

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, "responses")

    async def _complete(self, request: web.Request, route: str) -> web.StreamResponse:
        faults, body = self.faults, await request.json()
        self.running += 1
        try:
            if faults.hang:
                await asyncio.sleep(3600)
            if "prompt_logprobs" in body or body.get("prompt") == [0]:
                return self._probe(body)
            self.seen.append(body)
            self.seen_headers.append(dict(request.headers))
            if faults.drop > 0:
                faults.drop -= 1
                request.transport.abort()  # type: ignore[union-attr]
                return web.Response()
            if faults.refuse_status:
                return web.json_response(
                    {
                        "error": {
                            "message": f"refused for {body['model']}",
                            "type": "BadRequestError",
                            "param": None,
                            "code": faults.refuse_status,
                        }
                    },
                    status=faults.refuse_status,
                )
            if body["model"] != BASE and body["model"] not in self.adapters:
                return web.json_response(
                    {
                        "error": {
                            "message": f"The model `{body['model']}` does not exist.",
                            "type": "NotFoundError",
                            "code": 404,
                        }
                    },
                    status=404,
                )
            await asyncio.sleep(faults.start_delay_s)
            identity = (
                f"{ {'chat': 'chatcmpl', 'completions': 'cmpl'}.get(route) }-{request.headers.get('X-Request-Id')}"
                if route != "responses"
                else body["request_id"]
            )
            if body.get("stream"):
                return await self._stream(request, route, body, identity)
            return web.json_response(
                self._whole(route, body, identity),
                dumps=lambda value: json.dumps(value, separators=(",", ":")),
            )
        except (asyncio.CancelledError, ConnectionResetError):
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.faults.no_tokenize:
            return web.json_response({"error": {"message": "not here", "code": 404}}, status=404)
        if "prompt" in body:
            made = rendered([{"content": body["prompt"]}], self.faults.other_tokenizer)
        else:
            made = rendered(
                body["messages"], self.faults.other_template or self.faults.other_tokenizer
            )
        return web.json_response({"tokens": made})

    def _probe(self, body: dict[str, Any]) -> web.Response:
        model, tokens = body["model"], body["prompt"]
        if model != BASE and model not in self.adapters:
            return web.json_response(
                {"error": {"message": "no such model", "code": 404}}, status=404
            )
        choice: dict[str, Any] = {"index": 0, "text": "x", "finish_reason": "length"}
        if "prompt_logprobs" in body:
            by = BASE if model in self.faults.same_as_base else model
            off = 0.4 if model in self.faults.wrong_logprobs else 0.0
            choice["prompt_logprobs"] = [
                None,
                *(
                    {str(tokens[at]): {"logprob": token_logprob(by, tokens, at) - off, "rank": 1}}
                    for at in range(1, len(tokens))
                ),
            ]
        return web.json_response(
            {"choices": [choice], "usage": {"prompt_tokens": len(tokens), "completion_tokens": 1}}
        )

    def _text(self, body: dict[str, Any]) -> list[str]:
        return [("" if n == 0 else " ") + str(body["model"]) for n in range(self.words)]

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": 11,
            "completion_tokens": self.words,
            "total_tokens": 11 + self.words,
        }

    def _whole(self, route: str, body: dict[str, Any], identity: str) -> dict[str, Any]:
        text = "".join(self._text(body))
        head: dict[str, Any] = {
            "id": identity,
            "object": (
                {"chat": "chat.completion", "completions": "text_completion"}.get(route, "response")
            ),
            "created": 1,
            "model": body["model"],
        }
        if route == "responses":
            item = {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
            return {
                **head,
                "created_at": 1,
                "status": "completed",
                "output": [item],
                "parallel_tool_calls": True,
                "tool_choice": "auto",
                "tools": [],
                "usage": {
                    "input_tokens": 11,
                    "output_tokens": self.words,
                    "total_tokens": 11 + self.words,
                },
            }
        if route == "completions":
            choice = {
                "index": 0,
                "text": text,
                "logprobs": None,
                "finish_reason": self.faults.finish_reason,
            }
        elif body.get("tools"):
            call = {
                "id": "call_1",
                "type": "function",
                "function": {"name": body["tools"][0]["function"]["name"], "arguments": '{"a": 1}'},
            }
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": None, "tool_calls": [call]},
                "finish_reason": "tool_calls",
            }
        else:
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "logprobs": None,
                "finish_reason": self.faults.finish_reason,
            }
        return {**head, "choices": [choice], "usage": self._usage()}

    def _events(self, route: str, body: dict[str, Any], identity: str) -> list[bytes]:
        if route == "responses":
            whole = self._whole(route, body, identity)
            events: list[tuple[str, dict[str, Any]]] = [
                ("response.created", {"response": {**whole, "status": "in_progress", "output": []}})
            ]
            events += [
                (
                    "response.output_text.delta",
                    {
                        "item_id": "msg_1",
                        "output_index": 0,
                        "content_index": 0,
                        "delta": word,
                        "logprobs": [],
                    },
                )
                for word in self._text(body)
            ]
            events.append(("response.completed", {"response": whole}))
            return [
                f"event: {kind}\ndata: {_json({'type': kind, 'sequence_number': n, **event})}\n\n".encode()
                for n, (kind, event) in enumerate(events)
            ]
        head = {
            "id": identity,
            "object": "chat.completion.chunk" if route == "chat" else "text_completion",
            "created": 1,
            "model": body["model"],
        }
        chunks: list[dict[str, Any]] = []
        if route == "chat":
            chunks.append(
                {
                    **head,
                    "choices": [
                        {
                            "index": 0,
                            "delta": {"role": "assistant", "content": ""},
                            "finish_reason": None,
                        }
                    ],
                }
            )
            if body.get("tools"):
                name = body["tools"][0]["function"]["name"]
                for piece in (
                    {
                        "id": "call_1",
                        "type": "function",
                        "index": 0,
                        "function": {"name": name, "arguments": ""},
                    },
                    {"index": 0, "function": {"arguments": '{"a":'}},
                    {"index": 0, "function": {"arguments": " 1}"}},
                ):
                    chunks.append(
                        {
                            **head,
                            "choices": [
                                {
                                    "index": 0,
                                    "delta": {"tool_calls": [piece]},
                                    "finish_reason": None,
                                }
                            ],
                        }
                    )
            else:
                chunks += [
                    {
                        **head,
                        "choices": [
                            {"index": 0, "delta": {"content": word}, "finish_reason": None}
                        ],
                    }
                    for word in self._text(body)
                ]
            chunks.append(
                {
                    **head,
                    "choices": [
                        {
                            "index": 0,
                            "delta": {},
                            "finish_reason": (
                                "tool_calls" if body.get("tools") else self.faults.finish_reason
                            ),
                        }
                    ],
                }
            )
        else:
            words = self._text(body)
            chunks += [
                {
                    **head,
                    "choices": [
                        {
                            "index": 0,
                            "text": word,
                            "finish_reason": (
                                self.faults.finish_reason if n == len(words) - 1 else None
                            ),
                        }
                    ],
                }
                for n, word in enumerate(words)
            ]
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append({**head, "choices": [], "usage": self._usage()})
        return [*(f"data: {_json(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]

    async def _stream(
        self, request: web.Request, route: str, body: dict[str, Any], identity: str
    ) -> web.StreamResponse:
        faults = self.faults
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, event in enumerate(self._events(route, body, identity)):
            if number == faults.cut_after:
                await response.write(event[: len(event) // 2])
                request.transport.abort()  # type: ignore[union-attr]
                return response
            if number == faults.eof_after:
                break
            if number == faults.error_after:
                await response.write(
                    b'data: {"error": {"message": "EngineCore encountered an issue.", "type":'
                    b' "InternalServerError", "param": null, "code": 500}}\n\n'
                )
                await response.write(b"data: [DONE]\n\n")
                break
            for start in range(0, len(event), faults.split_bytes or len(event)):
                await response.write(event[start : start + (faults.split_bytes or len(event))])
                if faults.split_bytes:
                    await asyncio.sleep(0)
            if faults.chunk_delay_s:
                await asyncio.sleep(faults.chunk_delay_s)
        await response.write_eof()
        return response


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
