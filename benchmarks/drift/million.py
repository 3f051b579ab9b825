"""A day of very many requests in the product's own database: `python -m benchmarks.drift.million
build|judge HOME ROWS`.

`build` writes seven weeks of 2,000 requests a day and lets the product take them in, then one day
of ROWS requests. `judge` takes that day in as the scheduler does and prints seconds and peak memory
of its process as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from benchmarks.drift.worlds import World
from monitoring.dayjob import run_alias
from monitoring.days import DAY_MS
from monitoring.detector.columns import Table
from whet.context import Context, open_context
from whet.database import writing
from whet.ids import new_id
from whet.settings import load_settings
from whet.tables import interactions

ALIAS, FIRST = "support", 20_000
DAYS = 49  # before the large one
_AT_ONCE = 5_000  # rows of one insert
_REFUSAL, _ANSWER = (
    "I'm sorry, but I cannot help with that.",
    "Thank you for asking. Please send it to our workshop; a spare part is on its way.",
)


def build(home: Path, rows: int) -> None:
    """The database before the large day is judged."""
    context = open_context(load_settings(home=home))
    service, large = World(0, 2000, texts=True), World(1, rows, texts=True)
    for day in range(DAYS):
        _insert(context, FIRST + day, service.day(day))
    run_alias(context, ALIAS, _after(FIRST + DAYS - 1))
    _insert(context, FIRST + DAYS, large.day(DAYS))
    context.close()


def judge(home: Path) -> dict[str, float]:
    """Take the large day in."""
    context = open_context(load_settings(home=home))
    began, cpu = time.monotonic(), time.process_time()
    days, _ = run_alias(context, ALIAS, _after(FIRST + DAYS))
    if days != 1:
        raise SystemExit(f"expected to judge one day, judged {days}")
    wall, spent = time.monotonic() - began, time.process_time() - cpu
    context.close()
    return {
        "wall_s": round(wall, 2),
        "cpu_s": round(spent, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _after(day: int) -> int:
    return (day + 1) * DAY_MS + 2 * 3_600_000


def _insert(context: Context, day: int, table: Table) -> None:
    batch: list[dict[str, Any]] = []
    for row in _rows(day, table):
        batch.append(row)
        if len(batch) == _AT_ONCE:
            _write(context, batch)
            batch = []
    if batch:
        _write(context, batch)


def _write(context: Context, batch: list[dict[str, Any]]) -> None:
    with writing(context.database) as connection:
        connection.execute(insert(interactions), batch)


def _rows(day: int, table: Table) -> Iterator[dict[str, Any]]:
    """Rows of the log as the gateway's drain writes them, spread over the day."""
    of = {
        name: table.columns[name]
        for name in (
            "prompt",
            "user",
            "prompt_tokens",
            "completion_tokens",
            "ttft_ms",
            "time_per_token_ms",
            "refusal",
            "finish_reason",
        )
    }
    at = day * DAY_MS + np.linspace(0, DAY_MS - 1, len(table)).astype(np.int64)
    for n in range(len(table)):
        said = _REFUSAL if of["refusal"][n] else _ANSWER
        instant, tokens = int(at[n]), max(1, int(of["completion_tokens"][n]))
        took = float(of["ttft_ms"][n] + tokens * of["time_per_token_ms"][n])
        yield {
            "id": new_id("int", at=instant),
            "request_id": f"r{day}-{n}",
            "created_at": instant,
            "completed_at": instant + int(took),
            "api_key_id": "key_1",
            "end_user": str(of["user"][n]),
            "route": "chat",
            "model": ALIAS,
            "alias": ALIAS,
            "adapter": ALIAS,
            "version": 1,
            "adapter_digest": "d" * 64,
            "arm": "stable",
            "rollout_generation": 1,
            "replica": "http://127.0.0.1:8001",
            "stream": True,
            "status": "complete",
            "http_status": 200,
            "error": None,
            "finish_reason": str(of["finish_reason"][n]),
            "request": {
                "model": ALIAS,
                "messages": [{"role": "user", "content": str(of["prompt"][n])}],
            },
            "response": {"role": "assistant", "content": said},
            "response_text": said,
            "response_sha256": "0" * 64,
            "prompt_tokens": max(1, int(of["prompt_tokens"][n])),
            "completion_tokens": tokens,
            "ttft_ms": float(of["ttft_ms"][n]),
            "duration_ms": took,
            "retrieved": None,
            "metadata": None,
        }


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        print(json.dumps(judge(Path(sys.argv[2]))))
