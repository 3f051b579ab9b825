"""A busy engine is told from a hung one by the processor time of its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from serving.engine_activity import Activity, EngineProcesses, is_computing
from serving.reconcile import BUSY_LIMIT_S, is_busy
from tests.serving.conftest import wait_for

pytestmark = pytest.mark.seconds

# A server that accepts nothing: it listens, and computes in itself or in a child.
_SERVER = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.readline()
if sys.argv[1] == "child" and os.fork():
    os.wait()
while True:
    pass
"""


@pytest.fixture(params=["itself", "child"])
def server(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, request.param],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


def computes(processes: EngineProcesses, url: str, seconds: float) -> bool:
    before = processes.activity(url, time.monotonic())
    assert before is not None, "the listener of a port on this machine is found"
    time.sleep(seconds)  # the span that is measured
    return is_computing(before, processes.activity(url, time.monotonic()))


def test_a_server_that_computes_is_busy_and_one_that_is_stopped_is_not(
    server: subprocess.Popen[str],
) -> None:
    assert server.stdout is not None and server.stdin is not None
    url, processes = f"http://127.0.0.1:{int(server.stdout.readline())}", EngineProcesses()
    assert not computes(processes, url, 0.5), "it waits for a line"
    server.stdin.write("\n")
    server.stdin.flush()
    wait_for(lambda: computes(processes, url, 0.5), "it computes", timeout_s=20)
    os.killpg(server.pid, signal.SIGSTOP)
    wait_for(lambda: not computes(processes, url, 0.5), "it stands still", timeout_s=20)


def test_of_another_machine_and_of_our_own_process_nothing_is_known() -> None:
    processes = EngineProcesses()
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert processes.activity(f"http://127.0.0.1:{ours.getsockname()[1]}", 1.0) is None
    assert processes.activity("http://192.0.2.1:8001", 1.0) is None
    assert processes.activity("http://127.0.0.1:1", 1.0) is None


@pytest.mark.parametrize(
    ("used_s", "expected"), [(0.0, False), (0.9, False), (1.0, True), (4.0, True)]
)
def test_half_a_processor_is_computing(used_s: float, expected: bool) -> None:
    assert is_computing(Activity(10.0, 100.0), Activity(10.0 + used_s, 102.0)) is expected


def test_an_unknown_activity_is_no_computing() -> None:
    assert not is_computing(None, Activity(1.0, 1.0))
    assert not is_computing(Activity(1.0, 1.0), None)
    assert not is_computing(Activity(1.0, 1.0), Activity(2.0, 1.0))


def test_a_busy_engine_stays_only_so_long() -> None:
    assert is_busy(BUSY_LIMIT_S - 1, is_computing=True)
    assert not is_busy(BUSY_LIMIT_S, is_computing=True), "it computes for ever"
    assert not is_busy(1.0, is_computing=False), "it hangs"
