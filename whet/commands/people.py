"""`whet keys …` and `whet users …`: who may ask, and who may look and decide."""

from __future__ import annotations

import sys

import typer
from sqlalchemy import select

from whet import access
from whet.cli import actor, emit, opened, out
from whet.clock import iso, now_ms
from whet.database import reading, writing
from whet.errors import ConflictError, InputError
from whet.tables import api_keys
from whet.tables import users as users_table

_JSON = typer.Option(False, "--json", help="Print one JSON document.")

keys = typer.Typer(no_args_is_help=True, help="API keys of applications.")
users = typer.Typer(no_args_is_help=True, help="People who may log in to the console.")


@keys.command("create")
def create_key(
    name: str = typer.Argument(help="What will use it, such as `shop`."),
    group: str = typer.Option(
        "",
        help=(
            "Keys of one group may rate each other's answers; a key that replaces another "
            "takes that one's group. Default: a group of its own."
        ),
    ),
    write_documents: bool = typer.Option(
        False,
        "--write-documents",
        help=(
            "The key may upload files, make vector stores, and change those that name it. "
            "Default: it only reads."
        ),
    ),
    as_json: bool = _JSON,
) -> None:
    """Make a key. It is shown once and stored only as a hash."""
    with opened() as context, writing(context.database) as connection:
        key_id, key = access.create_key(
            connection, name, secret=context.secret, actor=actor(), now=now_ms(), group=group,
            may_write_documents=write_documents,
        )  # fmt: skip
    if as_json:
        made = {"id": key_id, "name": name, "group": group or key_id, "key": key}
        emit(made | {"writes_documents": write_documents}, True)
        return
    out.print(key, markup=False, soft_wrap=True)
    out.print(
        f"This is key {key_id} ({name}). It is not shown again; `whet keys revoke {key_id}`"
        " ends it.",
        markup=False,
        soft_wrap=True,
    )


@keys.command("list")
def list_keys(as_json: bool = _JSON) -> None:
    """All keys, revoked ones too."""
    with opened() as context, reading(context.database) as connection:
        rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at)).mappings().all()
    emit(
        [
            {
                "id": row["id"],
                "name": row["name"],
                "group": row["group_name"],
                "hint": row["hint"] + "…",
                "writes_documents": bool(row["may_write_documents"]),
                "created": iso(row["created_at"]),
                "revoked": iso(row["revoked_at"]) or None,
            }
            for row in rows
        ],
        as_json,
        columns=["id", "name", "group", "hint", "writes_documents", "created", "revoked"],
        title="API keys",
    )


@keys.command("revoke")
def revoke_key(
    reference: str = typer.Argument(help="Id or name of the key."), as_json: bool = _JSON
) -> None:
    """End a key. Requests with it are refused within seconds."""
    with opened() as context, writing(context.database) as connection:
        key_id = access.revoke_key(connection, reference, actor=actor(), now=now_ms())
    emit({"revoked": key_id}, as_json)


@users.command("add")
def add_user(
    name: str = typer.Argument(help="Log-in name."),
    role: str = typer.Option("reviewer", help=f"One of: {', '.join(access.ROLES)}."),
    password_stdin: bool = typer.Option(
        False,
        "--password-stdin",
        help="Read the password from standard input instead of asking for it.",
    ),
    as_json: bool = _JSON,
) -> None:
    """Add a person. The password is asked for, or read from standard input."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else _ask_password()
    with opened() as context, writing(context.database) as connection:
        access.add_user(connection, name, role, password, actor=actor(), now=now_ms())
    emit({"added": name, "role": role}, as_json)


def _ask_password() -> str:
    if not sys.stdin.isatty():
        raise InputError(
            "There is no terminal to ask for the password on.",
            hint="Pipe it in and add --password-stdin.",
        )
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


@users.command("list")
def list_users(as_json: bool = _JSON) -> None:
    """All people, removed ones too: their decisions keep their name."""
    with opened() as context, reading(context.database) as connection:
        rows = (
            connection.execute(select(users_table).order_by(users_table.c.created_at))
            .mappings()
            .all()
        )
    emit(
        [
            {
                "name": row["name"],
                "role": row["role"],
                "added": iso(row["created_at"]),
                "removed": iso(row["removed_at"]) or None,
            }
            for row in rows
        ],
        as_json,
        columns=["name", "role", "added", "removed"],
        title="users",
    )


@users.command("remove")
def remove_user(name: str = typer.Argument(help="Log-in name."), as_json: bool = _JSON) -> None:
    """Take a person's access away. The last admin stays, so that nobody is locked out."""
    with opened() as context, writing(context.database) as connection:
        active = connection.execute(
            select(users_table.c.name, users_table.c.role).where(users_table.c.removed_at.is_(None))
        ).all()
        admins = [row.name for row in active if row.role == "admin"]
        if admins == [name]:
            raise ConflictError(
                f"{name!r} is the only admin.",
                hint="Add another admin first: `whet users add NAME --role admin`.",
            )
        access.remove_user(connection, name, actor=actor(), now=now_ms())
    emit({"removed": name}, as_json)
