"""The run: every arm and every load, round by round, with what is checked between them."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from benchmarks.errors import BenchmarkError
from benchmarks.gateway import arms as starting
from benchmarks.gateway.arms import Arm, Ports
from benchmarks.gateway.exact import ask, compare
from benchmarks.gateway.figures import Cell, Spread, summarise
from benchmarks.gateway.home import WhetHome
from benchmarks.gateway.load import find_wrk, run_wrk
from benchmarks.gateway.peers import PEERS
from benchmarks.gateway.processes import machine_busy_s
from whet import __version__
from whet.clock import now_ms

_WARM_UP_S = 1.0  # connections, caches, first imports; not counted
_EXACT_REQUESTS = 4000
# With 256 streams LiteLLM's first answers come after several seconds: its run is at least this long
_SLOWEST_FIRST_ANSWER_S = 20


@dataclass(frozen=True, slots=True)
class Plan:
    arms: Sequence[str]
    cells: Sequence[Cell]
    rounds: int
    seconds: float  # of load per run
    gateway_core: int
    load_core: int
    port: int
    scratch: Path
    cache: Path


def measure(plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything the results file holds, less the command and the commit. Raises BenchmarkError."""
    find_wrk()
    _check_cores(plan)
    started_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    with ExitStack() as stack:
        upstream, running, home = _start(plan, stack, say)
        runs, failures = _rounds(plan, upstream, running, home, say)
        log = _log(runs, _exact(upstream, running, home, failures, say))
        memory = {
            arm.name: round(arm.process.peak_memory_mib())
            for arm in running.values()
            if arm is not upstream
        }
    return {
        "started_at": started_at,
        "machine": {
            **machine(),
            "other_cpu": Spread.of(run["other_cpu"] for run in runs).plain(),
            "load_average_after": os.getloadavg(),
        },
        "versions": versions(plan.arms),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "summary": summarise(runs),
        "memory_mib": memory,
        "log": log,
        "failures": failures,
        "runs": runs,
    }


def _check_cores(plan: Plan) -> None:
    count = os.cpu_count() or 1
    if plan.gateway_core == plan.load_core or not (
        0 <= plan.gateway_core < count and 0 <= plan.load_core < count
    ):
        raise BenchmarkError(
            f"The gateway and the load need a core each; this machine has {count}, and"
            f" {plan.gateway_core} and {plan.load_core} were chosen.",
            hint="Choose them with --gateway-core and --load-core.",
        )


def _start(
    plan: Plan, stack: ExitStack, say: Callable[[str], None]
) -> tuple[Arm, dict[str, Arm], WhetHome | None]:
    ports, core, scratch = Ports(plan.port), plan.gateway_core, plan.scratch
    say("starting the upstream")
    upstream = starting.start_upstream(
        sys.executable, ports[0], core=plan.load_core, scratch=scratch
    )
    stack.callback(upstream.process.stop)
    running, home = {}, None
    for name in plan.arms:
        say(f"starting {name}")
        if name == "direct":
            running[name] = upstream
            continue
        if name == "whet":
            running[name], home = starting.start_whet(
                upstream, ports[1], core=core, scratch=scratch
            )
        elif name == "litellm":
            running[name] = starting.start_litellm(
                upstream, ports[2], core=core, scratch=scratch, cache=plan.cache
            )
        elif name == "vllm-router":
            running[name] = starting.start_vllm_router(
                upstream, ports[3], core=core, scratch=scratch, cache=plan.cache
            )
        stack.callback(running[name].process.stop)
    return upstream, running, home


def _rounds(
    plan: Plan,
    upstream: Arm,
    running: dict[str, Arm],
    home: WhetHome | None,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[str]]:
    runs: list[dict[str, Any]] = []
    failures: list[str] = []
    order = list(running.values())
    for number in range(1, plan.rounds + 1):
        for cell in plan.cells:
            starting.pace(upstream, cell.pace_ms)
            for arm in order:
                if number == 1:
                    _one(plan, upstream, arm, cell, home, _WARM_UP_S)
                run, wrong = _one(plan, upstream, arm, cell, home, plan.seconds)
                runs.append({"round": number, "cell": cell.name, "arm": arm.name, **run})
                failures += [
                    f"round {number}, {cell.title}, {arm.name}: {sentence}" for sentence in wrong
                ]
                say(f"round {number}/{plan.rounds} {_line(run, cell, arm)}")
                for sentence in wrong:
                    say(f"  FAILURE: {sentence}")
        order = order[1:] + order[:1]  # nobody is always measured after the same neighbour
    starting.pace(upstream, 0)
    return runs, failures


def _line(run: dict[str, Any], cell: Cell, arm: Arm) -> str:
    cpu = f"{run['cpu_us']:8,.0f} µs CPU" if run["cpu_us"] else " " * 15
    return (
        f"{cell.name:8} {arm.name:12} {run['per_second']:9,.0f}/s  p50 {run['p50_ms'] or 0:9.2f} ms"
        f" {cpu}  others {run['other_cpu']:.0%}"
    )


def _one(
    plan: Plan, upstream: Arm, arm: Arm, cell: Cell, home: WhetHome | None, seconds: float
) -> tuple[dict[str, Any], list[str]]:
    """One run, until the arm is idle again and, for Whet, until every row is in the database."""
    if arm.name == "litellm" and cell.connections > 100:
        seconds = max(seconds, _SLOWEST_FIRST_ANSWER_S)
    since, asked_before, cpu_before, upstream_before, busy_before = (
        now_ms(),
        starting.asked(upstream),
        arm.process.cpu_s(),
        upstream.process.cpu_s(),
        machine_busy_s(),
    )
    began = time.monotonic()
    load, wrk_cpu_s = run_wrk(
        arm.url, cell, model=arm.model, key=arm.key, seconds=seconds, core=plan.load_core
    )
    took_s = time.monotonic() - began
    ours_s = (
        wrk_cpu_s
        + (arm.process.cpu_s() - cpu_before)
        + (upstream.process.cpu_s() - upstream_before if arm is not upstream else 0.0)
    )
    other_cpu = max(0.0, (machine_busy_s() - busy_before - ours_s) / took_s / (os.cpu_count() or 1))
    failures, log = load.failures, {}
    if home and arm.name == "whet":
        home.wait_for_rows(since, lambda: starting.asked(upstream) - asked_before)
    drained_s = time.monotonic() - began - took_s
    arm.process.settle()
    if home and arm.name == "whet":
        log = home.wait_for_rows(since, lambda: starting.asked(upstream) - asked_before)
        failures += _log_failures(log, load.responses, cell.connections)
    asked = starting.asked(upstream) - asked_before
    return {
        "responses": load.responses,
        "seconds": round(load.seconds, 3),
        "per_second": round(load.per_second, 2),
        "sustained_per_second": (
            round(load.responses / (load.seconds + drained_s), 2) if log else None
        ),
        **{
            name: getattr(load, name) if load.responses else None
            for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms")
        },
        "bytes": load.bytes,
        "checked": load.checked,
        "asked": asked,
        # All it used for this run, over all requests it passed on: those that wrk left unfinished
        # at the end cost something too.
        "cpu_us": (
            round((arm.process.cpu_s() - cpu_before) / asked * 1e6, 1)
            if asked and arm is not upstream
            else None
        ),
        "other_cpu": round(other_cpu, 4),
        **(
            {
                "log_rows": log["rows"],
                "log_complete": log["complete"],
                "log_drained_s": round(drained_s, 3),
            }
            if log
            else {}
        ),
    }, failures


def _log_failures(log: dict[str, int], responses: int, connections: int) -> list[str]:
    """wrk drops its last requests where they are: those have a row (`cancelled`) and may not have
    reached the upstream.
    """
    failures = []
    if log["complete"] < responses:
        failures.append(
            f"{responses} answers were received in full, but only {log['complete']} rows say so"
        )
    if not log["asked"] <= log["rows"] <= log["asked"] + connections:
        failures.append(
            f"{log['asked']} requests reached the upstream, {log['rows']} rows are in the log"
        )
    return failures


def _exact(
    upstream: Arm,
    running: dict[str, Arm],
    home: WhetHome | None,
    failures: list[str],
    say: Callable[[str], None],
) -> dict[str, int] | None:
    """After the load: all rows so far against all requests, then answers one by one."""
    if home is None:
        return None
    arm = running["whet"]
    say(f"checking {_EXACT_REQUESTS} answers against their rows")
    time.sleep(0.01)  # the log tells instants in milliseconds: later than every row before
    since, asked_before = now_ms(), starting.asked(upstream)
    received = asyncio.run(ask(arm.url, arm.model, arm.key, _EXACT_REQUESTS))
    home.wait_for_rows(since, lambda: starting.asked(upstream) - asked_before)
    found = compare(received, home.rows_since(since))
    if found["exact_wrong"] or found["exact_received"] != _EXACT_REQUESTS:
        failures.append(
            f"exact check: {found['exact_received']} answers of {_EXACT_REQUESTS},"
            f" {found['exact_rows']} rows, {found['exact_wrong']} of them wrong"
        )
    return found


def _log(runs: Sequence[dict[str, Any]], exact: dict[str, int] | None) -> dict[str, int] | None:
    """The log over all runs, and the exact check."""
    if exact is None:
        return None
    mine = [run for run in runs if run["arm"] == "whet"]
    return {
        key: sum(run[name] for run in mine)
        for key, name in (
            ("rows", "log_rows"),
            ("complete", "log_complete"),
            ("asked", "asked"),
            ("responses", "responses"),
        )
    } | exact


def machine() -> dict[str, Any]:
    """What a reader needs to place the figures."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


def versions(arms: Sequence[str]) -> dict[str, str]:
    found = {"Whet": __version__, "uvicorn": uvicorn.__version__, "aiohttp": aiohttp.__version__}
    found |= {peer.name: peer.version for name, peer in PEERS.items() if name in arms}
    said = subprocess.run(
        [find_wrk(), "-v"], capture_output=True, text=True, check=False
    ).stdout.split()
    return found | {"wrk": said[1] if len(said) > 1 else "unknown"}


def commit(repository: Path) -> str:
    """The commit, with `+` when tracked files of the gateway or of this benchmark differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False
        ).stdout.strip()

    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + (
        "+"
        if git(
            "status",
            "--porcelain",
            "--untracked-files=no",
            "serving",
            "whet",
            "benchmarks/gateway/*.py",
        )
        else ""
    )
