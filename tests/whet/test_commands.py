"""The commands of the core as scripts call them: a process of their own, its JSON, its exit code."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from whet import access
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.doctor import Check, examine
from whet.firststart import commented_settings, prepare_home
from whet.overview import overview
from whet.settings import Settings, load_settings
from whet.store import digest_files
from whet.tables import adapters, alerts, audit, interactions, review_items

PASSWORD = "correct horse battery"


def whet(
    home: Path, *arguments: str, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    surroundings = {
        name: value for name, value in os.environ.items() if not name.startswith("WHET_")
    } | {"WHET_HOME": str(home), **environment}
    return subprocess.run(
        [sys.executable, "-m", "whet.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=surroundings,
        timeout=60,
    )


def data(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder made once: its first user's password takes a while to hash."""
    made = tmp_path_factory.mktemp("prepared") / "home"
    context, _ = prepare_home(load_settings(home=made), actor="test", now=now_ms())
    context.close()
    return made


@pytest.fixture
def home(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(prepared, tmp_path / "home"))


@pytest.mark.seconds
def test_init_makes_everything_once_and_says_what(tmp_path: Path) -> None:
    home = tmp_path / "new"
    first = data(whet(home, "init", "--json"))
    assert {item["what"] for item in first["made"] if item["new"]} == {
        "home folder",
        "settings file",
        "installation secret",
        "engine key",
        "database",
        "first API key",
        "console user",
    }
    before = {
        path.name: path.read_bytes()
        for path in home.iterdir()
        if path.suffix in (".key", ".toml", ".password") or path.name == "secret"
    }
    second = data(whet(home, "init", "--json"))
    assert not [item for item in second["made"] if item["new"]]
    assert {name: (home / name).read_bytes() for name in before} == before
    assert {stat.S_IMODE((home / name).stat().st_mode) for name in before} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_the_first_key_and_the_first_user_work(home: Path) -> None:
    context = open_context(load_settings(home=home))
    with reading(context.database) as connection:
        assert access.hash_key(
            (home / "api.key").read_text().strip(), context.secret
        ) in access.active_keys(connection)
        assert (
            access.log_in(connection, "admin", (home / "admin.password").read_text().strip()).role
            == "admin"
        )
    context.close()


def test_a_first_key_whose_making_was_cut_short_is_made_again(home: Path) -> None:
    (home / "api.key").write_text("whet-never-stored\n")
    context, made = prepare_home(load_settings(home=home), actor="test", now=now_ms())
    with reading(context.database) as connection:
        assert access.hash_key(
            (home / "api.key").read_text().strip(), context.secret
        ) in access.active_keys(connection)
    assert [item.what for item in made if item.new] == ["first API key"]
    context.close()


def test_a_first_key_that_its_owner_took_away_does_not_come_back(home: Path) -> None:
    (home / "api.key").unlink()
    context, made = prepare_home(load_settings(home=home), actor="test", now=now_ms())
    context.close()
    assert not (home / "api.key").exists()
    assert not [item for item in made if item.new]


def test_the_commented_settings_file_is_read_without_changing_a_setting(home: Path) -> None:
    assert load_settings(home=home) == Settings(home=home)
    live = "\n".join(
        line.removeprefix("# ") if " = " in line and line.startswith("# ") else line
        for line in commented_settings().splitlines()[1:]
    )
    (home / "whet.toml").write_text(live)
    assert load_settings(home=home) == Settings(home=home)


def test_a_key_is_shown_once_listed_by_its_hint_and_revoked(home: Path) -> None:
    made = data(whet(home, "keys", "create", "shop", "--json"))
    assert made["key"].startswith("whet-")
    listed = whet(home, "keys", "list", "--json")
    assert made["key"] not in listed.stdout
    assert {row["name"]: row["revoked"] for row in data(listed)} == {"first": None, "shop": None}
    assert data(whet(home, "keys", "revoke", "shop", "--json")) == {"revoked": made["id"]}
    again = whet(home, "keys", "revoke", "shop")
    assert again.returncode == 2 and "no active key 'shop'" in again.stderr
    grouped = data(whet(home, "keys", "create", "batch", "--group", "shops", "--json"))
    groups = {row["name"]: row["group"] for row in data(whet(home, "keys", "list", "--json"))}
    assert (made["group"], grouped["group"]) == (made["id"], "shops")
    assert (groups["shop"], groups["batch"]) == (made["id"], "shops")


def test_users_are_added_with_a_password_from_standard_input(home: Path) -> None:
    assert data(
        whet(
            home,
            "users",
            "add",
            "ann",
            "--role",
            "reviewer",
            "--password-stdin",
            "--json",
            stdin=PASSWORD + "\n",
        )
    ) == {
        "added": "ann",
        "role": "reviewer",
    }
    short = whet(home, "users", "add", "bob", "--password-stdin", stdin="short\n")
    assert short.returncode == 2 and "expected at least 10" in short.stderr
    nobody_to_ask = whet(home, "users", "add", "bob")
    assert nobody_to_ask.returncode == 2 and "--password-stdin" in nobody_to_ask.stderr
    assert [row["name"] for row in data(whet(home, "users", "list", "--json"))] == ["admin", "ann"]
    last = whet(home, "users", "remove", "admin")
    assert last.returncode == 1 and "only admin" in last.stderr
    assert data(whet(home, "users", "remove", "ann", "--json")) == {"removed": "ann"}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nosuch"], 2, "No such command"),
        (["keys", "create"], 2, "Missing argument"),
        (["keys", "create", "../up"], 2, "not usable"),
        (["trace", "int_nothing"], 2, "Nothing goes by 'int_nothing'"),
        (["up", "--without", "nosuch"], 2, "There is no process 'nosuch'"),
    ],
)
def test_a_wrong_call_is_a_sentence_and_exit_code_2(
    home: Path, base: Path, arguments: list[str], code: int, sentence: str
) -> None:
    done = whet(home, *arguments, WHET_BASE_MODEL=str(base))
    assert done.returncode == code
    assert sentence in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_setting_that_cannot_be_is_named_with_its_value(home: Path) -> None:
    done = whet(home, "status", WHET_GATEWAY_PORT="no-port")
    assert done.returncode == 2
    assert "'gateway_port'" in done.stderr and "'no-port'" in done.stderr


def test_a_taken_port_ends_the_start_before_anything_runs(home: Path, base: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = whet(
            home, "up", "--only", "console", WHET_CONSOLE_PORT=port, WHET_BASE_MODEL=str(base)
        )
    said = done.stderr.replace("\n", " ")
    assert done.returncode == 1
    assert f"Port {port}" in said and "WHET_CONSOLE_PORT" in said and f"pid {os.getpid()}" in said


# --- status and doctor ---------------------------------------------------------------------------------------------


def test_status_counts_what_there_is(context: Context) -> None:
    now = 10_000_000
    answer = {
        "request_id": "r",
        "api_key_id": "k",
        "route": "chat",
        "model": "m",
        "stream": False,
        "http_status": 200,
        "request": {},
    }
    with writing(context.database) as connection:
        for number, (status, at) in enumerate(
            [("complete", now), ("error", now), ("complete", now - 2 * 3_600_000)]
        ):
            connection.execute(
                insert(interactions).values(
                    id=f"int_{number}", status=status, created_at=at, **answer
                )
            )
        connection.execute(
            insert(review_items).values(
                id="itm_1",
                interaction_id="int_0",
                alias="support",
                reason="rating",
                why="",
                priority=1,
                state="waiting",
                created_at=now,
            )
        )
        connection.execute(
            insert(alerts).values(
                id="alr_1",
                dedup_key="d",
                alias="support",
                kind="drift",
                severity="bad",
                title="Drift",
                detail={},
                state="open",
                opened_at=now,
                changed_at=now,
            )
        )
    found = overview(context, now=now)
    assert found["traffic"] == {"last_hour": 2, "complete": 1, "failed": 1}
    assert found["review"] == {"waiting": 1, "by_reason": {"rating": 1}}
    assert [alert["id"] for alert in found["alerts"]] == ["alr_1"]
    assert found["supervisor"] is None and found["replicas"] == [] and found["aliases"] == []
    assert found["training"] == {"requests_waiting": 0, "runs": []}


def test_status_prints_for_people_and_for_scripts(home: Path) -> None:
    assert set(data(whet(home, "status", "--json"))) == {
        "health",
        "home",
        "at",
        "supervisor",
        "replicas",
        "aliases",
        "traffic",
        "review",
        "alerts",
        "training",
    }
    assert "does not run for this home" in whet(home, "status").stdout


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Files enough to pass for a base model; nothing here loads it."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    header = b'{"a.weight": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"00")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def verdicts(settings: Settings, *, deep: bool = False) -> dict[str, Check]:
    return {check.name: check for check in examine(settings, deep=deep, now=now_ms())}


def test_doctor_passes_a_new_home_and_says_what_it_looked_at(home: Path, base: Path) -> None:
    done = whet(home, "doctor", "--json", WHET_BASE_MODEL=str(base), WHET_ENGINE_PORT="18498")
    found = data(done)
    assert found["ok"] is True
    assert {
        "versions",
        "home",
        "base model",
        "disk",
        "database",
        "audit log",
        "clock",
        "adapters",
        "datasets",
        "processes",
    } <= {check["name"] for check in found["checks"]}


def test_doctor_ends_with_exit_code_1_when_something_is_wrong(home: Path, tmp_path: Path) -> None:
    done = whet(home, "doctor", WHET_BASE_MODEL=str(tmp_path / "absent"), WHET_ENGINE_PORT="18498")
    assert done.returncode == 1
    assert "absent does not exist" in done.stdout and "1 of" in done.stdout


def test_doctor_finds_what_was_altered(context: Context, base: Path) -> None:
    settings = context.settings.model_copy(update={"base_model": str(base), "engine_port": 18498})
    access.installation_secret(settings.home)
    with writing(context.database) as connection:
        access.add_user(connection, "ann", "admin", PASSWORD, actor="test", now=1)
        access.add_user(connection, "bob", "admin", PASSWORD, actor="test", now=2)
    assert verdicts(settings)["audit log"].verdict == "ok"
    with writing(context.database) as connection:
        connection.execute(update(audit).where(audit.c.sequence == 1).values(actor="somebody"))
    (settings.home / "secret").chmod(0o644)
    found = verdicts(settings)
    assert found["audit log"].verdict == "fail" and "Entry 1" in found["audit log"].found
    assert found["secrets"].verdict == "fail" and "chmod 600" in found["secrets"].todo


def test_doctor_compares_the_store_with_the_database(context: Context, base: Path) -> None:
    settings = context.settings.model_copy(update={"base_model": str(base), "engine_port": 18498})

    def fill(folder: Path) -> None:
        for name in ("adapter_config.json", "adapter_model.safetensors", "card.json"):
            (folder / name).write_text(name)

    context.store.put_folder("adapters/support/v1--x", fill)
    folder = context.store.local_folder("adapters/support/v1--x")
    digest = digest_files(folder, ("adapter_config.json", "adapter_model.safetensors"))
    row = {
        "name": "support",
        "base_digest": "b",
        "template_digest": "t",
        "rank": 8,
        "gate": "pass",
        "card": {},
        "created_at": 1,
    }
    with writing(context.database) as connection:
        connection.execute(
            insert(adapters).values(digest=digest, version=1, path="adapters/support/v1--x", **row)
        )
    found = verdicts(settings, deep=True)
    assert found["adapters"].verdict == "ok"
    assert found["base of adapters"].verdict == "note"
    weights = folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_text("other weights")
    assert verdicts(settings)["adapters"].verdict == "ok"  # only --deep reads the files
    assert (
        "support@v1 is not what its digest says" in verdicts(settings, deep=True)["adapters"].found
    )
    weights.unlink()
    assert "support@v1 lacks adapter_model.safetensors" in verdicts(settings)["adapters"].found


def test_doctor_tells_a_newer_database_from_an_older_one_and_changes_neither(
    context: Context,
) -> None:
    for revision, sentence in (
        ("9999", "a newer version wrote it"),
        ("0000", "brings it up to date"),
    ):
        with writing(context.database) as connection:
            connection.execute(
                text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision}
            )
        found = verdicts(context.settings)["database"]
        assert found.verdict == "fail" and sentence in found.found + found.todo
        with reading(context.database) as connection:
            assert (
                connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
                == revision
            )
