"""Large tenants and routes have charts of their own, within the same error budget."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from monitoring.detector.columns import Table
from monitoring.detector.cusum import run_lengths
from monitoring.detector.daily import IN_SLICES, Chart, DayStatistics, Point
from monitoring.detector.effects import Effect
from monitoring.detector.incidents import Evidence, Incident
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.slices import SLICE_SHARE, WatchedSlices
from monitoring.detector.watch import Remembered, Watch
from monitoring.incident_text import describe_incident
from whet.records.monitoring import DayRecord

SETTINGS = DetectorSettings()
MONDAY = 20_458  # 2026-01-05
WARM, ROWS = 56, 900
ACME = "slice_tenant=acme"


def day_of(day: int, *, acme: float = 0.03, others: float = 0.03, gone: bool = False) -> Table:
    """Requests of a service; `acme` and `others`: refusal rates; `gone`: without the tenant."""
    rng = np.random.default_rng(day)
    users = rng.integers(0, 4000, ROWS)
    tenant = np.where(users % 4 == 0, "acme", np.where(users % 4 == 1, "globex", "others"))
    if gone:
        tenant = np.where(tenant == "acme", "others", tenant)
    rate = np.where(tenant == "acme", acme, others)
    return Table(
        {
            "day": np.full(ROWS, day),
            "id": np.array([f"{day}-{i}" for i in range(ROWS)], dtype=object),
            "user": np.array([f"u{user}" for user in users], dtype=object),
            "slice_tenant": tenant.astype(object),
            "refusal": (rng.random(ROWS) < rate).astype(float),
            "ttft_ms": np.exp(rng.normal(5, 0.5, ROWS) + rng.normal(0, 0.05)),
        }
    )


@pytest.fixture(scope="module")
def warmed() -> tuple[Watch, list[Remembered]]:
    watch, kept = Watch("support", SETTINGS), []
    for day in range(MONDAY, MONDAY + WARM):
        changed, remembered = watch.step(day, day_of(day))
        assert not changed
        kept.append(remembered)
    return watch, kept


def follow(watch: Watch, days: int, **changes: float) -> Watch:
    later = copy.deepcopy(watch)
    for day in range(MONDAY + WARM, MONDAY + WARM + days):
        later.step(day, day_of(day, **changes))
    return later


def test_a_change_in_one_tenant_is_found_and_named(warmed: tuple[Watch, list[Remembered]]) -> None:
    (incident,) = follow(warmed[0], 4, acme=0.12).stream.incidents
    found = incident.as_json()
    assert (found["signal"], found["slice"]) == ("refusal", ACME)
    assert [(one["column"], one["value"]) for one in found["slices"]] == [("slice_tenant", "acme")]
    text = describe_incident(incident.record())
    assert text.what == f"The model refuses more questions than before in {ACME}."
    assert ACME in text.how_bad and text.where.startswith(f"In {ACME} (")
    assert text.to_do.startswith(f"Ask first what changed in {ACME}")
    assert len(found["examples"]) > 0


def test_good_news_of_one_tenant_is_no_incident(warmed: tuple[Watch, list[Remembered]]) -> None:
    assert follow(warmed[0], 9, acme=0.0).stream.incidents == []


def test_a_change_of_all_requests_is_everywhere(warmed: tuple[Watch, list[Remembered]]) -> None:
    (incident,) = follow(warmed[0], 4, acme=0.12, others=0.12).stream.incidents
    found = incident.as_json()
    assert (found["slice"], found["slices"]) == ("", [])
    assert describe_incident(incident.record()).where.startswith("Everywhere")


def test_values_that_come_and_go_break_nothing(warmed: tuple[Watch, list[Remembered]]) -> None:
    watch = follow(warmed[0], 9, gone=True)
    assert watch.stream.incidents == []


def test_days_stored_before_there_were_slices_still_load(
    warmed: tuple[Watch, list[Remembered]],
) -> None:
    """The state read again is the same, and without slices it is what it was."""
    stored = [json.loads(json.dumps(one.statistics.as_json())) for one in warmed[1]]
    again, older = (Watch("support", SETTINGS) for _ in range(2))
    for made, one in zip(stored, warmed[1], strict=True):
        again.resume(
            Remembered(
                DayStatistics.from_record(DayRecord.model_validate(made)), one.confirmed, one.kept
            )
        )
        early = {name: kept for name, kept in made.items() if not name.startswith("slice")}
        older.resume(
            Remembered(
                DayStatistics.from_record(DayRecord.model_validate(early)), one.confirmed, one.kept
            )
        )
    assert (
        again.slices.chosen
        == warmed[0].slices.chosen
        == {"slice_tenant": ("others", "acme", "globex")}
    )
    assert again.stream.cusums == warmed[0].stream.cusums
    assert older.slices.chosen == {}
    older.step(MONDAY + WARM, day_of(MONDAY + WARM))


def test_the_largest_values_are_watched_and_keep_their_place() -> None:
    watched = WatchedSlices(SETTINGS)
    rows = {"a": 400, "b": 300, "c": 200, "d": 110, "e": 100, "rare": 5}
    for day in range(8):
        watched.take_in(day, {"slice_tenant": rows, "route": {"only": 1115}})
    assert watched.chosen == {"slice_tenant": ("a", "b", "c", "d")}, "`only` is all requests"
    for day in range(8, 40):
        watched.take_in(day, {"slice_tenant": {**rows, "d": 100, "e": 110}})
    assert "d" in watched.chosen["slice_tenant"], "a little less is no reason to lose a history"
    for day in range(40, 80):
        watched.take_in(day, {"slice_tenant": {**rows, "d": 50, "new": 500}})
    assert set(watched.chosen["slice_tenant"]) == {"a", "b", "c", "new"}


def test_slices_are_paid_for_out_of_the_same_budget() -> None:
    sides = {"refusal": 2, "ttft_ms": 2, f"refusal{IN_SLICES}": 8}
    lengths = run_lengths(sides, 0.5)
    alarms = {name: 100 * count / lengths[name] for name, count in sides.items()}
    assert sum(alarms.values()) == pytest.approx(0.5, abs=0.001)
    assert alarms[f"refusal{IN_SLICES}"] == pytest.approx(SLICE_SHARE * 0.25, abs=0.001)


@pytest.mark.parametrize(
    ("in_slice", "whole", "leads"),
    [
        ((0.03, 0.12), (0.03, 0.05), ACME),
        ((0.03, 0.07), (0.03, 0.06), ""),
        ((0.03, 0.12), None, ACME),
    ],
)
def test_a_slice_leads_while_all_requests_did_not_move_as_much(
    in_slice: tuple[float, float], whole: tuple[float, float] | None, leads: str
) -> None:
    def evidence(chart: Chart, day: int, levels: tuple[float, float]) -> Evidence:
        return Evidence(chart, day, day, 1.0, Effect(*levels, True, "", values=800))

    own = Chart("refusal", slice=ACME)
    charts = {own: evidence(own, MONDAY, in_slice)}
    if whole is not None:  # it crosses a day later
        charts[Chart("refusal")] = evidence(Chart("refusal"), MONDAY + 1, whole)
    incident = Incident("support", MONDAY, MONDAY, charts)
    assert incident.lead.chart.slice == leads
    assert incident.name == "support-2026-01-05-refusal", "the name does not follow the lead"


def test_a_slice_is_told_against_all_others() -> None:
    """A day on which everything is slower is no change of a tenant."""
    watch = Watch("support", SETTINGS)
    watch.slices.chosen = {"slice_tenant": ("acme",)}
    _, kept = watch.step(MONDAY, day_of(MONDAY))
    slow = day_of(MONDAY + 1)
    slow.columns["ttft_ms"] = slow.columns["ttft_ms"] * 2
    _, later = watch.step(MONDAY + 1, slow)
    chart = Chart("ttft_ms", "p50", slice=ACME)
    first, second = (one.statistics.points[chart] for one in (kept, later))
    assert isinstance(first, Point) and abs(first.value - second.value) < 0.3
    assert second.level > 1.5 * first.level
