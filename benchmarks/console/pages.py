"""`python -m benchmarks.console.pages`: server time of every page and of searches.

Asks the console of an installation that `benchmarks.console.fill` filled, in this process and one
request at a time. Prints the median and the 95th percentile of wall and of processor time (ms): on
a machine that others use, the second is the server's own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import select

from tests.web import console_client
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading
from whet.settings import load_settings
from whet.tables import alerts, datasets, interactions, review_items, training_runs

_WORDS = ("refund", "the", "parcel", "zodiac", "the of", "order parcel refund", "warranty crack")
SEARCHES = (
    *({"q": word} for word in _WORDS),
    {"q": '"where is my parcel"'},
    {"q": "parcel -refund"},
    {"q": "refun*"},
    {"q": "nosuchwordatall"},
    {"q": "the tag:feature=mail"},
    {"q": "refund", "alias": "billing"},
    {"q": "zodiac", "version": "7"},
    {"q": "the", "status": "error"},
    {"q": "repair", "rating": "down"},
    {"q": "user:user-77"},
    {"q": "order user:user-77"},
    {"status": "error"},
    {"rating": "down", "alias": "sales"},
    {"version": "3"},
    {"q": "refund", "sort": "duration"},
    {"q": "the", "sort": "ttft"},
    {"sort": "-tokens"},
)  # fmt: skip


def main() -> int:
    """Measure the installation of WHET_HOME and WHET_DATABASE_URL; one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", choices=("pages", "searches"), default="")
    given = parser.parse_args()
    context = open_context(load_settings())
    client = console_client(context, "admin", clock=now_ms)
    asked: list[tuple[str, str, dict[str, str]]] = []
    if given.only != "searches":
        asked += [("page", path, {}) for path in _paths(context)]
    if given.only != "pages":
        asked += [("search", "/traffic", {"since": "all", **search}) for search in SEARCHES]
    for kind, path, values in asked:
        figures = _measure(lambda: client.get(path, params=values), given.times)  # noqa: B023
        line = {"kind": kind, "path": path, **values, **figures}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    context.close()
    return 0


def _measure(ask: Callable[[], Any], times: int) -> dict[str, Any]:
    wall, processor, status = [], [], 0
    for at in range(times + 1):
        began, began_cpu = time.perf_counter(), time.process_time()
        status = ask().status_code
        if at:  # the first fills caches that a running console has
            wall.append(1000 * (time.perf_counter() - began))
            processor.append(1000 * (time.process_time() - began_cpu))
    return {
        "http_status": status,
        "wall_p50": round(statistics.median(wall), 1),
        "wall_max": round(max(wall), 1),
        "cpu_p50": round(statistics.median(processor), 1),
        "cpu_max": round(max(processor), 1),
    }


def _paths(context: Context) -> list[str]:
    with reading(context.database) as connection:
        newest = interactions.c.created_at.desc()
        conversation = connection.execute(select(interactions.c.id).order_by(newest).limit(1))
        ids = {
            "traffic": conversation.scalar(),
            "incident": connection.execute(select(alerts.c.id).limit(1)).scalar(),
            "dataset": connection.execute(select(datasets.c.digest).limit(1)).scalar(),
            "run": connection.execute(select(training_runs.c.id).limit(1)).scalar(),
            "item": connection.execute(select(review_items.c.id).limit(1)).scalar(),
        }
    return [
        "/", "/overview/live", "/overview/charts", "/health", "/traffic", "/traffic?since=all", "/traffic?since=30d",
        "/traffic?alias=support&since=all", f"/traffic/{ids['traffic']}", "/review", "/review/part", "/review/agreement", "/drift/gaps", "/health/live", "/runs/live",
        "/review/list", "/review/list?state=all", f"/review/item/{ids['item']}", "/datasets",
        f"/drift/incidents/{ids['incident']}", "/drift", "/documents", "/runs", f"/runs/{ids['run']}",
        "/adapters", "/adapters/support", "/adapters/support/live", "/playground", "/settings",
        "/settings/audit", "/settings/people", "/settings/keys",
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
