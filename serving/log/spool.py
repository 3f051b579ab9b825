"""The spool: append-only files on this machine that hold every record until the database has it.

`append` is one `write()`; what it returned for survives a killed process, because the kernel has it. With durability
`full` the caller also waits for `flushed()`, which shares one disk flush between all who wait.

A file belongs to the process that holds its lock (`flock`), so a process that died leaves its files unlocked, and any
other process of this home may take them over (`orphans`).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import shutil
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from whet.errors import WhetError

FILE_BYTES = 8 << 20  # a new file is begun after this much, so that drained records are given back to the disk
MAX_PENDING_BYTES = 1 << 30  # about 500,000 answers: hours of a database outage; beyond it, requests are refused, not lost
MIN_FREE_BYTES = 64 << 20  # requests stop while there is still room to finish those that run


class SpoolError(WhetError):
    """A record cannot be kept, so the answer it belongs to must not be given."""

    code = "log_unavailable"
    status = 503


@dataclass(slots=True, eq=False)
class SpoolFile:
    """One file and how far its records are in the database."""

    path: Path
    handle: int
    written: int = 0  # bytes
    drained: int = 0  # bytes
    closed: bool = False  # no more records will be added
    begun: set[str] = field(default_factory=set)  # interactions whose first record alone is here

    def read_pending(self, limit: int) -> bytes:
        """Whole lines not drained yet, about `limit` bytes of them; one line at least, however long. Empty when there is none."""
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


def _lock(path: Path, flags: int) -> int | None:
    """An open handle with the exclusive lock, or None while another process has it or the file is gone."""
    try:
        handle = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(handle).st_ino:  # not removed between open and lock
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


class Spool:
    """The files of one process. `append` is called from the event loop alone; the drain thread only reads."""

    def __init__(self, folder: Path, name: str, *, full_durability: bool = False) -> None:
        self.folder = folder
        self._name = name
        self._full = full_durability
        self._numbers = itertools.count()
        self._waiting: list[asyncio.Future[None]] = []
        self._flusher: asyncio.Task[None] | None = None
        self.failure = ""  # why records cannot be kept right now; empty: they can
        self.drained_bytes = 0
        self.appended_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.files: deque[SpoolFile] = deque([self._begin()])
        except OSError as error:
            raise SpoolError(f"Nothing can be written to {folder}: {error.strerror}.", hint="Free disk space or check the folder's permissions.") from error

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
        """Keep one record (a line with its newline). Raises SpoolError; then nothing of it is kept."""
        current = self.files[-1]
        try:
            count = os.write(current.handle, line)
            if count != len(line):  # the disk filled up within the line: take the piece back
                os.ftruncate(current.handle, current.written)
                raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            self.failure = f"The interaction log cannot be written: {error.strerror}."
            raise SpoolError(self.failure, hint="Free disk space on the gateway's machine; it answers again by itself.") from error
        current.written += count
        self.appended_bytes += count
        if current.written >= FILE_BYTES:
            self._rotate()

    def _rotate(self) -> None:
        current = self.files[-1]
        try:
            self.files.append(self._begin())
        except OSError:
            return  # the old file goes on; the next record that cannot be written says so
        current.closed = True

    async def flushed(self) -> None:
        """With durability `full`: return when everything appended so far is on the disk. One flush serves all who wait."""
        if not self._full:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())  # its own task: a caller may be cancelled
        await done

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            handles = [file.handle for file in list(self.files)[-2:]]  # records of this batch may end one file and begin the next
            try:
                await loop.run_in_executor(None, _flush_all, handles)
            except OSError as error:
                self.failure = f"The interaction log cannot be flushed: {error.strerror}."
            for waiter in batch:
                if waiter.done():
                    continue
                if self.failure:
                    waiter.set_exception(SpoolError(self.failure))
                else:
                    waiter.set_result(None)

    def check(self) -> str:
        """Look at the disk and the backlog; returns and remembers why records cannot be kept, or an empty string.

        Called about once a second, so that a request that could not be logged is refused before it costs anything.
        """
        if self.pending_bytes > MAX_PENDING_BYTES:
            self.failure = f"The interaction log waits for the database with {self.pending_bytes >> 20} MiB, its limit."
        elif (free := shutil.disk_usage(self.folder).free) < MIN_FREE_BYTES:
            self.failure = f"The disk of the interaction log has {free >> 20} MiB free; at least {MIN_FREE_BYTES >> 20} are needed."
        else:
            self.failure = ""
        return self.failure

    def close(self) -> None:
        """Give the files up; what is not drained is taken over by whoever looks for orphans next."""
        for file in self.files:
            if file.drained >= file.written and not file.begun:
                file.discard()
            else:
                os.close(file.handle)
        self.files.clear()


def _flush_all(handles: list[int]) -> None:
    for handle in handles:
        try:
            os.fdatasync(handle)
        except OSError as error:
            if error.errno != errno.EBADF:  # closed meanwhile: then its records are in the database
                raise


def orphans(folder: Path) -> list[SpoolFile]:
    """Files whose process is gone, now locked by us. A last line without its end was never answered for; it is skipped."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        handle = _lock(path, os.O_RDWR)
        if handle is not None:
            found.append(SpoolFile(path, handle, written=os.fstat(handle).st_size, closed=True))
    return found
