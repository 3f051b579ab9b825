"""From the spool to the database: a thread that inserts records in batches, then removes files.

Inserting a record that is there already does nothing, so a crash between commit and removal costs
nothing. A stream's first record becomes a row only when no other can follow, because its process is
gone or gave the stream up; until its end is known, the file that holds it stays.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from serving.log.insert_process import InsertProcess
from serving.log.inserting import Refused, insert_or_refuse
from serving.log.pruning import append_rejected
from serving.log.records import (
    InteractionRecord,
    Record,
    decode,
    encode,
    is_begun,
)
from serving.log.spool import Spool, SpoolFile, orphans
from whet.database import error_text
from whet.errors import DatabaseError
from whet.outcomes import GATEWAY_STOPPED

logger = logging.getLogger(__name__)

BATCH_BYTES = 1 << 19  # about 250 answers: some ten milliseconds, which other writers can wait
IDLE_S = 0.2  # a row waits for company; pages and the controller look once a second or less often
# The drain shares the interpreter, and perhaps the processor, with answers. While there are few at
# a time, a process that gives way inserts; without one the drain takes some 16 rows, which is half
# a millisecond, and pauses. While there are many, they wait for each other anyway, and whole
# batches cost less per row.
SMALL_BATCH_BYTES = 24_576
SMALL_PAUSE_S = 0.005
# For the process beside: at 16 rows, asking would cost as much as inserting.
BESIDE_BATCH_BYTES = 131_072
BACKLOG_BYTES = 4 << 20  # behind by more than this, whole batches too
ORPHANS_EVERY_S = 5.0  # a process that died is noticed after this long
BACK_OFF_S = (0.5, 1, 2, 5)  # while the database is away


@dataclass(frozen=True, slots=True)
class BegunStream:
    """Where the first record of a stream lies whose end has not been seen.

    Its file stays until then, so the record, which has the whole request in it, is not kept in
    memory.
    """

    file: SpoolFile
    offset: int
    length: int

    def read(self) -> InteractionRecord:
        record = decode(os.pread(self.file.handle, self.length, self.offset))
        assert isinstance(record, InteractionRecord)  # it was one when it was found
        return record


def cut_off(record: InteractionRecord) -> InteractionRecord:
    """The row of a stream without a last record: its process was killed, or could not write it. The
    client has the head and perhaps some of the text, which is not in the log."""
    return msgspec.structs.replace(
        record,
        status="cut",
        http_status=GATEWAY_STOPPED,
        error="The gateway ended before the answer did.",
    )


class Drain:
    """Runs in a thread of the gateway process, for its own spool and those of dead processes.

    Files of one process are read in the order in which they were written, one after the other, so
    that the last record of a stream is never seen before its first.
    """

    def __init__(
        self,
        engine: Engine,
        spool: Spool,
        *,
        on_rows: Callable[[int], None] = lambda _: None,
        is_crowded: Callable[[], bool] = lambda: True,
        insert_process: InsertProcess | None = None,
    ) -> None:
        """`on_rows` is told how many rows arrived; `is_crowded` says whether many requests are
        being answered now; `insert_process` inserts small batches, None: this thread does."""
        self._engine = engine
        self._spool = spool
        self._on_rows = on_rows
        self._is_crowded = is_crowded
        self._insert_process = insert_process
        self._stop = threading.Event()
        self._orphans: list[list[SpoolFile]] = []  # of each dead process
        self._begun: dict[str, BegunStream] = {}  # by interaction id
        self.failure = ""  # why the database does not take rows; empty: it does
        self._thread = threading.Thread(target=self._run, name="log-drain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Drain what can be drained within the time, then stop. What is left stays on disk for the
        next start. Returns False while the database still holds the thread, and with it the spool.
        """
        self._stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._insert_process is not None:
                self._insert_process.start()
            self._step_until_stopped()
        finally:
            if self._insert_process is not None:
                self._insert_process.close()

    def _step_until_stopped(self) -> None:
        failures, orphans_due = 0, 0.0
        while True:
            stopping = self._stop.is_set()
            try:
                if time.monotonic() >= orphans_due:
                    self.take_over()
                    orphans_due = time.monotonic() + ORPHANS_EVERY_S
                moved = self.step()
                failures, self.failure = 0, ""
            except (SQLAlchemyError, DatabaseError, OSError) as error:
                self.failure = (
                    "Rows wait on disk, because the database does not take them: "
                    f"{error_text(self._engine, error)}"
                )
                if failures == 0:
                    logger.warning(self.failure)
                failures, moved = failures + 1, 0
            except Exception as error:  # the boundary of the thread: rows wait until it works again
                self.failure = (
                    "Rows wait on disk, because moving them to the database fails: "
                    f"{type(error).__name__}: {error}."
                )
                logger.exception("Rows wait on disk; moving them is tried again.")
                failures, moved = failures + 1, 0
            if stopping and (moved == 0 or failures):
                return
            if failures:
                self._stop.wait(BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1])
            elif moved < BATCH_BYTES // 2:
                self._stop.wait(IDLE_S if self._is_crowded() else self._small_pause_s(moved))

    def _small_pause_s(self, moved: int) -> float:
        """Between small batches; longer when there was little to do."""
        return SMALL_PAUSE_S if moved > SMALL_BATCH_BYTES // 2 else 4 * SMALL_PAUSE_S

    def take_over(self) -> None:
        """Look for files whose process is gone; the next steps drain and remove them."""
        self._orphans += orphans(self._spool.folder)

    def step(self) -> int:
        """One batch of each process's files; returns the bytes moved. Raises SQLAlchemyError while
        the database is away."""
        moved = 0
        for files in list(self._orphans):
            count = self._drain(files)
            moved += count
            if count == 0:
                self._finish_orphans(files)
        own = list(self._spool.files)
        count = self._drain(own)
        self._spool.drained_bytes += count
        self._cut_abandoned()
        for file in own:
            if file.closed and file.can_be_discarded:
                self._spool.files.remove(file)
                file.discard()
        return moved + count

    def _drain(self, files: Iterable[SpoolFile]) -> int:
        """The next batch of one process's files; returns its bytes, 0 when nothing is left."""
        return next((count for file in files if (count := self._drain_batch(file))), 0)

    def _drain_batch(self, file: SpoolFile) -> int:
        is_small = file.written - file.drained < BACKLOG_BYTES and not self._is_crowded()
        beside = self._insert_process if is_small else None
        if beside is not None and not beside.is_ready():
            beside = None
        small_bytes = BESIDE_BATCH_BYTES if beside else SMALL_BATCH_BYTES
        block = file.read_pending(small_bytes if is_small else BATCH_BYTES)
        if not block:
            return 0
        ended: list[Record] = []
        lines: list[bytes] = []  # of those that ended
        offset = file.drained
        for line in block[:-1].split(b"\n"):
            record = self._decode(line)
            if record is not None and is_begun(record):
                self._begun[record.id] = BegunStream(file, offset, len(line))
                file.begun.add(record.id)
            elif record is not None:
                ended.append(record)
                lines.append(line)
            offset += len(line) + 1
        refused = beside.insert(lines) if beside and lines else None
        if refused is None:
            self._insert(ended)
        else:
            self._account(ended, refused)
        for record in ended:
            self._forget(record.id)
        file.drained += len(block)
        return len(block)

    def _decode(self, line: bytes) -> Record | None:
        try:
            return decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._reject(line, "it is not a whole record")
            return None

    def _forget(self, interaction_id: str) -> None:
        if stream := self._begun.pop(interaction_id, None):
            stream.file.begun.discard(interaction_id)

    def _cut_abandoned(self) -> None:
        """Streams of this process that will have no last record, as soon as all that was written
        before it gave them up is drained."""
        abandoned = self._spool.abandoned
        while abandoned and abandoned[0][1] <= self._spool.drained_bytes:
            self._cut([abandoned[0][0]])
            abandoned.popleft()

    def _finish_orphans(self, files: list[SpoolFile]) -> None:
        """A dead process's files hold nothing more: what only began in them was cut off."""
        for file in files:
            self._cut(list(file.begun))
        self._orphans.remove(files)
        for file in files:
            file.discard()

    def _cut(self, interaction_ids: list[str]) -> None:
        """Insert the rows of begun streams, about BATCH_BYTES at a time."""
        records: list[Record] = []
        size = 0
        for interaction_id in interaction_ids:
            if stream := self._begun.get(interaction_id):
                records.append(cut_off(stream.read()))
                size += stream.length
            if size >= BATCH_BYTES or interaction_id == interaction_ids[-1]:
                self._insert(records)
                for record in records:
                    self._forget(record.id)
                records, size = [], 0

    def _insert(self, records: list[Record]) -> None:
        """Insert here, in this thread."""
        if records:
            self._account(records, insert_or_refuse(self._engine, records))

    def _account(self, records: list[Record], refused: list[Refused]) -> None:
        for each in refused:
            self._reject(encode(records[each.place])[:-1], each.why)
        self._on_rows(len(records))

    def _reject(self, line: bytes, why: str) -> None:
        path = append_rejected(self._spool.folder, line)
        logger.error("A record of the interaction log was put into %s: %s.", path, why)
