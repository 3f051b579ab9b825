"""The pages of runs: headlines, verdicts, curves, and cancelling."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from tests import builders, worlds
from tests.web import NOW, console_client, headline
from training.pages import list_headline, run_headline, sparkline
from whet.context import Context
from whet.database import reading as reads
from whet.database import writing
from whet.tables import training_runs


def test_a_run_can_be_cancelled_by_an_operator_while_it_runs_and_not_after(context: Context) -> None:
    made = worlds.world(context, 7, NOW)
    client = console_client(context, "operator", clock=lambda: NOW)
    assert client.post(f"/runs/{made['live_run']}/cancel").headers["location"] == f"/runs/{made['live_run']}"
    assert "asked this run to stop" in client.get(f"/runs/{made['live_run']}").text
    assert client.post(f"/runs/{made['failed_run']}/cancel").status_code == 409
    with reads(context.database) as connection:
        assert connection.execute(select(training_runs.c.cancel_requested_by).where(training_runs.c.id == made["live_run"])).scalar() == "operator"


def test_the_headline_of_runs_says_what_trains_or_what_was_last() -> None:
    assert list_headline([], 0, NOW) == "Nothing has been trained yet"
    assert list_headline([], 1, NOW) == "1 request for training waits for a worker"
    running = {"state": "running", "alias": "support", "progress": {"stage": "training", "step": 8, "steps": 16, "eta_s": 31}}
    assert list_headline([running], 0, NOW) == "support is in training: step 8 of 16, 31 s left"
    ended = {"state": "succeeded", "alias": "support", "label": "support@v3", "finished_at": NOW - 7_200_000}
    assert list_headline([ended], 0, NOW) == "Nothing trains now; the last run made support@v3 2 h ago"


@pytest.mark.parametrize(
    ("verdict", "said"), [("pass", "passed its gate"), ("fail", "did not pass its gate"), ("inconclusive", "The gate could not decide on support@v3")]
)
def test_the_headline_of_a_run_is_its_verdict(verdict: str, said: str) -> None:
    row = {"state": "succeeded", "alias": "support", "label": "support@v3", "silent": False, "heartbeat_at": NOW}
    assert said in run_headline(row, {"verdict": verdict}, NOW)


def test_a_run_whose_process_is_gone_is_not_shown_as_running(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        run = builders.add_run(connection, NOW - builders.HOUR, dataset=data, state="running", heartbeat_at=NOW - 10 * builders.MINUTE)
    page = console_client(sqlite_context, "viewer", clock=lambda: NOW).get(f"/runs/{run}").text
    assert headline(page) == "The run for support is silent since 10 min: its process may be gone"


def test_answers_of_a_run_are_sorted_by_what_changed(sqlite_context: Context) -> None:
    lines = [_sample("a", 0, 1), _sample("b", 1, 0), _sample("c", 1, 1)]
    sqlite_context.store.put_folder("evaluations/x", lambda folder: (folder / "samples.jsonl").write_text("\n".join(lines)))
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        run = builders.add_run(connection, NOW, dataset=data)
        builders.add_evaluation(connection, NOW, adapter="d" * 64, dataset=data, run=run, samples_path="evaluations/x/samples.jsonl")
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get(f"/runs/{run}/samples").text
    assert headline(page) == "1 answer became right, 1 answer became wrong"
    assert "question a" in page and "question b" not in page
    assert "question b" in client.get(f"/runs/{run}/samples?show=fixed").text


def test_the_report_of_a_run_is_a_page_with_its_texts_escaped(sqlite_context: Context) -> None:
    measure = {
        "name": "right",
        "n": 20,
        "better": "higher",
        "values": {"candidate": 0.9, "the base": 0.2},
        "against": {"the base": {"difference": 0.7, "low": 0.5, "high": 0.8, "verdict": "better"}},
    }
    found = {
        "format": 1, "against": "the base", "base": "the base", "gate": {"verdict": "pass", "reason": "Better <b>than</b> the base."}, "measures": {"old": [measure]},
        "probes": {"forgetting": [measure], "bias": [], "safety": [], "refused_by_category": {"drugs": {"candidate": 1, "the base": 0, "of": 3}}},
    }  # fmt: skip
    sqlite_context.store.put_folder(
        "evaluations/x", lambda folder: [(folder / "samples.jsonl").write_text(""), (folder / "report.json").write_text(json.dumps(found))]
    )
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        run, old = builders.add_run(connection, NOW, dataset=data), builders.add_run(connection, NOW - 1, dataset=data)
        builders.add_evaluation(connection, NOW, adapter="d" * 64, dataset=data, run=run, samples_path="evaluations/x/samples.jsonl")
        builders.add_evaluation(connection, NOW, adapter="e" * 64, dataset=data, run=old, samples_path="evaluations/y/samples.jsonl")
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get(f"/runs/{run}/report").text
    assert headline(page) == "Gate: pass" and "+70.0 (+50.0 to +80.0)" in page and "Better &lt;b&gt;than" in page and "candidate 1 of 3" in page
    assert client.get(f"/runs/{old}/report").status_code == 404, "a run that was judged before there were reports"


def _sample(name: str, ours: float, theirs: float) -> str:
    side = lambda correct: {"text": f"answer {name}", "tokens": 3, "stopped": True, "score": {"correct": correct, "f1": 0.5}}  # noqa: E731
    return json.dumps(
        {
            "id": name,
            "groups": ["old"],
            "prompt": [{"role": "user", "content": f"question {name}"}],
            "reference": "right",
            "candidate": side(ours),
            "against": side(theirs),
        }
    )


def test_a_curve_of_any_length_draws() -> None:
    assert sparkline([]) == "" and sparkline([[1, 2.0, 0.1]]) == ""
    assert sparkline([[1, 2.0, 0.1], [2, 2.0, 0.2]]).startswith("M0.0")
    assert sparkline(builders.curve(5000)).count("L") < 260
