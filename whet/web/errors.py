"""One way to answer an error: a page with the sentence for people, JSON for programs."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Scope

from whet.errors import DatabaseError, InputError, NotFoundError, WhetError
from whet.web.security import ThrottledError

logger = logging.getLogger(__name__)


def as_whet_error(error: Exception, scope: Scope) -> WhetError:
    """What to say for any exception.

    A defect gets a reference that finds its traceback in the log, and no details.
    """
    if isinstance(error, WhetError):
        return error
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = " ".join(
            str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")
        )
        return InputError(
            f"{where or 'The request'}: {first.get('msg', 'not what was expected')}.",
            hint="Correct it and send it again; nothing was changed.",
        )
    if isinstance(error, HTTPException):
        found = (
            NotFoundError(
                f"There is nothing at {scope['path']}.", hint="The pages are in the menu."
            )
            if error.status_code == 404
            else WhetError(f"{error.detail}.")
        )
        found.status = error.status_code
        return found
    if isinstance(error, OperationalError):
        logger.error("%s %s: the database refuses: %s", scope["method"], scope["path"], error.orig)
        unavailable = DatabaseError(
            f"The database does not answer: {str(error.orig).splitlines()[0]}.",
            hint="Check that it runs; this page works again as soon as it does.",
        )
        unavailable.status = 503
        return unavailable
    reference = secrets.token_hex(4)
    logger.error("defect %s in %s %s", reference, scope["method"], scope["path"], exc_info=error)
    return WhetError(
        "Something in the console broke.",
        hint=(
            f"The console's log has the details under {reference}. Nothing you entered was"
            " half-saved."
        ),
    )


def hint_for_reader(error: WhetError) -> str:
    """Return the hint, but not the command that lists what there is: a page links to the list."""
    return "" if error.status == 404 and error.hint.startswith("`whet ") else error.hint


def section_of(path: str, sections: Iterable[str]) -> str | None:
    """Return the address of the menu that `path` lies under; None for none but `/`."""
    found = [each for each in sections if each != "/" and f"{path}/".startswith(f"{each}/")]
    return max(found, key=len, default=None)


def wants_json(scope: Scope) -> bool:
    accept = Headers(scope=scope).get("accept", "")
    return scope["path"].startswith("/api/") or accept.startswith("application/json")


def error_response(
    scope: Scope, error: Exception, page: Callable[[Scope, WhetError], HTMLResponse]
) -> Response:
    """JSON for `/api/` and for scripts that ask for it, otherwise the error page."""
    found = as_whet_error(error, scope)
    if wants_json(scope):
        body = {"error": {"message": found.message, "hint": found.hint, "code": found.code}}
        response: Response = JSONResponse(body, status_code=found.status)
    else:
        response = page(scope, found)
    if isinstance(found, ThrottledError):
        response.headers["retry-after"] = str(found.retry_s)
    # A challenge would make a browser open its own password window
    browser = "sec-fetch-mode" in Headers(scope=scope)
    if found.status == 401 and scope["path"].startswith("/api/") and not browser:
        response.headers["www-authenticate"] = 'Basic realm="Whet"'
    return response
