"""The key with which the console asks the gateway, so that what is tried in the Playground is
logged like any other request.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from whet.access import active_keys, create_key, hash_key
from whet.context import Context
from whet.database import reading, writing
from whet.errors import AccessError

NAME = "console"
_making = threading.Lock()  # three columns ask at once; one of them makes the key


def console_key(context: Context, now: int) -> str:
    """Made at the first call, kept in `<home>/console.key` (readable by its owner alone).

    Raises AccessError when it was revoked.
    """
    path = context.settings.home / "console.key"
    with _making:
        return _kept_key(context, path) if path.exists() else _new_key(context, path, now)


def _kept_key(context: Context, path: Path) -> str:
    key = path.read_text().strip()
    with reading(context.database) as connection:
        if hash_key(key, context.secret) in active_keys(connection):
            return key
    raise AccessError(
        f"The console's own key was revoked, or {path} belongs to another installation.",
        hint=f"Remove {path}: the next question makes a new key.",
    )


def _new_key(context: Context, path: Path, now: int) -> str:
    with writing(context.database) as connection:
        _, key = create_key(connection, NAME, secret=context.secret, actor="console", now=now)
        # Inside the transaction: without the file the key would be known to nobody
        _write(path, key)
    return key


def _write(path: Path, key: str) -> None:
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
