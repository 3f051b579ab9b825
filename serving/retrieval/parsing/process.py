"""The parent's side of the parsing process: one document at a time, with limits."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from types import TracebackType

import msgspec

from serving.retrieval.parsing.blocks import ParsedDocument, ParseError
from serving.retrieval.parsing.frames import LENGTH, Answer
from serving.retrieval.parsing.sandbox import CPU_SECONDS

LARGEST_FILE = 100 * 1024 * 1024  # bytes
_LARGEST_ANSWER = 256 * 1024 * 1024  # bytes
_WALL_SECONDS = 4 * CPU_SECONDS  # a busy machine gives a process a part of its time
_START_SECONDS = 60  # imports, on a busy machine
_DOCUMENTS_PER_PROCESS = 500  # whatever a library leaks goes with its process
_PIPE = 1 << 16


class ParserProcess:
    """Parses documents in a child process, which is replaced when it dies. A context manager."""

    def __init__(self, *, wall_seconds: float = _WALL_SECONDS) -> None:
        self._wall_seconds = wall_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._done = 0

    def __enter__(self) -> ParserProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def parse(self, name: str, content: bytes) -> ParsedDocument:
        """Parse a document. Raises ParseError with the reason when it cannot be read."""
        if len(content) > LARGEST_FILE:
            raise ParseError(
                f"It has {len(content):,} bytes; at most {LARGEST_FILE:,} are read.",
                hint="Divide it.",
            )
        process = self._started()
        deadline = time.monotonic() + self._wall_seconds + (_START_SECONDS if not self._done else 0)
        self._done += 1
        body = self._exchange(process, msgspec.msgpack.encode((name, content)), deadline)
        answer = msgspec.msgpack.decode(body, type=Answer)
        if answer.document is None:
            raise ParseError(answer.error)
        return answer.document

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._done >= _DOCUMENTS_PER_PROCESS:
            self._stop()
        if self._process is None:
            self._done = 0
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.retrieval.parsing.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes, deadline: float) -> bytes:
        """Send a request and return its answer; the process does not outlive a failure."""
        assert process.stdin is not None and process.stdout is not None
        waiting = memoryview(LENGTH.pack(len(request)) + request)
        received = bytearray()
        os.set_blocking(process.stdin.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            while not _is_whole(received):
                ready = selector.select(max(deadline - time.monotonic(), 0))
                if not ready:
                    raise self._failed(f"It took longer than {self._wall_seconds:.0f} s.")
                for key, _ in ready:
                    if key.fileobj is process.stdout:
                        chunk = os.read(process.stdout.fileno(), _PIPE)
                        if not chunk:
                            raise self._failed("")
                        received += chunk
                    else:
                        waiting = self._send(process, waiting)
                        if not waiting:
                            selector.unregister(process.stdin)
                if len(received) > _LARGEST_ANSWER:
                    raise self._failed("Its text is too large.")
        return bytes(received[LENGTH.size :])

    def _send(self, process: subprocess.Popen[bytes], waiting: memoryview) -> memoryview:
        assert process.stdin is not None
        try:
            return waiting[os.write(process.stdin.fileno(), waiting[:_PIPE]) :]
        except BlockingIOError:
            return waiting
        except BrokenPipeError:
            raise self._failed("") from None

    def _failed(self, reason: str) -> ParseError:
        """End the process, and return the error that says why it ended."""
        status = self._stop()
        if reason:
            return ParseError(reason)
        if status == -signal.SIGXCPU:
            return ParseError(f"It took longer than {CPU_SECONDS} s of processor time.")
        return ParseError(f"Its parser died ({_describe(status)}).")

    def _stop(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        assert process.stdin is not None and process.stdout is not None
        if process.poll() is None:
            try:
                process.wait(0.2)  # one that died a moment ago has its own status
            except subprocess.TimeoutExpired:
                process.kill()
        process.stdin.close()
        process.stdout.close()
        return process.wait()


def _is_whole(received: bytearray) -> bool:
    if len(received) < LENGTH.size:
        return False
    size: int = LENGTH.unpack_from(received)[0]
    return len(received) >= LENGTH.size + size


def _describe(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
