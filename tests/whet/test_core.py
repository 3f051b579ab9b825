"""Store, leases, audit, keys and names: the rules the packages lean on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text, update

from whet import access, auditlog, leases
from whet.context import Context
from whet.database import reading, writing
from whet.errors import AccessError, ConfigurationError, InputError, StoreError
from whet.groups import Groups
from whet.ids import check_name, new_id
from whet.settings import load_settings
from whet.store import Store
from whet.tables import audit


def test_a_forked_process_makes_ids_of_its_own() -> None:
    new_id("int")  # from here on random bytes lie ready
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, new_id("int", at=1).encode())
        os._exit(0)
    os.waitpid(child, 0)
    made = os.read(read, 100).decode()
    os.close(read)
    os.close(write)
    assert made.startswith("int_") and made != new_id("int", at=1)


def test_ids_sort_by_time() -> None:
    early, late = new_id("int", at=1_700_000_000_000), new_id("int", at=1_700_000_000_001)
    assert early < late


@pytest.mark.parametrize(
    "name", ["", "../etc", "a--b", "A", "-a", "a b", "a/b", "a..b", "é", "a" * 65, "a\x00"]
)
def test_names_that_could_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        check_name(name)


def test_a_folder_that_fails_to_fill_leaves_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def fill(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        store.put_folder("datasets/a", fill)
    assert not store.exists("datasets/a")
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_published_folders_are_read_only_and_first_wins(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put_folder("adapters/a/v1", lambda folder: (folder / "f").write_text("one") and None)
    store.put_folder("adapters/a/v1", lambda folder: (folder / "f").write_text("two") and None)
    assert store.read_bytes("adapters/a/v1/f") == b"one"
    assert (tmp_path / "adapters/a/v1/f").stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", ""])
def test_paths_outside_the_store_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreError):
        Store(str(tmp_path)).exists(path)


def test_a_lease_has_one_holder_and_its_token_rises_with_each_change(context: Context) -> None:
    take = lambda owner, now: leases.acquire(  # noqa: E731
        context.database, "reconciler", owner, now=now, for_ms=1000
    )
    assert take("a", 0) == 1
    assert take("b", 999) is None, "b took a lease that a still holds"
    assert take("a", 999) == 1, "renewing must not change the token"
    assert take("b", 2000) == 2
    leases.release(context.database, "reconciler", "a")
    assert leases.holder(context.database, "reconciler", now=2000) == "b", (
        "a former holder released somebody else's lease"
    )


def test_the_audit_chain_shows_a_changed_entry(context: Context) -> None:
    with writing(context.database) as connection:
        for number in range(3):
            auditlog.record(
                connection, actor="t", action="rollout.promote", subject=str(number), now=number
            )
        assert auditlog.broken_at(connection) is None
        connection.execute(update(audit).where(audit.c.sequence == 2).values(subject="forged"))
        assert auditlog.broken_at(connection) == 2


def test_keys_are_stored_hashed_and_die_with_revocation(context: Context) -> None:
    with writing(context.database) as connection:
        key_id, key = access.create_key(connection, "app", secret=context.secret, actor="t", now=1)
    with reading(context.database) as connection:
        assert access.active_keys(connection) == {access.hash_key(key, context.secret): key_id}
        dump = str(connection.execute(text("SELECT * FROM api_keys")).all())
        assert key not in dump
    with writing(context.database) as connection:
        access.revoke_key(connection, "app", actor="t", now=2)
        assert access.active_keys(connection) == {}


def test_keys_of_one_group_are_the_same_application_also_after_revocation(
    context: Context,
) -> None:
    with writing(context.database) as connection:

        def make(name: str, group: str = "") -> str:
            return access.create_key(
                connection, name, secret=context.secret, actor="t", now=1, group=group
            )[0]

        alone, other = make("alone"), make("other")
        web, batch, joined = make("web", "shop"), make("batch", "shop"), make("new", alone)
        access.revoke_key(connection, "batch", actor="t", now=2)

        def same(key: str, against: str) -> bool:
            return bool(connection.execute(select(access.same_group(key, against))).scalar_one())

        assert same(alone, alone) and same(web, batch) and same(batch, web)
        assert same(alone, joined), "a key joins another's own group by that key's id"
        assert not same(alone, other) and not same(web, other)
        assert same("key_gone", "key_gone"), "a key is in its own group, known or not"
        assert not same("key_gone", web) and not same("key_gone", "key_also_gone")
        with pytest.raises(InputError, match="key group"):
            make("x", "Not A Group")


def test_a_wrong_password_and_an_unknown_name_fail_alike(context: Context) -> None:
    with writing(context.database) as connection:
        access.add_user(connection, "ann", "reviewer", "correct horse", actor="t", now=1)
        assert access.log_in(connection, "ann", "correct horse").may("viewer")
        messages = set()
        for name, password in (("ann", "wrong"), ("nobody", "wrong")):
            with pytest.raises(AccessError) as caught:
                access.log_in(connection, name, password)
            messages.add(str(caught.value))
        assert len(messages) == 1


def test_a_secret_is_never_seen_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process asks for the secret while the first is just making it: both get the same
    whole one.
    """
    make, seen = access.secrets.token_hex, []

    def interrupted(size: int) -> str:
        monkeypatch.setattr(access.secrets, "token_hex", make)
        seen.append(access.installation_secret(tmp_path))
        return make(size)

    monkeypatch.setattr(access.secrets, "token_hex", interrupted)
    assert access.installation_secret(tmp_path) == seen[0], (
        "the later writer put its secret over the one already in use"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["secret"], (
        "an unfinished secret was left behind"
    )


def test_secrets_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    first = access.installation_secret(tmp_path)
    assert first == access.installation_secret(tmp_path)
    assert os.stat(tmp_path / "secret").st_mode & 0o077 == 0


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHET_GATEWAY_PORT", "eight")
    with pytest.raises(ConfigurationError, match="gateway_port"):
        load_settings(home=tmp_path)


@pytest.mark.parametrize("content", [b"gateway_port = = 1", b"home = '\xff'"])
def test_a_file_of_settings_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "whet.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"whet\.toml in the home folder cannot be read"):
        load_settings(home=tmp_path)


def test_the_environment_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "whet.toml").write_text("gateway_port = 9000\nconsole_port = 9001\n")
    monkeypatch.setenv("WHET_GATEWAY_PORT", "9100")
    found = load_settings(home=tmp_path)
    assert (found.gateway_port, found.console_port) == (9100, 9001)


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30))
def test_joined_members_and_no_others_share_a_group_named_by_its_smallest(
    pairs: list[tuple[int, int]],
) -> None:
    groups, plain = Groups(12), [{member} for member in range(12)]
    for one, other in pairs:
        groups.join(one, other)
        both = plain[one] | plain[other]
        for member in both:
            plain[member] = both
    assert groups.firsts() == [min(group) for group in plain]
