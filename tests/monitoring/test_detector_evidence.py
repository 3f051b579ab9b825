"""What the detector takes for evidence: whose rows, and of how many properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from monitoring.detector.columns import Table
from monitoring.detector.daily import Chart, DayStatistics, Point, share_point
from monitoring.detector.explain import measure_of
from monitoring.detector.kinds import kinds_of_requests
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.stream import Stream
from monitoring.detector.turnover import turnover_z

MONDAY = 20_458  # 2026-01-05
_ROUTES = np.array(["shop", "help", "app", "mail"], dtype=object)
_REFUSAL = Chart("refusal", "", "v3")
_LENGTH = Chart("completion_tokens", "", "v3")


# --- tables without users --------------------------------------------------------------------------


def _rows(rng: np.random.Generator, n: int = 4000) -> Table:
    language = rng.choice(np.array(["en", "es", "pt"], dtype=object), n, p=[0.6, 0.3, 0.1])
    return Table(
        {
            "id": np.arange(n).astype(str).astype(object),
            "language": language,
            "route": rng.choice(_ROUTES, n),
            "slice_plan": rng.choice(np.array(["free", "team", "firm"], dtype=object), n),
            "refusal": (rng.random(n) < 0.03).astype(float),
        }
    )


def _changed(of: Table, rows: NDArray[np.bool_], **values: Any) -> Table:
    """The table with other values in some rows."""
    made = {
        name: np.where(rows, value, of.columns[name]).astype(of.columns[name].dtype)
        for name, value in values.items()
    }
    return Table(of.columns | made)


def _z_by_kinds(chart: Chart, before: Table, after: Table) -> float | None:
    kinds = kinds_of_requests(chart, before, after, None)
    old, new = (measure_of(chart, table, None) for table in (before, after))
    assert kinds is not None and old is not None and new is not None
    return turnover_z(old, new, kinds.before, kinds.after)


def test_what_one_person_may_have_brought_is_no_change_of_the_service() -> None:
    rng = np.random.default_rng(1)
    before, after = _rows(rng), _rows(rng)
    theirs = rng.random(4000) < 0.1
    refused = (rng.random(4000) < 0.4).astype(float)
    busy = _changed(after, theirs, language="es", route="shop", slice_plan="team", refusal=refused)
    z = _z_by_kinds(Chart("refusal"), before, busy)
    assert z is not None and 0 < z < 2.5
    worse = _changed(after, theirs, refusal=refused)
    z = _z_by_kinds(Chart("refusal"), before, worse)
    assert z is not None and z > 5, "as many refusals more, of everybody"


def test_a_language_has_to_grow_in_most_routes_and_plans() -> None:
    rng = np.random.default_rng(2)
    before, after, chart = _rows(rng), _rows(rng), Chart("language", "pt")
    theirs = rng.random(4000) < 0.1
    busy = _changed(after, theirs, language="pt", route="shop", slice_plan="team")
    everybody = _changed(after, theirs, language="pt")
    kinds = kinds_of_requests(chart, before, after, None)
    assert kinds is not None and kinds.effective == pytest.approx(12, abs=0.5)
    least = kinds.least_z(3.5)
    assert least < 3.5, "twelve kinds cannot show more than 3.5 standard errors"
    found = [_z_by_kinds(chart, before, table) or 0.0 for table in (busy, everybody)]
    assert found[0] < least < found[1], found


def test_where_users_are_known_or_little_parts_the_requests_there_are_no_kinds() -> None:
    rng = np.random.default_rng(3)
    before, after = _rows(rng), _rows(rng)
    assert kinds_of_requests(Chart("refusal"), before, after, None) is not None
    users = np.arange(4000).astype(str).astype(object)
    named = [Table(table.columns | {"user": users}) for table in (before, after)]
    assert kinds_of_requests(Chart("refusal"), *named, None) is None
    one_route = [Table({"language": table.columns["language"]}) for table in (before, after)]
    assert kinds_of_requests(Chart("refusal"), *one_route, None) is None, "three are too few"
    bare = Table({"refusal": before.columns["refusal"]})
    assert kinds_of_requests(Chart("refusal"), bare, bare, None) is None


# --- several properties on one day -----------------------------------------------------------------


def _answers(rng: np.random.Generator, day: int, *, refusal: float, length: float) -> DayStatistics:
    points = {
        _REFUSAL: share_point(int(rng.binomial(1500, refusal)), 1500),
        _LENGTH: Point(rng.normal(np.log(length), 0.02), 0.02, length, 1500),
    }
    return DayStatistics(MONDAY + day, 2000, 1500, points, {}, {})


def _found(refused: set[str] | None = None, *, refusal: float, length: float) -> list[str]:
    """Signals of the incident that one day of other answers opens."""
    rng, stream = np.random.default_rng(6), Stream("support", DetectorSettings())
    for day in range(70):
        stream.step(_answers(rng, day, refusal=0.05, length=100))
    today = _answers(rng, 70, refusal=refusal, length=length)
    opened = stream.step(today, lambda one: one.chart.signal not in (refused or set()))
    return sorted(signal for incident in opened for signal in incident.signals)


def test_two_properties_that_jump_together_need_no_second_day() -> None:
    assert _found(refusal=0.0, length=40) == ["completion_tokens", "refusal"]


def test_one_property_alone_needs_a_second_day() -> None:
    assert _found(refusal=0.05, length=40) == []
    assert _found({"refusal"}, refusal=0.0, length=40) == [], "other users explain the refusals"
