"""Evidently, wrapped: whatever stands in a column, the report of the others comes; nothing else in
the process notices.
"""

from __future__ import annotations

import ast
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from monitoring import evidently_report
from monitoring.driftjob import run_all
from monitoring.rendering import evidently_html
from monitoring.report_store import find_report, list_reports
from monitoring.run import prune_snapshots
from monitoring.signals import values_of
from monitoring.verdict import judge
from tests.monitoring.build import HOUR, NOW, insert_records, promote, records, rows
from whet.context import Context
from whet.database import reading
from whet.errors import NotFoundError

ROOT = Path(__file__).parents[2]


def test_only_one_file_imports_evidently_and_only_table_readers_pandas() -> None:
    importing: dict[str, set[str]] = {"evidently": set(), "pandas": set()}
    for file in [
        path
        for folder in ("whet", "serving", "training", "monitoring", "feedback")
        for path in (ROOT / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in {name.split(".")[0] for name in names} & set(importing):
                importing[name].add(file.relative_to(ROOT).as_posix())
    assert importing["evidently"] == {"monitoring/evidently_report.py"}
    assert importing["pandas"] == {
        "monitoring/evidently_report.py",
        "monitoring/detector/reading.py",
        "monitoring/detector/table.py",
        "monitoring/intake.py",
    }


@pytest.mark.seconds
def test_the_report_agrees_with_our_verdict_and_keeps_the_global_generators() -> None:
    reference, window = rows(150, 1), rows(150, 2, new_words=0.6, slower=2.0)
    np.random.seed(11)
    random.seed(11)
    expected = np.random.get_state()[1].copy(), random.getstate()
    verdict = judge(reference, window)
    stored = evidently_report.snapshot(reference, window, verdict)
    assert (np.random.get_state()[1] == expected[0]).all()
    assert random.getstate() == expected[1]
    assert stored["verdict"] == "drift"
    reported = {column["name"]: column["p_value"] for column in stored["columns"]}
    ours = {finding.signal.name: finding for finding in verdict.findings}
    for name in ("ttft", "completion_tokens", "refusal", "finish_reason"):
        said = stored["snapshot"].split(f"Drift in column '{name}'")[1][:400]
        assert ("Data drift detected" in said) == (ours[name].state == "drift"), name
        assert 0 <= reported[name] <= 1
    json.loads(json.dumps(stored, allow_nan=False))
    html = evidently_report.render(stored)
    assert "<html" in html.lower()
    assert evidently_report.render({"snapshot": None}).startswith("<!doctype html>")


_NAN, _INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("prompt_tokens", [_NAN] * 80),
        ("prompt_tokens", [_INF, -_INF] * 40),
        ("prompt_tokens", [_NAN, _INF, 5.0, 6.0] * 20),
        ("prompt_tokens", []),
        ("prompt_tokens", [3.0]),
        ("prompt_tokens", [7.0] * 80),
        ("prompt_tokens", [1e308, -1e308] * 40),
        ("prompt_tokens", ["twelve"] * 80),
        ("finish_reason", ["new"] * 80),
        ("finish_reason", [3, "stop", None, True] * 20),
        ("refusal", [None] * 80),
        ("refusal", [True] * 80),
    ],
)
def test_one_odd_column_never_costs_the_others_their_report(column: str, values: list) -> None:
    shown = ("question_length", "empty", column)
    usual = {name: found for name, found in values_of(rows(80, 1)).items() if name in shown}
    for reference, window in (
        (usual, {**usual, column: values}),
        ({**usual, column: values}, usual),
        ({**usual, column: values},) * 2,
    ):
        found = evidently_report.report_of(reference, window)
        named = {one["name"] for one in found["columns"]}
        assert {"question_length", "empty"} <= named
        assert (column in named) != (column in {one["name"] for one in found["skipped"]})
        assert found["snapshot"]


def test_without_any_values_there_is_a_report_that_says_so() -> None:
    found = evidently_report.report_of({}, {})
    assert found["columns"] == []
    assert found["snapshot"] is None
    assert len(found["skipped"]) >= 10


def test_the_job_stores_a_report_of_every_drift_and_one_a_day_of_quiet_traffic(
    sqlite_context: Context,
) -> None:
    context = sqlite_context
    promote(context, at=NOW - 100 * HOUR)
    insert_records(context, records(160, 1, start_at=NOW - 90 * HOUR))
    for step in range(3):
        insert_records(context, records(2, 10 + step, start_at=NOW + step * HOUR - 10_000))
        run_all(context, NOW + step * HOUR)
    insert_records(context, records(200, 20, start_at=NOW + 4 * HOUR, new_words=0.8))
    run_all(context, NOW + 5 * HOUR)
    with reading(context.database) as connection:
        reports = list_reports(connection)
    assert [report.verdict for report in reports] == [
        "drift",
        "no_drift",
        "no_drift",
        "no_drift",
    ]
    assert [bool(report.report_path) for report in reports] == [True, False, False, True]
    assert b"<html" in evidently_html(context, reports[0]).lower()[:2000]
    with pytest.raises(NotFoundError, match="no Evidently report"):
        evidently_html(context, reports[1])


def test_a_report_is_rendered_in_a_process_of_its_own_and_old_snapshots_go(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = sqlite_context
    promote(context, at=NOW - 100 * HOUR)
    insert_records(context, records(160, 1, start_at=NOW - 90 * HOUR))
    run_all(context, NOW)
    with reading(context.database) as connection:
        (report,) = list_reports(connection)
    html = evidently_html(context, report)
    assert b"question_length" in html
    assert (context.settings.home / "cache" / "drift" / f"{report.id}.html").is_file()
    monkeypatch.setattr("monitoring.run.SNAPSHOTS_KEPT", 0)
    assert prune_snapshots(context, "support") == 1
    assert not context.store.exists(report.report_path)
    with reading(context.database) as connection:
        assert find_report(connection, report.id).report_path is None
