"""What `whet up` looks at before it starts anything: ports, disk, the engine's package.

Each problem is one sentence.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from whet.base_check import check_base
from whet.doctor_base import base_folder, is_gpu_engine
from whet.errors import ConfigurationError, ProcessError
from whet.lines import split_lines
from whet.plugins import ProcessSpec
from whet.settings import Settings

# An hour of a busy log, a run and its adapter, and the database's own files
LEAST_FREE_BYTES = 512 << 20
LOW_FREE_BYTES = 2 << 30  # below this it is said, and the start goes on


def check_disk(home: Path) -> str:
    """Refuse a full disk; returns a sentence when little is left, else ''. Raises ProcessError."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(home).free
        if free >= LEAST_FREE_BYTES:
            probe = home / f".write-check-{os.getpid()}"
            probe.write_bytes(b"\0" * 4096)  # a quota or a read-only mount shows only here
            probe.unlink()
    except OSError as error:
        raise ProcessError(
            f"Nothing can be written to the home folder {home}: {error.strerror}.",
            hint="Free space or correct its permissions, or set WHET_HOME to another folder.",
        ) from error
    if free < LEAST_FREE_BYTES:
        raise ProcessError(
            f"The disk of the home folder {home} has {free >> 20} MiB left; at least"
            f" {LEAST_FREE_BYTES >> 20} MiB are needed to keep the promise that every answer is"
            " logged.",
            hint="Free space, or set WHET_HOME to a folder on another disk. Nothing was started.",
        )
    return (
        f"Only {free / (1 << 30):.1f} GiB are left on the disk of {home}."
        if free < LOW_FREE_BYTES
        else ""
    )


def check_base_model(specs: Iterable[ProcessSpec], settings: Settings) -> list[str]:
    """Look through the base that an engine is about to be started on; returns what may not work.

    Raises ConfigurationError for what cannot work: it is said now, not after three starts.
    """
    folder = base_folder(settings)
    if folder is None or not any(spec.name.startswith("engine") for spec in specs):
        return []
    problems = list(check_base(folder, settings, on_gpu=is_gpu_engine()))
    for problem in problems:
        if problem.is_certain:
            raise ConfigurationError(problem.found, hint=f"{problem.todo} Nothing was started.")
    return [problem.found for problem in problems]


def check_engine_package(specs: Iterable[ProcessSpec]) -> None:
    """The engine is a package of its own; without it there is nothing to start.

    Raises ConfigurationError.
    """
    if (
        any(spec.name.startswith("engine") for spec in specs)
        and importlib.util.find_spec("vllm") is None
    ):
        raise ConfigurationError(
            "The inference engine is not installed: the package `vllm` cannot be imported here.",
            hint=(
                "Run `make setup` in the project's folder, or name running engines in"
                " WHET_ENGINE_URLS, or start with `--without engine`."
            ),
        )


def check_ports(specs: Iterable[ProcessSpec], settings: Settings) -> None:
    """Every port must be free.

    Raises ProcessError naming all that are not, the setting of each, and who holds it.
    """
    taken = []
    for spec in specs:
        for host, port in spec.listens_on:
            problem = _bind_problem(host, port)
            if problem:
                name = setting_of_port(settings, port)
                setting = (
                    f"set WHET_{name.upper()} to another port" if name else "configure another port"
                )
                taken.append(
                    f"Port {port} on {host}, which {spec.name} needs, {problem}; stop what uses it"
                    f" or {setting}."
                )
    if taken:
        raise ProcessError(" ".join(taken), hint="Nothing was started.")


def _bind_problem(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # A closed connection in TIME_WAIT takes no port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                holder = holder_of_port(port)
                return f"is taken by {holder}" if holder else "is taken by another process"
            return f"cannot be opened ({error.strerror})"
    return ""


def setting_of_port(settings: Settings, port: int) -> str:
    """The name of the setting that holds this port number, or ''."""
    return next(
        (
            name
            for name in type(settings).model_fields
            if name.endswith("_port") and getattr(settings, name) == port
        ),
        "",
    )


def holder_of_port(port: int) -> str:
    """`name (pid N)` of the process that listens on the port.

    Linux only, and only for processes we may look at; else ''.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return ""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(entry) in sockets for entry in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
    return ""


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = split_lines(Path(table).read_text())[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            listening = fields[3] == "0A"
            if listening and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(fields[9])
    return inodes
