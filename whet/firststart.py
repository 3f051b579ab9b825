"""`whet init`: everything a home folder needs, made once.

Run again, it makes only what is missing and changes nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from whet import access
from whet.context import Context, open_context
from whet.database import database_name, open_database, reading, schema_state, writing
from whet.settings import Settings
from whet.tables import api_keys
from whet.up.preflight import check_disk
from whet.web.first_user import ensure_admin

FIRST_KEY_NAME = "first"


@dataclass(frozen=True)
class Made:
    """One thing of a home folder: what it is, where, and whether this call made it."""

    what: str
    where: str
    new: bool


def key_file(home: Path) -> Path:
    """The first API key, readable by its owner alone; the demo and the examples use it."""
    return home / "api.key"


def prepare_home(settings: Settings, *, actor: str, now: int) -> tuple[Context, list[Made]]:
    """Make what is missing and open the context.

    Raises ProcessError for a full disk, DatabaseError for an unusable database.
    """
    home = settings.home
    new_home = not home.exists()
    check_disk(home)
    if new_home:
        home.chmod(0o700)  # secrets, logged conversations and training data will lie here
    made = [Made("home folder", str(home), new_home), _configuration(home)]
    new_database = _is_empty(settings)
    new_secret = not (home / "secret").exists()
    context = open_context(settings)
    access.installation_secret(home)
    made.append(Made("installation secret", str(home / "secret"), new_secret))
    new_engine_key = not settings.engine_key and not (home / "engine.key").exists()
    access.engine_key(home, settings.engine_key)
    made.append(
        Made(
            "engine key",
            "setting engine_key" if settings.engine_key else str(home / "engine.key"),
            new_engine_key,
        )
    )
    revision, _ = schema_state(context.database)
    made.append(
        Made("database", f"{database_name(context.database)} at schema {revision}", new_database)
    )
    made.append(_first_key(context, actor=actor, now=now))
    made.append(_first_user(context, now=now))
    return context, made


def _is_empty(settings: Settings) -> bool:
    database = open_database(settings.resolved_database_url)
    try:
        return schema_state(database)[0] is None
    except DBAPIError:  # opening it for use will say why
        return False
    finally:
        database.dispose()


def _configuration(home: Path) -> Made:
    path = home / "whet.toml"
    # A database URL in it may hold a password
    new = _write_once(path, commented_settings(), mode=0o600)
    return Made("settings file", str(path), new)


def commented_settings() -> str:
    """A whet.toml in which every setting stands with its default, commented out, below its
    description.
    """
    lines = [
        (
            "# Settings of this installation. Take the '#' from a line to change it; WHET_…"
            " variables in the environment win."
        ),
        "",
    ]
    for name, field in Settings.model_fields.items():
        if name == "home":  # it says where this file is
            continue
        lines += [f"# {field.description}", f"# {name} = {toml_value(field.default)}", ""]
    return "\n".join(lines)


def toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def _first_key(context: Context, *, actor: str, now: int) -> Made:
    path = key_file(context.settings.home)
    with reading(context.database) as connection:
        known = set(connection.execute(select(api_keys.c.hash)).scalars())
    if path.exists():
        if access.hash_key(path.read_text().strip(), context.secret) in known:
            return Made("first API key", str(path), False)
    elif known:
        return Made("first API key", "not kept here; `whet keys create NAME` makes another", False)
    with writing(context.database) as connection:
        _, key = access.create_key(
            connection, FIRST_KEY_NAME, secret=context.secret, actor=actor, now=now
        )
        # The file before the commit: a kill in between leaves a file that the next start replaces,
        # never a key nobody has.
        path.unlink(missing_ok=True)
        _write_once(path, key + "\n", mode=0o600)
    return Made("first API key", str(path), True)


def _first_user(context: Context, *, now: int) -> Made:
    password = ensure_admin(context, now)
    where = context.settings.home / "admin.password"
    return Made(
        "console user",
        f"admin, password in {where}" if where.exists() else "admin or those that were added",
        password is not None,
    )


def _write_once(path: Path, text: str, *, mode: int) -> bool:
    """Create the file if it is absent, in one step and flushed. Returns whether it was absent."""
    if path.exists():
        return False
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)
    return True
