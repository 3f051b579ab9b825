"""From recorded parts to Markdown. Pure functions of plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.drift.audits import LEAST_COVERED, MOST_COVERED
from benchmarks.drift.leads import write_leads
from benchmarks.drift.peers import NAMES
from benchmarks.drift.refusals import write_refusals

BEGIN, END = (
    "<!-- results: begin (written by python -m benchmarks.drift) -->",
    "<!-- results: end -->",
)
# What is asked for at 2,000 requests a day: shift → median delay in days, at most.
TARGETS = {
    "refusal x2": 3,
    "refusal x3 in one tenant": 4,
    "refusal x5 for three days": 5,
    "TTFT +20 %": 3,
    "new topic 8 %": 3,
    "language +5 points": 4,
    "log-probability -10 % ramp": 9,
    "truncation 4 to 10 %": 3,
    "repetition 0.5 to 2 %": 3,
    # Days alone need two; hours, and what is told of a new version, say it on the first.
    "adapter without effect": 1,
}
_USUAL_WORLD = "clustered, weekly"  # of parts recorded before there was a choice
_LEAST_VOLUME = 500  # requests a day, from which it holds
MOST_FALSE = 1.0  # per 100 days, in every stationary world
# Median, at 20,000 requests a day
MOST_HOURS = {
    "refusal x4": 6,
    "schema failure 1 to 10 %": 6,
    "language +30 points": 6,
    "ratings stop": 6,
}
LEAST_FOUND, LEAST_ATTRIBUTED, MOST_PAIRS, MOST_CPU_S = 0.95, 0.90, 0.06, 30.0
MOST_SCALE_S, MOST_SCALE_MIB = 60.0, 1024.0  # a day of a million requests in the database


def failures(parts: Mapping[str, Any]) -> list[str]:
    """Every target that was measured and missed, as a sentence."""
    found = []
    for row in _rows(parts, "nulls"):
        if row["volume"] >= _LEAST_VOLUME and row["per_100_days"] > MOST_FALSE:
            found.append(
                f"{row['world']} at {row['volume']:,} a day: {row['per_100_days']:.2f} false incidents per 100 days, at most"
                f" {MOST_FALSE:g} are allowed"
            )
        if row["cpu_s_per_day"] > MOST_CPU_S:
            found.append(
                f"{row['world']} at {row['volume']:,} a day: {row['cpu_s_per_day']:.1f} s of CPU"
                f" per day, at most {MOST_CPU_S:g} are allowed"
            )
    for row in _rows(parts, "shifts"):
        target = TARGETS.get(row["shift"])
        if target is None or row["volume"] != 2000:
            continue
        if row["median_delay"] is None or row["median_delay"] > target:
            found.append(
                f"{row['shift']}, {row['in']}: median delay {_days(row['median_delay'])}, at most"
                f" {target} days are allowed"
            )
        if row["within_30"] < LEAST_FOUND:
            found.append(
                f"{row['shift']}: found within 30 days in {row['within_30']:.0%}, at least"
                f" {LEAST_FOUND:.0%} are asked for"
            )
        if row["found"] and row["attributed"] / row["found"] < LEAST_ATTRIBUTED:
            found.append(
                f"{row['shift']}: the right signal and topic in {row['attributed']} of"
                f" {row['found']} incidents"
            )
    for row in parts.get("hours", {}).get("null_summary", []):
        if row["per_100_days"] > MOST_FALSE:
            found.append(
                f"by the hour, {row['world']}: {row['per_100_days']:.2f} false incidents per 100"
                f" days, at most {MOST_FALSE:g} are allowed"
            )
    for row in parts.get("hours", {}).get("shift_summary", []):
        most = MOST_HOURS.get(row["shift"]) if row["volume"] == 20_000 else None
        if most and (row["median_hours"] is None or row["median_hours"] > most):
            found.append(
                f"by the hour, {row['shift']}: median {_days(row['median_hours'])} hours, at most"
                f" {most} are allowed"
            )
        if row["other_incidents"]:
            found.append(
                f"by the hour, {row['shift']}: {row['other_incidents']} incidents that do not hold"
                " one of its signals came before"
            )
    for row in parts.get("cold", {}).get("pairs", []):
        if row["false"] / row["pairs"] > MOST_PAIRS:
            found.append(
                f"cold start {row['sizes'][0]:,} against {row['sizes'][1]:,}: {row['false']} of"
                f" {row['pairs']} pairs called different"
            )
    for row in parts.get("cold", {}).get("power", []):
        if row["rows"] == 5_000 and row["found"] < row["pairs"]:
            found.append(
                f"cold start: refusals 3 to 6 % at 5,000 rows found in {row['found']} of"
                f" {row['pairs']} pairs"
            )
    for row in parts.get("audit", {}).get("services", []):
        if not LEAST_COVERED <= row["covered"] / row["weeks"] <= MOST_COVERED:
            found.append(
                f"audit, {row['service']}: the interval holds the truth in {row['covered']} of"
                f" {row['weeks']} weeks"
            )
    product = parts.get("scale", {}).get("product")
    if product and (product["wall_s"] > MOST_SCALE_S or product["peak_mib"] > MOST_SCALE_MIB):
        found.append(
            f"a day of {product['rows']:,} in the database: {product['wall_s']:.0f} s and"
            f" {product['peak_mib']:,.0f} MiB"
        )
    return found


def _rows(parts: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [
        row | {"in": part.get("world") or _USUAL_WORLD}
        for key, part in parts.items()
        if key.split("-")[0] == name
        for row in part["summary"]
    ]


def table(parts: Mapping[str, Any]) -> str:
    """Markdown of every part that is there."""
    lines: list[str] = []
    for name, write in (
        ("nulls", _nulls),
        ("shifts", _shifts),
        ("hours", _hours),
        ("texts", _texts),
        ("cold", _cold),
        ("audit", _audit),
        ("leads", write_leads),
        ("refusals", write_refusals),
        ("peers", _peers),
        ("scale", _scale),
    ):
        for key in sorted(
            (key for key in parts if key.split("-")[0] == name),
            key=lambda key: int([*key.split("-"), "0"][1]),  # requests a day
        ):
            lines += [*write(parts[key]), "", _origin(parts[key]), ""]
    missed = failures(parts)
    lines += [
        f"Targets missed: {'none of those measured' if not missed else ''}".rstrip(),
        *(f"- {sentence}" for sentence in missed),
    ]
    return "\n".join(lines)


def _origin(part: Mapping[str, Any]) -> str:
    return (
        f"Recorded {part['started_at']} at commit `{part['commit']}` with `{part['command']}`,"
        f" {part['minutes']:.0f} minutes on a shared machine of {part['cores']} cores."
    )


def _nulls(part: Mapping[str, Any]) -> list[str]:
    return [
        "**False incidents in stationary worlds** (exact 95 % Poisson interval)",
        "",
        *_null_rows(part["summary"]),
    ]


def _null_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        (
            "| world | requests/day | seeds | judged days | false incidents | per 100 days | CPU s"
            " per day |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        rate = f"{row['per_100_days']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
        lines.append(
            f"| {row['world']} | {row['volume']:,} | {row['seeds']} | {row['days']:,} |"
            f" {row['false_incidents']} | {rate} | {row['cpu_s_per_day']:.3f} |"
        )
    early, looks = sum(row["early"] for row in rows), sum(row["early_looks"] for row in rows)
    if looks:
        lines += [
            "",
            (
                f"Information of the first six weeks in these worlds: {early} of {looks} weekly"
                f" comparisons found something that was not there ({early / looks:.0%})."
            ),
        ]
    return lines


def _shifts(part: Mapping[str, Any]) -> list[str]:
    world = part.get("world") or _USUAL_WORLD
    head = f"**Delay from the first day of a change, that day counted** (days; world: {world})"
    return [head, "", *_shift_rows(part["summary"])]


def _shift_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        (
            "| shift | requests/day | seeds | median | 90 % | within 7 days | within 30 | right"
            " signal and topic | first day off by (median) | target |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        target = TARGETS.get(row["shift"]) if row["volume"] == 2000 else None
        off = "–" if row["median_first_day_error"] is None else f"{row['median_first_day_error']:g}"
        lines.append(
            f"| {row['shift']} | {row['volume']:,} | {row['seeds']} |"
            f" {_days(row['median_delay'])} | {_days(row['p90_delay'])} | {row['within_7']:.0%} |"
            f" {row['within_30']:.0%} | {row['attributed']} of {row['found']} | {off} |"
            f" {target or '–'} |"
        )
    return lines


def _hours(part: Mapping[str, Any]) -> list[str]:
    lines = [
        (
            "**By the hour: false incidents of hours and days together in stationary services**"
            " (exact 95 % Poisson interval)"
        ),
        "",
        (
            "| world | requests/day | seeds | judged days | judged hours | false incidents | of"
            " them by the hour | per 100 days | CPU s per day |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in part["null_summary"]:
        rate = f"{row['per_100_days']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
        lines.append(
            f"| {row['world']} | {row['volume']:,} | {row['seeds']} | {row['days']:,} |"
            f" {row['judged_hours']:,} | {row['false_incidents']} | {row['by_hour']} | {rate} |"
            f" {row['cpu_s_per_day']:.2f} |"
        )
    lines += [
        "",
        (
            "**Hours from noon of a weekday, when a change begins, until the product says so** (the"
            " same service with hours, and by days alone)"
        ),
        "",
        (
            "| change | requests/day | seeds | with hours: median | longest | found by the hour |"
            " by days alone: median | longest |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in part["shift_summary"]:
        hours, longest, days, longest_days = (
            _days(row[f"{which}_{name}"])
            for name in ("hours", "days")
            for which in ("median", "longest")
        )
        lines.append(
            f"| {row['shift']} | {row['volume']:,} | {row['seeds']} | {hours} | {longest} |"
            f" {row['by_hour']} of {row['seeds']} | {days} | {longest_days} |"
        )
    return lines


def _texts(part: Mapping[str, Any]) -> list[str]:
    return [
        (
            "**The same with questions as sentences and the built-in text vectors** (2,000 requests"
            " a day)"
        ),
        "",
        *_null_rows(part["null_summary"]),
        "",
        *_shift_rows(part["shift_summary"]),
    ]


def _cold(part: Mapping[str, Any]) -> list[str]:
    lines = [
        "**Cold start: two samples of the same distribution**",
        "",
        "| rows | pairs | signals | called different | |",
        "|---|---:|---:|---:|---|",
    ]
    for row in part["pairs"]:
        by_signal = ", ".join(f"{name} {count}" for name, count in sorted(row["by_signal"].items()))
        lines.append(
            f"| {row['sizes'][0]:,} against {row['sizes'][1]:,} | {row['pairs']} | {row['tests']} |"
            f" {row['false']} ({row['false'] / row['pairs']:.1%}) | {by_signal} |"
        )
    lines += [
        "",
        *(
            f"Refusals 3 % against 6 % at {row['rows']:,} rows a side: found in {row['found']} of"
            f" {row['pairs']} pairs."
            for row in part["power"]
        ),
    ]
    return lines


def _audit(part: Mapping[str, Any]) -> list[str]:
    lines = [
        (
            "**The weekly error rate from the random audit** (95 % intervals; “without” uses the"
            " judgements alone)"
        ),
        "",
        (
            "| service | weeks | interval holds the truth | mean width | without: holds | width |"
            " mean error of the estimate | stationary weeks called worse |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in part["services"]:
        lines.append(
            f"| {row['service']} | {row['weeks']} | {row['covered'] / row['weeks']:.1%} |"
            f" {100 * row['width']:.2f} points | {row['plain_covered'] / row['weeks']:.1%} |"
            f" {100 * row['plain_width']:.2f} points | {100 * row['bias']:+.3f} points |"
            f" {row['called_worse']} |"
        )
    return lines


def _peers(part: Mapping[str, Any]) -> list[str]:
    lines = [
        "**Others on the same days** (2,000 requests a day; a run of alarm days is one incident)",
        "",
        "| method | world | days | alarm days per 100 | incidents per 100 |",
        "|---|---|---:|---:|---:|",
    ]
    for method, title in NAMES.items():
        for world in dict.fromkeys(row["world"] for row in part["nulls"]):
            mine = [
                row for row in part["nulls"] if (row["method"], row["world"]) == (method, world)
            ]
            days = sum(row["days"] for row in mine)
            if days:
                alarm, incidents = (
                    100 * sum(row[key] for row in mine) / days
                    for key in ("alarm_days", "incidents")
                )
                lines.append(f"| {title} | {world} | {days} | {alarm:.0f} | {incidents:.1f} |")
    lines += [
        "",
        (
            "Day of the first alarm after a change, within 10 days; it says little where quiet days"
            " alarm too."
        ),
        "",
        "| method | " + " | ".join(dict.fromkeys(row["shift"] for row in part["delays"])) + " |",
    ]
    shifts = list(dict.fromkeys(row["shift"] for row in part["delays"]))
    lines.append("|---|" + "---:|" * len(shifts))
    for method, title in NAMES.items():
        cells = []
        for shift in shifts:
            delays = [
                row["delay"]
                for row in part["delays"]
                if (row["method"], row["shift"]) == (method, shift)
            ]
            known = [delay for delay in delays if delay is not None]
            cells.append(
                f"{median(known):g} ({len(known)} of {len(delays)})"
                if known
                else f"– (0 of {len(delays)})"
            )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _scale(part: Mapping[str, Any]) -> list[str]:
    ours, theirs, product = part["whet"], part["evidently"], part["product"]
    return [
        f"**One day of {part['rows']:,} requests**",
        "",
        "| | seconds | CPU s | peak memory of the process |",
        "|---|---:|---:|---:|",
        (
            "| the product's daily job on its database (SQLite): reading, signals from the texts,"
            f" judging, storing | {product['wall_s']:.1f} | {product['cpu_s']:.1f} |"
            f" {product['peak_mib']:,.0f} MiB |"
        ),
        (
            f"| the detector alone on a table in memory, table included | – | {ours['cpu_s']:.1f} |"
            f" {ours['peak_mib']:,.0f} MiB |"
        ),
        (
            "| Evidently's default preset on the same scalar columns, against seven days of 2,000,"
            f" table included | – | {theirs['cpu_s']:.1f} | {theirs['peak_mib']:,.0f} MiB |"
        ),
        f"| the table alone | – | – | {part['table_mib']:,.0f} MiB |",
    ]


def _days(value: float | None) -> str:
    return "not found" if value is None else f"{value:g}"
