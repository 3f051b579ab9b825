"""The drift benchmark's parts: its worlds are what they say, its tables hold what was measured, and
it runs.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift import hourly
from benchmarks.drift.audits import SERVICES, run_service
from benchmarks.drift.figures import failures, table
from benchmarks.drift.ours import summarise_nulls, summarise_shifts
from benchmarks.drift.worlds import FIRST_DAY, GROSS, NULLS, SHIFTS, World

_ORIGIN = {
    "started_at": "2026-01-01 00:00 UTC",
    "commit": "0" * 10,
    "command": "python -m benchmarks.drift",
    "minutes": 1.0,
    "cpu_minutes": 1.0,
    "cores": 2,
}


def _null(world: str, volume: int, incidents: int, seed: int) -> dict[str, object]:
    found = [{"day": 50, "signals": ["language"], "summary": ""}] * incidents
    return {
        "world": world,
        "volume": volume,
        "seed": seed,
        "days": 100,
        "incidents": found,
        "early": 0,
        "early_looks": 5,
        "cpu_s_per_day": 0.05,
    }


def _shift(delay: int | None, **more: object) -> dict[str, object]:
    found = (
        {"signals": ["refusal"], "signal_in_top_3": True, "first_day_error": 0, "summary": ""}
        if delay
        else {}
    )
    return {
        "shift": "refusal x2",
        "volume": 2000,
        "seed": 0,
        "delay": delay,
        "other_incidents": 0,
        "false_before": 0,
        **found,
        **more,
    }


def _hour_null(incidents: int) -> dict[str, object]:
    found = [{"day": 50, "hour": 12, "signals": ["language"], "summary": ""}] * incidents
    return {
        "world": "clock change",
        "volume": 20_000,
        "seed": 0,
        "days": 100,
        "judged_hours": 1500,
        "spread": 1.0,
        "incidents": found,
        "cpu_s_per_day": 0.5,
    }


def _gross(hours: float | None) -> dict[str, object]:
    return {
        "shift": "refusal x4",
        "volume": 20_000,
        "seed": 0,
        "hours": hours,
        "days": 37.0,
        "by_hour": hours is not None,
        "other_incidents": 0,
    }


def test_the_same_seed_gives_the_same_days_and_another_another() -> None:
    first, second, other = (World(seed, 300).day(0) for seed in (1, 1, 2))
    assert np.array_equal(first.columns["ttft_ms"], second.columns["ttft_ms"])
    assert len(other) != len(first) or not np.array_equal(
        first.columns["ttft_ms"], other.columns["ttft_ms"]
    )


@pytest.mark.parametrize("name", list(NULLS))
def test_stationary_worlds_have_what_they_are_named_after(name: str) -> None:
    service = World(3, 300, name)
    days = {day: service.day(day) for day in range(90)}
    sizes = {day: len(table) for day, table in days.items()}
    assert all((table.columns["day"] == FIRST_DAY + day).all() for day, table in days.items())
    if name == "holiday week":
        assert np.mean([sizes[day] for day in range(75, 82)]) < 0.6 * np.mean(
            [sizes[day] for day in range(61, 68)]
        )
    if name == "heavy user":
        assert (
            max(np.unique(days[75].columns["user"].astype(str), return_counts=True)[1])
            > 0.15 * sizes[75]
        )
    if name == "missing signal":
        assert 1 <= sum(np.isnan(table.columns["refusal"]).all() for table in days.values()) <= 25
    if name == "declared template":
        assert set(days[74].columns["template"]) == {"t1"} and set(
            days[75].columns["template"]
        ) == {"t2"}
    if name == "independent":
        assert len(set(days[1].columns["user"])) == sizes[1]


@pytest.mark.parametrize("name", list(SHIFTS))
def test_shifts_move_what_they_say_and_begin_on_their_day(name: str) -> None:
    for start in (0, 99):
        table = World(
            5, 3000, "clustered", shift=SHIFTS[name], start=start, tenants=SHIFTS[name].tenant
        ).day(0)
        before = World(5, 3000, "clustered", tenants=SHIFTS[name].tenant).day(0)
        same = all(np.array_equal(table.columns[column], before.columns[column], equal_nan=table.columns[column].dtype != object) for column in ("ttft_ms", "logprob", "refusal", "language", "schema_failure", "repetition", "thumb", "finish_reason", "truth_topic"))  # fmt: skip
        assert same == (start == 99)


def test_hours_change_nothing_of_the_days_and_have_a_rhythm() -> None:
    days, hours = World(5, 3000).day(0), World(5, 3000, hours=True).day(0)
    assert all(
        np.array_equal(days.columns[name], hours.columns[name])
        for name in ("user", "language", "time_per_token_ms", "route")
    )
    counts = np.bincount(hours.columns["hour"], minlength=24)
    assert counts[16] > 3 * counts[4] > 0


def test_a_gross_change_begins_at_its_hour() -> None:
    for name, column in (
        ("refusal x4", "refusal"),
        ("schema failure 1 to 10 %", "schema_failure"),
        ("repetition 0.5 to 10 %", "repetition"),
    ):
        table = World(5, 20_000, shift=GROSS[name], start=0, hours=True, start_hour=12).day(0)
        early = table.columns["hour"] < 12
        assert np.nanmean(table.columns[column][~early]) > 2.5 * np.nanmean(
            table.columns[column][early]
        ), name
    table = World(5, 20_000, shift=GROSS["ratings stop"], start=0, hours=True, start_hour=12).day(0)
    assert np.isnan(table.columns["thumb"][table.columns["hour"] >= 12]).all()


def test_tables_say_what_was_measured_and_what_was_missed() -> None:
    nulls = [
        _null("clustered", 2000, 2, 0),
        _null("clustered", 2000, 1, 1),
        _null("holiday week", 2000, 0, 0),
    ]
    shifts = [_shift(3), _shift(5), _shift(None)]
    parts = {
        "nulls-2000": _ORIGIN | {"runs": nulls, "summary": summarise_nulls(nulls)},
        "shifts-2000": _ORIGIN | {"runs": shifts, "summary": summarise_shifts(shifts)},
        "hours": _ORIGIN | {"null_summary": hourly.summarise_nulls([_hour_null(2), _hour_null(0)]), "shift_summary": hourly.summarise_gross([_gross(2.25), _gross(None)])},
        "audit": _ORIGIN | {"services": [{**run_service(SERVICES[0], 3, 0), "weeks": 500, "covered": 475}, {**run_service(SERVICES[1], 3, 0), "weeks": 500, "covered": 430}]},
        "scale": _ORIGIN | {"rows": 10, "table_mib": 1.0, **{name: {"cpu_s": 1.0, "wall_s": 61.0, "peak_mib": 2.0, "rows": 10} for name in ("product", "whet", "evidently")}},
        "cold": _ORIGIN | {"pairs": [{"sizes": [200, 200], "pairs": 200, "false": 14, "tests": 12, "by_signal": {"language": 14}}], "power": [{"rows": 5000, "pairs": 20, "found": 20}]},
    }  # fmt: skip
    text = table(parts)
    assert "| clustered | 2,000 | 2 | 200 | 3 | 1.50 (0.31–4.38) | 0.050 |" in text
    assert "| refusal x2 | 2,000 | 3 | 5 | not found | 67% | 67% | 2 of 2 | 0 | 3 |" in text
    assert "| clock change | 20,000 | 2 | 200 | 3,000 | 2 | 2 | 1.00 (0.12–3.61) | 0.50 |" in text
    assert "| refusal x4 | 20,000 | 2 | not found | not found | 1 of 2 | 37 | 37 |" in text
    assert "- by the hour, refusal x4: median not found hours, at most 6 are allowed" in text
    assert len(failures(parts)) == 7
    assert "- audit, 5 % wrong: the interval holds the truth in 430 of 500 weeks" in text
    assert "- a day of 10 in the database: 61 s and 2 MiB" in text
    assert (
        "- clustered at 2,000 a day: 1.50 false incidents per 100 days, at most 1 are allowed"
        in text
    )
