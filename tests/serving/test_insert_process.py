"""Small batches of the log are inserted by a process of idle priority, and by the drain without
it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.log import insert_process as module
from serving.log.drain import Drain
from serving.log.insert_process import InsertProcess
from serving.log.inserting import Refused
from serving.log.records import encode
from serving.log.spool import Spool
from tests.serving.conftest import wait_for
from tests.serving.test_log import count, record
from whet.context import Context
from whet.errors import DatabaseError


def line(number: int, **changes: object) -> bytes:
    return encode(record(number, **changes))[:-1]


@contextmanager
def running(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[InsertProcess]:
    """A process that is ready, on the database of `context`. It may take its time, for the
    machine that runs tests is busy."""
    monkeypatch.setenv("WHET_HOME", str(context.settings.home))
    monkeypatch.setenv("WHET_DATABASE_URL", context.settings.resolved_database_url)
    monkeypatch.setattr(module, "REPLY_WITHIN_S", 30.0)
    started = InsertProcess()
    try:
        wait_for(started.is_ready, "the process", timeout_s=30)
        yield started
    finally:
        started.close()


@pytest.fixture
def process(sqlite_context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[InsertProcess]:
    with running(sqlite_context, monkeypatch) as started:
        yield started


def pid_of(process: InsertProcess) -> int:
    assert process._process is not None
    return process._process.pid


def test_rows_are_inserted_at_idle_priority(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(context, monkeypatch) as process:
        assert process.insert([line(1), line(2)]) == []
        assert process.insert([line(2), line(3)]) == [], "what is there is left as it is"
        assert count(context) == 3
        assert os.sched_getscheduler(pid_of(process)) == os.SCHED_IDLE
        refused = process.insert([line(4), line(5, created_at=1 << 70), line(6)])
        assert refused is not None and [each.place for each in refused] == [1], refused
        assert refused[0].why and count(context) == 5, "others are inserted"


def test_drain_inserts_itself_while_the_process_does_not_answer(
    process: InsertProcess, sqlite_context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPLY_WITHIN_S", 0.05)
    spool = Spool(tmp_path / "spool", "a")
    drain = Drain(sqlite_context.database, spool, is_crowded=lambda: False, insert_process=process)
    os.kill(pid_of(process), signal.SIGSTOP)
    spool.append(encode(record(1)))
    assert drain.step() and count(sqlite_context) == 1
    spool.append(encode(record(2)))
    began = time.monotonic()
    assert drain.step() and count(sqlite_context) == 2
    assert time.monotonic() - began < 1, "it waits for no reply while an earlier one is missing"
    os.kill(pid_of(process), signal.SIGCONT)
    wait_for(process.is_ready, "the reply to the first batch")
    assert process.insert([line(3)]) == []
    assert count(sqlite_context) == 3


def test_killed_process_is_started_again(
    process: InsertProcess, sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_AGAIN_S", 0.0)
    first = pid_of(process)
    os.kill(first, signal.SIGKILL)
    assert process.insert([line(1)]) is None
    wait_for(process.is_ready, "another process", timeout_s=30)
    assert process.insert([line(1)]) == []
    assert pid_of(process) != first and count(sqlite_context) == 1


def test_database_that_is_away_is_told(process: InsertProcess, sqlite_context: Context) -> None:
    with sqlite_context.database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE interactions RENAME TO elsewhere")
    with pytest.raises(DatabaseError, match="interactions"):
        process.insert([line(1)])
    with sqlite_context.database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO interactions")
    assert process.insert([line(1)]) == [] and count(sqlite_context) == 1


def test_process_ends_with_its_gateway(process: InsertProcess) -> None:
    child = pid_of(process)
    assert process._process is not None and process._socket is not None
    process._socket.close()  # as a killed gateway leaves it
    assert process._process.wait(5) == 0, f"process {child} goes on without a gateway"


def test_refused_records_of_the_process_are_kept_in_a_file(
    sqlite_context: Context, tmp_path: Path
) -> None:
    class Refusing(InsertProcess):
        def is_ready(self) -> bool:
            return True

        def insert(self, lines: list[bytes]) -> list[Refused] | None:
            return [Refused(1, "it is too large")]

    spool = Spool(tmp_path / "spool", "a")
    spool.append(encode(record(1)) + encode(record(2)))
    drain = Drain(
        sqlite_context.database, spool, is_crowded=lambda: False, insert_process=Refusing()
    )
    drain.step()
    kept = (spool.folder / "rejected.lines").read_bytes()
    assert f"int_{2:022d}".encode() in kept and f"int_{1:022d}".encode() not in kept
