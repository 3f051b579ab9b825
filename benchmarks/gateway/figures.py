"""From raw measurements to the table: reading wrk's line, medians, ratios, Markdown.

Pure functions of plain data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.errors import BenchmarkError

BEGIN, END = (
    "<!-- results: begin (written by python -m benchmarks.gateway) -->",
    "<!-- results: end -->",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of load."""

    name: str
    title: str
    stream: bool
    connections: int
    pace_ms: float  # between two events of a stream; 0: the upstream sends all of it at once


CELLS = {
    cell.name: cell
    for cell in (
        Cell("json-32", "JSON, 32 connections", False, 32, 0),
        Cell("json-1", "JSON, 1 connection", False, 1, 0),
        Cell("sse-32", "SSE sent at once, 32 connections", True, 32, 0),
        Cell("sse-256", "SSE paced 10 ms per event, 256 streams", True, 256, 10),
    )
}
_BUSY = 0.1  # of the machine used by others; on two cores that is a fifth of the gateway's core
ARMS = {
    "direct": "direct to the upstream",
    "whet": "Whet",
    "litellm": "LiteLLM proxy",
    "vllm-router": "vllm-router",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw in one run; times in milliseconds."""

    responses: int
    seconds: float
    bytes: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    checked: int  # answers read to their end
    broken: int  # of these: not 200, or not whole
    socket_errors: int
    timeouts: int
    bad_status: int
    example: str  # the beginning of the first broken answer

    @property
    def per_second(self) -> float:
        return self.responses / self.seconds if self.seconds else 0.0

    @property
    def failures(self) -> list[str]:
        """Sentences; empty when every response was 200 and whole."""
        found = []
        if self.broken:
            found.append(
                f"{self.broken} of {self.checked} answers were not 200 and whole, the first:"
                f" {self.example}"
            )
        if self.checked < self.responses:
            found.append(f"{self.responses - self.checked} answers were not read")
        if self.socket_errors:
            found.append(f"{self.socket_errors} connections failed")
        if self.timeouts:
            found.append(f"{self.timeouts} requests had no answer within the time limit")
        if self.responses == 0:
            found.append("no answer at all")
        return found


def parse_wrk(output: str) -> Load:
    """Read the line that load.lua ends with.

    Raises BenchmarkError with the end of the output when there is none.
    """
    lines = output.splitlines()
    result = next((line for line in reversed(lines) if line.startswith("RESULT ")), None)
    if result is None:
        raise BenchmarkError(
            f"wrk printed no result; its output ends with: {output.strip()[-300:]!r}."
        )
    raw: dict[str, int] = json.loads(result.removeprefix("RESULT "))
    example = next(
        (line.removeprefix("BROKEN ") for line in lines if line.startswith("BROKEN ")), ""
    )
    return Load(
        responses=raw["requests"],
        seconds=raw["duration_us"] / 1e6,
        bytes=raw["bytes"],
        p50_ms=raw["p50_us"] / 1000,
        p90_ms=raw["p90_us"] / 1000,
        p99_ms=raw["p99_us"] / 1000,
        max_ms=raw["max_us"] / 1000,
        checked=raw["checked"],
        broken=raw["broken"],
        socket_errors=raw["connect"] + raw["read"] + raw["write"],
        timeouts=raw["timeout"],
        bad_status=raw["status"],
        example=example,
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with what lies around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises BenchmarkError for no values."""
        known = sorted(values)
        if not known:
            raise BenchmarkError("There is nothing to take a median of.")
        return cls(median(known), known[0], known[-1])

    def plain(self) -> dict[str, float]:
        return {
            "median": _rounded(self.median),
            "low": _rounded(self.low),
            "high": _rounded(self.high),
        }


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return 0.0 if value == 0 else round(value, 3 - math.floor(math.log10(abs(value))))


def paired_ratios(
    runs: Sequence[Mapping[str, Any]], cell: str, arm: str, peer: str, key: str = "per_second"
) -> list[float]:
    """`arm` divided by `peer`, round by round: what the machine did to both in one round falls out.

    Rounds that lack one are left out.
    """
    by_round: dict[int, dict[str, float]] = {}
    for run in runs:
        if run["cell"] == cell and run["arm"] in (arm, peer):
            by_round.setdefault(run["round"], {})[run["arm"]] = run[key]
    return [
        pair[arm] / pair[peer]
        for _, pair in sorted(by_round.items())
        if pair.get(peer) and arm in pair
    ]


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per cell and arm the spread of every figure over rounds, and Whet's ratio to each peer."""
    keys = ("per_second", "sustained_per_second", "p50_ms", "p99_ms", "cpu_us")
    cells: dict[str, Any] = {}
    for cell in dict.fromkeys(run["cell"] for run in runs):
        arms = {}
        for arm in dict.fromkeys(run["arm"] for run in runs if run["cell"] == cell):
            mine = [run for run in runs if run["cell"] == cell and run["arm"] == arm]
            arms[arm] = {
                key: Spread.of(values).plain()
                for key in keys
                if (values := [run[key] for run in mine if run.get(key) is not None])
            }
        ratios = {}
        for peer in arms:
            values = paired_ratios(runs, cell, "whet", peer) if peer != "whet" else []
            if values:
                ratios[peer] = Spread.of(values).plain()
        cells[cell] = {"arms": arms, "whet_over": ratios}
    return cells


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return "–"
    return f"{_number(spread['median'])} ({_number(spread['low'])}–{_number(spread['high'])})"


def table(result: Mapping[str, Any]) -> str:
    """Markdown: how it was run, one table per load, checks, failures."""
    machine, other = result["machine"], result["machine"]["other_cpu"]
    lines = [
        (
            f"Recorded {result['started_at']} at commit `{result['commit']}` with"
            f" `{result['command']}`."
        ),
        "",
        (
            f"Machine: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']},"
            f" Python {machine['python']}. Other programs used {other['median']:.0%} of the machine"
            f" during a run (median; {other['low']:.0%} to {other['high']:.0%})."
        ),
        "",
        "Versions: "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + ".",
    ]
    if other["median"] > _BUSY:
        lines += [
            "",
            (
                "**The machine was busy: these figures say what was left of it. Run it again on an"
                " idle one.**"
            ),
        ]
    for name, cell in result["summary"].items():
        lines += [
            "",
            (
                f"**{CELLS[name].title}** ({result['rounds']} rounds of {result['seconds']:g} s;"
                " median, lowest and highest in brackets)"
            ),
            "",
            "| | responses/s | p50 ms | p99 ms | CPU µs per request | Whet is … times that |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for arm, figures in cell["arms"].items():
            ratio = _spread(cell["whet_over"].get(arm)) if arm != "whet" else "1"
            cells = (
                _spread(figures.get(key)) for key in ("per_second", "p50_ms", "p99_ms", "cpu_us")
            )
            lines.append(f"| {ARMS[arm]} | {' | '.join(cells)} | {ratio} |")
        if (sustained := cell["arms"].get("whet", {}).get("sustained_per_second")) is not None:
            lines += [
                "",
                (
                    "Whet with the time until the last row was in the database counted in:"
                    f" {_spread(sustained)} responses/s."
                ),
            ]
    lines += ["", *_checks(result)]
    return "\n".join(lines)


def _checks(result: Mapping[str, Any]) -> list[str]:
    lines = [
        (
            "Memory at its highest:"
            f" {', '.join(f'{ARMS[arm]} {mib:,.0f} MiB' for arm, mib in result['memory_mib'].items())}."
        ),
        "",
    ]
    if log := result.get("log"):
        lines.append(
            f"Log under load: {log['responses']:,} answers received in full,"
            f" {log['complete']:,} rows `complete`; {log['asked']:,} requests reached the upstream,"
            f" {log['rows']:,} rows in all (the load generator drops what is under way when its"
            " time is over: each second figure may be higher by that). Exact check:"
            f" {log['exact_received']:,} answers read to their end, {log['exact_rows']:,} rows,"
            f" {log['exact_wrong']:,} of them missing, double or with other content."
        )
    failures = result["failures"]
    lines += ["", f"Failures: {'none' if not failures else ''}".rstrip()]
    lines += [f"- {failure}" for failure in failures]
    return lines
