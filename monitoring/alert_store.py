"""Reads alerts and their records, and writes what they rest on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, select, update

from whet.errors import NotFoundError
from whet.json_types import JsonObject
from whet.records.monitoring import ALERT_DETAIL, AlertDetail
from whet.tables import alerts


@dataclass(frozen=True)
class Alert:
    """A row of `alerts`."""

    id: str
    dedup_key: str
    alias: str
    kind: str
    severity: str
    title: str
    detail: AlertDetail
    state: str  # open | acknowledged | expected | resolved
    opened_at: int
    changed_at: int
    changed_by: str | None
    open_marker: str | None
    owner: str | None = None
    snoozed_until: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is open or acknowledged."""
        return self.open_marker is not None

    def as_json(self) -> JsonObject:
        """Return what programs are told."""
        return {**vars(self), "detail": ALERT_DETAIL.encode(self.detail)}


def alert_of(row: RowMapping) -> Alert:
    """Return a row's alert; one without a detail is an alert too."""
    return Alert(**{**row, "detail": ALERT_DETAIL.decode(row["detail"]) or AlertDetail()})


def load_alerts(connection: Connection, query: Select[*tuple[object, ...]]) -> list[Alert]:
    """Return the alerts of a query for whole rows."""
    return [alert_of(row) for row in connection.execute(query).mappings()]


def alerts_where(connection: Connection, *conditions: ColumnElement[bool]) -> list[Alert]:
    """Return the alerts for which all conditions hold."""
    return load_alerts(connection, select(alerts).where(*conditions))


def open_alerts(connection: Connection, alias: str = "") -> list[Alert]:
    """Return open and acknowledged alerts, of one alias or of all."""
    is_of = [alerts.c.alias == alias] if alias else []
    return alerts_where(connection, alerts.c.open_marker.is_not(None), *is_of)


def alerts_of_kind(connection: Connection, alias: str, kind: str) -> list[Alert]:
    """Return the alerts of an alias of one kind, whatever became of them."""
    return alerts_where(connection, alerts.c.alias == alias, alerts.c.kind == kind)


def list_alerts(
    connection: Connection,
    alias: str | None = None,
    *,
    only_open: bool = False,
    only_closed: bool = False,
    limit: int = 50,
) -> list[Alert]:
    """Return alerts, open ones first, then newest first."""
    query = (
        select(alerts)
        .order_by(alerts.c.open_marker.is_(None), alerts.c.opened_at.desc(), alerts.c.id.desc())
        .limit(limit)
    )
    if alias:
        query = query.where(alerts.c.alias == alias)
    if only_open:
        query = query.where(alerts.c.open_marker.is_not(None))
    if only_closed:
        query = query.where(alerts.c.open_marker.is_(None))
    return load_alerts(connection, query)


def find_alert(connection: Connection, alert_id: str) -> Alert:
    """Return one alert. Raises NotFoundError."""
    found = alerts_where(connection, alerts.c.id == alert_id)
    if not found:
        raise NotFoundError(
            f"There is no alert {alert_id!r}.", hint="`whet alerts list` prints them."
        )
    return found[0]


def change_detail(connection: Connection, alert_id: str, changes: dict[str, object]) -> None:
    """Change fields of what an alert rests on, read and written in the caller's transaction."""
    query = select(alerts.c.detail).where(alerts.c.id == alert_id).with_for_update()
    detail = ALERT_DETAIL.decode(connection.scalar(query)) or AlertDetail()
    changed = ALERT_DETAIL.encode(detail.model_copy(update=changes))
    connection.execute(update(alerts).where(alerts.c.id == alert_id).values(detail=changed))
