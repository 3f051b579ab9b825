"""Reads drift reports and their records, always bounded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection, RowMapping, func, select

from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.records.monitoring import REPORT_SIGNALS, ReportSignal
from whet.tables import drift_reports

_LIGHT = [column for column in drift_reports.c if column.name != "signals"]


@dataclass(frozen=True)
class DriftReport:
    """A row of `drift_reports`. Instants are ms since 1970."""

    id: str
    alias: str
    reference_from: int | None
    reference_to: int | None
    window_from: int | None
    window_to: int | None
    n_reference: int
    n_window: int
    verdict: str  # drift | no_drift | not_enough_data
    summary: str
    created_at: int
    report_path: str | None = None
    signals: tuple[ReportSignal, ...] | None = None  # None: they were not read

    def with_path(self, path: str | None) -> DriftReport:
        """Return the report with the place of Evidently's stored JSON."""
        return replace(self, report_path=path)

    def values(self) -> JsonObject:
        """Return the row as it is stored, and as programs are told of it."""
        values = asdict(replace(self, signals=None))
        if self.signals is None:
            del values["signals"]
            return values
        return {**values, "signals": REPORT_SIGNALS.encode(list(self.signals))}


def _report_of(row: RowMapping) -> DriftReport:
    values = dict(row)
    if "signals" in row:
        values["signals"] = tuple(REPORT_SIGNALS.decode(row["signals"] or []))
    return DriftReport(**values)


def list_reports(
    connection: Connection,
    alias: str | None = None,
    *,
    limit: int = 50,
    signals: bool = False,
    until: int | None = None,
) -> list[DriftReport]:
    """Newest first; `signals` includes what each signal said, `until` (ms) leaves out newer ones."""
    query = (
        select(*(drift_reports.c if signals else _LIGHT))
        .order_by(drift_reports.c.created_at.desc(), drift_reports.c.id.desc())
        .limit(limit)
    )
    if alias:
        query = query.where(drift_reports.c.alias == alias)
    if until is not None:
        query = query.where(drift_reports.c.created_at <= until)
    return [_report_of(row) for row in connection.execute(query).mappings()]


def find_report(connection: Connection, report_id: str) -> DriftReport:
    """Raises NotFoundError."""
    query = select(drift_reports).where(drift_reports.c.id == report_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFoundError(
            f"There is no drift report {report_id!r}.", hint="`whet drift list` prints them."
        )
    return _report_of(row)


def last_snapshot_at(connection: Connection, alias: str) -> int | None:
    """When Evidently's report was last stored for an alias (ms)."""
    at: int | None = connection.scalar(
        select(func.max(drift_reports.c.created_at)).where(
            drift_reports.c.alias == alias, drift_reports.c.report_path.is_not(None)
        )
    )
    return at


def report_if_there(connection: Connection, report_id: str) -> DriftReport | None:
    query = select(*_LIGHT).where(drift_reports.c.id == report_id)
    row = connection.execute(query).mappings().first()
    return _report_of(row) if row else None


def aliases_with_reports(connection: Connection) -> list[str]:
    """One index step per alias, however many reports there are."""
    found, last = [], ""
    while (
        following := connection.scalar(
            select(func.min(drift_reports.c.alias)).where(drift_reports.c.alias > last)
        )
    ) is not None:
        found.append(following)
        last = following
    return found


def latest_report(connection: Connection, alias: str) -> DriftReport | None:
    found = list_reports(connection, alias, limit=1, signals=True)
    return found[0] if found else None
