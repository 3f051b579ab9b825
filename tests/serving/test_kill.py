"""kill -9 of the gateway at random moments under 20 clients: what the log promises of its rows.

Whoever received the head of an answer finds its row, once; of an answer that was received whole it
is `complete`, with the same text and bytes. The controls break the promise in a place each, and
must be found out, or the ledger could not notice.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.serving.kill_ledger import run_ledger

_FAULTY_GATEWAY = """
import asyncio
import uvicorn
from serving.gateway.app import from_environment
from serving.gateway.exchange import Exchange
from serving.gateway.stream_exchange import StreamExchange
from whet.settings import load_settings
{fault}
port = load_settings().gateway_port
uvicorn.run(from_environment(), host="127.0.0.1", port=port, log_level="warning", access_log=False)
"""
_LOG_AFTER_SENDING = """
record = Exchange._record
def after_sending(self, *arguments, **options):
    asyncio.get_running_loop().call_later(0.3, lambda: record(self, *arguments, **options))
Exchange._record = after_sending
"""
_NO_FIRST_RECORD = """
async def begin_stream(self):
    await self._send_head()
StreamExchange._begin_stream = begin_stream
"""


@pytest.mark.seconds
def test_every_answer_that_began_has_its_one_row(tmp_path: Path, database_url: str) -> None:
    result = run_ledger(tmp_path / "home", database_url, rounds=2)
    print(result.summary())
    whole = sum(entry.is_whole for entry in result.ledger.entries)
    assert whole >= 10, f"too little to judge by: {result.summary()}"
    assert len(result.ledger.entries) - whole >= 10, f"too little to judge by: {result.summary()}"
    assert result.faults() == [], result.summary()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("durability", "workers"), [("normal", 1), ("full", 1), ("normal", 2), ("full", 2)]
)
def test_ten_kills(tmp_path: Path, database_url: str, durability: str, workers: int) -> None:
    result = run_ledger(
        tmp_path / "home", database_url, rounds=10, durability=durability, workers=workers
    )
    print(f"durability {durability}, workers {workers}: {result.summary()}")
    assert result.faults() == [], result.summary()
    if workers > 1:
        assert result.longest_gap_s < min(result.restart_s), (
            f"the worker that lived did not bridge the restart: {result.summary()}"
        )


@pytest.mark.seconds
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [(_LOG_AFTER_SENDING, "came whole and is"), (_NO_FIRST_RECORD, "has no row")],
    ids=["logs after sending", "no first record"],
)
def test_ledger_notices(tmp_path: Path, database_url: str, fault: str, sentence: str) -> None:
    command = (sys.executable, "-c", _FAULTY_GATEWAY.format(fault=fault))
    result = run_ledger(tmp_path / "home", database_url, rounds=1, command=command)
    assert any(sentence in each for each in result.faults()), result.summary()
