"""`python -m benchmarks.drift`: simulate, write the results, update the tables in README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.document import put_between_markers
from benchmarks.drift import hourly
from benchmarks.drift.audits import SERVICES, run_service
from benchmarks.drift.figures import BEGIN, END, failures, table
from benchmarks.drift.leads import PLANTED, run_leads, run_two, summarise_leads
from benchmarks.drift.ours import (
    PAIRS,
    run_null,
    run_pairs,
    run_power,
    run_shifts,
    summarise_nulls,
    summarise_shifts,
)
from benchmarks.drift.peers import prepare_river, run_peers
from benchmarks.drift.refusals import run_refusals
from benchmarks.drift.worlds import GROSS, HOUR_NULLS, NULLS, SHIFTS
from whet.errors import WhetError

_HERE = Path(__file__).parent
_REPOSITORY = _HERE.parents[1]
PARTS = (
    "nulls",
    "shifts",
    "hours",
    "texts",
    "cold",
    "audit",
    "leads",
    "refusals",
    "peers",
    "scale",
)
_USUAL_WORLD = "clustered, weekly"  # in which shifts begin
_BY_VOLUME = ("nulls", "shifts")  # recorded for each volume
_HEADLINES = (
    "refusal x2",
    "TTFT +20 %",
    "new topic 8 %",
    "language +5 points",
    "log-probability -10 % ramp",
)
Say = Callable[[str], None]


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument(
        "--parts",
        default=",".join(PARTS),
        help=f"comma-separated, of: {', '.join(PARTS)} (default all)",
    )
    parser.add_argument(
        "--seeds", type=int, default=10, help="worlds per setting, seeds 0, 1, … (default 10)"
    )
    parser.add_argument(
        "--days", type=int, default=100, help="judged days of each stationary world (default 100)"
    )
    parser.add_argument(
        "--volumes", default="200,2000,20000", help="requests per weekday (default 200,2000,20000)"
    )
    parser.add_argument("--worlds", default=",".join(NULLS), help="stationary worlds (default all)")
    parser.add_argument("--shifts", default=",".join(SHIFTS), help="shifts (default all)")
    parser.add_argument(
        "--shift-world",
        default=_USUAL_WORLD,
        choices=sorted(NULLS),
        help="stationary world in which shifts begin (default clustered, weekly)",
    )
    parser.add_argument(
        "--pairs", type=int, default=200, help="pairs per size of the cold-start test (default 200)"
    )
    parser.add_argument(
        "--weeks",
        type=int,
        default=500,
        help="simulated weeks of each service of the audit (default 500)",
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        help="requests of the large day of `scale` (default 1,000,000)",
    )
    parser.add_argument(
        "--peer-seeds", type=int, default=2, help="worlds of the peers, which cost most (default 2)"
    )
    parser.add_argument(
        "--few-seeds",
        type=int,
        default=2,
        help="worlds at the largest volume and with texts (default 2)",
    )
    parser.add_argument(
        "--hour-seeds",
        type=int,
        default=4,
        help="services of each kind of the part hours (default 4)",
    )
    parser.add_argument(
        "--hour-volumes", default="20000", help="their requests per weekday (default 20000)"
    )
    parser.add_argument(
        "--lead-seeds", type=int, default=5, help="services of the part leads (default 5)"
    )
    parser.add_argument(
        "--lead-volume", type=int, default=1000, help="their requests per weekday (default 1000)"
    )
    parser.add_argument("--first-seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=os.environ.get("WHET_BENCH_CACHE", _REPOSITORY / ".bench"),
        help="folder for river's environment",
    )
    parser.add_argument(
        "--no-record",
        action="store_true",
        help="print the tables; leave results/ and README.md alone",
    )
    options = parser.parse_args(given)
    for name, known in (("parts", PARTS), ("worlds", tuple(NULLS)), ("shifts", tuple(SHIFTS))):
        # World names hold commas, so a list of them is separated by semicolons when it has any.
        text = getattr(options, name)
        chosen = (
            list(known)
            if text == ",".join(known)
            else [
                part.strip()
                for part in text.split(";" if ";" in text or text in known else ",")
                if part.strip()
            ]
        )
        if unknown := set(chosen) - set(known):
            parser.error(f"--{name}: {', '.join(sorted(unknown))} not among {'; '.join(known)}")
        setattr(options, name, chosen)
    options.volumes = [int(part) for part in options.volumes.split(",") if part]
    options.hour_volumes = [int(part) for part in options.hour_volumes.split(",") if part]
    if (
        min(
            options.hour_seeds,
            options.seeds,
            options.days,
            options.pairs,
            options.weeks,
            options.peer_seeds,
            options.few_seeds,
        )
        < 1
    ):
        parser.error("counts have to be positive")
    return options


def pause() -> None:
    """Wait while the file named by WHET_BENCH_PAUSE exists: on a shared machine somebody else may
    be measuring.
    """
    held = os.environ.get("WHET_BENCH_PAUSE")
    while held and Path(held).exists():
        time.sleep(5)


def _seeds(options: argparse.Namespace, volume: int) -> range:
    count = min(options.seeds, options.few_seeds) if volume > 5_000 else options.seeds
    return range(options.first_seed, options.first_seed + count)


def _nulls(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    runs = []
    for world in options.worlds:
        for seed in _seeds(options, options.volume):
            pause()
            runs.append(run_null(world, options.volume, seed, options.days).plain())
            found = [one["signals"] for one in runs[-1]["incidents"]]
            say(
                f"{world}, {options.volume:,} a day, seed {seed}: {len(found)} false incidents"
                f" {found}"
            )
    return {"runs": runs, "summary": summarise_nulls(runs)}


def _shifts(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    runs = []
    for seed in _seeds(options, options.volume):
        pause()
        runs += run_shifts(options.shifts, options.volume, seed, world=options.shift_world)
        say(
            f"{options.volume:,} a day, seed {seed}: "
            + ", ".join(f"{run['shift']} {run['delay']}" for run in runs[-len(options.shifts) :])
        )
    return {"runs": runs, "summary": summarise_shifts(runs)}


def _hours(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """With hours of the day; the worlds and changes of `hourly`, by --hour-volumes and
    --hour-seeds.
    """
    nulls, shifts = [], []
    for volume in options.hour_volumes:
        for seed in range(options.first_seed, options.first_seed + options.hour_seeds):
            for world in HOUR_NULLS:
                pause()
                nulls.append(hourly.run_null(world, volume, seed, options.days))
                found = [(one["hour"], one["signals"]) for one in nulls[-1]["incidents"]]
                say(
                    f"hours, {world}, {volume:,} a day, seed {seed}: {len(found)} false incidents"
                    f" {found}, {nulls[-1]['judged_hours']} hours judged"
                )
            pause()
            shifts += hourly.run_gross(list(GROSS), volume, seed)
            say(
                f"hours, {volume:,} a day, seed {seed}: "
                + ", ".join(
                    f"{run['shift']} {run['hours']} ({run['days']})"
                    for run in shifts[-len(GROSS) :]
                )
            )
    return {
        "null_runs": nulls,
        "shift_runs": shifts,
        "null_summary": hourly.summarise_nulls(nulls),
        "shift_summary": hourly.summarise_gross(shifts),
    }


def _texts(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    nulls, shifts = [], []
    topics = [name for name in options.shifts if SHIFTS[name].topic or name.startswith("topics")]
    for seed in range(options.first_seed, options.first_seed + options.few_seeds):
        pause()
        nulls.append(run_null("clustered, weekly", 2000, seed, options.days, texts=True).plain())
        say(f"texts, seed {seed}: {len(nulls[-1]['incidents'])} false incidents")
        pause()
        shifts += run_shifts(topics, 2000, seed, texts=True)
        say(
            f"texts, seed {seed}: "
            + ", ".join(
                f"{run['shift']} {run['delay']} {run.get('words', '')}"
                for run in shifts[-len(topics) :]
            )
        )
    return {
        "null_runs": nulls,
        "shift_runs": shifts,
        "null_summary": summarise_nulls(nulls),
        "shift_summary": summarise_shifts(shifts),
    }


def _cold(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    pairs = []
    for before, after in PAIRS:
        pairs.append(run_pairs(before, after, options.pairs, options.first_seed, pause))
        say(f"cold start {pairs[-1]}")
    power = [
        run_power(rows, max(10, options.pairs // 10), options.first_seed, pause)
        for rows in (1_000, 5_000)
    ]
    say(f"cold start {power}")
    return {"pairs": pairs, "power": power}


def _audit(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    summary = []
    for service in SERVICES:
        pause()
        summary.append(run_service(service, options.weeks, options.first_seed))
        say(f"audit {summary[-1]}")
    return {"services": summary}


def _leads(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Every planted change in services of --lead-seeds, and pairs of changes ten days apart."""
    seeds = range(options.first_seed, options.first_seed + options.lead_seeds)
    runs = []
    for seed in seeds:
        runs += run_leads([seed], options.lead_volume, pause)
        say(f"leads, seed {seed}: {summarise_leads(runs[-len(PLANTED) :], [])}")
    pairs = run_two(seeds, options.lead_volume, pause)
    say(f"leads, pairs {pairs}")
    return {"runs": runs, "pairs": pairs, "summary": summarise_leads(runs, pairs)}


def _refusals(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    made = run_refusals()
    say(f"refusals {made['cpu_ms_per_1000']}")
    return made


def _peers(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    python = prepare_river(options.cache.absolute())
    with tempfile.TemporaryDirectory(prefix="whet-drift-") as scratch:
        shifts = [name for name in _HEADLINES if name in options.shifts]
        worlds = [name for name in ("independent", "clustered, weekly") if name in options.worlds]
        seeds = range(options.first_seed, options.first_seed + options.peer_seeds)
        found = run_peers(
            seeds, 2000, worlds, shifts, min(options.days, 50), python, Path(scratch), pause
        )
    say(f"peers: {len(found['nulls'])} stationary and {len(found['delays'])} shifted runs")
    return found


def _scale(options: argparse.Namespace, say: Say) -> dict[str, Any]:
    """In processes of their own, whose peak memory is then theirs."""
    rows = options.rows
    figures: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory(prefix="whet-drift-") as scratch:
        home = f"{scratch}/home"
        Path(home).mkdir()
        for name, arguments in (
            ("build", ["million", "build", home, str(rows)]),
            ("product", ["million", "judge", home, str(rows)]),
            ("table", ["scale", "table", str(rows)]),
            ("whet", ["scale", "whet", str(rows)]),
            ("evidently", ["scale", "evidently", str(rows)]),
        ):
            pause()
            done = subprocess.run(
                [sys.executable, "-m", f"benchmarks.drift.{arguments[0]}", *arguments[1:]],
                capture_output=True,
                text=True,
                cwd=_REPOSITORY,
                check=False,
            )
            if done.returncode:
                raise WhetError(f"The run of {name} failed: {done.stderr.strip()[-300:]}")
            if name != "build":
                figures[name] = json.loads(done.stdout)
                say(f"scale, {name}: {figures[name]}")
    figures["product"]["rows"] = rows
    figures["table_mib"] = figures.pop("table")["peak_mib"]
    return figures


_RUNS = {
    "nulls": _nulls,
    "shifts": _shifts,
    "hours": _hours,
    "texts": _texts,
    "cold": _cold,
    "audit": _audit,
    "leads": _leads,
    "refusals": _refusals,
    "peers": _peers,
    "scale": _scale,
}


def main(given: list[str] | None = None) -> int:
    """Exit code 0: every target that was measured is met; 1: one is missed, which is in the
    results; 2: it could not run.
    """
    arguments = sys.argv[1:] if given is None else given
    options = _arguments(arguments)
    recorded = {} if options.no_record else _recorded()
    wanted = [
        (name, volume)
        for name in options.parts
        for volume in (options.volumes if name in _BY_VOLUME else [0])
    ]
    for name, volume in wanted:
        options.volume = volume
        began, cpu = time.monotonic(), time.process_time()
        identity = {
            "started_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "commit": _commit(),
            "world": options.shift_world if name == "shifts" else "",
            "command": " ".join(
                [
                    "python -m benchmarks.drift",
                    *(f"'{part}'" if " " in part else part for part in arguments),
                ]
            ),
            "cores": os.cpu_count() or 1,
        }
        try:
            made = _RUNS[name](options, lambda line: print(line, flush=True))
        except WhetError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        recorded[_key(name, volume, identity["world"])] = (
            identity
            | {
                "minutes": round((time.monotonic() - began) / 60, 1),
                "cpu_minutes": round((time.process_time() - cpu) / 60, 1),
            }
            | made
        )
        if not options.no_record:
            _record(recorded)
    print(table(recorded))
    return 1 if failures(recorded) else 0


def _key(part: str, volume: int, world: str) -> str:
    """Under which a part is recorded: changes in another world do not replace those in the usual."""
    other = f"-{world}" if world not in ("", _USUAL_WORLD) else ""
    return f"{part}-{volume}{other}" if volume else part


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--match="],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def _recorded() -> dict[str, Any]:
    path = _HERE / "results" / "latest.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _record(parts: dict[str, Any]) -> None:
    """Each part with its own time and command: parts may be run on different days."""
    path = _HERE / "results" / "latest.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(parts, indent=1, ensure_ascii=False) + "\n")
    readme = _HERE / "README.md"
    readme.write_text(put_between_markers(readme.read_text(), table(parts), BEGIN, END))


if __name__ == "__main__":
    raise SystemExit(main())
