"""Paths that are nearly right: understood where one thing alone can be meant, else explained."""

from __future__ import annotations

import re
from collections.abc import Callable

_SLASHES = re.compile(r"/{2,}")
_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


def normalise_path(path: str) -> str:
    """Return `path` without doubled slashes and without one at its end."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def find_meant_path(path: str, is_known: Callable[[str], bool]) -> str | None:
    """Return the path that `path` is under a wrong base URL: `/v1` missing, doubled or prefixed.

    None when no end of it is a path of ours.
    """
    parts = path.lower().split("/")[1:]
    for start in range(len(parts)):
        tail = parts[start:]
        while tail and tail[0] == "v1":
            tail = tail[1:]
        meant = "/".join(["/v1", *tail])
        if tail and is_known(meant):
            return meant
    return None


def base_url(scheme: str, host: str, default: str) -> str:
    """Return the address under which a client asked, with `/v1`; `default` for a strange Host."""
    return f"{scheme}://{host if _HOST.fullmatch(host) else default}/v1"
