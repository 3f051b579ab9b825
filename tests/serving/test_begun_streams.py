"""Streams that begin in the log: one row each, whatever is killed, full, away or behind."""

from __future__ import annotations

import errno
import http.client
import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from serving.gateway.stream_exchange import StreamExchange
from serving.log import drain as drain_module
from serving.log import spool as spool_module
from serving.log.drain import Drain
from serving.log.inserting import Refused
from serving.log.records import BEGUN, InteractionRecord, encode
from serving.log.spool import Spool, SpoolFile, orphans
from tests.serving.conftest import Running, serve, set_replica, wait_for
from tests.serving.mock_engine import MockEngine
from tests.serving.test_log import drain_all, record
from whet.context import Context, open_context
from whet.database import reading
from whet.outcomes import GATEWAY_STOPPED
from whet.settings import load_settings
from whet.tables import interactions

STREAM = {"model": "base", "messages": [{"role": "user", "content": "x"}], "stream": True}
REQUEST = msgspec.Raw(b'{"messages":[{"role":"user","content":"What is asked."}]}')


def begun(number: int, **changes: Any) -> bytes:
    return encode(
        record(number, status=BEGUN, response=msgspec.Raw(b"null"), stream=True, **changes)
    )


def ended(number: int, **changes: Any) -> bytes:
    return encode(record(number, stream=True, response_text="whole", **changes))


def statuses(context: Context) -> dict[int, str]:
    """Status of each row by the number of its interaction."""
    with reading(context.database) as connection:
        rows = connection.execute(select(interactions.c.id, interactions.c.status))
        return {int(row.id.removeprefix("int_")): row.status for row in rows}


def leave(spool: Spool) -> None:
    """End as a killed process does: the locks go, the files stay."""
    for file in spool.files:
        os.close(file.handle)


def take_over(context: Context, folder: Path) -> Drain:
    """Another process drains what dead ones left."""
    drain = Drain(context.database, Spool(folder, "other"))
    drain.take_over()
    while drain.step():
        pass
    return drain


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "FILE_BYTES", 1)  # a file for each record


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "BATCH_BYTES", 1)  # a transaction for each record


@pytest.fixture
def inserted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Id and status of every interaction that is offered to the database, also of those it has."""
    found: list[tuple[str, str]] = []
    insert = drain_module.insert_or_refuse

    def note(engine: Any, records: list[InteractionRecord]) -> list[Refused]:
        refused = insert(engine, records)
        found.extend((record.id, record.status) for record in records)
        return refused

    monkeypatch.setattr(drain_module, "insert_or_refuse", note)
    return found


class Away:
    """A database that refuses every transaction from the `after`th on, until `back` is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: int = 0) -> None:
        self.left = after
        self.is_away = True
        insert = drain_module.insert_or_refuse

        def refuse(engine: Any, records: Any) -> list[Refused]:
            if self.is_away and self.left <= 0:
                raise OperationalError("x", {}, Exception("the database is away"))
            self.left -= 1
            return insert(engine, records)

        monkeypatch.setattr(drain_module, "insert_or_refuse", refuse)

    def back(self) -> None:
        self.is_away = False


# --- a process that lives -----------------------------------------------------------------------


def test_open_stream_has_no_row_until_its_last_record(context: Context, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "a")
    spool.append(begun(1) + begun(2) + ended(3))
    drain = drain_all(context, spool)
    assert statuses(context) == {3: "complete"}
    spool.append(ended(1) + encode(record(2, status="cancelled", http_status=499)))
    while drain.step():
        pass
    assert statuses(context) == {1: "complete", 2: "cancelled", 3: "complete"}
    assert not drain._begun


@pytest.mark.usefixtures("small_files")
def test_file_stays_while_a_stream_of_it_is_open(context: Context, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "a")
    for line in (begun(1), ended(2), ended(3)):
        spool.append(line)
    first = spool.files[0].path
    drain = drain_all(context, spool)
    assert spool.files[0].path == first and len(spool.files) == 2
    spool.append(ended(1))
    while drain.step():
        pass
    assert not first.exists() and len(list(spool.folder.iterdir())) == 1


@pytest.mark.usefixtures("small_batches")
def test_drain_that_is_behind_leaves_no_stream_open(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last record must not be looked at before the first, which ends the file before."""
    long = ended(8, error="x" * 10_000)  # so that it is in no batch with the record before it
    lines = [ended(9), long, begun(1), ended(1), begun(2), ended(2)]
    monkeypatch.setattr(spool_module, "FILE_BYTES", len(lines[0] + lines[1]) + 1)
    spool = Spool(tmp_path / "spool", "a")
    for line in lines:
        spool.append(line)
    assert [file.path.read_bytes().count(b"\n") for file in spool.files] == [3, 3]
    drain = drain_all(context, spool)
    assert statuses(context) == {1: "complete", 2: "complete", 8: "complete", 9: "complete"}
    assert not drain._begun and len(list(spool.folder.iterdir())) == 1 and spool.pending_bytes == 0


def test_open_streams_cost_no_memory_for_their_requests(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", "a")
    content = b'{"messages":[{"role":"user","content":"%s"}]}' % (b"x" * 50_000)
    for number in range(200):
        spool.append(begun(number, request=msgspec.Raw(content)))
    drain = Drain(context.database, spool)
    tracemalloc.start()
    while drain.step():
        pass
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drain._begun) == 200 and held < 500_000, f"{held} bytes for 200 open streams"
    away = Away(monkeypatch)
    for number in range(200):
        spool.append(ended(number))
    for _ in range(3):
        with pytest.raises(OperationalError):
            drain.step()
    assert statuses(context) == {} and len(drain._begun) == 200
    away.back()
    while drain.step():
        pass
    assert set(statuses(context).values()) == {"complete"} and not drain._begun


# --- a stream that will have no last record, of a process that lives ----------------------------


@pytest.mark.usefixtures("small_files", "small_batches")
def test_abandoned_stream_becomes_a_cut_row(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", "a")
    for line in (ended(5), ended(6), begun(1, request=REQUEST), begun(2), ended(2)):
        spool.append(line)
    spool.abandon("int_" + "1".zfill(22))
    spool.abandon("int_" + "2".zfill(22))  # it has its last record
    spool.abandon("int_" + "7".zfill(22))  # it never began
    away = Away(monkeypatch, after=3)
    drain = Drain(context.database, spool)
    with pytest.raises(OperationalError):
        while drain.step():
            pass
    away.back()
    while drain.step():
        pass
    expected = {1: "cut", 2: "complete", 5: "complete", 6: "complete"}
    assert statuses(context) == expected and not spool.abandoned and not drain._begun
    with reading(context.database) as connection:
        row = connection.execute(select(interactions).where(interactions.c.status == "cut")).one()
    assert row.http_status == GATEWAY_STOPPED and row.error
    assert row.request == msgspec.json.decode(REQUEST)
    assert len(list(spool.folder.iterdir())) == 1


# --- a process that died ------------------------------------------------------------------------


def test_open_streams_of_a_dead_process_are_cut_and_ended_ones_are_not(
    context: Context, tmp_path: Path
) -> None:
    dead = Spool(tmp_path / "spool", "a")
    dead.append(begun(1, request=REQUEST) + begun(2) + ended(2) + ended(3))
    os.write(dead.files[0].handle, ended(4)[:-5])  # killed while it wrote
    leave(dead)
    drain = take_over(context, dead.folder)
    assert statuses(context) == {1: "cut", 2: "complete", 3: "complete"}
    with reading(context.database) as connection:
        row = connection.execute(select(interactions).where(interactions.c.status == "cut")).one()
    assert (row.http_status, row.response, row.response_text) == (GATEWAY_STOPPED, None, None)
    assert row.request == msgspec.json.decode(REQUEST) and row.error.endswith(".")
    assert not drain._begun and len(list(dead.folder.iterdir())) == 1


@pytest.mark.usefixtures("small_files", "small_batches")
def test_files_of_a_dead_process_are_read_in_the_order_of_their_numbers(
    context: Context, tmp_path: Path, inserted: list[tuple[str, str]]
) -> None:
    """As texts, -10 comes before -2: the end of a stream would be read before its begin."""
    dead = Spool(tmp_path / "spool", "a")
    for line in (ended(8), ended(9), *(begun(number) for number in range(6))):
        dead.append(line)
    for number in range(6):
        dead.append(ended(number))
    assert len(dead.files) == 15
    leave(dead)
    take_over(context, dead.folder)
    assert set(statuses(context).values()) == {"complete"} and len(statuses(context)) == 8
    assert len(inserted) == 8, f"begun streams were taken for cut ones: {inserted}"


@pytest.mark.usefixtures("small_files")
def test_end_that_was_drained_before_the_process_died_stays(
    context: Context, tmp_path: Path
) -> None:
    """The begin lies in an older file, which another open stream keeps."""
    dead = Spool(tmp_path / "spool", "a")
    first_file = dead.files[0]
    dead.append(begun(1) + begun(2))
    dead.append(ended(1))
    drain = drain_all(context, dead)
    assert statuses(context) == {1: "complete"} and first_file.path.exists()
    assert len(dead.files) == 2, "the file with the end is gone"
    assert set(drain._begun) == {"int_" + "2".zfill(22)}
    leave(dead)
    take_over(context, dead.folder)
    assert statuses(context) == {1: "complete", 2: "cut"}


@pytest.mark.usefixtures("small_files", "small_batches")
@pytest.mark.parametrize("after", range(6))
def test_process_that_takes_over_dies_too(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    dead = Spool(tmp_path / "spool", "a")
    for line in (begun(1), begun(2), ended(3), ended(1), begun(4), ended(4)):
        dead.append(line)
    leave(dead)
    other = Spool(dead.folder, "b")
    other.append(begun(7))
    drain = Drain(context.database, other)
    drain.take_over()
    away = Away(monkeypatch, after=after)
    try:
        while drain.step():
            pass
    except OperationalError:
        pass
    for files in drain._orphans:
        for file in files:
            os.close(file.handle)
    leave(other)
    away.back()
    take_over(context, dead.folder)
    expected = {1: "complete", 2: "cut", 3: "complete", 4: "complete", 7: "cut"}
    assert statuses(context) == expected and len(list(dead.folder.iterdir())) == 1


def locked_paths(found: list[list[SpoolFile]]) -> list[set[str]]:
    return [{file.path.name for file in files} for files in found]


@pytest.mark.usefixtures("small_files")
def test_files_of_a_process_are_taken_over_together_or_not_at_all(tmp_path: Path) -> None:
    """A process that dies lets go of one file after the other. Who takes the first alone would call
    a stream cut whose whole answer is in the second."""
    dying = Spool(tmp_path, "a")
    for line in (begun(1), ended(1)):
        dying.append(line)
    names = {file.path.name for file in dying.files}
    for file in list(dying.files):
        assert orphans(tmp_path) == [], f"{file.path.name} was still to be let go of"
        os.close(file.handle)
    assert locked_paths(orphans(tmp_path)) == [names]


@pytest.mark.usefixtures("small_files")
def test_of_two_that_take_over_one_has_all_files_of_a_process(tmp_path: Path) -> None:
    processes = []
    for number in range(30):
        dead = Spool(tmp_path, "a")
        for _ in range(4):
            dead.append(begun(number))
        processes.append({file.path.name for file in dead.files})
        leave(dead)
    found: list[list[list[SpoolFile]]] = []
    barrier = threading.Barrier(4)

    def take() -> None:
        barrier.wait()
        found.append(orphans(tmp_path))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    taken = [names for each in found for names in locked_paths(each)]
    assert all(names in processes for names in taken), "a process's files were divided"
    assert len({frozenset(names) for names in taken}) == len(taken), "one was taken twice"
    taken += locked_paths(orphans(tmp_path))  # those that two stood in each other's way for
    assert len(taken) == 30


def test_process_id_that_comes_again_hides_no_files(tmp_path: Path) -> None:
    """In a container every gateway may have the same id."""
    dead = Spool(tmp_path, "gateway-7")
    dead.append(begun(1))
    leave(dead)
    alive = Spool(tmp_path, "gateway-7")
    assert locked_paths(orphans(tmp_path)) == [{dead.files[0].path.name}]
    alive.close()


@pytest.mark.usefixtures("small_files")
def test_look_that_fails_half_way_keeps_no_file_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Spool(tmp_path, "a")
    for number in range(3):
        dead.append(begun(number))
    names = {file.path.name for file in dead.files}
    leave(dead)
    opened, open_file = 0, os.open

    def too_many(path: Any, *arguments: Any) -> int:
        nonlocal opened
        opened += 1
        if opened > 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return open_file(path, *arguments)

    with monkeypatch.context() as full:
        full.setattr("serving.log.spool.os.open", too_many)
        assert orphans(tmp_path) == []
    assert locked_paths(orphans(tmp_path)) == [names]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.jsonl", "a-b.jsonl", "rejected.lines", "-1.jsonl"):
        (tmp_path / name).write_bytes(b"mine\n")
    assert orphans(tmp_path) == []


# --- durability `full` --------------------------------------------------------------------------


@pytest.mark.usefixtures("small_files")
async def test_every_file_that_was_written_to_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, "a", full_durability=True)
    flushed: list[tuple[int, Path | None]] = []
    monkeypatch.setattr(
        spool_module, "_flush_all", lambda handles, folder: flushed.append((len(handles), folder))
    )
    for number in range(5):
        spool.append(begun(number))
    await spool.flushed()
    await spool.flushed()
    spool.append(begun(6))
    await spool.flushed()
    assert flushed == [(5, tmp_path), (0, None), (1, tmp_path)]


async def test_answers_on_the_disk_are_not_withheld_for_another_failure(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "a", full_durability=True)
    spool.append(ended(1))
    spool.failure = "The interaction log waits for the database with 1024 MiB, its limit."
    await spool.flushed()


# --- through the gateway ------------------------------------------------------------------------


@pytest.fixture
def slow_gateway(gateway: Running) -> Running:
    gateway.engine.faults.chunk_delay_s = 0.1
    return gateway


def open_stream(gateway: Running) -> tuple[http.client.HTTPResponse, str]:
    """A stream whose head has arrived, and its interaction's id."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    headers = {"Authorization": f"Bearer {gateway.key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(STREAM).encode(), headers)
    response = connection.getresponse()
    assert response.status == 200
    return response, str(response.headers["x-whet-interaction-id"])


def test_first_record_is_in_the_spool_when_the_head_arrives(slow_gateway: Running) -> None:
    response, interaction_id = open_stream(slow_gateway)
    spool = slow_gateway.app.core.spool
    lines = [line for file in spool.files for line in file.path.read_bytes().splitlines()]
    found = [msgspec.json.decode(line) for line in lines]
    assert [(each["id"], each["status"]) for each in found] == [(interaction_id, BEGUN)]
    assert b"[DONE]" in response.read()
    assert slow_gateway.row(interaction_id).status == "complete"


def test_first_record_is_flushed_before_the_head_with_full_durability(
    slow_gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bytes] = []

    def flush(handles: list[int], _: Path | None) -> None:
        flushed.extend(os.pread(handle, 1 << 20, 0) for handle in handles)

    monkeypatch.setattr(spool_module, "_flush_all", flush)
    slow_gateway.app.core.spool._full = True
    response, interaction_id = open_stream(slow_gateway)
    assert len(flushed) == 1 and interaction_id.encode() in flushed[0]
    response.read()


@pytest.mark.parametrize("fault", [{"refuse_status": 400}, {"cut_after": 0}])
def test_errors_with_an_id_are_flushed_too(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, fault: dict[str, int]
) -> None:
    flushed: list[bytes] = []

    def flush(handles: list[int], _: Path | None) -> None:
        flushed.extend(os.pread(handle, 1 << 20, 0) for handle in handles)

    monkeypatch.setattr(spool_module, "_flush_all", flush)
    gateway.app.core.spool._full = True
    vars(gateway.engine.faults).update(fault)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    headers = {"Authorization": f"Bearer {gateway.key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(STREAM).encode(), headers)
    response = connection.getresponse()
    assert response.status in {400, 502} and len(flushed) == 1
    assert str(response.headers["x-whet-interaction-id"]).encode() in flushed[0]


def test_stream_that_a_defect_ends_has_a_row(
    slow_gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(StreamExchange, "_end_stream", fail)
    response, interaction_id = open_stream(slow_gateway)
    content = response.read()
    assert b"internal_error" in content and b"[DONE]" not in content
    row = slow_gateway.row(interaction_id)
    assert (row.status, row.http_status) == ("error", 200)
    assert row.response_text, "what the client has"


@pytest.fixture
def stoppable(tmp_path: Path, engine: MockEngine) -> Iterator[tuple[Running, Callable[[], None]]]:
    context = open_context(load_settings(home=tmp_path / "home"))
    set_replica(context, engine.url, {})
    serving = serve(context, engine)
    yield next(serving), lambda: next(serving, None)  # type: ignore[misc]
    next(serving, None)
    context.close()


def test_streams_of_a_gateway_that_is_stopped_are_cut_with_what_was_sent(
    stoppable: tuple[Running, Callable[[], None]],
) -> None:
    gateway, stop = stoppable
    gateway.engine.words, gateway.engine.faults.chunk_delay_s = 200, 0.1
    response, interaction_id = open_stream(gateway)
    stop()  # answers may go on for two seconds here
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    rows = gateway.rows()
    found = [(row.id, row.status, row.http_status, row.error) for row in rows]
    assert found == [(interaction_id, "cut", GATEWAY_STOPPED, "The gateway was stopped.")]
    assert rows[0].response_text.startswith("base--mock base--mock")
    assert wait_for(lambda: gateway.engine.running == 0, "the engine's end")
    folder = gateway.context.settings.home / "spool"
    assert list(folder.iterdir()) == []
