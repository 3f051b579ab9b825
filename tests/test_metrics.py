"""Every metric of docs/metrics.md changes when the thing happens: each has a scenario here."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert, update
from sqlalchemy.exc import OperationalError

from monitoring.metrics import LoopCollector
from serving.gateway.app import DISK_CHECK_S
from serving.log.drain import Drain
from tests import builders
from tests.serving.conftest import Running, wait_for
from tests.serving.memory_searcher import CitingEngine, MemorySearcher, hit, serve_with
from tests.serving.test_embeddings import InProcessEmbedder
from tests.serving.test_protocol import HELLO, post
from whet.context import Context
from whet.database import writing
from whet.tables import (
    alerts,
    audit_weeks,
    drift_days,
    drift_hours,
    drift_reports,
    replicas,
    retrieval_gaps,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
DOCUMENTED = dict(re.findall(r"^\| `(whet_\w+)` \|.*\| `(\w+)` \|$", PAGE.read_text(), re.M))
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "support", "messages": HELLO}
NOW = 20_500 * builders.DAY
Change = Callable[[Any, pytest.MonkeyPatch], None]


def total(text: str, metric: str) -> float | None:
    """The sum over all labels, of a histogram its count; None where there is no sample."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        if family.name == metric
        for sample in family.samples
        if sample.name in (metric, f"{metric}_total", f"{metric}_count")
    ]
    return sum(found) if found else None


# --- the gateway --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("metrics") / "home"
    with CitingEngine() as engine:
        yield from serve_with(MemorySearcher([hit(1, "Lamps are kept.")]), home, engine)


@pytest.fixture
def gateway(served: Running) -> Iterator[Running]:
    faults = vars(served.engine.faults)
    kept = dict(faults)
    yield served
    faults.update(kept)
    served.engine.answer = ["Lamps", " [1]", "."]


def scrape(gateway: Running) -> str:
    with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=10) as response:
        return str(response.read(), "utf-8")


def ask(gateway: Running, _: pytest.MonkeyPatch, **more: Any) -> None:
    post(gateway, CHAT, {**ASK, **more})


def ask_with(**more: Any) -> Change:
    return lambda gateway, planted: ask(gateway, planted, **more)


def ask_in_background(gateway: Running, _: pytest.MonkeyPatch) -> None:
    gateway.engine.faults.start_delay_s = 2.0
    threading.Thread(target=post, args=(gateway, CHAT, ASK), daemon=True).start()


def cite_nothing(gateway: Running, planted: pytest.MonkeyPatch) -> None:
    gateway.engine.answer = ["Lamps", " [7]", "."]
    ask(gateway, planted, messages=_LAMPS, rag={"collection": "manual"})


def stream_slowly(gateway: Running, planted: pytest.MonkeyPatch) -> None:
    gateway.engine.faults.chunk_delay_s = 0.02
    ask(gateway, planted, stream=True)


def wait_too_long(gateway: Running, planted: pytest.MonkeyPatch) -> None:
    gateway.engine.faults.hang = True
    planted.setattr(gateway.app.core.upstream, "timeout_s", 0.2)
    ask(gateway, planted)


def break_a_connection(gateway: Running, planted: pytest.MonkeyPatch) -> None:
    gateway.engine.faults.drop = 1
    ask(gateway, planted)


def rewrite_a_question(gateway: Running, planted: pytest.MonkeyPatch) -> None:
    settings = gateway.context.settings.model_copy(update={"query_rewrite_s": 5.0})
    planted.setattr(gateway.app.core, "context", replace(gateway.context, settings=settings))
    turns = [*_LAMPS, {"role": "user", "content": "And used ones?"}]
    ask(gateway, planted, messages=turns, rag={"collection": "manual"})


def embed(gateway: Running, _: pytest.MonkeyPatch) -> None:
    gateway.app.state.embedder = InProcessEmbedder()
    assert post(gateway, "/v1/embeddings", {"input": "lamps"})[0] == 200


def rate(gateway: Running, _: pytest.MonkeyPatch) -> None:
    _, headers, _ = post(gateway, CHAT, ASK)
    body = {"interaction_id": headers["x-whet-interaction-id"], "rating": 1}
    assert post(gateway, "/v1/feedback", body)[0] == 202


def stop_the_database(gateway: Running, planted: pytest.MonkeyPatch) -> None:
    def away(_: Drain) -> int:
        raise OperationalError("SELECT 1", {}, Exception("away"))

    planted.setattr(Drain, "step", away)
    ask(gateway, planted)


def fill_the_disk(gateway: Running, planted: pytest.MonkeyPatch) -> None:
    planted.setattr("serving.log.spool.MIN_FREE_BYTES", 1 << 60)


_LAMPS = [{"role": "user", "content": "Which lamps are kept?"}]
_RETRIEVE = ask_with(messages=_LAMPS, rag={"collection": "manual"})
SERVING: dict[str, Change] = {
    "whet_gateway_answers": ask,
    "whet_gateway_duration_seconds": ask,
    "whet_gateway_embedded_tokens": embed,
    "whet_gateway_embeddings": embed,
    "whet_gateway_first_byte_seconds": ask,
    "whet_gateway_in_flight": ask_in_background,
    "whet_gateway_invalid_citations": cite_nothing,
    "whet_gateway_query_rewrites": rewrite_a_question,
    "whet_gateway_ratings": rate,
    "whet_gateway_refused": ask_with(model="nobody"),
    "whet_gateway_retries": break_a_connection,
    "whet_gateway_retrieval_seconds": _RETRIEVE,
    "whet_gateway_retrievals": _RETRIEVE,
    "whet_gateway_structured": ask_with(response_format={"type": "json_object"}),
    "whet_gateway_time_per_token_seconds": stream_slowly,
    "whet_gateway_timeouts": wait_too_long,
    "whet_gateway_tokens": ask,
    "whet_log_pending_bytes": stop_the_database,
    "whet_log_rows": ask,
    "whet_log_unavailable": fill_the_disk,
}


@pytest.mark.parametrize("metric", SERVING)
def test_a_metric_of_the_gateway_changes_when_it_happens(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    wait_for(lambda: total(scrape(gateway), "whet_gateway_in_flight") == 0, "quiet")
    wait_for(lambda: total(scrape(gateway), "whet_log_pending_bytes") == 0, "all rows drained")
    before = total(scrape(gateway), metric) or 0  # without a label's first value there is none
    with monkeypatch.context() as planted:
        SERVING[metric](gateway, planted)
        wait_for(lambda: (total(scrape(gateway), metric) or 0) > before, f"{metric} to rise")
    if metric in ("whet_gateway_in_flight", "whet_log_pending_bytes", "whet_log_unavailable"):
        wait_for(
            lambda: total(scrape(gateway), metric) == before,
            f"{metric} to fall",
            timeout_s=10 * DISK_CHECK_S,
        )


# --- the loop -----------------------------------------------------------------------------------


def collect(context: Context, now: int) -> str:
    registry = CollectorRegistry()
    registry.register(LoopCollector(context, lambda: now))
    return str(generate_latest(registry), "utf-8")


def newer_answer(context: Context, _: pytest.MonkeyPatch) -> None:
    with writing(context.database) as connection:
        builders.add_interaction(connection, NOW - 1000)


def newer_report(context: Context, _: pytest.MonkeyPatch) -> None:
    signals = [{"name": "length", "effect": 0.5, "drifted": True}]
    with writing(context.database) as connection:
        report = builders.add_drift_report(connection, NOW - 1000, verdict="drift")
        changed = update(drift_reports).where(drift_reports.c.id == report)
        connection.execute(changed.values(signals=signals))


def newer_day(context: Context, _: pytest.MonkeyPatch) -> None:
    _add_day(context, NOW // builders.DAY - 1)


def newer_hour(context: Context, _: pytest.MonkeyPatch) -> None:
    _add_hour(context, NOW // builders.HOUR - 1)


def newer_alert(context: Context, _: pytest.MonkeyPatch) -> None:
    with writing(context.database) as connection:
        builders.add_alert(connection, NOW - 90_000, key="drift:other")


def acknowledge(context: Context, _: pytest.MonkeyPatch) -> None:
    with writing(context.database) as connection:
        connection.execute(update(alerts).values(state="acknowledged"))


def newer_week(context: Context, _: pytest.MonkeyPatch) -> None:
    _add_week(context, NOW // builders.DAY - 7, judged=40, rate=0.2)


def queue_one(context: Context, _: pytest.MonkeyPatch) -> None:
    with writing(context.database) as connection:
        old = builders.add_interaction(connection, NOW - builders.DAY)
        builders.add_review_item(connection, old, NOW - 3 * builders.DAY)


def find_a_gap(context: Context, _: pytest.MonkeyPatch) -> None:
    with writing(context.database) as connection:
        connection.execute(
            insert(retrieval_gaps).values(
                id="gap_1",
                alias="support",
                collection="manual",
                words=["parking"],
                members=[],
                questions=20,
                share=0.1,
                recent=10,
                first_day=NOW // builders.DAY - 7,
                last_day=NOW // builders.DAY,
                state="open",
                updated_at=NOW,
            )
        )


def lose_the_database(_: Context, planted: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("away"))

    planted.setattr("monitoring.metrics._drift", away)


def lose_the_engine(context: Context, _: pytest.MonkeyPatch) -> None:
    with writing(context.database) as connection:
        builders.add_replica(connection, NOW, state="hung")
        connection.execute(update(replicas).values(since=NOW - 60_000))


MONITORING: dict[str, Change] = {
    "whet_action_item_age_seconds": lose_the_engine,
    "whet_action_items": lose_the_engine,
    "whet_alert_unacknowledged_age_seconds": acknowledge,
    "whet_alerts_open": newer_alert,
    "whet_answer_error_rate": newer_week,
    "whet_answers_judged": newer_week,
    "whet_drift_day_age_seconds": newer_day,
    "whet_drift_detected": newer_report,
    "whet_drift_enough_data": newer_report,
    "whet_drift_hour_age_seconds": newer_hour,
    "whet_drift_report_age_seconds": newer_report,
    "whet_drift_signal_detected": newer_report,
    "whet_drift_signal_effect": newer_report,
    "whet_interaction_age_seconds": newer_answer,
    "whet_monitoring_up": lose_the_database,
    "whet_retrieval_gaps": find_a_gap,
    "whet_review_oldest_age_seconds": queue_one,
    "whet_review_waiting": queue_one,
}


@pytest.fixture
def installation(sqlite_context: Context) -> Context:
    """An alias with a little of everything, some days old."""
    context = sqlite_context
    with writing(context.database) as connection:
        old = builders.add_interaction(connection, NOW - 2 * builders.DAY)
        builders.add_drift_report(connection, NOW - builders.DAY, verdict="not_enough_data")
        builders.add_alert(connection, NOW - builders.DAY)
        builders.add_review_item(connection, old, NOW - builders.DAY)
    _add_day(context, NOW // builders.DAY - 3)
    _add_hour(context, NOW // builders.HOUR - 30)
    _add_week(context, NOW // builders.DAY - 14, judged=20, rate=0.1)
    return context


def _add_day(context: Context, day: int) -> None:
    with writing(context.database) as connection:
        connection.execute(
            insert(drift_days).values(
                alias="support",
                day=day,
                rows=1,
                statistics={},
                confirmed=[],
                judged=True,
                created_at=NOW,
            )
        )


def _add_hour(context: Context, hour: int) -> None:
    with writing(context.database) as connection:
        connection.execute(
            insert(drift_hours).values(
                alias="support", hour=hour, rows=1, judged=True, outcome={}, created_at=NOW
            )
        )


def _add_week(context: Context, week: int, *, judged: int, rate: float) -> None:
    with writing(context.database) as connection:
        connection.execute(
            insert(audit_weeks).values(
                alias="support",
                week=week,
                population={},
                drawn=judged,
                judged=judged,
                wrong=round(judged * rate),
                rate=rate,
                low=rate / 2,
                high=rate * 2,
                verdict="usual",
                sentence="",
                changed_at=NOW,
            )
        )


@pytest.mark.seconds
@pytest.mark.parametrize("metric", MONITORING)
def test_a_metric_of_the_loop_changes_when_it_happens(
    installation: Context, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    before = total(collect(installation, NOW), metric)
    MONITORING[metric](installation, monkeypatch)
    assert total(collect(installation, NOW), metric) not in (before, None)


def test_every_documented_metric_has_a_scenario() -> None:
    by_package = {"serving": set(SERVING), "monitoring": set(MONITORING)}
    assert len(DOCUMENTED) > 30
    for package, names in by_package.items():
        assert {name for name, where in DOCUMENTED.items() if where == package} == names
