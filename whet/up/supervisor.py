"""Carries out what `plan` decides: starts processes, watches them, starts them again, stops them.

One thread, one loop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from whet import __version__
from whet.clock import now_ms
from whet.errors import ProcessError
from whet.plugins import ProcessSpec
from whet.up import groups, logs, state
from whet.up.failures import Failure, find_failure
from whet.up.plan import Act, Event, Limits, State, Step, plan

_HERE = Path(__file__).parent
_TICK_S = 0.1  # between looks at the processes; Ctrl-C wakes the loop at once
_READY_EVERY_S = 0.5  # between questions to a process that is starting
_READY_TIMEOUT_S = 2.0
_SETTLE_S = 1.0  # a process without a ready URL counts as up after this long
_KEEP_SMALL_EVERY_S = 60.0
_NOT_STARTED = 127  # what a shell says of a command that cannot be run
# After SIGKILL a process is gone as soon as its memory is given back: seconds for a large engine.
# One that waits for a dead disk or GPU never ends, and must not block the next start.
_CHILDREN_GONE_S = 30.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# A proxy from the environment must never stand between us and our own loopback.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Voice(Protocol):
    """Where lines for people go (`Terminal`, or a list in a test)."""

    def line(self, name: str, text: str, style: str = "") -> None: ...

    def waiting(self, text: str) -> None: ...


def answers(url: str) -> bool:
    """True if the URL answers 200 within two seconds."""
    try:
        with _direct.open(url, timeout=_READY_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


@dataclass
class _Child:
    spec: ProcessSpec
    log: Path
    state: State
    process: subprocess.Popen[bytes] | None = None
    asked_at: float = 0.0  # when its ready URL was last asked
    why: str = ""  # the text of the step that gave it up
    log_start: int = 0  # bytes of its log before it was started
    left_group: int = 0  # process group of the ended process, until its children are gone; 0: none

    @property
    def limits(self) -> Limits:
        return Limits(self.spec.ready_within_s, self.spec.stop_within_s)

    @property
    def alive(self) -> bool:
        return self.process is not None


class Supervisor:
    """Runs `specs` until told to stop.

    Use as: `with supervisor.signals(): supervisor.start(); supervisor.watch()`, and `stop()` in the
    end.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        home: Path,
        voice: Voice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._children = [
            _Child(spec, logs.log_path(home, spec.name), State(since=clock()))
            for spec in sorted(specs, key=lambda spec: spec.order)
        ]
        self._home = home
        self._voice = voice
        self._clock = clock
        self._started_at = now_ms()
        self._reaper = groups.Reaper()
        self._logs_checked = clock()
        self._signals = 0

    # --- the three parts of its life -----------------------------------------------------------------------------

    @property
    def asked_to_stop(self) -> bool:
        return self._signals > 0

    def start(self) -> None:
        """Start everything in order; each order waits until the ones before are ready.

        Raises ProcessError with the last lines of its log when one does not come up. Returns early
        when asked to stop.
        """
        for _, group in groupby(self._children, key=lambda child: child.spec.order):
            children = list(group)
            for child in children:
                self._apply(child, Event("start"))
            while not self._signals and (
                starting := [child for child in children if not child.state.was_ready]
            ):
                names = ", ".join(child.spec.name for child in starting)
                self._voice.waiting(
                    f"Waiting for {names} ({self._clock() - starting[0].state.started_at:.0f} s) …"
                )
                self._look()
                self._raise_if_given_up()
                time.sleep(_TICK_S)
        self._voice.waiting("")

    def watch(self) -> None:
        """Keep everything up until a stop signal arrives."""
        while not self._signals:
            self._look()
            time.sleep(_TICK_S)

    def stop(self) -> None:
        """Stop everything in reverse order: SIGTERM, then SIGKILL after the time that each may
        take. Returns when all are gone.
        """
        asked = self._signals
        for _, group in groupby(reversed(self._children), key=lambda child: child.spec.order):
            children = list(group)
            for child in children:
                self._apply(child, Event("stop"))
            while any(child.alive or child.left_group for child in children):
                self._voice.waiting(
                    "Stopping "
                    + ", ".join(child.spec.name for child in children if child.alive)
                    + " …"
                )
                if self._signals > asked + 1:  # asked again and again: no more patience
                    self._kill_all()
                for child in children:
                    self._look_at(child)
                time.sleep(_TICK_S / 2)
        self._voice.waiting("")
        self._reaper.close()
        self._write_status()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take Ctrl-C, SIGTERM and a closed terminal as the wish to stop, for the length of the
        block.
        """

        def heard(number: int, _frame: object) -> None:
            self._signals += 1

        before = {number: signal.signal(number, heard) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- looking ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        for child in self._children:
            self._look_at(child)
        self._reaper.ensure_running()
        if self._clock() - self._logs_checked >= _KEEP_SMALL_EVERY_S:
            self._logs_checked = self._clock()
            for child in self._children:
                logs.keep_small(child.log)

    def _look_at(self, child: _Child) -> None:
        if child.process is not None and (code := child.process.poll()) is not None:
            self._apply(child, Event("exit", code, self._failure(child)))
        elif (
            child.process is None and child.state.phase == "starting"
        ):  # it could not even be started; `_spawn` said why
            self._apply(child, Event("exit", _NOT_STARTED))
        elif child.state.phase == "starting" and self._is_ready(child):
            self._apply(child, Event("ready"))
        if child.left_group and not self._are_children_gone(child):
            return  # they hold the port and the memory that the next start needs
        self._apply(child, Event("tick"))

    def _is_ready(self, child: _Child) -> bool:
        now = self._clock()
        if not child.spec.ready_url:
            return now - child.state.started_at >= _SETTLE_S
        if now - child.asked_at < _READY_EVERY_S:
            return False
        child.asked_at = now
        return answers(child.spec.ready_url)

    # --- acting ----------------------------------------------------------------------------------------------------

    def _apply(self, child: _Child, event: Event) -> None:
        before = child.state
        step = plan(before, event, self._clock(), child.limits)
        child.state = step.state
        for act in step.acts:
            self._act(child, act, step)
        if event.kind == "exit" and child.process is not None:
            child.left_group, child.process = child.process.pid, None
        if (step.state.phase, step.state.failures) != (before.phase, before.failures):
            self._write_status()

    def _act(self, child: _Child, act: Act, step: Step) -> None:
        match act:
            case Act.START:
                self._spawn(child)
            case Act.TERMINATE:
                self._signal(child, signal.SIGTERM)
            case Act.KILL:
                self._signal(child, signal.SIGKILL)
            case Act.SAY:
                text = step.text + self._reason_text(child, step.state)
                self._voice.line(
                    child.spec.name, text, "green" if step.state.phase == "ready" else "yellow"
                )
            case Act.GIVE_UP:
                child.why = step.text
                if child.state.was_ready:  # else the start ends with an error that says it
                    self._voice.line(child.spec.name, self._given_up_text(child), "red")

    def _spawn(self, child: _Child) -> None:
        self._reaper.ensure_running()
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "WHET_HOME": str(self._home),
            **child.spec.environment,
            state.HOME_MARK: str(self._home),
            state.NAME_MARK: child.spec.name,
        }
        child.log_start = logs.size(child.log)
        try:
            log = logs.open_log(child.log)
        except OSError as error:
            self._voice.line(
                child.spec.name, f"its log {child.log} cannot be opened: {error.strerror}", "red"
            )
            return
        try:
            child.process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_HERE / "guard.py"),
                    str(os.getpid()),
                    *child.spec.argv,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._voice.line(child.spec.name, f"cannot be started: {error.strerror}", "red")
            return
        finally:
            os.close(log)
        self._reaper.add(child.process.pid)

    def _signal(self, child: _Child, number: signal.Signals) -> None:
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, number)

    def _are_children_gone(self, child: _Child) -> bool:
        """Kill what an ended process left; return whether nothing of it runs any more.

        vLLM's cores and workers are such children: they survive an API server that was killed.
        """
        found = groups.kill_left(child.left_group, self._home, child.spec.name)
        if found and self._clock() - child.state.since < _CHILDREN_GONE_S:
            return False
        if found:
            self._voice.line(
                child.spec.name, f"left processes that do not end: {sorted(found)}", "red"
            )
        self._reaper.forget(child.left_group)
        child.left_group = 0
        return True

    def _failure(self, child: _Child) -> Failure:
        return find_failure(logs.lines_since(child.log, child.log_start), child.spec.remedies)

    def _reason_text(self, child: _Child, found: State) -> str:
        """Say why a process that is started again has ended, as far as its log tells."""
        if found.phase != "waiting" or found.last_exit == 0:
            return ""
        failure = self._failure(child)
        if failure.reason:
            return f". Its log says: {failure.reason}" + (
                f" {failure.todo}" if failure.todo else ""
            )
        last = logs.tail(child.log, 1)
        return f". Its log ends with: {last[0][:200]}" if last else ""

    def _given_up_text(self, child: _Child) -> str:
        failure = child.state.failure
        todo = failure.todo or "`whet doctor` looks for the cause."
        return (
            f"{child.why}: {failure.reason} {todo} Then run `whet up` again; everything else goes"
            f" on. Its log: {child.log}"
        )

    def _kill_all(self) -> None:
        for child in self._children:
            self._signal(child, signal.SIGKILL)

    def _raise_if_given_up(self) -> None:
        for child in self._children:
            if child.state.phase == "given_up":
                self._voice.waiting("")
                failure = child.state.failure
                if failure.reason:
                    raise ProcessError(
                        f"{child.spec.name} {child.why}: {failure.reason}",
                        hint=(
                            f"{failure.todo or '`whet doctor` looks for the cause.'} All of its log"
                            f" is in {child.log}. Everything else is being stopped."
                        ),
                    )
                last = (
                    "\n".join(f"  {line}" for line in logs.tail(child.log))
                    or "  (its log is empty)"
                )
                raise ProcessError(
                    f"{child.spec.name} {child.why}. The last lines of {child.log}:\n{last}",
                    hint="Everything else is being stopped.",
                )

    # --- telling others --------------------------------------------------------------------------------------------

    def _write_status(self) -> None:
        now, wall = self._clock(), now_ms()

        def at(moment: float) -> int:
            return wall + int((moment - now) * 1000)

        def row(child: _Child) -> state.ProcessStatus:
            found = child.state
            return {
                "name": child.spec.name,
                "phase": found.phase,
                "pid": child.process.pid if child.process else None,
                "since_at": at(found.since),
                "down_since": None if found.down_since is None else at(found.down_since),
                "restarts": found.restarts,
                "failures": found.failures,
                "last_exit": found.last_exit,
                "reason": found.failure.reason,
                "next_start_at": at(found.deadline) if found.phase == "waiting" else None,
                "ready_url": child.spec.ready_url,
                "log": str(child.log),
            }

        document: state.SupervisorStatus = {
            "pid": os.getpid(),
            "version": __version__,
            "started_at": self._started_at,
            "written_at": wall,
            "processes": [row(child) for child in self._children],
        }
        # A full disk must not end the supervision: the file only informs.
        with contextlib.suppress(OSError):
            state.write_status(self._home, document)
