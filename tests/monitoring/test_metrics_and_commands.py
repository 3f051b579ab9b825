"""What others see: Prometheus gauges with finite labels, and commands that print data and fail in
sentences.
"""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitoring import cli
from monitoring.jobs import jobs
from monitoring.metrics import LoopCollector, start_metrics, stop_metrics
from monitoring.run import run_drift
from monitoring.signals import SIGNALS
from tests.monitoring.build import HOUR, NOW, insert_records, promote, records
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.errors import NotFoundError
from whet.settings import load_settings

START = NOW - 100 * HOUR


def _free_port() -> int:
    for port in range(18220, 18250):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no free port between 18220 and 18249")


def _samples(context: Context, now: int) -> dict[str, dict[tuple, float]]:
    return {
        family.name: {tuple(sorted(s.labels.items())): s.value for s in family.samples}
        for family in LoopCollector(context, lambda: now).collect()
    }


def test_gauges_say_what_drifted_and_what_waits(context: Context) -> None:
    promote(context, at=START - 1)
    insert_records(
        context,
        records(240, 1, start_at=START) + records(240, 2, start_at=NOW - 2 * HOUR, new_words=0.5),
    )
    run_drift(context, "support", NOW)
    found = _samples(context, NOW + 60_000)
    alias = (("alias", "support"),)
    assert found["whet_monitoring_up"][()] == 1
    assert found["whet_drift_detected"][alias] == 1
    assert found["whet_drift_report_age_seconds"][alias] == 60
    assert (
        found["whet_drift_signal_detected"][(("alias", "support"), ("signal", "question_novelty"))]
        == 1
    )
    assert (
        found["whet_drift_signal_effect"][(("alias", "support"), ("signal", "question_words"))]
        > 0.1
    )
    assert {dict(labels)["signal"] for labels in found["whet_drift_signal_effect"]} <= {
        signal.name for signal in SIGNALS
    }
    assert found["whet_alerts_open"] == {
        (("severity", "attention"),): 0,
        (("severity", "bad"),): 0,
        (("severity", "information"),): 1,
    }
    assert found["whet_alert_unacknowledged_age_seconds"][()] == 60
    assert found["whet_review_waiting"][()] == 0


def test_an_empty_database_has_gauges_too(context: Context) -> None:
    found = _samples(context, NOW)
    assert found["whet_monitoring_up"][()] == 1
    assert found["whet_review_oldest_age_seconds"][()] == 0
    assert found["whet_drift_detected"] == {}


def test_the_port_is_opened_once_and_a_taken_one_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = _free_port()
    context = open_context(load_settings(home=tmp_path, metrics_port=port))
    assert [(job.name, job.every_s) for job in jobs(context)] == [
        ("drift", 3600),
        ("days", 3600),
        ("hours", 300),
        ("control", 3600),
        ("audit", 3600),
        ("quality", 3600),
        ("scores", 60),
        ("notify", 20),
        ("drift-retention", 600),
    ]
    assert start_metrics(context)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"whet_monitoring_up 1.0" in answer.read()
    stop_metrics(context)
    with socket.socket() as taken:
        # The connection just closed may linger
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not start_metrics(context)
    assert f"127.0.0.1:{port} cannot be opened" in caplog.text
    context.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("WHET_HOME", str(tmp_path / "home"))
    context = open_context(load_settings())
    now = now_ms()
    promote(context, at=now - 100 * HOUR)
    insert_records(
        context,
        records(240, 1, start_at=now - 90 * HOUR)
        + records(240, 2, start_at=now - 2 * HOUR, new_words=0.5),
    )
    return context


def _json(*arguments: str, app: object = cli.drift) -> object:
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_drift_is_run_listed_and_shown_and_its_alert_is_handled_on_the_command_line(
    home: Context,
) -> None:
    report = _json("run", "--no-report")
    assert report["verdict"] == "drift"
    assert [row["id"] for row in _json("list")] == [report["id"]]
    assert _json("show", report["id"])["signals"] == report["signals"]
    (alert,) = _json("list", "--open", app=cli.alerts)
    assert _json("ack", alert["id"], app=cli.alerts)["state"] == "acknowledged"
    assert _json("expected", alert["id"], app=cli.alerts)["state"] == "expected"
    assert _json("list", "--open", app=cli.alerts) == []
    with pytest.raises(NotFoundError, match="Known: support"):
        _json("list", "--alias", "nobody")


def test_people_get_a_table_and_unknown_names_a_sentence(home: Context) -> None:
    runner = CliRunner()
    shown = runner.invoke(cli.drift, ["run", "--no-report"])
    assert shown.exit_code == 0
    assert runner.invoke(cli.alerts, ["list"]).exit_code == 0
    for app, arguments in (
        (cli.drift, ["show", "drf_0"]),
        (cli.drift, ["run", "--alias", "nobody"]),
        (cli.alerts, ["ack", "alr_0"]),
    ):
        assert isinstance(runner.invoke(app, arguments).exception, NotFoundError)
