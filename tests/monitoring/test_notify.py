"""Alerts told to people: at least once, once each, in order, also when the address is away; and a
Prometheus Alertmanager.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from monitoring.alert_store import Alert
from monitoring.notify import events_of, run_notify
from monitoring.sending import send_by_apprise, try_out
from tests.monitoring.build import NOW, make_alert
from tests.monitoring.receiver import Receiver
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import NotificationError
from whet.settings import load_settings
from whet.tables import alerts, notifications

MINUTE = 60_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def told(tmp_path: Path, receiver: Receiver, database_url: str) -> Iterator[Context]:
    """A home whose alerts go to the receiver."""
    settings = load_settings(
        home=tmp_path / "told",
        database_url=database_url,
        notify_urls=f"json://127.0.0.1:{receiver.port}/hook",
    )
    context = open_context(settings)
    yield context
    context.close()


def an_alert(
    context: Context, name: str = "alr_1", severity: str = "attention", at: int = NOW
) -> None:
    row = {
        "id": name,
        "dedup_key": name,
        "alias": "support",
        "kind": "answers",
        "severity": severity,
        "title": f"support: {name} changed.",
    }
    with writing(context.database) as connection:
        connection.execute(
            insert(alerts).values(
                **row,
                detail={},
                state="open",
                opened_at=at,
                changed_at=at,
                changed_by=None,
                open_marker=name,
            )
        )


def close(context: Context, name: str, at: int) -> None:
    with writing(context.database) as connection:
        connection.execute(
            update(alerts)
            .where(alerts.c.id == name)
            .values(
                state="resolved",
                open_marker=None,
                changed_at=at,
                changed_by="ada",
                detail={"resolution": "It was the cache."},
            )
        )


def test_an_alert_is_told_once_and_its_end_once(told: Context, receiver: Receiver) -> None:
    an_alert(told)
    for minutes in (0, 1, 2):
        run_notify(told, NOW + minutes * MINUTE)
    assert receiver.titles == ["support: alr_1 changed."]
    assert "/drift/incidents/alr_1" in receiver.got[0][1]["message"]
    close(told, "alr_1", NOW + 3 * MINUTE)
    for minutes in (3, 4):
        run_notify(told, NOW + minutes * MINUTE)
    assert receiver.titles == ["support: alr_1 changed.", "Over: support: alr_1 changed."]
    assert (
        "by ada" in receiver.got[1][1]["message"]
        and "It was the cache." in receiver.got[1][1]["message"]
    )


def test_while_the_address_is_away_it_is_tried_again_with_longer_pauses_and_nothing_is_lost(
    told: Context, receiver: Receiver
) -> None:
    an_alert(told)
    receiver.status = 500
    assert run_notify(told, NOW) == "alr_1 open: not accepted"
    assert run_notify(told, NOW + 10_000) is None, "tried again before the pause was over"
    assert run_notify(told, NOW + 30_000) == "alr_1 open: not accepted"
    assert run_notify(told, NOW + 60_000) is None, "the second pause is as short as the first"
    close(told, "alr_1", NOW + 70_000)
    receiver.status = 200
    receiver.got.clear()
    run_notify(told, NOW + 2 * MINUTE)
    run_notify(told, NOW + 3 * MINUTE)
    assert receiver.titles == ["Over: support: alr_1 changed."] or receiver.titles == [
        "support: alr_1 changed.",
        "Over: support: alr_1 changed.",
    ]
    with reading(told.database) as connection:
        assert all(row.delivered_at for row in connection.execute(select(notifications)))


def test_a_kill_between_sending_and_marking_tells_twice_and_never_not_at_all(
    told: Context, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_alert(told)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr("monitoring.notify._mark", killed)
        run_notify(told, NOW)
    run_notify(told, NOW + 1000)
    run_notify(told, NOW + 2000)
    assert len(receiver.got) == 2


def test_information_is_not_told_until_it_is_grave(told: Context, receiver: Receiver) -> None:
    an_alert(told, severity="information")
    run_notify(told, NOW)
    assert receiver.got == []
    with writing(told.database) as connection:
        connection.execute(update(alerts).values(severity="bad"))
    run_notify(told, NOW + MINUTE)
    assert len(receiver.got) == 1 and receiver.got[0][1]["type"] == "failure"


def test_what_is_to_be_told() -> None:
    def alert(severity: str, is_open: bool) -> Alert:
        return make_alert(id="a", severity=severity, open_marker="a" if is_open else None)

    cases = [
        (alert("attention", True), {}, ["open"]),
        (alert("attention", True), {"a": {"open"}}, []),
        (alert("information", True), {}, []),
        (alert("bad", False), {}, []),
        (alert("bad", False), {"a": {"open"}}, ["closed"]),
        (alert("bad", False), {"a": {"open", "closed"}}, []),
    ]
    for found, before, expected in cases:
        assert [one.event for one in events_of([found], before)] == expected, (found, before)


def test_an_alertmanager_hears_of_open_alerts_each_time_and_of_the_end(
    tmp_path: Path, receiver: Receiver
) -> None:
    context = open_context(
        load_settings(home=tmp_path / "home", alertmanager_url=f"http://127.0.0.1:{receiver.port}/")
    )
    assert run_notify(context, NOW) is None and receiver.got == []
    an_alert(context, severity="bad")
    run_notify(context, NOW)
    run_notify(context, NOW + MINUTE)
    close(context, "alr_1", NOW + 2 * MINUTE)
    run_notify(context, NOW + 3 * MINUTE)
    run_notify(context, NOW + 120 * MINUTE)
    context.close()
    assert [path for path, _ in receiver.got] == ["/api/v2/alerts"] * 3
    first, _, last = (body[0] for _, body in receiver.got)
    assert (
        first["labels"]
        == last["labels"]
        == {
            "alertname": "WhetDrift",
            "alias": "support",
            "kind": "answers",
            "alert": "alr_1",
            "severity": "page",
        }
    )
    # NOW is 08:00
    assert first["endsAt"] == "2027-01-15T09:00:00Z" and last["endsAt"] == "2027-01-15T08:02:00Z"


def test_an_alertmanager_that_is_away_and_an_unreadable_address_are_said_in_a_sentence(
    tmp_path: Path,
) -> None:
    context = open_context(
        load_settings(home=tmp_path / "home", alertmanager_url="http://127.0.0.1:1")
    )
    an_alert(context)
    with pytest.raises(NotificationError, match="was not told"):
        run_notify(context, NOW)
    context.close()
    context = open_context(
        load_settings(home=tmp_path / "home", notify_urls="nonsense://secret-token@x")
    )
    with pytest.raises(NotificationError, match="cannot be read: nonsense://…") as caught:
        try_out(context)
    context.close()
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["mailto://Xq7zSecret", "json://u:Xq7zSecret@h:abc/", "Xq7zSecret", "nope://Xq7zSecret"],
)
def test_an_address_that_cannot_be_read_is_logged_nowhere(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(NotificationError) as caught:
        send_by_apprise(address, "title", "text", "bad")
    assert "Xq7zSecret" not in f"{caught.value} {caplog.text}"


def test_the_password_of_an_alertmanager_is_sent_and_shown_nowhere(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://user:p%40Xq7zSecret@127.0.0.1:{receiver.port}/"
    context = open_context(load_settings(home=tmp_path / "home", alertmanager_url=url))
    an_alert(context, severity="bad")
    run_notify(context, NOW)
    basic = base64.b64encode(b"user:p@Xq7zSecret").decode()
    assert [headers["Authorization"] for headers in receiver.headers] == [f"Basic {basic}"]
    receiver.status = 401
    with pytest.raises(NotificationError, match="was not told") as caught:
        run_notify(context, NOW)
    context.close()
    assert "Xq7zSecret" not in f"{caught.value} {caplog.text}"


def test_a_test_message_says_which_address_took_it_and_shows_no_secret(
    told: Context, receiver: Receiver
) -> None:
    assert try_out(told) == [{"address": "json://…", "accepted": True}]
    receiver.status = 404
    assert try_out(told) == [{"address": "json://…", "accepted": False}]
