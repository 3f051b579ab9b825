"""From the spool to the database: a thread that inserts records in batches and removes a file after its commit.

Inserting a record that is there already does nothing, so a crash between commit and removal costs
nothing. A stream's first record becomes a row only when its process died before it wrote another:
until then the file that holds it stays.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import JSON, Column, Connection, Engine, MetaData, Table
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.types import UserDefinedType

from serving.log.records import (
    BEGUN,
    InteractionRecord,
    RatingRecord,
    Record,
    decode,
    without_nul,
)
from serving.log.spool import Spool, SpoolFile, orphans
from whet.database import insert_ignore, writing
from whet.tables import interactions, ratings

logger = logging.getLogger(__name__)

BATCH_BYTES = 1 << 19  # about 250 answers: a transaction of some ten milliseconds, so other writers are not kept waiting
IDLE_S = 0.2  # how long a row may wait for company; pages and the controller look once a second or less often
ORPHANS_EVERY_S = 5.0  # a process that died is noticed after this long at most
BACK_OFF_S = (0.5, 1, 2, 5)  # while the database is away


class _JsonText(UserDefinedType):  # type: ignore[type-arg]
    """A JSON column that is given JSON text, so that nothing is parsed and written again; None is NULL."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "JSON"


def _as_text(table: Table) -> Table:
    return Table(
        table.name, MetaData(), *[Column(c.name, _JsonText() if isinstance(c.type, JSON) else c.type, primary_key=c.primary_key) for c in table.columns]
    )


_TABLES: dict[type, Table] = {InteractionRecord: _as_text(interactions), RatingRecord: _as_text(ratings)}


def _values(record: Record) -> dict[str, object]:
    values = msgspec.structs.asdict(record)
    for name, value in values.items():
        if isinstance(value, msgspec.Raw):
            text = without_nul(bytes(value)).decode()
            values[name] = None if text == "null" else text
        elif isinstance(value, str) and "\0" in value:
            values[name] = value.replace("\0", "\ufffd")
    return values


def insert_records(connection: Connection, records: Iterable[Record]) -> None:
    """Insert each record that is not there yet."""
    groups: dict[type, list[dict[str, object]]] = {}
    for record in records:
        groups.setdefault(type(record), []).append(_values(record))
    for kind, rows in groups.items():
        connection.execute(insert_ignore(connection, _TABLES[kind]), rows)


@dataclass(frozen=True, slots=True)
class BegunStream:
    """A stream whose end has not been seen, and the file that holds its first record."""

    record: InteractionRecord
    file: SpoolFile


def cut_off(record: InteractionRecord) -> InteractionRecord:
    """The row of a stream whose process died: the client has its head and some of its text."""
    return msgspec.structs.replace(
        record, status="cut", error="The gateway ended while it was answering."
    )


class Drain:
    """Runs in a thread of the gateway process, for its own spool and those of dead processes."""

    def __init__(self, engine: Engine, spool: Spool, *, on_rows: Callable[[int], None] = lambda _: None) -> None:
        self._engine = engine
        self._spool = spool
        self._on_rows = on_rows
        self._stop = threading.Event()
        self._orphans: list[SpoolFile] = []
        self._begun: dict[str, BegunStream] = {}  # by interaction id
        self.failure = ""  # why the database does not take rows; empty: it does
        self._thread = threading.Thread(target=self._run, name="log-drain", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Drain what can be drained within the time, then stop. What is left stays on disk for the next start."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures, since_orphans = 0, ORPHANS_EVERY_S
        while True:
            stopping = self._stop.is_set()
            try:
                if since_orphans >= ORPHANS_EVERY_S:
                    self._orphans += orphans(self._spool.folder)
                    since_orphans = 0.0
                moved = self.step()
                failures, self.failure = 0, ""
            except (SQLAlchemyError, OSError) as error:
                self.failure = f"Rows wait on disk, because the database does not take them: {str(error).splitlines()[0]}"
                if failures == 0:
                    logger.warning(self.failure)
                failures, moved = failures + 1, 0
            if stopping and (moved == 0 or failures):
                return
            if moved < BATCH_BYTES // 2:
                pause = BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1] if failures else IDLE_S
                since_orphans += pause
                self._stop.wait(pause)

    def step(self) -> int:
        """One batch from every file; returns the bytes moved. Raises SQLAlchemyError while the database is away."""
        moved = 0
        for file in self._orphans:
            moved += self._batch(file)
        if self._orphans and not any(file.read_pending(BATCH_BYTES) for file in self._orphans):
            self._give_up_orphans()
        for file in list(self._spool.files):
            count = self._batch(file)
            self._spool.drained_bytes += count
            moved += count
            if file.closed and file.drained >= file.written and not file.begun:
                self._spool.files.remove(file)
                file.discard()
        return moved

    def _give_up_orphans(self) -> None:
        """Dead processes' files hold nothing more: what only began in them was cut off."""
        left = [stream for stream in self._begun.values() if stream.file in self._orphans]
        if left:
            self._insert([cut_off(stream.record) for stream in left])
        for stream in left:
            del self._begun[stream.record.id]
        while self._orphans:
            self._orphans.pop().discard()

    def _batch(self, file: SpoolFile) -> int:
        block = file.read_pending(BATCH_BYTES)
        if not block:
            return 0
        records = []
        for line in block[:-1].split(b"\n"):
            try:
                records.append(decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._reject(line, "it is not a whole record")
        ended = [record for record in records if not self._is_begun(record, file)]
        if ended:
            self._insert(ended)
        for record in ended:
            if stream := self._begun.pop(record.id, None):
                stream.file.begun.discard(record.id)
        file.drained += len(block)
        return len(block)

    def _is_begun(self, record: Record, file: SpoolFile) -> bool:
        """True for a stream's first record, which is kept until its last one comes."""
        if not isinstance(record, InteractionRecord) or record.status != BEGUN:
            return False
        self._begun[record.id] = BegunStream(record, file)
        file.begun.add(record.id)
        return True

    def _insert(self, records: list[Record]) -> None:
        try:
            with writing(self._engine) as connection:
                insert_records(connection, records)
        except (DataError, IntegrityError, ValueError):
            self._one_by_one(records)
        self._on_rows(len(records))

    def _one_by_one(self, records: list[Record]) -> None:
        """One record that the database refuses must not hold back the others."""
        for record in records:
            try:
                with writing(self._engine) as connection:
                    insert_records(connection, [record])
            except (DataError, IntegrityError, ValueError) as error:
                self._reject(msgspec.json.encode(record), str(error).splitlines()[0])

    def _reject(self, line: bytes, why: str) -> None:
        path = self._spool.folder / "rejected.lines"
        logger.error("A record of the interaction log was put into %s: %s.", path, why)
        with Path(path).open("ab") as file:
            file.write(line + b"\n")
