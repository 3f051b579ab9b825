"""The spool and its drain, on both databases."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from serving.log import spool as spool_module
from serving.log.drain import Drain
from serving.log.records import InteractionRecord, RatingRecord, encode, without_nul
from serving.log.spool import Spool, orphans
from tests.serving.conftest import wait_for
from whet.context import Context
from whet.database import reading
from whet.tables import interactions, ratings


def record(number: int, **changes: Any) -> InteractionRecord:
    values: dict[str, Any] = {
        "id": f"int_{number:022d}", "request_id": "r", "created_at": number, "api_key_id": "k", "route": "chat", "model": "m", "stream": False, "status": "complete", "http_status": 200,
        "request": msgspec.Raw(b'{"messages":[]}'), "response": msgspec.Raw(b'{"role":"assistant","content":"x"}'),
    }  # fmt: skip
    return InteractionRecord(**{**values, **changes})


def count(context: Context, table: Any = interactions) -> int:
    with reading(context.database) as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def drain_all(context: Context, spool: Spool) -> Drain:
    drain = Drain(context.database, spool)
    while drain.step():
        pass
    return drain


def test_records_arrive_once_however_often_they_are_drained(
    context: Context, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", "a")
    for number in range(300):
        spool.append(encode(record(number)))
    spool.append(
        encode(
            RatingRecord(
                id="rat_1",
                interaction_id="int_1",
                api_key_id="k",
                rating=-1,
                labels=msgspec.Raw(b'["a"]'),
                created_at=1,
            )
        )
    )
    drain_all(context, spool)
    spool.files[0].drained = 0  # as after a crash between commit and removal
    drain_all(context, spool)
    assert (count(context), count(context, ratings)) == (300, 1)
    with reading(context.database) as connection:
        row = connection.execute(select(interactions).order_by(interactions.c.id)).first()
        nulls = connection.execute(
            select(func.count()).select_from(interactions).where(interactions.c.retrieved.is_(None))
        ).scalar_one()
        assert connection.execute(select(ratings.c.labels)).scalar_one() == ["a"]
    assert (
        row is not None
        and row.request == {"messages": []}
        and row.response == {"role": "assistant", "content": "x"}
        and row.metadata is None
    )
    assert nulls >= 0


def test_a_file_is_removed_only_after_its_records_are_committed(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "FILE_BYTES", 2_000)
    spool = Spool(tmp_path / "spool", "a")
    for number in range(50):
        spool.append(encode(record(number)))
    files = len(list(spool.folder.iterdir()))
    assert files > 3

    drain = Drain(context.database, spool)

    def away(*_: object) -> None:
        raise OperationalError("x", {}, Exception("the database is away"))

    with monkeypatch.context() as broken:
        broken.setattr("serving.log.drain.insert_or_refuse", away)
        with pytest.raises(OperationalError):
            drain.step()
    assert len(list(spool.folder.iterdir())) == files and count(context) == 0
    while drain.step():
        pass
    assert (
        len(list(spool.folder.iterdir())) == 1 and count(context) == 50 and spool.pending_bytes == 0
    )


def _die_with_records(folder: Path, numbers: range) -> None:
    spool = Spool(folder, f"dead-{os.getpid()}")
    for number in numbers:
        spool.append(encode(record(number)))
    os.write(spool.files[-1].handle, b'{"kind":"interaction","id":"int_torn')
    os._exit(9)


def test_what_a_dead_process_left_is_taken_over_and_a_torn_line_is_skipped(
    sqlite_context: Context, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    process = multiprocessing.get_context("spawn").Process(
        target=_die_with_records, args=(folder, range(20))
    )
    process.start()
    process.join(60)
    spool = Spool(folder, "alive")
    spool.append(encode(record(99)))
    drain = Drain(sqlite_context.database, spool)
    drain.start()
    wait_for(lambda: count(sqlite_context) == 21, "all rows")
    drain.stop()
    assert list(folder.glob("*.jsonl")) == [file.path for file in spool.files]
    assert not (folder / "rejected.lines").exists()


def test_files_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "a")
    spool.append(b"{}\n")
    assert orphans(tmp_path) == []
    path = spool.files[0].path
    spool.close()
    assert [[file.path for file in files] for files in orphans(tmp_path)] == [[path]]


def test_a_record_that_the_database_refuses_holds_up_no_other(
    context: Context, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", "a")
    spool.append(encode(record(1)))
    spool.append(b"this is no record\n")
    spool.append(encode(record(2, model=None)))  # type: ignore[arg-type]
    spool.append(encode(record(3)))
    drain_all(context, spool)
    assert count(context) == 2
    assert len((tmp_path / "spool" / "rejected.lines").read_bytes().splitlines()) == 2


async def test_full_durability_shares_one_flush_between_all_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes = []
    monkeypatch.setattr(spool_module, "_flush_all", lambda handles, _: flushes.append(len(handles)))
    spool = Spool(tmp_path, "a", full_durability=True)

    async def one(number: int) -> None:
        spool.append(encode(record(number)))
        await spool.flushed()

    await asyncio.gather(*(one(number) for number in range(100)))
    assert 1 <= len(flushes) <= 3
    waiting = asyncio.create_task(one(100))
    await asyncio.sleep(0)
    waiting.cancel()
    # A waiter that left does not take the flush with it
    await asyncio.gather(*(one(number) for number in range(101, 110)))


def test_the_backlog_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MAX_PENDING_BYTES", 100)
    spool = Spool(tmp_path, "a")
    assert spool.check() == ""
    spool.append(encode(record(1)))
    assert "its limit" in spool.check()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (rb'"a\u0000b"', rb'"a\ufffdb"'),
        (rb'"a\\u0000b"', rb'"a\\u0000b"'),
        (rb'"\\\u0000"', rb'"\\\ufffd"'),
        (rb'"\u0000\u0000"', rb'"\ufffd\ufffd"'),
        (b'"x"', b'"x"'),
    ],
)
def test_escaped_nul_is_replaced_and_an_escaped_backslash_before_it_is_not_mistaken(
    raw: bytes, expected: bytes
) -> None:
    assert without_nul(raw) == expected
