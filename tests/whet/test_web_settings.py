"""The pages under Settings: keys, people, the audit, and every value without a secret."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import select

from tests.web import NOW, console_client, headline
from whet.context import Context
from whet.database import reading as reads
from whet.database import writing
from whet.tables import api_keys, audit


def test_a_key_is_shown_once_and_kept_as_a_hash(context: Context) -> None:
    client = console_client(context, "admin", clock=lambda: NOW)
    made = client.post("/settings/keys", data={"name": "my-app"}).text
    key = re.search(r"whet-[A-Za-z0-9_-]{43}", made)
    assert key
    again = client.get("/settings/keys").text
    assert key[0] not in again and "my-app" in again
    with reads(context.database) as connection:
        row = connection.execute(select(api_keys).where(api_keys.c.name == "my-app")).one()
    assert key[0] not in str(row) and row.group_name == row.id
    client.post("/settings/keys", data={"name": "batch", "group": "shops"})
    assert "shops" in client.get("/settings/keys").text
    client.post(f"/settings/keys/{row.id}/revoke")
    assert "revoked" in client.get("/settings/keys").text
    assert client.post(f"/settings/keys/{row.id}/revoke").status_code == 404


def test_people_are_added_and_removed_and_bad_input_gets_a_sentence(context: Context) -> None:
    client = console_client(context, "admin", clock=lambda: NOW)
    assert (
        client.post(
            "/settings/people",
            data={"name": "ada", "role": "reviewer", "password": "a long password"},
        ).status_code
        == 303
    )
    short = client.post(
        "/settings/people", data={"name": "bob", "role": "reviewer", "password": "short"}
    )
    assert short.status_code == 400 and "expected at least 10" in short.text
    assert (
        client.post(
            "/settings/people",
            data={"name": "ada", "role": "viewer", "password": "a long password"},
        ).status_code
        == 409
    )
    assert (
        client.post(
            "/settings/people",
            data={"name": "Bob!", "role": "viewer", "password": "a long password"},
        ).status_code
        == 400
    )
    assert (
        client.post(
            "/settings/people", data={"name": "eve", "role": "owner", "password": "a long password"}
        ).status_code
        == 400
    )
    assert client.post("/settings/people/ada/remove").status_code == 303
    assert client.post("/settings/people/ada/remove").status_code == 404


def test_the_audit_page_names_the_entry_that_was_altered(context: Context) -> None:
    client = console_client(context, "admin", clock=lambda: NOW)
    for name in ("one", "two", "three"):
        client.post("/settings/keys", data={"name": name})
    assert headline(client.get("/settings/audit").text) == "3 entries, the chain holds"
    with writing(context.database) as connection:
        connection.execute(
            audit.update().where(audit.c.sequence == 2).values(actor="somebody else")
        )
    assert headline(client.get("/settings/audit").text) == "The chain is broken at entry 2"


def test_settings_show_every_value_and_no_secret(tmp_path: Any) -> None:
    from whet.context import open_context
    from whet.settings import Settings, load_settings
    from whet.web.admin import setting_groups

    settings = load_settings(
        home=tmp_path / "home",
        engine_key="very secret",
        database_url=f"sqlite:///{tmp_path / 'x.db'}",
    )
    shown = [row["name"] for _, rows in setting_groups(settings) for row in rows]
    assert sorted(shown) == sorted(Settings.model_fields)
    context = open_context(settings)
    page = console_client(context, "viewer").get("/settings").text
    context.close()
    assert "very secret" not in page and "set, not shown" in page
    rows = {
        row["name"]: row
        for _, group in setting_groups(
            settings.model_copy(update={"database_url": "postgresql://u:hidden@h/d"})
        )
        for row in group
    }
    assert "hidden" not in rows["database_url"]["value"]


def test_the_values_say_what_retention_did(context: Context) -> None:
    client = console_client(context, "viewer", clock=lambda: NOW)
    page = client.get("/settings").text
    assert "Nothing is older than 365 days" in page and "has not run yet" in page
