"""Pages of other origins may call the gateway: Starlette's CORS around everything."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from serving.gateway.answers import error_body

_METHODS = ("GET", "HEAD", "POST")
_MAX_AGE_S = 7200  # for which a browser need not ask again; Chromium's upper bound
# Headers of ours that a page's script may read.
EXPOSED_HEADERS = (
    "x-request-id",
    "x-whet-interaction-id",
    "x-whet-adapter",
    "x-whet-ignored",
    "x-whet-retrieval",
    "retry-after",
)


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware, whose refusals are errors in OpenAI's shape.

    A page may send any header. Cookies are never accepted: a key comes in `Authorization` alone.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            allow_private_network=True,  # who lists an origin wants its pages to reach the gateway
            expose_headers=EXPOSED_HEADERS,
            max_age=_MAX_AGE_S,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        method = request_headers["access-control-request-method"]
        message = (
            f"A page of {request_headers['origin'][:256]!r} may not send {method[:32]} here. "
            f"WHET_CORS_ORIGINS lists the origins; methods are {', '.join(_METHODS)}."
        )
        refusal = Response(
            error_body(response.status_code, message, code="origin_not_allowed"),
            response.status_code,
            media_type="application/json",
        )
        for name in ("vary", "access-control-allow-origin", "access-control-allow-methods"):
            if name in response.headers:
                refusal.headers[name] = response.headers[name]
        return refusal
