"""The error rate of a week: its interval covers the truth as often as it says, predictions sharpen
it and never bend it, its verdict is given once, and what follows from more errors: an alert, a
page, a metric, an earlier request for training.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from feedback.retraining import gather
from monitoring.alert_store import list_alerts
from monitoring.audit import CELLS, MIN_JUDGED, Estimate, Judged, Week, compare, estimate, learn
from monitoring.auditjob import run_alias, run_audit, week_of
from monitoring.days import DAY_MS
from monitoring.history_store import newest_weeks
from monitoring.incident_actions import change_state
from monitoring.metrics import LoopCollector
from tests import builders
from tests.monitoring.build import insert_records, records
from tests.web import console_client
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError
from whet.ids import new_id
from whet.tables import audit_weeks, ratings, review_items, reviews

MONDAY = week_of(20_000)
NOTHING_KNOWN = dict.fromkeys(CELLS, 0.0)


def simulated(
    rng: np.random.Generator,
    rate: float,
    answers: int = 4000,
    judged: int = 350,
    telling: float = 0.25,
) -> tuple[Week, float]:
    """A week whose wrong answers are rated down with probability `telling` (others: 2 %), and its
    true error rate.
    """
    wrong = rng.random(answers) < rate
    down = rng.random(answers) < np.where(wrong, telling, 0.02)
    day = MONDAY + rng.integers(0, 7, answers)
    population: dict[int, dict[str, int]] = {}
    for number in range(MONDAY, MONDAY + 7):
        here = day == number
        population[number] = {"down": int((here & down).sum()), "quiet": int((here & ~down).sum())}
    drawn = rng.choice(answers, judged, replace=False)
    return Week(
        population,
        [Judged(int(day[n]), "down" if down[n] else "quiet", bool(wrong[n])) for n in drawn],
    ), float(wrong.mean())


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.35])
def test_the_interval_covers_the_truth_in_95_of_100_weeks(rate: float) -> None:
    rng = np.random.default_rng(7)
    covered, wide, narrow, earlier = 0, 0.0, 0.0, list[Judged]()
    for _ in range(300):
        week, truth = simulated(rng, rate)
        found, plain = estimate(week, learn(earlier[-2800:])), estimate(week)
        assert found is not None and plain is not None
        covered += found.low <= truth <= found.high
        wide, narrow = wide + plain.high - plain.low, narrow + found.high - found.low
        earlier += week.judged
    # Four standard deviations of 300 weeks at 95 % are 5 points; benchmarks/drift counts 500 weeks
    # of six kinds.
    assert 0.90 <= covered / 300 <= 0.995, f"{covered} of 300 intervals hold the truth"
    assert narrow < wide, "what is known of every answer should make the interval narrower"


def test_a_prediction_that_is_quite_wrong_costs_width_and_no_truth() -> None:
    rng = np.random.default_rng(8)
    upside_down = {"down": 0.0, "quiet": 0.9, "up": 0.9}
    off = [
        found.rate - truth
        for week, truth in (simulated(rng, 0.1) for _ in range(200))
        if (found := estimate(week, upside_down))
    ]
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(len(off)), (
        f"the estimate is off by {np.mean(off):.4f} on average"
    )


@given(
    judged=st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from(CELLS), st.booleans()), max_size=60
    ),
    population=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 500)),
        min_size=7,
        max_size=7,
    ),
    predicted=st.fixed_dictionaries({cell: st.floats(0, 1) for cell in CELLS}),
)
def test_an_estimate_is_a_share_within_its_interval_whatever_was_judged(
    judged: list[tuple[int, str, bool]],
    population: list[tuple[int, int, int]],
    predicted: dict[str, float],
) -> None:
    week = Week(
        {day: dict(zip(CELLS, counts, strict=True)) for day, counts in enumerate(population)},
        [Judged(*one) for one in judged],
    )
    found = estimate(week, predicted)
    if found is None:
        assert not any(week.population[one.day][one.cell] for one in week.judged)
    else:
        assert 0 <= found.low <= found.rate <= found.high <= 1
        assert found.effective > 0


def test_nothing_wrong_among_few_is_not_nothing_wrong() -> None:
    found = estimate(Week({MONDAY: {"quiet": 10_000}}, [Judged(MONDAY, "quiet", False)] * 50))
    assert found is not None and found.rate == 0 and 0.05 < found.high < 0.1
    everybody = estimate(Week({MONDAY: {"quiet": 50}}, [Judged(MONDAY, "quiet", False)] * 50))
    assert everybody is not None and everybody.high < 0.001, (
        "who has judged all answers knows their error rate"
    )


def test_a_day_counts_as_its_traffic_does() -> None:
    week = Week(
        {1: {"quiet": 9000}, 2: {"quiet": 1000}},
        [Judged(1, "quiet", False)] * 50 + [Judged(2, "quiet", True)] * 50,
    )
    found = estimate(week)
    assert found is not None and found.rate == pytest.approx(0.1)


def figures(rate: float, effective: float = 350, judged: int = 350) -> Estimate:
    return Estimate(
        rate, max(0.0, rate - 0.03), rate + 0.03, judged, round(rate * judged), 14_000, effective
    )


@pytest.mark.parametrize(
    ("week", "before", "verdict"),
    [
        (None, [], "unknown"),
        (figures(0.5, judged=MIN_JUDGED - 1), [figures(0.05)] * 4, "unknown"),
        (figures(0.05), [], "unknown"),
        (figures(0.06), [figures(0.05)] * 4, "usual"),
        (figures(0.12), [figures(0.05)] * 4, "worse"),
        (figures(0.01), [figures(0.06)] * 4, "better"),
        (figures(0.12, effective=25, judged=30), [figures(0.05)] * 4, "usual"),
        (
            figures(0.012, effective=90_000, judged=90_000),
            [figures(0.005, effective=90_000)] * 4,
            "usual",
        ),
    ],
)
def test_a_week_is_worse_when_errors_became_more_for_certain_and_by_an_amount_that_matters(
    week: Estimate | None, before: list[Estimate], verdict: str
) -> None:
    standing = compare(week, before)
    assert standing.verdict == verdict
    assert standing.sentence.endswith(".")


# --- on the database -----------------------------------------------------------------------------------------------


def fill(context: Context, week: int, wrong: float, *, drawn: int = 70, undecided: int = 0) -> None:
    """A week of 700 answers, of which `drawn` were drawn and all but `undecided` judged; a share
    `wrong` of these was edited.
    """
    made = [
        row
        for day in range(7)
        for row in records(
            100, week + day, start_at=(week + day) * DAY_MS, step_ms=600_000, users=90, prefix="int"
        )
    ]
    insert_records(context, made)
    with writing(context.database) as connection:
        for place, row in enumerate(made[:: len(made) // drawn][:drawn]):
            at = row["created_at"]
            item = builders.add_review_item(
                connection,
                row["id"],
                at,
                reason="audit",
                state="waiting" if place < undecided else "done",
            )
            if place >= undecided:
                decision = "edit" if place >= drawn - round(wrong * drawn) else "approve"
                values = {
                    "id": new_id("rev", at=at),
                    "item_id": item,
                    "interaction_id": row["id"],
                    "reviewer": "ada",
                    "decision": decision,
                }
                connection.execute(
                    insert(reviews).values(
                        **values, answer="x", labels=[], seconds=3.0, created_at=at, standing=item
                    )
                )


def end_of(week: int) -> int:
    return (week + 7) * DAY_MS + 3_600_000


def open_errors(context: Context) -> list[dict[str, Any]]:
    with reading(context.database) as connection:
        return [
            alert.as_json()
            for alert in list_alerts(connection, "support", only_open=True)
            if alert.kind == "errors"
        ]


def test_more_errors_open_one_alert_ask_for_training_sooner_and_close_it_when_they_are_over(
    context: Context,
) -> None:
    for number in range(3):
        fill(context, MONDAY + 7 * number, 0.05)
        assert run_audit(context, end_of(MONDAY + 7 * number)) is None, "a usual week needs nobody"
    worse = MONDAY + 21
    fill(context, worse, 0.4)
    assert run_audit(context, end_of(worse)) == "support: worse"
    (alert,) = open_errors(context)
    assert alert["severity"] == "bad"
    assert "of the answers are wrong" in alert["title"] and "The weeks before had" in alert["title"]
    assert len(alert["detail"]["interaction_ids"]) == 28, "the wrong answers themselves are named"
    assert run_audit(context, end_of(worse) + DAY_MS) is None and len(open_errors(context)) == 1, (
        "the same week is told once"
    )
    state = gather(context, "support", now=end_of(worse))
    assert state.more_errors, "feedback asks for training with fewer examples now"
    with pytest.raises(ConflictError, match="expected"):
        change_state(context, alert["id"], "expected", actor="ada", now=end_of(worse))
    fill(context, worse + 7, 0.05)
    run_audit(context, end_of(worse + 7))
    assert open_errors(context) == [], "the next week is as usual"
    assert not gather(context, "support", now=end_of(worse)).more_errors


def test_a_verdict_waits_for_reviewers_and_is_given_once(context: Context) -> None:
    fill(context, MONDAY, 0.05)
    run_alias(context, "support", end_of(MONDAY))
    week = MONDAY + 7
    fill(context, week, 0.4, undecided=30)
    assert run_alias(context, "support", end_of(week)) == [], (
        "two in five of what was drawn are still to be judged"
    )
    with reading(context.database) as connection:
        assert newest_weeks(connection, "support", 1)[0].sentence.startswith("So far: ")
    assert [
        found.standing.verdict for found in run_alias(context, "support", end_of(week) + 3 * DAY_MS)
    ] == ["worse"], "three days are enough to wait"
    with writing(context.database) as connection:
        connection.execute(
            update(reviews).where(reviews.c.created_at >= week * DAY_MS).values(decision="approve")
        )
    assert run_alias(context, "support", end_of(week) + 4 * DAY_MS) == []
    with reading(context.database) as connection:
        row = newest_weeks(connection, "support", 1)[0].as_json()
    assert (row["rate"], row["verdict"]) == (
        0.0,
        "worse",
    ), "figures follow the reviewers; the verdict has been given"


def test_days_that_are_settled_are_not_counted_again_and_late_ratings_of_newer_ones_are(
    context: Context,
) -> None:
    fill(context, MONDAY, 0.1)
    friday = (MONDAY + 4) * DAY_MS + 3_600_000
    run_alias(context, "support", friday)

    def cells(day: int) -> dict[str, int]:
        with reading(context.database) as connection:
            return connection.scalars(select(audit_weeks.c.population)).one().get(str(MONDAY + day))

    assert cells(0) == {"quiet": 100} and cells(5) is None
    with writing(context.database) as connection:
        for day in (0, 3):
            item = (
                connection.execute(
                    select(review_items.c.interaction_id).where(
                        review_items.c.created_at >= (MONDAY + day) * DAY_MS
                    )
                )
                .scalars()
                .first()
            )
            builders.add_rating(connection, str(item), friday + 1, api_key_id="key_1")
        assert connection.execute(select(ratings)).all()
    run_alias(context, "support", friday + 2)
    assert cells(0) == {"quiet": 100}, "Monday has been over for more than two days"
    assert cells(3) == {"quiet": 99, "down": 1}


def test_the_page_and_the_metrics_show_the_rate_with_its_interval(context: Context) -> None:
    from monitoring.run import run_drift

    fill(context, MONDAY, 0.1)
    run_alias(context, "support", end_of(MONDAY))
    run_drift(context, "support", end_of(MONDAY))
    page = (
        console_client(context, "viewer", clock=lambda: end_of(MONDAY), raise_errors=True)
        .get("/drift")
        .text
    )
    assert "Error rate" in page
    assert "10.0 % of the answers are wrong" in page
    assert page.count('class="week-interval"') == 1
    families = {
        family.name: family for family in LoopCollector(context, lambda: end_of(MONDAY)).collect()
    }
    found = {
        sample.labels["bound"]: sample.value
        for sample in families["whet_answer_error_rate"].samples
    }
    assert found["estimate"] == pytest.approx(0.1, abs=0.001)
    assert found["low"] < 0.1 < found["high"]
