"""`whet up`'s supervisor over real processes, and what it looks at before it starts them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.whet.supervised import SERVER
from whet.errors import ConfigurationError, ProcessError
from whet.plugins import ProcessSpec
from whet.settings import load_settings
from whet.up import logs, preflight, state

pytestmark = pytest.mark.seconds

PORTS = range(18400, 18440)
SLEEPER = "import time; time.sleep(600)"


def until(condition: Callable[[], Any], within_s: float = 15) -> Any:
    """Poll until the condition holds; its value. Fails with what it was last."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{condition} still gave {found!r}"
        time.sleep(0.03)
    return found


def free_port() -> int:
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port of the test's range is free")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, home: Path, specs: list[dict[str, Any]]) -> None:
        self.home = home
        self.output = home / "supervisor.out"
        home.mkdir(exist_ok=True)
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.whet.supervised", str(home), json.dumps(specs)],
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def phases(self) -> dict[str, str]:
        found = state.read_status(self.home)
        # It has said nothing yet; an earlier one may have
        if not found or found["pid"] != self.process.pid:
            return {}
        return {row["name"]: row["phase"] for row in found["processes"]}

    def row(self, name: str) -> dict[str, Any]:
        found = state.read_status(self.home)
        assert found
        return next(row for row in found["processes"] if row["name"] == name)

    def until_ready(self, *names: str) -> None:
        until(lambda: all(self.phases().get(name) == "ready" for name in names))

    def pids(self, name: str) -> list[int]:
        """The server and its own child, from the last time that it wrote them."""
        lines = until(
            lambda: re.findall(
                r"^pids (\d+) (\d+)$", logs.log_path(self.home, name).read_text(), re.M
            )
        )
        return [int(pid) for pid in lines[-1]]

    def said(self) -> str:
        return self.output.read_text()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*specs: dict[str, Any], home: str = "home") -> Running:
        running.append(Running(tmp_path / home, list(specs)))
        return running[-1]

    yield begin
    for each in running:
        with contextlib.suppress(ProcessLookupError):
            each.process.kill()
        each.process.wait()
    for each in running:
        until(lambda each=each: not state.leftovers(each.home))


def server(
    name: str, *, port: int | None = None, after: float = 0, deaf: bool = False, **more: Any
) -> dict[str, Any]:
    port = port or free_port()
    return {
        "name": name,
        "argv": [SERVER, str(port), str(after), "deaf" if deaf else "-"],
        "ready_url": f"http://127.0.0.1:{port}/",
        **more,
    }


def test_a_killed_process_is_started_again_with_all_of_its_group_gone(
    start: Callable[..., Running],
) -> None:
    up = start(server("gateway"))
    up.until_ready("gateway")
    first, its_child = up.pids("gateway")
    os.kill(first, signal.SIGKILL)
    until(lambda: up.row("gateway")["restarts"] == 1 and up.phases()["gateway"] == "ready")
    assert up.pids("gateway")[0] != first
    assert not alive(its_child)
    assert "was killed by signal 9; starting it again in 1 s" in up.said()
    assert "ready after" in up.said() and "(started again)" in up.said()


def test_ctrl_c_stops_all_in_reverse_order_and_leaves_nothing(
    start: Callable[..., Running],
) -> None:
    up = start(
        server("engine", order=10, port=18441),
        server("gateway", order=20, port=18442),
        {"name": "worker", "argv": [SLEEPER]},
    )
    up.until_ready("engine", "gateway", "worker")
    pids = up.pids("engine") + up.pids("gateway") + [up.row("worker")["pid"]]
    os.kill(up.process.pid, signal.SIGINT)
    assert up.process.wait(15) == 0
    assert up.phases() == {"engine": "stopped", "gateway": "stopped", "worker": "stopped"}
    assert not [pid for pid in pids if alive(pid)]
    ends = [up.row(name)["since_at"] for name in ("worker", "gateway", "engine")]
    assert ends == sorted(ends)
    assert not state.is_running(up.home)


def test_a_process_deaf_to_sigterm_is_killed_after_the_time_it_may_take(
    start: Callable[..., Running],
) -> None:
    up = start(server("gateway", deaf=True, stop_within_s=0.5))
    up.until_ready("gateway")
    pids = up.pids("gateway")
    os.kill(up.process.pid, signal.SIGTERM)
    assert up.process.wait(10) == 0
    assert up.row("gateway")["last_exit"] == -signal.SIGKILL
    assert not [pid for pid in pids if alive(pid)]


def test_a_supervisor_killed_outright_takes_its_processes_and_theirs_with_it(
    start: Callable[..., Running],
) -> None:
    up = start(server("engine", deaf=True))
    up.until_ready("engine")
    pids = up.pids("engine")
    up.process.kill()
    up.process.wait()
    until(lambda: not [pid for pid in pids if alive(pid)])
    until(lambda: not state.leftovers(up.home))
    assert state.read_status(up.home)["running"] is False


def test_what_even_the_reaper_could_not_end_is_ended_by_the_next_start(
    start: Callable[..., Running],
) -> None:
    up = start(server("engine"))
    up.until_ready("engine")
    child = up.pids("engine")[1]
    reaper = [
        int(pid)
        for pid in Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children")
        .read_text()
        .split()
        if b"reaper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(up.process.pid, signal.SIGSTOP)  # so that it cannot start another reaper
    os.kill(reaper[0], signal.SIGKILL)
    up.process.kill()
    up.process.wait()
    assert alive(child)
    again = start(server("engine"))
    again.until_ready("engine")
    assert not alive(child)


def test_a_second_start_on_the_same_home_is_refused_and_names_the_first(
    start: Callable[..., Running],
) -> None:
    first = start(server("gateway"))
    first.until_ready("gateway")
    second = subprocess.run(
        [sys.executable, "-m", "tests.whet.supervised", str(first.home), "[]"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert f"already runs for {first.home} (pid {first.process.pid})" in second.stdout
    assert first.phases() == {"gateway": "ready"}


def test_an_engine_that_never_becomes_ready_ends_the_start_with_its_last_lines(
    start: Callable[..., Running],
) -> None:
    up = start(
        server("engine", after=600, ready_within_s=1, order=10),
        server("gateway", order=20, port=18443),
    )
    assert up.process.wait(20) == 1
    assert "engine is not ready after 1 s" in up.said()
    assert re.search(r"^ +pids \d+ \d+", up.said(), re.M)  # its log's last line
    assert "gateway" not in up.said()
    assert not state.leftovers(up.home)


def test_a_process_that_dies_at_each_start_is_given_up_with_its_reason(
    start: Callable[..., Running],
) -> None:
    up = start(
        {
            "name": "console",
            "argv": ["raise SystemExit('no such template')"],
            "ready_url": "http://127.0.0.1:18499/",
        }
    )
    assert up.process.wait(20) == 1
    assert "ended with exit code 1, 3 times in a row" in up.said()
    assert "no such template" in up.said()


FAILS = (
    "import sys; print('Traceback (most recent call last):'); print('{error}'); print('  see"
    " https://example.org'); sys.exit(1)"
)


def test_a_start_that_fails_twice_for_one_reason_ends_with_that_reason(
    start: Callable[..., Running],
) -> None:
    spec = {
        "name": "engine",
        "ready_url": "http://127.0.0.1:18499/",
        "remedies": [["max_model_len", "Set WHET_X."]],
    }
    up = start({**spec, "argv": [FAILS.format(error="ValueError: max_model_len is too large")]})
    assert up.process.wait(20) == 1
    said = up.said()
    assert (
        "ended with exit code 1; starting it again in 1 s. Its log says: ValueError: max_model_len"
        " is too large Set WHET_X." in said
    )
    assert (
        "ended with exit code 1 twice for the same reason, so it is not started again: ValueError:"
        " max_model_len is too large" in said
    )
    assert "Set WHET_X." in said.rstrip().split("\n")[-1] and "example.org" not in said


def test_a_taken_port_is_tried_again(start: Callable[..., Running]) -> None:
    up = start(
        {
            "name": "engine",
            "argv": [FAILS.format(error="OSError: [Errno 98] Address already in use")],
            "ready_url": "http://127.0.0.1:18499/",
        }
    )
    assert up.process.wait(20) == 1
    assert "3 times in a row" in up.said() and "Address already in use" in up.said()


def test_an_engine_that_cannot_come_back_is_given_up_while_the_rest_goes_on(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    mark = tmp_path / "broken"
    engine = server("engine", order=10)
    broken = (
        f"import os, sys\nif os.path.exists({str(mark)!r}): sys.exit('ValueError: the tokenizer is"
        " gone')\n"
    )
    engine["argv"][0] = broken + engine["argv"][0]
    up = start(engine, server("gateway", order=20, port=18444))
    up.until_ready("engine", "gateway")
    mark.touch()
    os.kill(up.pids("engine")[0], signal.SIGKILL)
    until(lambda: up.phases()["engine"] == "given_up")
    assert up.row("engine")["reason"] == "ValueError: the tokenizer is gone"
    assert up.phases()["gateway"] == "ready"
    assert "twice for the same reason" in up.said() and "everything else goes on" in up.said()
    os.kill(up.process.pid, signal.SIGINT)
    assert up.process.wait(15) == 0


def test_children_in_a_session_of_their_own_are_gone_before_the_next_start(
    start: Callable[..., Running],
) -> None:
    engine = server("engine")
    engine["argv"][0] = engine["argv"][0].replace(
        'time.sleep(600)"])', 'time.sleep(600)"], start_new_session=True)'
    )
    assert "start_new_session" in engine["argv"][0]
    up = start(engine)
    up.until_ready("engine")
    first, orphan = up.pids("engine")
    os.kill(first, signal.SIGKILL)
    until(lambda: up.row("engine")["restarts"] == 1 and up.phases()["engine"] == "ready")
    assert not alive(orphan)
    os.kill(up.process.pid, signal.SIGINT)
    assert up.process.wait(15) == 0
    assert not state.leftovers(up.home)


def test_a_command_that_does_not_exist_is_said_in_its_log(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    guard = Path(preflight.__file__).with_name("guard.py")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(guard), str(os.getpid()), str(tmp_path / "absent")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 127
    assert "cannot be started" in done.stderr


# --- before anything is started ------------------------------------------------------------------------------------


def test_a_taken_port_names_the_port_the_setting_and_who_holds_it(tmp_path: Path) -> None:
    port = free_port()
    settings = load_settings(home=tmp_path, gateway_port=port)
    spec = ProcessSpec("gateway", ["x"], listens_on=(("127.0.0.1", port),))
    preflight.check_ports([spec], settings)
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(ProcessError) as caught:
            preflight.check_ports([spec], settings)
    assert f"Port {port}" in caught.value.message
    assert "WHET_GATEWAY_PORT" in caught.value.message
    assert f"(pid {os.getpid()})" in caught.value.message


def test_a_nearly_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 100 << 20

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _path: Usage)
    with pytest.raises(ProcessError, match="100 MiB left; at least 512 MiB"):
        preflight.check_disk(tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


def test_a_disk_with_little_left_is_said_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1 << 30

    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _path: Usage)
    assert "1.0 GiB" in preflight.check_disk(tmp_path)


def test_a_missing_engine_package_is_a_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda _name: None)
    preflight.check_engine_package([ProcessSpec("gateway", ["x"])])
    with pytest.raises(ConfigurationError) as caught:
        preflight.check_engine_package([ProcessSpec("engine", ["x"])])
    assert "not installed" in caught.value.message and "make setup" in caught.value.hint


def test_a_log_that_grew_too_large_is_set_aside_while_its_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LARGEST_BYTES", 100)
    path = tmp_path / "logs" / "engine.log"
    handle = logs.open_log(path)
    os.write(handle, b"old\n" * 50)
    logs.keep_small(path)
    os.write(handle, b"new\n")
    os.close(handle)
    assert path.read_text() == "new\n"
    assert path.with_name("engine.log.1").read_text() == "old\n" * 50
