"""A run as a Ray job and a search on Ray, on a cluster of this machine: real heads, real tokens,
and nothing that keeps running.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.training.run.small import until
from tests.training.test_commands import Shell
from tests.training.tiny import build_base, facts, write_rows


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


on_a_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: make setup-ray"
)
_TOKEN = secrets.token_hex(32)
_QUICK = ("--rank", "4", "--epochs", "3", "--lr", "5e-3", "--threads", "1", "--seed", "3")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _processes_with(text: str) -> list[str]:
    found = [
        path.read_bytes().decode(errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    ]
    return [words for words in found if text in words]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, str]]:
    """Where a cluster takes jobs, and where processes join it, from whoever has its token; on
    loopback as far as Ray lets itself be held there.
    """
    # short: Ray puts sockets below it, whose paths have 107 characters at most
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    address, joined = (f"127.0.0.1:{_free_port()}" for _ in range(2))
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--port", joined.rpartition(":")[2], "--node-ip-address", "127.0.0.1", "--include-dashboard", "true",
        "--dashboard-host", "127.0.0.1", "--dashboard-port", address.rpartition(":")[2], "--dashboard-agent-listen-port", "0", "--ray-client-server-port", str(_free_port()),
        "--min-worker-port", "0", "--max-worker-port", "0", "--num-cpus", "2", "--disable-usage-stats", "--temp-dir", str(folder),
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "PATH": path,
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": _TOKEN,
            },
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        until(
            lambda: b"Ray runtime started" in (folder / "said").read_bytes(),
            "a Ray cluster",
            process,
        )
        yield f"http://{address}", joined
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        until(lambda: not _processes_with(str(folder)), "the end of Ray's processes")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def head(cluster: tuple[str, str]) -> str:
    return cluster[0]


@on_a_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # starts a dozen processes that import torch
def test_a_run_as_a_ray_job_makes_the_version_that_it_makes_here(
    shell: Shell, head: str, tmp_path: Path, base_folder: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    done = shell.in_a_process(
        "train", "run", rows, *_QUICK, "--on", f"ray={head}", "--json", RAY_AUTH_TOKEN=_TOKEN
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    run = shell.json("train", "show", there["run"])
    assert run["state"] == "succeeded" and there["adapter"] == "support@v1" and there["notices"]
    here = Shell(tmp_path / "here", base_folder).json("train", "run", rows, *_QUICK)
    assert there["digest"] == here["digest"], (
        "the same machine makes the same weights, whoever starts it"
    )


@on_a_ray
@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_cluster_that_asks_for_a_token_that_we_lack_is_told_with_what_to_set(
    shell: Shell, head: str, tmp_path: Path, token: str
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    done = shell.in_a_process(
        "train",
        "run",
        rows,
        *_QUICK,
        "--on",
        f"ray={head}",
        RAY_AUTH_TOKEN=token,
        HOME=str(tmp_path),
    )
    assert done.returncode == 2 and f"The Ray cluster at {head} asks for a token" in done.stderr, (
        done.stderr
    )
    assert (
        "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in done.stderr
        and "Traceback" not in done.stderr
    )


@on_a_ray
@pytest.mark.slow
def test_a_search_that_such_a_cluster_refuses_is_told_too(
    shell: Shell, cluster: tuple[str, str], tmp_path: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(90)))
    call = (
        "train",
        "search",
        rows,
        "--params",
        "learning_rate",
        "--on",
        f"ray={cluster[1]}",
        "--trials",
        "1",
    )
    done = shell.in_a_process(
        *call, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64, HOME=str(tmp_path)
    )
    assert (
        done.returncode == 2
        and f"There is no Ray cluster at {cluster[1]} that takes us in" in done.stderr
    ), done.stderr
    assert (
        "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in " ".join(done.stderr.split())
        and "Traceback" not in done.stderr
    )


@on_a_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # starts a dozen processes that import torch
def test_a_run_that_fails_on_ray_fails_here_with_its_sentence(head: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = build_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    # A random model's loss stays near that of guessing, whatever the rate
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    shell = Shell(tmp_path / "home", base)
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    done = shell.in_a_process(
        "train", "run", rows, *_QUICK, "--on", f"ray={head}", "--json", RAY_AUTH_TOKEN=_TOKEN
    )
    assert (
        done.returncode == 1
        and "did not succeed on Ray: The loss is no number before the first step" in done.stderr
        and "Traceback" not in done.stderr
    )
    assert shell.json("train", "list")[0]["state"] == "failed"


@on_a_ray
@pytest.mark.slow
@pytest.mark.timeout(900)  # starts a dozen processes that import torch
def test_a_search_on_ray_goes_on_where_it_stopped_gives_up_hopeless_trials_and_leaves_nothing_running(
    shell: Shell, tmp_path: Path
) -> None:
    folder = tempfile.mkdtemp(prefix="ray")
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(90)))
    second_is_hopeless = (
        "import optuna; optuna.Trial.should_prune = lambda trial: trial.number == 1"
    )

    def search(trials: str) -> Any:
        # Not in this process: Ray reads whether it asks for a token when it is imported, and
        # another test may have imported it.
        call = (
            "train",
            "search",
            rows,
            "--params",
            "learning_rate,epochs",
            "--on",
            "ray",
            "--trials",
            trials,
            "--json",
        )
        done = shell.in_a_process(*call, before=second_is_hopeless, RAY_TMPDIR=folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    try:
        assert search("2")["trials"] == {"complete": 1, "pruned": 1}
        found = search("3")
        assert found["trials"] == {"complete": 2, "pruned": 1} and json.dumps(
            found["best"]["validation_loss"]
        )
        until(lambda: not _processes_with(folder), "the end of Ray's processes")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
