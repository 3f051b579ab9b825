"""Writes into the audit log which settings differ from those that the installation ran with before,
so that a change of them stands beside what happened then.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from sqlalchemy import select

from whet.auditlog import record
from whet.context import Context
from whet.database import writing
from whet.settings import SECRET_SETTINGS, Settings
from whet.tables import audit
from whet.urls import mask_url

ACTION = "settings.change"
_SHOWN = 60  # characters of a value
_KEPT = "known"  # the field of the entry that the next comparison reads


def record_settings(context: Context, *, actor: str, now: int) -> list[str]:
    """Compare the settings with those of the newest entry, and record what differs.

    Returns the names. The first entry of an installation names none: there is nothing before it.
    Of each value a short keyed hash is kept, and of changed ones the value, but never a secret.
    """
    values = _values(context.settings)
    known = {name: _hash(value, context.secret) for name, value in values.items()}
    with writing(context.database) as connection:
        query = select(audit.c.detail).where(audit.c.action == ACTION)
        last = connection.scalar(query.order_by(audit.c.sequence.desc()).limit(1))
        before = (last or {}).get(_KEPT, {})
        changed = sorted(name for name in known if before.get(name, known[name]) != known[name])
        if last is not None and not changed and before.keys() == known.keys():
            return []
        detail: dict[str, Any] = {name: _shown(name, values[name]) for name in changed}
        subject = ", ".join(changed)[:200] or "settings"
        record(
            connection, actor=actor, action=ACTION, subject=subject,
            detail={**detail, _KEPT: known}, now=now,
        )  # fmt: skip
    return changed


def _values(settings: Settings) -> dict[str, str]:
    found = settings.model_dump(mode="json")
    return {name: json.dumps(value, sort_keys=True) for name, value in found.items()}


def _hash(value: str, secret: bytes) -> str:
    return hmac.new(secret, value.encode(), "sha256").hexdigest()[:8]


def _shown(name: str, value: str) -> str:
    return "changed" if name in SECRET_SETTINGS else mask_url(value.strip('"'))[:_SHOWN]
