"""Errors in OpenAI's shape, and how a plain ASGI endpoint answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
SSE_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
# A stream must reach the client as it is written: no cache may keep it, and nginx and those that
# read its header (`X-Accel-Buffering`) must not collect it first.
STREAM_HEADERS: Headers = [
    SSE_TYPE,
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """What a client did that cannot be answered, or what keeps us from answering; becomes an HTTP
    error.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """`headers`: what the response carries besides those that its status asks for."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.headers = headers or []

    def all_headers(self) -> Headers:
        """The response's headers, without its length."""
        found: Headers = [JSON_TYPE, *self.headers]
        if self.retry_after_s is not None:
            found.append((b"retry-after", b"%d" % self.retry_after_s))
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        return found

    def body(self) -> bytes:
        return error_body(self.status, self.message, self.param, self.code)


def method_not_allowed(*allowed: str) -> ApiError:
    """405 for a path that answers the methods `allowed` alone."""
    return ApiError(
        405,
        f"Use {' or '.join(allowed)}.",
        code="method_not_allowed",
        headers=[(b"allow", ", ".join(allowed).encode())],
    )


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode(
        {"error": {"message": message, "type": kind, "param": param, "code": code}}
    )


def internal_error() -> ApiError:
    """500 for a defect of ours. It says nothing of its kind, which the log does."""
    message = "The gateway failed on this request; its log says why."
    return ApiError(500, message, code="internal_error")


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """A whole response. `headers` without the length."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: ApiError, headers: Headers | None = None) -> None:
    await send_bytes(send, error.status, error.body(), error.all_headers() + (headers or []))
