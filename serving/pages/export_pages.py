"""Routes that send hits of Traffic as files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import Response, StreamingResponse

from serving.pages.export import FORMATS, as_jsonl, chosen_rows, found_rows, parquet_chunks
from serving.pages.search_filters import Filters
from whet.database import reading
from whet.errors import InputError
from whet.web.shell import Shell

_TYPES = {"jsonl": "application/jsonl", "parquet": "application/vnd.apache.parquet"}
_MOST_CHOSEN = 200


def add_export_routes(routes: APIRouter, shell: Shell) -> None:
    """Add the routes of exports."""

    @routes.get("/traffic/export", dependencies=[Depends(shell.require("viewer"))])
    def export_found(request: Request, format: str = "jsonl") -> Response:
        """All hits of a search as JSONL or Parquet, 100,000 at most."""
        filters = Filters.given(request.query_params)
        return _file(found_rows(shell.context.database, filters, shell.now()), format)

    @routes.post("/traffic/export", dependencies=[Depends(shell.require("viewer"))])
    def export_chosen(
        interaction: Annotated[list[str] | None, Form()] = None,
        format: Annotated[str, Form()] = "jsonl",
    ) -> Response:
        """The chosen conversations as JSONL or Parquet."""
        chosen = list(dict.fromkeys(interaction or []))
        if not 0 < len(chosen) <= _MOST_CHOSEN:
            raise InputError(
                f"Expected 1 to {_MOST_CHOSEN} conversations; {len(chosen)} are chosen.",
                hint="Tick some, or export all that a search finds.",
            )
        with reading(shell.context.database) as connection:
            rows = chosen_rows(connection, chosen)
        return _file(iter(rows), format)

    def _file(rows: Iterator[dict[str, Any]], form: str) -> Response:
        if form not in FORMATS:
            raise InputError(
                f"The format {form[:20]!r} is not known.", hint="Use jsonl or parquet."
            )
        chunks = as_jsonl(rows) if form == "jsonl" else parquet_chunks(rows)
        return StreamingResponse(
            chunks,
            media_type=_TYPES[form],
            headers={"content-disposition": f'attachment; filename="traffic.{form}"'},
        )
