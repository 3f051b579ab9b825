"""Overview, System health, and what programs may ask of the product's health."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import replace

from fastapi import APIRouter, Depends, Request
from sqlalchemy.exc import OperationalError
from starlette.responses import JSONResponse, Response

from whet.database import reading as database_reading
from whet.health.action_items import find_action_items, headline, headline_since
from whet.health.processes import list_processes
from whet.health.reading import load_reading
from whet.health.records import ActionItem, HealthReading
from whet.health.version_summary import AliasState
from whet.traffic_series import DEFAULT_PERIOD, PERIODS
from whet.web.loop_stages import loop_stages
from whet.web.shell import Shell
from whet.web.traffic_charts import load_traffic_charts

_PAGE = "/health#"
_SHARED_S = 2.0  # pages that follow ask every 5 s
_ALIASES_S = 30.0  # how versions do is read from 20,000 answers of each alias


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Overview", "/", "overview", 0)
    shell.add_page("System health", "/health", "health", 80)
    routes = APIRouter(dependencies=[Depends(shell.require("viewer"))])
    readings = Readings(shell)

    @routes.get("/")
    def overview(request: Request, since: str = DEFAULT_PERIOD) -> Response:
        """The loop at a glance, what needs a person, how each alias does; traffic over time."""
        values = _values(shell, readings.fresh_examples(), *readings.fresh())
        return shell.render(request, "shell/overview.html", **values, **_chart_values(shell, since))

    @routes.get("/overview/charts")
    def charts(request: Request, since: str = DEFAULT_PERIOD) -> Response:
        """Traffic over time as a part that follows what happens."""
        return shell.render(request, "shell/overview_charts.html", **_chart_values(shell, since))

    @routes.get("/overview/live")
    def live(request: Request) -> Response:
        """Overview as a part that follows what happens."""
        return shell.render(
            request,
            "shell/overview_live.html",
            **_values(shell, readings.recent_examples(), *readings.recent()),
        )

    @routes.get("/health")
    def health(request: Request) -> Response:
        """What does not work, since when and what to do; every process, job and disk."""
        return shell.render(request, "shell/health.html", **_health_values(*readings.fresh()))

    @routes.get("/health/live")
    def health_live(request: Request) -> Response:
        """System health as a part that follows what happens."""
        return shell.render(request, "shell/health_live.html", **_health_values(*readings.recent()))

    @routes.get("/api/health")
    def api_health() -> JSONResponse:
        """What needs a person, most urgent first."""
        _, items = readings.fresh()
        return JSONResponse({"items": [item.as_json() for item in items]})

    together = APIRouter()
    together.include_router(routes)
    _add_readiness(together, shell, readings)
    return together


def _add_readiness(routes: APIRouter, shell: Shell, readings: Readings) -> None:
    @routes.get("/readyz", dependencies=[Depends(shell.public())])
    def readyz() -> JSONResponse:
        """Whether the console can work, with the codes of what is dead, stalled or full."""
        try:
            _, items = readings.recent()
        except OperationalError:
            return JSONResponse({"status": "unavailable", "problems": ["database"]}, 503)
        problems = sorted({item.code for item in items if item.kind == "bad"})
        return JSONResponse({"status": "ok", "problems": problems})


class FirstSeen:
    """Since when this console has seen an item that has no time of its own, such as a full disk."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}  # address of the item → ms

    def complete(self, items: list[ActionItem], now: int) -> list[ActionItem]:
        """Fill in `since`; what is over is forgotten."""
        timeless = [item for item in items if item.since is None and item.href.startswith(_PAGE)]
        self._at = {item.href: self._at.get(item.href, now) for item in timeless}
        return [
            replace(item, since=self._at[item.href]) if item in timeless else item for item in items
        ]


class Readings:
    """Readings of one console; whoever polls shares one with all others who do."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._first_seen = FirstSeen()
        self._lock = threading.Lock()
        self._last: tuple[HealthReading, list[ActionItem]] | None = None
        self._last_at = self._aliases_at = self._examples_at = -math.inf
        self._examples: Mapping[str, int] = {}

    def fresh(self) -> tuple[HealthReading, list[ActionItem]]:
        """Read now. Raises OperationalError when the database does not answer."""
        with self._lock:
            return self._read(None)

    def recent(self) -> tuple[HealthReading, list[ActionItem]]:
        """Return a reading of the last two seconds."""
        with self._lock:
            age_s = time.monotonic() - self._last_at
            if self._last is not None and age_s <= _SHARED_S:
                return self._last
            is_young = time.monotonic() - self._aliases_at <= _ALIASES_S
            return self._read(self._last[0].aliases if self._last and is_young else None)

    def fresh_examples(self) -> Mapping[str, int]:
        """Count the new examples of every alias now, as the Datasets page does."""
        self._examples = self._shell.count_new_examples()
        self._examples_at = time.monotonic()
        return self._examples

    def recent_examples(self) -> Mapping[str, int]:
        """Return a count of the last half minute: after a decision it assembles a version."""
        is_young = time.monotonic() - self._examples_at <= _ALIASES_S
        return self._examples if is_young else self.fresh_examples()

    def _read(self, aliases: list[AliasState] | None) -> tuple[HealthReading, list[ActionItem]]:
        reading = load_reading(self._shell.context, self._shell.now(), aliases)
        if aliases is None:
            self._aliases_at = time.monotonic()
        items = self._first_seen.complete(find_action_items(reading), reading.now)
        self._last, self._last_at = (reading, items), time.monotonic()
        return reading, items


def _values(
    shell: Shell, new_examples: Mapping[str, int], reading: HealthReading, items: list[ActionItem]
) -> dict[str, object]:
    settings = shell.context.settings
    return {
        "reading": reading,
        "aliases": reading.aliases,
        "items": items,
        "stages": loop_stages(reading, new_examples),
        "processes": list_processes(reading),
        "headline": headline(reading, items),
        "headline_since": headline_since(items),
        "is_new": reading.is_new,
        "gateway_url": f"http://{settings.gateway_host}:{settings.gateway_port}",
        "settings": settings,
    }


def _chart_values(shell: Shell, since: str) -> dict[str, object]:
    with database_reading(shell.context.database) as connection:
        charts_of = load_traffic_charts(connection, since, shell.now())
    return {"charts_of": charts_of, "ranges": PERIODS}


def _health_values(reading: HealthReading, items: list[ActionItem]) -> dict[str, object]:
    mine = [item for item in items if item.href.startswith(_PAGE)]
    return {
        "reading": reading,
        "items": mine,
        "processes": list_processes(reading),
        "headline": mine[0].sentence.rstrip(".") if mine else "Every process works",
        "headline_since": mine[0].since if mine else None,
    }
