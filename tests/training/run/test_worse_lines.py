"""The end of a run says what the report found to be worse."""

from __future__ import annotations

import pytest

from tests.training.run.test_command_texts import outcome
from training.commands.outcome import show_report
from training.evaluation.report import FORMAT, report_path
from whet.context import Context

_WORSE = {
    "name": "general questions that the base knows",
    "n": 66,
    "values": {"candidate": 0.29, "the base": 1.0},
    "against": {"the base": {"difference": -0.71, "low": -0.8, "high": -0.6, "verdict": "worse"}},
}


def test_what_a_version_forgot_is_said_where_it_was_made(
    sqlite_context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    made = outcome("pass")
    made.judgement.decision = object()
    path = report_path(made.judgement.samples_path)
    gate = {"verdict": "pass", "reason": "", "metrics": {}}
    probes = {"forgetting": [_WORSE], "bias": [], "safety": []}
    found = {"format": FORMAT, "adapter": "bikes@v1", "gate": gate, "measures": {}}
    sqlite_context.store.put_json(path, {**found, "probes": probes})
    show_report(sqlite_context, made, "first look")
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].startswith("• worse: general questions that the base knows: 29"), lines[0]
    assert "Report: whet eval report bikes@v1" in lines[1]
