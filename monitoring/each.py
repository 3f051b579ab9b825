"""A job that does the same for every alias: the boundary that keeps one alias's failure from the
others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from monitoring.windows import list_aliases
from whet.context import Context
from whet.database import reading

_log = logging.getLogger(__name__)


def for_each_alias(context: Context, what: str, work: Callable[[str], str]) -> str | None:
    """What `work` says of each alias, joined; empty: nothing worth saying.

    A failure is logged as one of `what` and said as `failed`.
    """
    with reading(context.database) as connection:
        aliases = list_aliases(connection)
    said = []
    for alias in aliases:
        try:
            found = work(alias)
        except Exception:  # noqa: BLE001
            _log.exception("%s of %s failed.", what, alias)
            found = "failed"
        if found:
            said.append(f"{alias}: {found}")
    return ", ".join(said) or None
