"""`whet alerts test`: try the addresses that alerts are sent to."""

from __future__ import annotations

import typer

from monitoring.sending import try_out
from whet.cli import emit, opened


def send_test(*, as_json: bool) -> None:
    """Send a test message to every address of WHET_NOTIFY_URLS, and say which accepted it."""
    with opened() as context:
        found = try_out(context)
    if not found and not as_json:
        typer.echo("WHET_NOTIFY_URLS is empty: alerts stand in the console and in Prometheus only.")
        return
    emit(found, as_json, columns=["address", "accepted"], title="test messages")
    if not all(one["accepted"] for one in found):
        raise typer.Exit(1)
