"""What quality did in the time of an incident, and that every kind of incident tells its six parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, select

from monitoring.alert_store import alert_of
from monitoring.detector.columns import Table
from monitoring.detector.signals import SIGNALS
from monitoring.incident_text import QUALITY_NOT_COMPARED, describe_incident, text_of_alert
from monitoring.notify import run_notify
from monitoring.quality import Counted, QualityFigure, quality_of
from monitoring.quality_store import read_quality, refresh_quality
from monitoring.table_quality import quality_in_table
from tests.monitoring.build import HOUR, NOW, insert_ratings, insert_records, make_alert, records
from whet.context import Context
from whet.database import reading, writing
from whet.records.monitoring import IncidentRecord
from whet.tables import alerts, review_items, reviews

DAY = 24 * HOUR
SINCE = NOW - 5 * DAY


def test_intervals_are_wilsons_and_newcombes() -> None:
    # Newcombe 1998, "Interval estimation for the difference between independent proportions",
    # table II, example (a): 56/70 and 48/80, method 10.
    low, high = QualityFigure("thumbs", Counted(48, 80), Counted(56, 70)).difference or (0, 0)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert Counted(15, 148).interval == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert Counted(0, 0).interval is None


@pytest.mark.parametrize(
    ("before", "now", "verdict", "begins"),
    [
        ((10, 400), (20, 100), "worse", "Worse: thumbs down among ratings 20 % (20 of 100"),
        ((80, 400), (1, 100), "better", "Better: "),
        ((10, 100), (3, 30), "no clear change", "No clear change: "),
        ((0, 0), (3, 30), "no baseline", "No baseline to compare with: "),
        ((10, 100), (0, 0), "not known", "Not known: "),
    ],
)
def test_verdicts(before: tuple[int, int], now: tuple[int, int], verdict: str, begins: str) -> None:
    found = quality_of({"thumbs": (Counted(*before), Counted(*now))})
    assert found.verdict == verdict
    assert found.sentence.startswith(begins)


def test_a_clear_source_speaks_before_an_unclear_one() -> None:
    unclear, worse = (Counted(1, 20), Counted(1, 10)), (Counted(10, 400), Counted(40, 100))
    found = quality_of({"reviews": unclear, "thumbs": worse})
    assert found.verdict == "worse"
    assert found.sentence.index("thumbs down") < found.sentence.index("random sample")


def _judge(context: Context, ids: list[str], decision: str) -> None:
    with writing(context.database) as connection:
        for name in ids:
            item = {"id": f"rev_{name}", "interaction_id": name, "alias": "support"}
            why = {
                "reason": "audit",
                "why": "",
                "priority": 0.0,
                "state": "done",
                "created_at": NOW,
            }
            connection.execute(insert(review_items).values(**item, **why))
            given = {"id": f"dec_{name}", "item_id": item["id"], "interaction_id": name}
            said = {"reviewer": "ada", "decision": decision, "created_at": NOW}
            connection.execute(insert(reviews).values(**given, **said, standing=item["id"]))


def _fill(context: Context) -> None:
    before = records(100, 1, start_at=SINCE - 3 * DAY, prefix="old")
    since = records(100, 2, start_at=SINCE + HOUR, prefix="new")
    insert_records(context, before + since)
    thumbs = {row["id"]: -1 if i < 5 else 1 for i, row in enumerate(before[:60])}
    thumbs |= {row["id"]: -1 if i < 30 else 1 for i, row in enumerate(since[:60])}
    insert_ratings(context, thumbs)
    _judge(context, [row["id"] for row in before[60:80]], "approve")
    _judge(context, [row["id"] for row in since[60:70]], "reject")
    _judge(context, [row["id"] for row in since[70:80]], "approve")


def test_judgements_and_thumbs_of_the_log_are_compared(context: Context) -> None:
    _fill(context)
    with reading(context.database) as connection:
        found = read_quality(connection, "support", SINCE, NOW)
    figures = {one.source: one for one in found.figures}
    assert (figures["reviews"].before, figures["reviews"].now) == (Counted(0, 20), Counted(10, 20))
    assert (figures["thumbs"].before, figures["thumbs"].now) == (Counted(5, 60), Counted(30, 60))
    assert found.verdict == "worse"
    assert found.sentence.startswith("Worse: wrong answers in the random sample 50 % (10 of 20")


def test_an_open_alert_has_its_quality_before_it_is_told(context: Context) -> None:
    _fill(context)
    row = {"id": "alr_1", "dedup_key": "a", "alias": "support", "kind": "answers"}
    state = {"severity": "attention", "state": "open", "open_marker": "a", "changed_by": None}
    detail = {"since_at": SINCE, "signals": [{"sentence": "Refusal rate 9 %, baseline 3 %."}]}
    with writing(context.database) as connection:
        values = {"title": "support: answers changed.", "opened_at": NOW, "changed_at": NOW}
        connection.execute(insert(alerts).values(**row, **state, detail=detail, **values))
    assert refresh_quality(context, NOW) == "1 incidents"
    assert refresh_quality(context, NOW) is None, "nothing new"
    with reading(context.database) as connection:
        kept = connection.execute(select(alerts)).mappings().one()
    assert kept["detail"]["signals"] == detail["signals"]
    text = text_of_alert(alert_of(kept)).as_text()
    assert "Quality: Worse: wrong answers in the random sample" in text
    assert "Refusal rate 9 %, baseline 3 %." in text
    assert run_notify(context, NOW) is None


def test_ratings_of_a_table_are_compared() -> None:
    days = np.repeat(np.arange(20_000, 20_040), 20)
    now = days >= 20_035
    thumb = np.where(np.arange(len(days)) % 2, np.nan, np.where(now, -1.0, 1.0))
    incident = IncidentRecord(id="i", first_day="2024-11-08", closed_on=None, alias="default")
    found = quality_in_table(Table({"day": days, "thumb": thumb}), incident)
    assert found.verdict == "worse"
    assert quality_in_table(Table({"day": days}), incident).sentence.startswith("Not known: ")


# --- the six parts ---------------------------------------------------------------------------------


def _incident(signal: str, direction: str = "up", part: str = "", **more: Any) -> IncidentRecord:
    evidence = {
        "signal": signal, "part": part, "direction": direction, "label": signal, "adapter": "v3",
        "first_day": "2026-03-30", "n": 1400, "before": 0.03, "now": 0.06,
        "sentence": f"{signal} 6.0 %, baseline 3.0 %, since 2026-03-30 (+56 requests a day).",
    }  # fmt: skip
    found = {
        "id": "support-2026-03-31", "alias": "support", "evidence": [evidence], "closed_on": None,
        "first_day": "2026-03-30", "detected_on": "2026-03-31", "slices": [], "topics": [],
    }  # fmt: skip
    return IncidentRecord.model_validate({**found, **more})


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("signal", [*(one.name for one in SIGNALS), "rate_own", "category_own"])
def test_every_signal_tells_six_parts(signal: str, direction: str) -> None:
    text = describe_incident(_incident(signal, direction, "de"))
    assert all(part.strip() for _, part in text.rows())
    assert "2026-03-30" in text.since
    assert "baseline 3.0 %" in text.how_bad and "Measured on 1,400" in text.how_bad
    assert text.where.startswith("Everywhere")
    assert text.quality == QUALITY_NOT_COMPARED
    assert "{" not in text.as_text()


@pytest.mark.parametrize(
    "kind", ["questions", "answers", "quality", "service", "errors", "adapter", "candidate"]
)
def test_every_kind_of_alert_tells_six_parts(kind: str) -> None:
    alert = make_alert(kind=kind, title="support: changed. By much.", opened_at=NOW)
    text = text_of_alert(alert)
    assert all(part.strip() for _, part in text.rows())
    assert "{" not in text.as_text()


def test_places_words_and_causes_are_told() -> None:
    slices = [
        {"column": "slice_tenant", "value": "acme", "share_of_change": 1.02, "share_now": 0.23}
    ]
    text = describe_incident(_incident("refusal", slices=slices))
    assert text.where.startswith(
        "In slice_tenant=acme (23 % of the requests, 100 % of the change)."
    )
    topic = {"words": ["solar", "roof"], "share_before": 0.0, "share_now": 0.08}
    text = describe_incident(_incident("prompt_novelty", topics=[topic]))
    assert "“solar, roof”" in text.what and "“solar, roof”" in text.where
    text = describe_incident(
        _incident("language", part="de", topics=[{**topic, "share_before": 0.06}])
    )
    assert text.what == "More questions are in German."
    assert text.where.startswith("Everywhere"), "a topic that grew a little is not where it is"
    text = describe_incident(_incident("completion_tokens", "down", hint="The adapter may …"))
    assert "the adapter may not be applied" in text.what
    assert "whet adapters verify" in text.to_do


def test_what_to_do_names_the_alert_and_a_replay_has_none() -> None:
    in_replay = describe_incident(_incident("language", part="de")).to_do
    assert "(listed below)" in in_replay and "--declared 2026-03-30" in in_replay
    of_alert = describe_incident(_incident("language", part="de"), alert="alr_7").to_do
    assert "`whet alerts show alr_7`" in of_alert and "`whet alerts expected alr_7`" in of_alert
    fallen = describe_incident(_incident("language", "down", "de"), alert="alr_7").to_do
    assert "answers" not in fallen, "what is no longer asked has no answers to read"


def test_topics_that_rose_are_not_where_another_one_fell() -> None:
    topic = {"words": ["solar"], "share_before": 0.01, "share_now": 0.08}
    risen = describe_incident(_incident("prompt_topics", part="3", topics=[topic]))
    assert "“solar”" in risen.where
    fallen = describe_incident(_incident("prompt_topics", "down", "3", topics=[topic]))
    assert fallen.where.startswith("Everywhere")


def test_figures_say_what_they_are_and_what_they_are_compared_with() -> None:
    text = describe_incident(_incident("logprob"))
    assert "more is less certain" in text.how_bad and "nine weeks before" in text.how_bad
    assert "two to four weeks earlier" in describe_incident(_incident("prompt_topics")).how_bad
    assert text.since == "2026-03-30, found at the end of 2026-03-31, not over yet."
    by_hour = _incident(
        "refusal", first_hour="2026-03-30T10:00:00Z", detected_at="2026-03-30T12:00:00Z"
    )
    lead = by_hour.evidence[0].model_copy(
        update={
            "first_hour": "2026-03-30T10:00:00Z",
            "sentence": "Refusal rate 20 %, baseline 3.0 %, since 2026-03-30 10:00 UTC "
            "(+56 requests a day).",
        }
    )
    found = describe_incident(by_hour.model_copy(update={"evidence": [lead]})).how_bad
    assert found.startswith("Refusal rate 20 %, baseline 3.0 % (+56 requests a day).")
    assert "the same hour of the days before" in found
