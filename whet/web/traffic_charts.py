"""The charts of traffic as Overview, Traffic and the pages of aliases ask for them."""

from __future__ import annotations

from urllib.parse import urlencode

from sqlalchemy import Connection

from whet.traffic_marks import load_marks
from whet.traffic_series import (
    TrafficFilter,
    choose_range,
    load_series,
    stale_since,
)
from whet.web.charts import TrafficCharts, draw_traffic


def load_traffic_charts(
    connection: Connection,
    period: str,
    now: int,
    only: TrafficFilter = TrafficFilter(),  # frozen
    *,
    filters: dict[str, str] | None = None,
    chosen: tuple[int, int] | None = None,
) -> TrafficCharts:
    """Read and draw the traffic of a period: per version where an alias is chosen.

    `filters`: of the page Traffic, which the links to it keep. `chosen` (ms): drawn as such.
    """
    shown = choose_range(period, now)
    by_version = bool(only.alias) or only.version is not None

    def link(start: int, end: int) -> str:
        wanted = {"alias": only.alias, **(filters or {})}
        given = {name: value for name, value in wanted.items() if value}
        given["since"] = shown.name
        return "/traffic?" + urlencode(given | {"start": str(start), "end": str(end)})

    return draw_traffic(
        shown,
        load_series(connection, shown, only, by_version=by_version),
        load_marks(
            connection,
            shown.start_at,
            shown.end_at,
            "" if only.alias == "(none)" else only.alias,
        ),
        by_version=by_version,
        link=link,
        chosen=chosen,
        stale_since=stale_since(connection, now),
    )
