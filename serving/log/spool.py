"""The spool: append-only files on this machine that hold every record until the database has it.

`append` is one `write()`; what it returned for survives a killed process, because the kernel has
it. With durability `full` the caller also waits for `flushed()`, which shares one disk flush
between all who wait.

A file belongs to the process that holds its lock (`flock`), so a process that died leaves its files
unlocked. All files of one process carry its name and a number, and are taken over together
(`orphans`): the end of a stream may lie in a later file than its begin.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import logging
import os
import re
import secrets
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from whet.errors import WhetError

logger = logging.getLogger(__name__)

FILE_BYTES = 8 << 20  # then a new file is begun, so that drained records are given back to the disk
MAX_PENDING_BYTES = 1 << 30  # about 500,000 answers: hours of an outage; then requests are refused
MIN_FREE_BYTES = 64 << 20  # requests stop while there is still room to finish those that run

_FILE_NAME = re.compile(r"(?P<process>.+)-(?P<number>[0-9]{1,18})\.jsonl")


class SpoolError(WhetError):
    """A record cannot be kept, so the answer it belongs to must not be given."""

    code = "log_unavailable"
    status = 503


@dataclass(slots=True, eq=False)
class SpoolFile:
    """One file and how far its records are in the database. Sizes and offsets are bytes."""

    path: Path
    handle: int
    written: int = 0
    drained: int = 0
    flushed: int = 0  # on the disk for certain; kept with durability `full` alone
    closed: bool = False  # no more records will be added
    begun: set[str] = field(default_factory=set)  # interactions whose first record alone is here

    @property
    def can_be_discarded(self) -> bool:
        return self.drained >= self.written and not self.begun

    def read_pending(self, limit: int) -> bytes:
        """Whole lines not drained yet, about `limit` bytes of them; one line at least, however
        long. Empty when there is none."""
        size = limit
        while True:
            block = os.pread(self.handle, min(size, self.written - self.drained), self.drained)
            end = block.rfind(b"\n") + 1
            if end or len(block) < size:
                return block[:end]
            size *= 4

    def discard(self) -> None:
        """Remove the file; the lock goes with the handle."""
        self.path.unlink(missing_ok=True)
        os.close(self.handle)


def is_named(path: Path, handle: int) -> bool:
    """Whether `path` still names the open file, which may be gone or replaced when it is locked."""
    try:
        return os.stat(path).st_ino == os.fstat(handle).st_ino
    except FileNotFoundError:
        return False


def _lock(path: Path, flags: int) -> int | None:
    """An open handle with the exclusive lock, or None while another process has it or the file is
    gone."""
    try:
        handle = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = is_named(path, handle)
    except OSError:
        is_there = False
    if is_there:
        return handle
    os.close(handle)
    return None


class Spool:
    """The files of one process. The event loop alone appends; the drain's thread only reads."""

    def __init__(self, folder: Path, name: str, *, full_durability: bool = False) -> None:
        self.folder = folder
        # Process ids come again, in a container at every start; files of the dead one may be there.
        self._name = f"{name}-{secrets.token_hex(4)}"
        self._full = full_durability
        self._numbers = itertools.count()
        self._waiting: list[asyncio.Future[None]] = []
        self._flusher: asyncio.Task[None] | None = None
        self.failure = ""  # why records cannot be kept right now; empty: they can
        self.drained_bytes = 0
        self.appended_bytes = 0
        # Interactions that began and will have no last record, with `appended_bytes` at that time.
        self.abandoned: deque[tuple[str, int]] = deque()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.files: deque[SpoolFile] = deque([self._begin()])
        except OSError as error:
            raise SpoolError(
                f"Nothing can be written to {folder}: {error.strerror}.",
                hint="Free disk space or check the folder's permissions.",
            ) from error

    def _begin(self) -> SpoolFile:
        while True:
            path = self.folder / f"{self._name}-{next(self._numbers)}.jsonl"
            try:
                handle = _lock(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                continue
            if handle is not None:
                return SpoolFile(path, handle)

    @property
    def pending_bytes(self) -> int:
        return self.appended_bytes - self.drained_bytes

    def append(self, line: bytes) -> None:
        """Keep one record (a line with its newline). Raises SpoolError; then nothing of it is
        kept."""
        current = self.files[-1]
        try:
            count = os.write(current.handle, line)
            if count != len(line):  # the disk filled up within the line: take the piece back
                os.ftruncate(current.handle, current.written)
                raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            self.failure = f"The interaction log cannot be written: {error.strerror}."
            raise SpoolError(
                self.failure,
                hint="Free disk space on the gateway's machine; it answers again by itself.",
            ) from error
        current.written += count
        self.appended_bytes += count
        if current.written >= FILE_BYTES:
            self._rotate()

    def abandon(self, interaction_id: str) -> None:
        """Say that no last record will follow the first one; the drain makes a row of that."""
        self.abandoned.append((interaction_id, self.appended_bytes))

    def _rotate(self) -> None:
        current = self.files[-1]
        try:
            self.files.append(self._begin())
        except OSError:
            return  # the old file goes on; the next record that cannot be written says so
        current.closed = True

    async def flushed(self) -> None:
        """With durability `full`: return when everything appended so far is on the disk. One flush
        serves all who wait. Raises SpoolError."""
        if not self._full:
            return
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append(done)
        if self._flusher is None or self._flusher.done():
            self._flusher = loop.create_task(self._flush())  # its own: a caller may be cancelled
        await done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            unflushed = [
                (file, file.written) for file in list(self.files) if file.flushed < file.written
            ]
            handles = [file.handle for file, _ in unflushed]
            # The name of a file is in the folder, which is flushed with the file's first records.
            folder = self.folder if any(file.flushed == 0 for file, _ in unflushed) else None
            failure = ""
            try:
                await loop.run_in_executor(None, _flush_all, handles, folder)
            except OSError as error:
                failure = f"The interaction log cannot be flushed: {error.strerror}."
                self.failure = failure
            except Exception as error:  # a defect: those who wait must not wait for ever
                logger.exception("The interaction log cannot be flushed.")
                failure = f"The interaction log cannot be flushed: {type(error).__name__}: {error}."
            else:
                for file, written in unflushed:
                    file.flushed = written
            for waiter in batch:
                if waiter.done():
                    continue
                if failure:
                    waiter.set_exception(SpoolError(failure))
                else:
                    waiter.set_result(None)

    def check(self) -> str:
        """Look at the disk and the backlog; returns and remembers why records cannot be kept, or an
        empty string.

        Called about once a second, so that a request that could not be logged is refused before it
        costs anything.
        """
        if self.pending_bytes > MAX_PENDING_BYTES:
            self.failure = (
                "The interaction log waits for the database with "
                f"{self.pending_bytes >> 20} MiB, its limit."
            )
        elif (free := shutil.disk_usage(self.folder).free) < MIN_FREE_BYTES:
            self.failure = (
                f"The disk of the interaction log has {free >> 20} MiB free; "
                f"at least {MIN_FREE_BYTES >> 20} are needed."
            )
        else:
            self.failure = ""
        return self.failure

    def close(self) -> None:
        """Give the files up; who looks for orphans next takes over what is not drained."""
        for file in self.files:
            if file.can_be_discarded:
                file.discard()
            else:
                os.close(file.handle)
        self.files.clear()


def _flush_all(handles: Sequence[int], folder: Path | None) -> None:
    for handle in handles:
        _flush_data(handle)
    if folder is not None:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _flush_data(handle: int) -> None:
    try:
        os.fdatasync(handle)
    except OSError as error:
        if error.errno != errno.EBADF:  # closed meanwhile: then its records are in the database
            raise


def orphans(folder: Path) -> list[list[SpoolFile]]:
    """The files of each dead process in the order in which it wrote them, now locked by us.

    All files of a process or none: of those that a process leaves while it dies, and of those that
    another one is taking over, some are locked still. The first file decides between two that try.
    A last line without its end was never answered for; it is skipped.
    """
    processes: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.glob("*.jsonl"):
        if name := _FILE_NAME.fullmatch(path.name):
            processes.setdefault(name["process"], []).append((int(name["number"]), path))
    taken = [_take_over([path for _, path in sorted(paths)]) for paths in processes.values()]
    return [files for files in taken if files]


def _take_over(paths: Sequence[Path]) -> list[SpoolFile]:
    files: list[SpoolFile] = []
    for path in paths:
        try:
            handle = _lock(path, os.O_RDWR)
        except OSError:  # such as too many open files: another look follows
            handle = None
        if handle is None:
            for file in files:
                os.close(file.handle)
            return []
        files.append(SpoolFile(path, handle, written=os.fstat(handle).st_size, closed=True))
    return files
