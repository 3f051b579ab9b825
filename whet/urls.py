"""Addresses that settings hold: shown without their passwords, taken apart for clients."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
_SECRET_PARAMETER = re.compile(
    r"[?&;][^=&]*(?:pass|pwd|secret|token|key|credential|signature)[^=&]*=", re.IGNORECASE
)
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_MIN_SECRET = 3  # characters; replacing shorter ones would garble a text and give them away
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def mask_url(url: str) -> str:
    """Return `url` as it may be shown: no password, no token, whatever form they have.

    Everything from the first `:` after the scheme to the last `@` counts as password, since people
    forget to encode an `@`; so does the rest of a query, from its first parameter that is named
    like a secret.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    elif scheme.lower().startswith("sqlite") and rest.startswith("/"):
        return url  # a path, in which an @ means nothing
    parameter, at = _SECRET_PARAMETER.search(rest), rest.rfind("@")
    if parameter and parameter.end() <= at:
        return f"{scheme}{separator}{MASK}"  # nobody can tell whose the @ is
    if parameter:
        rest = rest[: parameter.end()] + MASK
    user, colon, _ = rest[:at].partition(":") if at >= 0 else ("", "", "")
    if colon:
        rest = f"{user}:{MASK}{rest[at:]}"
    elif at >= 0 and "/" not in user and not scheme.lower().startswith("postgres"):
        rest = f"{MASK}{rest[at:]}"  # a user name alone is a token, except for a database
    return f"{scheme}{separator}{rest}"


def mask_secrets(text: str, *urls: str) -> str:
    """Return `text`, written by a library, without `urls` and without their passwords."""
    for url in urls:
        if url:
            text = text.replace(url, mask_url(url))
    forms = {form for url in urls for secret in _secrets(url) for form in _spellings(secret)}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _MIN_SECRET:
            text = text.replace(form, MASK)
    return text


def credentials_problem(url: str) -> str:
    """Say why the user and password in `url` cannot be told from the rest; empty if they can."""
    rest = url.partition("://")[2]
    credentials, at, _ = rest.rpartition("@")
    if not at:
        return ""
    if set("/?#@") & set(credentials) or _BARE_PERCENT.search(credentials):
        return (
            "user and password end at the @ before the host; other special characters in them are "
            "percent-encoded: @ as %40, / as %2F, % as %25, ? as %3F, # as %23"
        )
    return ""


def parse_origins(text: str) -> list[str]:
    """Return the comma-separated origins of `text` as browsers send them; `["*"]` for all.

    Raises ValueError for what no browser sends, which would silently allow nothing.
    """
    given = [part.strip() for part in text.split(",") if part.strip()]
    if "*" in given:
        if len(given) > 1:
            raise ValueError("* allows every origin already; leave the others out, or leave out *")
        return given
    return [_parse_origin(part) for part in given]


def _parse_origin(text: str) -> str:
    match = _ORIGIN.fullmatch(text.lower().removesuffix("/"))
    if match is None:
        raise ValueError(
            f"{mask_url(text)!r} is no origin; expected SCHEME://HOST or SCHEME://HOST:PORT, "
            "such as https://app.example.com, without a path and without a * in it"
        )
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}"


def split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return `url` without user and password, and both decoded, or None when there are none."""
    scheme, separator, rest = url.partition("://")
    end = min((at for mark in "/?#" if (at := rest.find(mark)) >= 0), default=len(rest))
    credentials, at_sign, host = rest[:end].rpartition("@")
    if not at_sign:
        return url, None
    user, _, password = credentials.partition(":")
    return f"{scheme}{separator}{host}{rest[end:]}", (unquote(user), unquote(password))


def _secrets(url: str) -> list[str]:
    """Password and secret parameters of a URL, as they are written in it."""
    rest = url.partition("://")[2] or url
    credentials, at, _ = rest.rpartition("@")
    found = [credentials.partition(":")[2] or credentials] if at and ":" in credentials else []
    for parameter in _SECRET_PARAMETER.finditer(rest):
        found += [rest[parameter.end() :].partition("&")[0], rest[parameter.end() :]]
    return found


def _spellings(secret: str) -> set[str]:
    plain = unquote(secret)
    quoted = {quote(plain, safe=""), quote(plain), quote_plus(plain)}
    return {secret, plain, repr(plain)[1:-1], *quoted}


def notification_service(url: str) -> str:
    """Return the kind of a notification address; everything after it may be a secret."""
    scheme, separator, _ = url.partition("://")
    return f"{scheme[:20]}://…" if separator else "one without ://"


def notification_target(url: str) -> str:
    """Return the hash under which `notifications` keeps an address."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]
