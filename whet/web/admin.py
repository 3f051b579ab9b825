"""Settings: what is in force, keys of applications, people, and who changed what."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from pydantic_core import PydanticUndefined
from sqlalchemy import func, select
from starlette.responses import Response

from whet import access, auditlog
from whet.access import User
from whet.database import reading, writing
from whet.doctor_retention import check_retention
from whet.errors import ConflictError
from whet.settings import SECRET_SETTINGS, Settings
from whet.tables import api_keys, audit, users
from whet.urls import mask_url
from whet.web.security import client_address
from whet.web.shell import Shell

_AUDIT_ROWS = 100
# A chain up to this long is checked with the page (well under a second); a longer one by a press
_VERIFY_ALONE = 5_000
_Text = Annotated[str, Form()]

ROLE_WORDS = {
    "viewer": "reads everything and changes nothing",
    "reviewer": "does that, judges conversations and uses the Playground",
    "operator": "does all that, promotes, rolls back, cancels runs and answers alerts",
    "admin": "does all that, and makes keys and users",
}
_GROUPS = (
    ("Where things are", ("home", "database_url", "store_url")),
    ("Model", ("base_model", "base_alias", "default_alias")),
    ("Engine", ("engine_",)),
    ("Gateway and console", ("gateway_", "console_", "metrics_", "request_", "log_")),
    ("Rollout", ("rollout_",)),
    ("Signals", ("drift_",)),
    ("Review and retraining", ("flag_", "review_", "retrain_", "scheduler_", "worker_")),
    ("Retention", ("retention_",)),
)


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Settings", "/settings", "settings", 90)
    routes = APIRouter(dependencies=[Depends(shell.require("viewer"))])
    _values(routes, shell)
    _keys(routes, shell)
    _people(routes, shell)
    _audit(routes, shell)
    return routes


def _values(routes: APIRouter, shell: Shell) -> None:
    @routes.get("/settings")
    def values(request: Request) -> Response:
        """Every setting with its value and reason."""
        settings = shell.context.settings
        groups = setting_groups(settings)
        retention = next(check_retention(settings, shell.context.database, shell.now())).found
        changed = sum(row["changed"] for _, rows in groups for row in rows)
        return shell.render(
            request, "shell/settings.html", groups=groups, changed=changed, roles=ROLE_WORDS,
            retention=retention,
        )  # fmt: skip

    @routes.post("/settings/password")
    async def password(
        request: Request,
        current: _Text = "",
        new: _Text = "",
        user: User = Depends(shell.require("viewer")),
    ) -> Response:
        """The own one; asks for the old one, so that an unlocked screen is not enough."""
        await shell.gate.check_password(user.name, current, client_address(request.scope))
        with writing(shell.context.database) as connection:
            access.change_password(connection, user.name, new, actor=user.name, now=shell.now())
        return shell.redirect("/login", "The password is changed; every session has ended.")


def setting_groups(settings: Settings) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every setting with its value, default and reason; secrets are hidden."""
    rows = {name: _setting(settings, name) for name in Settings.model_fields}
    grouped = []
    for title, prefixes in _GROUPS:
        mine = [rows.pop(name) for name in list(rows) if name.startswith(prefixes)]
        grouped.append((title, mine))
    return [*grouped, ("Other", list(rows.values()))] if rows else grouped


def _setting(settings: Settings, name: str) -> dict[str, Any]:
    field, value = Settings.model_fields[name], getattr(settings, name)
    default = "" if field.default is PydanticUndefined else field.default
    changed = name in settings.model_fields_set and str(value) != str(default)
    if name in SECRET_SETTINGS and value:
        value = "set, not shown"
    elif isinstance(value, str):
        value = mask_url(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return {
        "name": name,
        "variable": f"WHET_{name.upper()}",
        "value": value,
        "default": default,
        "changed": changed,
        "what": field.description or "",
    }


def _keys(routes: APIRouter, shell: Shell) -> None:
    admin = Depends(shell.require("admin"))

    def page(request: Request, made: str = "", made_name: str = "") -> Response:
        with reading(shell.context.database) as connection:
            rows = [
                dict(row._mapping)
                for row in connection.execute(
                    select(api_keys)
                    .order_by(api_keys.c.revoked_at.is_not(None), api_keys.c.created_at.desc())
                    .limit(500)
                )
            ]
        return shell.render(
            request,
            "shell/keys.html",
            keys=rows,
            made=made,
            made_name=made_name,
            active=sum(row["revoked_at"] is None for row in rows),
            settings=shell.context.settings,
        )

    @routes.get("/settings/keys", dependencies=[admin])
    def keys(request: Request) -> Response:
        """Keys of applications."""
        return page(request)

    @routes.post("/settings/keys")
    def create(
        request: Request, name: _Text = "", group: _Text = "", user: User = admin
    ) -> Response:
        """Answer with the page itself instead of a redirect: the key is shown in this one answer
        and nowhere else."""
        with writing(shell.context.database) as connection:
            _, key = access.create_key(
                connection,
                name.strip(),
                secret=shell.context.secret,
                actor=user.name,
                now=shell.now(),
                group=group.strip(),
            )
        return page(request, made=key, made_name=name.strip())

    @routes.post("/settings/keys/{key_id}/revoke")
    def revoke(key_id: str, user: User = admin) -> Response:
        """Refuse a key from now on."""
        with writing(shell.context.database) as connection:
            access.revoke_key(connection, key_id, actor=user.name, now=shell.now())
        return shell.redirect(
            "/settings/keys", "The key is revoked. The gateway refuses it within seconds."
        )


def _people(routes: APIRouter, shell: Shell) -> None:
    admin = Depends(shell.require("admin"))

    @routes.get("/settings/people", dependencies=[admin])
    def people(request: Request) -> Response:
        """Who may log in, with which role."""
        with reading(shell.context.database) as connection:
            rows = [
                dict(row._mapping)
                for row in connection.execute(
                    select(users.c.name, users.c.role, users.c.created_at, users.c.removed_at)
                    .order_by(users.c.removed_at.is_not(None), users.c.name)
                    .limit(1000)
                )
            ]
        return shell.render(request, "shell/people.html", people=rows, roles=ROLE_WORDS)

    @routes.post("/settings/people")
    def add(
        name: _Text = "", role: _Text = "", password: _Text = "", user: User = admin
    ) -> Response:
        """Add a user."""
        with writing(shell.context.database) as connection:
            access.add_user(
                connection, name.strip(), role, password, actor=user.name, now=shell.now()
            )
        return shell.redirect("/settings/people", f"{name.strip()} may log in as {role}.")

    @routes.post("/settings/people/{name}/role")
    def change_role(name: str, role: _Text = "", user: User = admin) -> Response:
        """Change a user's role; the last admin stays one."""
        with writing(shell.context.database) as connection:
            access.change_role(connection, name, role, actor=user.name, now=shell.now())
        return shell.redirect(
            "/settings/people",
            f"{name} is {'an' if role in ('operator', 'admin') else 'a'} {role} now.",
        )

    @routes.post("/settings/people/{name}/remove")
    def remove(name: str, user: User = admin) -> Response:
        """Log a user out for good; their decisions stay theirs."""
        if name == user.name:
            raise ConflictError("You cannot remove yourself.", hint="Another admin can.")
        with writing(shell.context.database) as connection:
            access.keep_an_admin(connection, name)
            access.remove_user(connection, name, actor=user.name, now=shell.now())
        return shell.redirect("/settings/people", f"{name} is out; what they decided stays theirs.")


def _audit(routes: APIRouter, shell: Shell) -> None:
    @routes.get("/settings/audit", dependencies=[Depends(shell.require("operator"))])
    def log(
        request: Request, actor: str = "", action: str = "", before: int = 0, verify: int = 0
    ) -> Response:
        """Who changed what, newest first, and whether the chain of hashes holds."""
        query = select(audit).order_by(audit.c.sequence.desc()).limit(_AUDIT_ROWS + 1)
        if actor:
            query = query.where(audit.c.actor == actor[:64])
        if action:
            query = query.where(audit.c.action.startswith(action[:64], autoescape=True))
        if before > 0:
            query = query.where(audit.c.sequence < min(before, 2**31 - 1))
        with reading(shell.context.database) as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
            total = connection.execute(
                select(func.coalesce(func.max(audit.c.sequence), 0))
            ).scalar_one()
            checked = bool(verify) or total <= _VERIFY_ALONE
            broken = auditlog.broken_at(connection) if checked else None
        older = rows[_AUDIT_ROWS - 1]["sequence"] if len(rows) > _AUDIT_ROWS else 0
        return shell.render(
            request,
            "shell/audit.html",
            rows=rows[:_AUDIT_ROWS],
            total=total,
            checked=checked,
            broken=broken,
            older=older,
            actor=actor,
            action=action,
            before=before,
        )
