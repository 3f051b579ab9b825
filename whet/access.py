"""Who may do what: API keys of applications, users of the console, and the installation's own
secret.

Keys are 256 random bits, so a keyed hash is enough to store them; passwords are chosen by people
and go through scrypt.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, false, func, insert, literal, or_, select, update

from whet.auditlog import record
from whet.errors import AccessError, ConflictError, InputError, NotFoundError
from whet.ids import check_name, new_id
from whet.json_types import JsonObject
from whet.tables import api_keys, users

ROLES = ("viewer", "reviewer", "operator", "admin")  # each may do what the ones before may
_KEY_PREFIX = "whet-"
_MIN_PASSWORD = 10  # characters
# OWASP's scrypt minimum: N=2^17, r=8, p=1 (128 MiB); a console log-in is rare enough to pay it.
_SCRYPT = {"n": 1 << 17, "r": 8, "p": 1, "maxmem": 1 << 28, "dklen": 32}


@dataclass(frozen=True, slots=True)
class User:
    name: str
    role: str

    def may(self, role: str) -> bool:
        """True if this user's role is `role` or above it."""
        return ROLES.index(self.role) >= ROLES.index(role)


def installation_secret(home: Path) -> bytes:
    """32 bytes made once per home folder, readable by its owner alone; keys the hashes and signs
    the cookies.
    """
    return bytes.fromhex(_secret_file(home / "secret"))


def engine_key(home: Path, configured: str) -> str:
    """The key that the engine asks for: the configured one, or one made once per home folder."""
    return configured or _secret_file(home / "engine.key")


def retrieval_key(home: Path) -> str:
    """Return the key that the retrieval process asks for, made once per home folder."""
    return _secret_file(home / "retrieval.key")


def _secret_file(path: Path) -> str:
    if not path.exists():
        _make_secret(path)
    text = path.read_text().strip()
    if len(text) != 64:
        raise AccessError(
            f"{path} does not hold a secret of 64 hexadecimal characters.",
            hint=(
                "Restore the file, or remove it to make a new one: every key and session then"
                " becomes invalid."
            ),
        )
    return text


def _make_secret(path: Path) -> None:
    """A new secret at `path`, unless somebody else was first.

    The name appears only once the file is whole: several processes of one installation start at
    once, and none may read half a secret.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Mkstemp makes it 0600
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)


def hash_key(key: str, secret: bytes) -> str:
    return hmac.new(secret, key.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def create_key(
    connection: Connection,
    name: str,
    *,
    secret: bytes,
    actor: str,
    now: int,
    group: str = "",
    may_write_documents: bool = False,
) -> tuple[str, str]:
    """Returns (id, the key itself, which is shown once and not stored).

    `group`: keys of one group may rate each other's answers; empty: the key is a group of its own.
    `may_write_documents`: the key may make vector stores and change those that name it.
    """
    check_name(name, "key name")
    if group:
        check_name(group, "key group")
    key = _KEY_PREFIX + secrets.token_urlsafe(32)
    key_id = new_id("key", at=now)
    connection.execute(
        insert(api_keys).values(
            id=key_id,
            name=name,
            hash=hash_key(key, secret),
            hint=key[:10],
            group_name=group or key_id,
            may_write_documents=may_write_documents,
            created_at=now,
        )
    )
    detail: JsonObject = {"name": name, "group": group} if group else {"name": name}
    if may_write_documents:
        detail["may_write_documents"] = True
    record(connection, actor=actor, action="key.create", subject=key_id, detail=detail, now=now)
    return key_id, key


def may_write_documents(connection: Connection, key_id: str) -> bool:
    """Tell whether a key may make vector stores, and change those that name it."""
    query = select(api_keys.c.may_write_documents).where(
        api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)
    )
    return bool(connection.execute(query).scalar())


def same_group(
    key: ColumnElement[str] | str, other: ColumnElement[str] | str
) -> ColumnElement[bool]:
    """Compare the groups of two key ids, columns or values, in SQL; revoked keys keep their group.

    Feedback counts only where its key and the key that asked are of one group, so whoever joins
    `ratings` with `interactions` adds this condition. Two lookups by primary key at most, and none
    where both ids are the same, which is the usual case.
    """
    left, right = (literal(each) if isinstance(each, str) else each for each in (key, other))
    same = _group_of(left) == _group_of(right)
    return or_(left == right, func.coalesce(same, false()))


def _group_of(key: ColumnElement[str]) -> ColumnElement[str]:
    keys = api_keys.alias()
    query = select(keys.c.group_name).where(keys.c.id == key)
    return query.correlate_except(keys).scalar_subquery()


def revoke_key(connection: Connection, reference: str, *, actor: str, now: int) -> str:
    """Revoke by id or name; returns the id. Raises NotFoundError."""
    row = connection.execute(
        select(api_keys.c.id).where(
            (api_keys.c.id == reference) | (api_keys.c.name == reference),
            api_keys.c.revoked_at.is_(None),
        )
    ).first()
    if row is None:
        raise NotFoundError(
            f"There is no active key {reference!r}.", hint="`whet keys list` prints them."
        )
    connection.execute(update(api_keys).where(api_keys.c.id == row.id).values(revoked_at=now))
    record(connection, actor=actor, action="key.revoke", subject=row.id, now=now)
    return str(row.id)


def active_keys(connection: Connection) -> dict[str, str]:
    """Hash → key id, for the gateway's memory."""
    return {
        row.hash: row.id
        for row in connection.execute(
            select(api_keys.c.hash, api_keys.c.id).where(api_keys.c.revoked_at.is_(None))
        )
    }


def hash_password(password: str) -> str:
    salt = os.urandom(16)
    return f"scrypt${salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT).hex()}"


def password_matches(password: str, stored: str) -> bool:
    _, salt, expected = stored.split("$")
    found = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), **_SCRYPT).hex()
    return hmac.compare_digest(found, expected)


def add_user(
    connection: Connection, name: str, role: str, password: str, *, actor: str, now: int
) -> None:
    check_name(name, "user name")
    if role not in ROLES:
        raise InputError(f"Role {role!r} is not one of {', '.join(ROLES)}.")
    if len(password) < _MIN_PASSWORD:
        raise InputError(
            f"The password has {len(password)} characters; expected at least {_MIN_PASSWORD}."
        )
    if connection.execute(select(users.c.name).where(users.c.name == name)).first():
        raise ConflictError(
            f"There is a user {name!r} already (removed users keep their name, so that old"
            " decisions stay theirs).",
            hint="Choose another name.",
        )
    connection.execute(
        insert(users).values(
            name=name, role=role, password_hash=hash_password(password), created_at=now
        )
    )
    record(connection, actor=actor, action="user.add", subject=name, detail={"role": role}, now=now)


def remove_user(connection: Connection, name: str, *, actor: str, now: int) -> None:
    changed = connection.execute(
        update(users)
        .where(users.c.name == name, users.c.removed_at.is_(None))
        .values(removed_at=now)
    )
    if changed.rowcount == 0:
        raise NotFoundError(f"There is no user {name!r}.", hint="`whet users list` prints them.")
    record(connection, actor=actor, action="user.remove", subject=name, now=now)


def change_role(connection: Connection, name: str, role: str, *, actor: str, now: int) -> None:
    """Raises ConflictError when nobody would be left who is an admin."""
    if role not in ROLES:
        raise InputError(f"Role {role!r} is not one of {', '.join(ROLES)}.")
    if role != "admin":
        keep_an_admin(connection, name)
    changed = connection.execute(
        update(users).where(users.c.name == name, users.c.removed_at.is_(None)).values(role=role)
    )
    if changed.rowcount == 0:
        raise NotFoundError(f"There is no user {name!r}.", hint="`whet users list` prints them.")
    record(
        connection, actor=actor, action="user.role", subject=name, detail={"role": role}, now=now
    )


def change_password(
    connection: Connection, name: str, password: str, *, actor: str, now: int
) -> None:
    """Sets it; whoever asks for it must have checked that they may."""
    if len(password) < _MIN_PASSWORD:
        raise InputError(
            f"The password has {len(password)} characters; expected at least {_MIN_PASSWORD}."
        )
    changed = connection.execute(
        update(users)
        .where(users.c.name == name, users.c.removed_at.is_(None))
        .values(password_hash=hash_password(password))
    )
    if changed.rowcount == 0:
        raise NotFoundError(f"There is no user {name!r}.", hint="`whet users list` prints them.")
    record(connection, actor=actor, action="user.password", subject=name, now=now)


def keep_an_admin(connection: Connection, name: str) -> None:
    """Raises ConflictError when `name` is the only admin: without one nobody could add users any
    more.
    """
    admins = (
        connection.execute(
            select(users.c.name).where(users.c.role == "admin", users.c.removed_at.is_(None))
        )
        .scalars()
        .all()
    )
    if list(admins) == [name]:
        raise ConflictError(f"{name} is the only admin.", hint="Make another user an admin first.")


def find_user(connection: Connection, name: str) -> User | None:
    row = connection.execute(
        select(users.c.name, users.c.role).where(users.c.name == name, users.c.removed_at.is_(None))
    ).first()
    return User(row.name, row.role) if row else None


def log_in(connection: Connection, name: str, password: str) -> User:
    """Raises AccessError, with one message and one duration for an unknown name and a wrong
    password.
    """
    row = connection.execute(
        select(users).where(users.c.name == name, users.c.removed_at.is_(None))
    ).first()
    matches = password_matches(password, row.password_hash if row else hash_password(""))
    if row is None or not matches:
        raise AccessError(
            "That name and password do not match a user.", hint="`whet users add NAME` makes one."
        )
    return User(row.name, row.role)
