"""Routes that tell rather than generate: models, tokens, the API's description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from serving.gateway.answers import ApiError
from serving.gateway.core import Core
from serving.gateway.engine_errors import no_engine_ready
from serving.gateway.openapi import openapi_document, openapi_page
from serving.gateway.tokenization import detokenize, tokenize

_STYLE = Path(__file__).parent / "templates" / "openapi.css"
_JSON = "application/json"
# The page has no scripts and loads its own style sheet alone.
_PAGE_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'self'"}


def add_reference_routes(app: FastAPI) -> None:
    """Add them to the gateway, whose `core` is there once it has started."""
    gateway: Any = app

    def core() -> Core:
        found: Core = gateway.core
        return found

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        await core().caller(request.scope)
        return Response(core().refresher.current.models_body, media_type=_JSON)

    @app.get("/v1/models/{model:path}")
    async def model_card(request: Request, model: str) -> Response:
        await core().caller(request.scope)
        return Response(await _card(core(), model), media_type=_JSON)

    for prefix in ("", "/v1"):

        @app.post(f"{prefix}/tokenize")
        async def tokens_of(request: Request) -> Response:
            found = await tokenize(core(), request.scope, request.receive)
            return Response(found or b"", media_type=_JSON)

        @app.post(f"{prefix}/detokenize")
        async def text_of(request: Request) -> Response:
            found = await detokenize(core(), request.scope, request.receive)
            return Response(found or b"", media_type=_JSON)

    @app.get("/openapi.json")
    async def document() -> Any:
        return openapi_document()

    @app.get("/docs")
    async def page() -> Response:
        return Response(openapi_page(), media_type="text/html", headers=_PAGE_HEADERS)

    @app.get("/docs/style.css")
    async def style() -> Response:
        return Response(_STYLE.read_bytes(), media_type="text/css")


async def _card(core: Core, model: str) -> bytes:
    """Raises ApiError 404 for a name that is unknown after another look."""
    if model not in core.refresher.current.cards:
        await core.refresher.missed()
    card = core.refresher.current.cards.get(model)
    if card is not None:
        return card
    if model in core.refresher.current.routes:
        raise no_engine_ready(model[:80])
    raise ApiError(
        404,
        f"The model {model[:80]!r} does not exist here. GET /v1/models lists the names that do.",
        param="model",
        code="model_not_found",
    )
