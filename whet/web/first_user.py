"""The first user of a new installation."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sqlalchemy import func, select

from whet.access import add_user
from whet.context import Context
from whet.database import reading, writing
from whet.tables import users


def ensure_admin(context: Context, now: int) -> str | None:
    """Make the user `admin` with a generated password when the installation has no user yet.

    The password is written to `<home>/admin.password` (readable by its owner alone) before the user
    exists, so that a kill in between leaves no user whose password nobody knows. Returns the
    password, or None when there are users.
    """
    with reading(context.database) as connection:
        if connection.execute(select(func.count()).select_from(users)).scalar_one():
            return None
    password = _password_file(context.settings.home / "admin.password")
    with writing(context.database) as connection:
        if connection.execute(select(users.c.name).where(users.c.name == "admin")).first():
            return None
        add_user(connection, "admin", "admin", password, actor="first-start", now=now)
    return password


def _password_file(path: Path) -> str:
    """The password in `path`; made at the first call, in one step."""
    if not path.exists():
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(18) + "\n")  # 144 bits
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    return path.read_text().strip()
