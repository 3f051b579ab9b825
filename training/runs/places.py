"""Where a run or a search happens when not here: what `--on` says, and what has to be true of this
installation before anything is sent there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, MutableMapping
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from whet.errors import ConfigurationError, InputError
from whet.settings import Settings

JOBS = "http://127.0.0.1:8265"  # where `ray start --head` takes jobs
SEND_A_TOKEN = (
    "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what `ray get-auth-token` prints on its head"
    " node."
)
LOCAL = "local"  # Ray's own word: start one here, for as long as this process lives


def ray_address(on: str, default: str) -> str:
    """The address in `ray` or `ray=ADDRESS`. Raises InputError for any other place."""
    place, given, address = on.partition("=")
    if place != "ray" or (given and not address):
        raise InputError(
            f"A run or a search can be put on Ray; found --on {on!r}.",
            hint="Write --on ray or --on ray=ADDRESS, or leave --on out to do it here.",
        )
    return address or default


def require_ray(finder: Callable[[str], object] = find_spec) -> None:
    """Raises ConfigurationError where Ray is not installed.

    To be called before it is imported: it sends nobody usage reports from here.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if finder("ray") is None:
        raise ConfigurationError(
            "Ray is not installed; it comes with no set-up, because few need it and it is large.",
            hint="`make setup-ray` installs it, or pip install 'whet[ray]'.",
        )


def send_token(environment: MutableMapping[str, str], home: Path) -> None:
    """Have Ray's client for jobs send the token that lies here, as `ray.init` does by itself.

    To be called before Ray is imported, which reads the variable then.
    """
    if (
        environment.get("RAY_AUTH_TOKEN")
        or environment.get("RAY_AUTH_TOKEN_PATH")
        or (home / ".ray" / "auth_token").is_file()
    ):
        environment.setdefault("RAY_AUTH_MODE", "token")


def require_job_address(address: str, settings: Settings) -> None:
    """Raises InputError when the address is none that takes jobs, and ConfigurationError when a job
    there could not write the run's row.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            f"Ray takes jobs at an http address; found {address!r}.",
            hint=f"Give the dashboard's, such as --on ray={JOBS}.",
        )
    if settings.resolved_database_url.startswith("sqlite") and not _is_loopback(parts.hostname):
        raise ConfigurationError(
            f"The database is a SQLite file of this machine, which a job on {parts.hostname} cannot"
            " write.",
            hint=(
                "Set WHET_DATABASE_URL to PostgreSQL, and WHET_HOME and WHET_STORE_URL to places"
                " that both reach."
            ),
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
