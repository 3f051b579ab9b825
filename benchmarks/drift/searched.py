"""`python -m benchmarks.drift.searched`: services that search a collection of documents.

How many days until a loss of documents and a topic without documents open an incident of the
search's own signals, and whether the columns of searches raise incidents in stationary worlds that
the same worlds without these columns do not have. Writes `results/searches.json` and the tables of
SEARCHES.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.document import put_between_markers
from benchmarks.drift.__main__ import _commit
from benchmarks.drift.ours import NullRun, run_null, run_shifts, summarise_shifts
from benchmarks.drift.worlds import NULLS, SEARCH_SHIFTS

_HERE = Path(__file__).parent
_RESULTS, _DOCUMENT = _HERE / "results" / "searches.json", _HERE / "SEARCHES.md"
_BEGIN, _END = "<!-- searches: begin -->", "<!-- searches: end -->"
VOLUME = 2000  # requests a weekday
MOST_DAYS = 2  # of the median delay
# What the incident has to name as its cause, on the day it opens.
CAUSES = {
    "documents lost 10 %": "documents_missing",
    "new topic 8 % without documents": "subject_without_documents",
}
_PREFIX = "retrieval_"
_OVERLAP = "context_overlap"


def main(given: list[str] | None = None) -> int:
    """0: found in time, and nothing new in stationary worlds; 1: not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="services with a change")
    parser.add_argument("--null-seeds", type=int, default=2, help="services of each world without")
    parser.add_argument("--days", type=int, default=100, help="judged days of each of these")
    parser.add_argument("--machine", default="", help="what to call this machine in the tables")
    options = parser.parse_args(given)
    began = time.process_time()
    shifts: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        shifts += run_shifts(list(SEARCH_SHIFTS), VOLUME, seed, searches=True)
        for run in shifts[-len(SEARCH_SHIFTS) :]:
            print(
                f"seed {seed}: {run['shift']}: day {run['delay']}, {run.get('signals')}", flush=True
            )
    nulls = [
        _compare(world, seed, options.days) for world in NULLS for seed in range(options.null_seeds)
    ]
    results = {
        "at": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": _commit(),
        "machine": options.machine,
        "command": f"python -m benchmarks.drift.searched --seeds {options.seeds} --null-seeds"
        f" {options.null_seeds} --days {options.days}",
        "load": round(os.getloadavg()[0], 1),
        "processor_minutes": round((time.process_time() - began) / 60, 1),
        "shifts": shifts,
        "nulls": nulls,
    }
    _RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    text = put_between_markers(_DOCUMENT.read_text(), tables(results), _BEGIN, _END)
    _DOCUMENT.write_text(text)
    return 0 if is_met(results) else 1


def _compare(world: str, seed: int, days: int) -> dict[str, Any]:
    """Run a stationary world with the columns of searches; again without where it had incidents."""
    searched = run_null(world, VOLUME, seed, days, searches=True)
    plain = run_null(world, VOLUME, seed, days) if searched.incidents else None
    result = {
        "world": world,
        "seed": seed,
        "days": searched.days,
        "incidents": searched.incidents,
        "without": plain.incidents if plain else [],
        "new": _new(searched, plain),
    }
    print(f"{world}, seed {seed}: {result['incidents']}, new {result['new']}", flush=True)
    return result


def _new(searched: NullRun, plain: NullRun | None) -> list[dict[str, Any]]:
    """Return the incidents that hold a search's signal or begin on a day without one before."""
    known = {incident["day"] for incident in plain.incidents} if plain else set()
    return [
        incident
        for incident in searched.incidents
        if incident["day"] not in known or any(map(is_of_search, incident["signals"]))
    ]


def is_of_search(signal: str) -> bool:
    return signal.startswith(_PREFIX) or signal == _OVERLAP


def is_met(results: Mapping[str, Any]) -> bool:
    """Tell whether each change is found and named in time, and stationary worlds stay quiet."""
    in_time = all((run["delay"] or MOST_DAYS + 1) <= MOST_DAYS for run in results["shifts"])
    named = all(run.get("cause") == CAUSES[run["shift"]] for run in results["shifts"])
    return in_time and named and not any(run["new"] for run in results["nulls"])


def tables(results: Mapping[str, Any]) -> str:
    """Return the Markdown of both tables."""
    stamp = (
        f"Recorded {results['at']} at commit `{results['commit']}` with `{results['command']}`, "
        f"{results['processor_minutes']:g} minutes of processor time, {results['machine']}."
    )
    lines = [
        f"**A change in a service of {VOLUME:,} requests a day**; days until an incident holds one"
        " of the search's signals.",
        "",
        "| change | services | found | median day | 90 % | signal and topic right | cause right |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(_shift_row(row, results["shifts"]) for row in summarise_shifts(results["shifts"])),
        *(_null_lines(results["nulls"]) if results["nulls"] else ()),
        "",
        stamp,
    ]
    return "\n".join(lines)


def _shift_row(row: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    mine = [run for run in runs if run["shift"] == row["shift"]]
    causes = sum(run.get("cause") == CAUSES[row["shift"]] for run in mine)
    return (
        f"| {row['shift']} | {row['seeds']} | {row['found']} | {_day(row['median_delay'])} |"
        f" {_day(row['p90_delay'])} | {row['attributed']} | {causes} |"
    )


def _day(value: float | None) -> str:
    return f"{value:g}" if value is not None else "over 30"


def _null_lines(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "",
        "**Stationary worlds**: false incidents with the columns of searches, and those that the"
        " same world without them does not have.",
        "",
        "| world | services | judged days | incidents | of them new |",
        "|---|---:|---:|---:|---:|",
        *_null_rows(runs),
    ]


def _null_rows(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for world in dict.fromkeys(run["world"] for run in runs):
        mine = [run for run in runs if run["world"] == world]
        counts = (
            len(mine),
            sum(run["days"] for run in mine),
            sum(len(run["incidents"]) for run in mine),
            sum(len(run["new"]) for run in mine),
        )
        rows.append(f"| {world} | {' | '.join(f'{count:,}' for count in counts)} |")
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
