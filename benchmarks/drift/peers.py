"""What others do with the same days: Evidently's default preset, corrected two-sample tests, ADWIN
and Page-Hinkley.

Each gives one yes or no per day. A run of yes days is one incident, which is the kinder way to
count for a method without memory.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency, ks_2samp

from benchmarks.drift.worlds import SHIFTS, World
from benchmarks.errors import BenchmarkError
from monitoring.detector.columns import Table
from monitoring.statistics import holm

_LISTS = Path(__file__).parent / "peers"
_CHILD = Path(__file__).parent / "river_child.py"
_REFERENCE_DAYS = 7
_ALPHA = 0.05
NUMBERS = ("prompt_tokens", "completion_tokens", "ttft_ms", "time_per_token_ms", "logprob")
CATEGORIES = ("refusal", "schema_failure", "repetition", "finish_reason", "language", "route")
STREAMS = ("prompt_tokens", "ttft_ms", "logprob", "refusal")
NAMES = {
    "evidently_any": "Evidently default, any column",
    "evidently_dataset": "Evidently default, half of the columns",
    "holm": "KS and chi-squared, Holm 5 %",
    "adwin": "ADWIN (river default)",
    "page_hinkley": "Page-Hinkley (river default)",
}


def run_windowed(world: World, days: int, first_judged: int) -> dict[str, list[bool]]:
    """Evidently and Holm: each day against the seven before it.

    Returns alarms by method, one per judged day.
    """
    recent: deque[Table] = deque(maxlen=_REFERENCE_DAYS)
    alarms: dict[str, list[bool]] = {"evidently_any": [], "evidently_dataset": [], "holm": []}
    for day in range(days):
        rows = world.day(day)
        if day >= first_judged:
            any_column, dataset = evidently_default(list(recent), rows)
            alarms["evidently_any"].append(any_column)
            alarms["evidently_dataset"].append(dataset)
            alarms["holm"].append(holm_corrected(list(recent), rows))
        recent.append(rows)
    return alarms


def _frame(tables: Sequence[Table]) -> Any:
    import pandas as pd

    columns: dict[str, Any] = {
        name: np.concatenate([table.columns[name] for table in tables]) for name in NUMBERS
    }
    for name in CATEGORIES:
        values = np.concatenate([table.columns[name] for table in tables])
        columns[name] = [
            None if value is None or value != value else str(value) for value in values
        ]
    return pd.DataFrame(columns)


def evidently_default(reference: Sequence[Table], current: Table) -> tuple[bool, bool]:
    """(any column drifted, at least half of them) by DataDriftPreset with nothing set."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(
        numerical_columns=list(NUMBERS), categorical_columns=list(CATEGORIES)
    )
    now, before = (
        Dataset.from_pandas(_frame(tables), data_definition=definition)
        for tables in ([current], reference)
    )
    metrics = Report([DataDriftPreset()]).run(now, before).dict()["metrics"]
    counts = next(
        metric["value"]
        for metric in metrics
        if isinstance(metric["value"], dict) and {"count", "share"} <= set(metric["value"])
    )
    return counts["count"] >= 1, counts["share"] >= 0.5


def holm_corrected(reference: Sequence[Table], current: Table) -> bool:
    """Two-sample tests on all rows, corrected over columns: right for independent rows."""
    before, now = _frame(reference), _frame([current])
    values = [
        float(ks_2samp(before[name].dropna(), now[name].dropna(), method="asymp").pvalue)
        for name in NUMBERS
    ]
    for name in CATEGORIES:
        names = sorted({*before[name].dropna(), *now[name].dropna()})
        counts = np.array(
            [
                [frame[name].value_counts().get(value, 0) for value in names]
                for frame in (before, now)
            ]
        )
        counts = counts[:, counts.sum(0) >= 5]
        values.append(
            float(chi2_contingency(counts, correction=False)[1]) if counts.shape[1] > 1 else 1.0
        )
    return min(holm(values)) < _ALPHA


def prepare_river(cache: Path) -> Path:
    """The interpreter of river's environment, installed when it is not there yet (about 150 MB).

    Raises BenchmarkError.
    """
    packages = _LISTS / "river.txt"
    folder, digest = cache / "river-0.26.1", hashlib.sha256(packages.read_bytes()).hexdigest()
    marker = folder / "installed"
    if not marker.is_file() or marker.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        print(f"installing river into {folder}", flush=True)
        pip = [
            str(folder / "bin" / "pip"),
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "-r",
            str(packages),
        ]
        for command in ([sys.executable, "-m", "venv", str(folder)], pip):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchmarkError(
                    f"river's environment could not be made: {done.stderr.strip()[-300:]}",
                    hint="Leave the peers out: --parts nulls,shifts,cold.",
                )
        marker.write_text(digest)
    return folder / "bin" / "python"


def run_streams(
    python: Path, world: World, days: int, first_judged: int, scratch: Path
) -> dict[str, list[bool]]:
    """ADWIN and Page-Hinkley request by request on four streams; a day with any detection is an
    alarm.
    """
    tables = [world.day(day) for day in range(days)]
    lengths = np.array([len(table) for table in tables])
    streams = {name: np.concatenate([table.columns[name] for table in tables]) for name in STREAMS}
    for name in ("prompt_tokens", "ttft_ms"):
        streams[name] = np.log(streams[name])
    path = scratch / "streams.npz"
    np.savez(path, lengths=lengths, **streams)
    done = subprocess.run(
        [str(python), str(_CHILD), str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchmarkError(f"river failed: {done.stderr.strip()[-300:]}")
    found: dict[str, list[bool]] = json.loads(done.stdout)
    return {name: values[first_judged:] for name, values in found.items()}


def episodes(alarms: Iterable[bool]) -> int:
    """Runs of alarm days."""
    count, before = 0, False
    for alarm in alarms:
        count += alarm and not before
        before = alarm
    return count


def run_peers(
    seeds: Sequence[int],
    volume: int,
    worlds: Sequence[str],
    shifts: Sequence[str],
    days: int,
    python: Path,
    scratch: Path,
    pause: Any,
) -> dict[str, Any]:
    """Alarm days and incidents in stationary worlds, and the day of the first alarm after a shift,
    by method.
    """
    nulls, delays = [], []
    seconds: dict[str, float] = {"windowed": 0.0}
    for world in worlds:
        for seed in seeds:
            pause()
            began = time.process_time()
            found = run_windowed(World(seed, volume, world), 7 + days, 7)
            seconds["windowed"] += time.process_time() - began
            found |= run_streams(python, World(seed, volume, world), 7 + days, 7, scratch)
            nulls += [
                {
                    "world": world,
                    "seed": seed,
                    "method": name,
                    "days": days,
                    "alarm_days": sum(alarms),
                    "incidents": episodes(alarms),
                }
                for name, alarms in found.items()
            ]
    for name in shifts:
        for seed in seeds:
            pause()
            first = 28  # the peers need no history of six weeks
            made = [World(seed, volume, shift=SHIFTS[name], start=first) for _ in range(2)]
            found = run_windowed(made[0], first + 10, 7) | run_streams(
                python, made[1], first + 10, 7, scratch
            )
            for method, alarms in found.items():
                after = alarms[first - 7 :]
                delays.append(
                    {
                        "shift": name,
                        "seed": seed,
                        "method": method,
                        "delay": after.index(True) + 1 if any(after) else None,
                        "quiet_before": 1 - sum(alarms[: first - 7]) / (first - 7),
                    }
                )
    return {"nulls": nulls, "delays": delays, "seconds": seconds}
