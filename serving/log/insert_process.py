"""A process that inserts records at idle priority, so that no answer waits while it runs.

The drain's thread shares the interpreter with answers, and on a machine whose processors are busy
also the processor: Linux lets a thread that has begun its turn finish it, up to 3 ms, while the
event loop waits. A process of the policy SCHED_IDLE gives way at once. A thread cannot: it would
hold the interpreter's lock while it waits for its turn.

The gateway sends batches over a socket and waits for the reply. One that is late gets the turns of
any other process until it is done, because it may hold the database's lock. Inserting twice does
nothing, so whoever is in doubt inserts again. The process ends with its gateway.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from serving.log.inserting import Refused, insert_or_refuse
from serving.log.records import decode
from whet.context import open_context
from whet.database import error_text
from whet.errors import DatabaseError
from whet.settings import load_settings

logger = logging.getLogger(__name__)

LATE_S = 0.1  # a batch takes some 20 ms on a machine that is not busy
REPLY_WITHIN_S = 1.0  # then the gateway inserts the batch itself
START_AGAIN_S = 10.0  # after it ended by itself
STOP_WITHIN_S = 2.0
_LENGTH_BYTES = 4  # before each message, big-endian


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Whole records, as the spool holds them."""

    number: int
    lines: list[bytes]


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What became of a batch; `failure`: the database is away, nothing was inserted."""

    number: int
    refused: list[Refused] = []
    failure: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode
_decode_reply = msgspec.msgpack.Decoder(Reply).decode


class InsertProcess:
    """The gateway's end. For one thread, which may wait."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._received = bytearray()
        self._number = 0
        self._answered = 0  # the process says 0 when it is ready
        self._start_at = 0.0

    def start(self) -> None:
        """Start the process, unless it ended a moment ago; it is ready after about a second."""
        if sys.platform != "linux" or time.monotonic() < self._start_at:
            return  # other systems have no such policy
        self._start_at = time.monotonic() + START_AGAIN_S
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        except OSError as error:
            ours.close()
            logger.warning("No process to insert log records can be started: %s.", error)
            return
        finally:
            theirs.close()
        self._received.clear()
        self._number, self._answered = 0, -1
        self._socket = ours

    def is_ready(self) -> bool:
        """Whether it would take up a batch now; starts it when there is none."""
        if self._socket is None:
            self.start()
            return False
        try:
            return self._answered == self._number or self._receive(0.0) is not None
        except (OSError, msgspec.DecodeError) as error:
            self._end(error)
            return False

    def insert(self, lines: list[bytes]) -> list[Refused] | None:
        """Have records inserted; returns those that the database does not take.

        For a process that is ready. Returns None when it does not reply in time: whether it
        inserted them is not known. Raises DatabaseError while the database is away.
        """
        assert self._socket is not None, "it is ready"
        self._number += 1
        try:
            _send(self._socket, _encode(Batch(self._number, lines)))
            reply = self._receive(LATE_S) or self._receive_late()
        except (OSError, msgspec.DecodeError) as error:
            self._end(error)
            return None
        if reply is not None and reply.failure:
            raise DatabaseError(reply.failure)
        return reply.refused if reply else None

    def close(self) -> None:
        """End the process. It starts again with a later batch."""
        self._start_at = time.monotonic() + START_AGAIN_S
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _end(self, error: Exception) -> None:
        self.close()
        logger.warning(
            "The process that inserts log records ended (%s); the gateway inserts itself.", error
        )

    def _receive_late(self) -> Reply | None:
        assert self._process is not None, "the process was started"
        _set_policy(self._process.pid, os.SCHED_OTHER)
        reply = self._receive(REPLY_WITHIN_S)
        _set_policy(self._process.pid, os.SCHED_IDLE)
        return reply

    def _receive(self, timeout_s: float) -> Reply | None:
        """Return the reply to the last batch, None when it does not come in time."""
        assert self._socket is not None, "the process was started"
        until = time.monotonic() + timeout_s
        while True:
            while (message := _take_message(self._received)) is not None:
                reply = _decode_reply(message)
                self._answered = reply.number
                if reply.number == self._number:
                    return reply
            self._socket.settimeout(max(0.0, until - time.monotonic()))
            try:
                received = self._socket.recv(65_536)
            except (BlockingIOError, TimeoutError):
                return None
            if not received:
                raise ConnectionResetError("it closed its socket")
            self._received += received


def _send(connection: socket.socket, message: bytes) -> None:
    connection.settimeout(None)
    connection.sendall(len(message).to_bytes(_LENGTH_BYTES, "big") + message)


def _take_message(received: bytearray) -> bytes | None:
    """Remove the first whole message and return it."""
    end = _LENGTH_BYTES + int.from_bytes(received[:_LENGTH_BYTES], "big")
    if len(received) < max(end, _LENGTH_BYTES):
        return None
    message = bytes(received[_LENGTH_BYTES:end])
    del received[:end]
    return message


def _set_policy(pid: int, policy: int) -> None:
    with suppress(PermissionError):  # a container may forbid it; rows are inserted all the same
        os.sched_setscheduler(pid, policy, os.sched_param(0))


def insert_batches(connection: socket.socket, engine: Engine) -> None:
    """Insert what arrives until the other end closes."""
    received = bytearray()
    _send(connection, _encode(Reply(0)))
    while block := connection.recv(1 << 20):
        received += block
        while (message := _take_message(received)) is not None:
            batch = _decode_batch(message)
            _send(connection, _encode(_insert(engine, batch)))


def _insert(engine: Engine, batch: Batch) -> Reply:
    try:
        records = [decode(line) for line in batch.lines]
        refused = insert_or_refuse(engine, records)
    except (SQLAlchemyError, OSError) as error:
        return Reply(batch.number, failure=error_text(engine, error))
    return Reply(batch.number, refused)


def main() -> None:
    """Insert what the gateway sends over the socket whose number is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; it ends with its gateway
    context = open_context(load_settings())
    _set_policy(0, os.SCHED_IDLE)
    with (
        suppress(BrokenPipeError, ConnectionResetError),  # the gateway is gone
        socket.socket(fileno=int(sys.argv[1])) as connection,
    ):
        insert_batches(connection, context.database)
    context.close()


if __name__ == "__main__":
    main()
