"""Promote and roll back an adapter; follow a run to its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from tests import builders, worlds
from tests.training.judging.test_opinion import sample
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.registry import current_rollouts
from whet.tables import audit, training_runs

pytestmark = pytest.mark.browser
Open = Callable[..., Page]


def live(context: Context) -> str | None:
    with reading(context.database) as connection:
        return current_rollouts(connection)["support"].stable_digest


def test_an_operator_promotes_a_version_and_rolls_it_back_by_keyboard(
    opened: Open, sqlite_context: Context
) -> None:
    made = worlds.world(sqlite_context, 30, now_ms())
    page = opened("operator", "/adapters/support")
    expect(page.locator("#headline")).to_have_text(
        "support@v2 answers support; support@v3 is on trial with 10 %"
    )
    page.keyboard.press("p")
    expect(page.locator("details.confirm[open]")).to_contain_text(
        "support@v3 will answer every new request for support. support@v2 is kept"
    )
    # Nothing happens before the sentence was answered
    assert live(sqlite_context) == made["digests"][1]
    page.keyboard.press("Enter")
    expect(page.locator("#headline")).to_have_text("support@v3 answers support")
    expect(page.locator(".said")).to_contain_text("support@v3 answers support now.")
    assert live(sqlite_context) == made["digests"][2]
    page.keyboard.press("b")
    expect(page.locator("details.confirm[open]")).to_contain_text(
        "support@v2 answers every new request for support again"
    )
    page.keyboard.press("Enter")
    expect(page.locator("#headline")).to_have_text("support@v2 answers support after a rollback")
    assert live(sqlite_context) == made["digests"][1]
    with reading(sqlite_context.database) as connection:
        assert [
            row.action
            for row in connection.execute(
                select(audit.c.action).where(audit.c.actor == "operator").order_by(audit.c.sequence)
            )
        ] == [
            "rollout.promote",
            "rollout.rollback",
        ]


def test_an_older_version_is_promoted_from_its_row_by_mouse(
    opened: Open, sqlite_context: Context
) -> None:
    made = worlds.world(sqlite_context, 30, now_ms())
    page = opened("operator", "/adapters/support")
    row = page.locator("tr[data-row]", has_text="support@v1")
    row.locator("summary", has_text="Promote").click()
    row.get_by_role("button", name="Promote support@v1").click()
    expect(page.locator("#headline")).to_have_text("support@v1 answers support")
    assert live(sqlite_context) == made["digests"][0]


def test_a_question_that_is_not_answered_changes_nothing(
    opened: Open, sqlite_context: Context
) -> None:
    made = worlds.world(sqlite_context, 30, now_ms())
    page = opened("operator", "/adapters/support")
    page.keyboard.press("b")
    page.keyboard.press("Escape")
    expect(page.locator("details.confirm[open]")).to_have_count(0)
    page.get_by_text("Roll back", exact=False).first.click()
    page.locator("details.confirm[open]").get_by_role("button", name="Cancel").click()
    expect(page.locator("details.confirm[open]")).to_have_count(0)
    assert live(sqlite_context) == made["digests"][1]


def test_a_run_is_followed_from_its_first_steps_to_the_verdict(
    opened: Open, sqlite_context: Context
) -> None:
    now = now_ms()
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, now)
        run = builders.add_run(
            connection, now, dataset=data, state="running", step=10, steps=100, heartbeat_at=now
        )
    page = opened("viewer", f"/runs/{run}")
    expect(page.locator("#headline")).to_have_text(
        "support is in training: step 10 of 100, 31 s left"
    )
    expect(page.locator(".uplot")).to_be_visible()
    page.mouse.move(5, 5)

    def write(**values: object) -> None:
        with writing(sqlite_context.database) as connection:
            connection.execute(
                update(training_runs)
                .where(training_runs.c.id == run)
                .values(heartbeat_at=now_ms(), **values)
            )

    write(
        progress={
            "stage": "training",
            "step": 64,
            "steps": 100,
            "loss": 0.4567,
            "tokens_per_s": 5000,
            "eta_s": 12.0,
        },
        curve=builders.curve(64),
    )
    expect(page.locator("#headline")).to_have_text(
        "support is in training: step 64 of 100, 12 s left"
    )
    expect(page.locator(".stat-value", has_text="0.457")).to_be_visible()
    expect(page.locator(".stages .now")).to_have_text("training")
    write(
        progress={
            "stage": "evaluating",
            "step": 100,
            "steps": 100,
            "loss": 0.2,
            "answered": 30,
            "to_answer": 90,
        },
        curve=builders.curve(100),
    )
    expect(page.locator("#headline")).to_have_text(
        "support is in training: 30 of 90 held-out answers compared"
    )
    with writing(sqlite_context.database) as connection:
        digest = builders.add_adapter(connection, now_ms(), dataset=data, run=run)
        builders.add_evaluation(connection, now_ms(), adapter=digest, dataset=data, run=run)
    write(
        state="succeeded",
        adapter_digest=digest,
        finished_at=now_ms(),
        progress={"stage": "done", "step": 100, "steps": 100, "loss": 0.11},
    )
    expect(page.locator("#headline")).to_have_text("support@v1 passed its gate")
    expect(page.get_by_text("Better on new by 55 points")).to_be_visible()
    expect(page.locator(".uplot")).to_be_visible()


@pytest.mark.parametrize(
    "path", ["/runs", "/runs/{run}", "/runs/{run}/samples", "/runs/{run}/report"]
)
def test_no_page_of_a_run_scrolls_sideways_on_a_phone(
    opened: Open, sqlite_context: Context, path: str
) -> None:
    """Neither do a path without spaces in an error, a name of any length or an answer without end;
    the intervals are drawn there too.
    """
    share = {"difference": 0.5, "low": 0.4, "high": 0.6, "verdict": "better"}
    measure = {
        "name": "right",
        "n": 20,
        "better": "higher",
        "values": {"candidate": 0.9, "the base": 0.4},
        "against": {"the base": share},
    }
    probes = {
        "forgetting": [measure],
        "bias": [measure],
        "safety": [measure],
        "refused_by_category": {},
    }
    report = {"format": 1, "against": "the base", "base": "the base", "gate": {"verdict": "pass", "reason": "x" * 300}, "measures": {"old": [measure]}, "probes": probes}  # fmt: skip
    answers = [sample(number) for number in range(3)]
    answers[0]["candidate"]["text"], answers[1]["candidate"]["text"] = "x" * 500, "<b>" * 500
    files = {
        "samples.jsonl": "\n".join(map(json.dumps, answers)),
        "report.json": json.dumps(report),
    }
    sqlite_context.store.put_folder(
        "evaluations/x",
        lambda folder: [(folder / name).write_text(text) for name, text in files.items()],
    )
    now = now_ms()
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, now)
        run = builders.add_run(
            connection,
            now,
            dataset=data,
            state="failed",
            alias="a" * 90,
            error="/folder" * 80,
            recipe={"dataset_path": "x", "init_from": "y" * 200},
        )
        builders.add_evaluation(
            connection,
            now,
            adapter="d" * 64,
            dataset=data,
            run=run,
            samples_path="evaluations/x/samples.jsonl",
        )
    page = opened("viewer", path.format(run=run), width=390, theme="dark")
    expect(page.locator("#headline")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for picture in page.locator("svg.interval:visible").all():
        assert picture.bounding_box()["width"] >= 100  # type: ignore[index]


def test_a_run_is_cancelled_by_keyboard_after_a_question(
    opened: Open, sqlite_context: Context
) -> None:
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, now_ms())
        run = builders.add_run(
            connection,
            now_ms(),
            dataset=data,
            state="running",
            step=10,
            steps=100,
            heartbeat_at=now_ms(),
        )
    page = opened("operator", f"/runs/{run}")
    page.keyboard.press("x")
    expect(page.locator("details.confirm[open]")).to_contain_text("The run stops at its next step.")
    page.keyboard.press("Enter")
    expect(page.locator(".notice.attention")).to_contain_text("operator asked this run to stop")


def test_the_chart_names_only_lines_that_it_draws(opened: Open, sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, now_ms())
        run = builders.add_run(connection, now_ms(), dataset=data)
        checked = builders.add_run(
            connection,
            now_ms(),
            dataset=data,
            progress={
                "stage": "done",
                "step": 160,
                "steps": 160,
                "validation": [[80, 0.6], [160, 0.5]],
            },
        )
    expect(opened("viewer", f"/runs/{run}").locator(".u-legend th")).to_have_text(["step", "loss"])
    expect(opened("viewer", f"/runs/{checked}").locator(".u-legend th")).to_have_text(
        ["step", "loss", "loss on validation rows"]
    )


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_scale(
    opened: Open, sqlite_context: Context
) -> None:
    """On a straight one all but the first tenth of such a run is a flat line."""
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, now_ms())
        run = builders.add_run(
            connection,
            now_ms(),
            dataset=data,
            curve=[[step, 5.0 * 0.97**step, 0.0, 1e-3] for step in range(1, 300)],
        )
    page = opened("viewer", f"/runs/{run}")
    expect(page.locator(".u-legend th")).to_have_text(
        ["step", "loss, on a logarithmic scale", "learning rate, on a scale of its own"]
    )


def test_the_list_of_runs_follows_a_run_that_begins(opened: Open, sqlite_context: Context) -> None:
    page = opened("viewer", "/runs")
    expect(page.get_by_text("A run turns examples into a version.")).to_be_visible()
    page.mouse.move(5, 5)
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, now_ms())
        builders.add_run(
            connection,
            now_ms(),
            dataset=data,
            state="running",
            step=3,
            steps=90,
            heartbeat_at=now_ms(),
        )
    expect(page.locator("#headline")).to_contain_text("support is in training: step 3 of 90")
    expect(page.locator(".running-facts")).to_contain_text("step 3 of 90")
