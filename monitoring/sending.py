"""Send one message to one address through Apprise, and try every address of the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypedDict

import apprise

from whet.context import Context
from whet.errors import NotificationError
from whet.settings import Settings
from whet.urls import notification_service

# (address, title, text, severity) → whether it was accepted
Send = Callable[[str, str, str, str], bool]


class TestMessage(TypedDict):
    """A message that was sent to try an address. `accepted`: whether the address took it."""

    address: str
    accepted: bool


def console_url(settings: Settings) -> str:
    return (
        settings.console_url.rstrip("/")
        or f"http://{settings.console_host}:{settings.console_port}"
    )


def try_out(context: Context, send: Send | None = None) -> list[TestMessage]:
    """Send a test message to every address; whether each accepted it.

    Addresses are shown by their beginning only.
    """
    sender = send or send_by_apprise
    found = []
    for url in context.settings.notify_urls.split():
        accepted = sender(
            url,
            "A test from Whet",
            f"Alerts will come here. The console is at {console_url(context.settings)}.",
            "attention",
        )
        found.append(TestMessage(address=notification_service(url), accepted=accepted))
    return found


def send_by_apprise(address: str, title: str, text: str, severity: str) -> bool:
    """Raises NotificationError for an address that Apprise cannot read."""
    for name in ("apprise", "urllib3"):  # below this level they log addresses, which are secrets
        logging.getLogger(name).setLevel(logging.WARNING)
    sender = apprise.Apprise()
    log = logging.getLogger("apprise")
    log.disabled = True  # what it cannot read it logs whole
    try:
        is_readable = sender.add(address)
    finally:
        log.disabled = False
    if not is_readable:
        raise NotificationError(
            f"WHET_NOTIFY_URLS holds an address that cannot be read: {notification_service(address)}.",
            hint="The forms are at https://github.com/caronc/apprise/wiki.",
        )
    kind = apprise.NotifyType.FAILURE if severity == "bad" else apprise.NotifyType.WARNING
    return bool(sender.notify(title=title, body=text, notify_type=kind))
