"""The pages of runs: headlines, verdicts, curves, and cancelling."""

from __future__ import annotations

import html
import json
import re

import pytest
from sqlalchemy import select

from tests import builders, worlds
from tests.web import NOW, console_client, headline
from training.commands.shown import loss_bars
from training.pages import list_headline, sparkline
from training.recipes.recipe import load_recipe
from training.recipes.recipe_checks import relevant_fields
from training.web.answers import marked
from training.web.words import estimated, run_headline, said_value
from whet.context import Context
from whet.database import reading as reads
from whet.database import writing
from whet.tables import training_runs


def test_a_run_can_be_cancelled_by_an_operator_while_it_runs_and_not_after(
    context: Context,
) -> None:
    made = worlds.world(context, 7, NOW)
    client = console_client(context, "operator", clock=lambda: NOW)
    assert (
        client.post(f"/runs/{made['live_run']}/cancel").headers["location"]
        == f"/runs/{made['live_run']}"
    )
    assert "asked this run to stop" in client.get(f"/runs/{made['live_run']}").text
    assert client.post(f"/runs/{made['failed_run']}/cancel").status_code == 409
    with reads(context.database) as connection:
        assert (
            connection.execute(
                select(training_runs.c.cancel_requested_by).where(
                    training_runs.c.id == made["live_run"]
                )
            ).scalar()
            == "operator"
        )


def test_the_headline_of_runs_says_what_trains_or_what_was_last() -> None:
    assert list_headline([], 0, NOW) == "Nothing has been trained yet"
    assert list_headline([], 1, NOW) == "1 request for training waits for a worker"
    running = {
        "state": "running",
        "alias": "support",
        "progress": {"stage": "training", "step": 8, "steps": 16, "eta_s": 31},
    }
    assert list_headline([running], 0, NOW) == "support is in training: step 8 of 16, 31 s left"
    ended = {
        "state": "succeeded",
        "alias": "support",
        "label": "support@v3",
        "finished_at": NOW - 7_200_000,
    }
    assert (
        list_headline([ended], 0, NOW) == "Nothing trains now; the last run made support@v3 2 h ago"
    )
    lost = {**running, "silent": True, "heartbeat_at": NOW - 600_000}
    assert (
        list_headline([lost], 0, NOW)
        == "The run for support is silent since 10 min: its process may be gone"
    )
    assert list_headline([lost, lost], 0, NOW) == "2 runs are silent: their processes may be gone"
    assert (
        list_headline([lost, running, lost], 0, NOW)
        == "support is in training: step 8 of 16, 31 s left; 2 runs are silent"
    )


def test_the_list_is_searched_by_alias_and_outcome_and_older_pages_do_not_say_what_trains_now(
    sqlite_context: Context,
) -> None:
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        for number in range(40):
            builders.add_run(
                connection,
                NOW - number * builders.HOUR,
                dataset=data,
                alias="legal" if number % 2 else "support",
                state="failed",
            )
        builders.add_run(
            connection, NOW - 90 * builders.HOUR, dataset=data, state="running", heartbeat_at=NOW
        )
        builders.add_run(
            connection, NOW - 91 * builders.HOUR, dataset=data, alias="le%al", state="cancelled"
        )
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get("/runs").text
    assert headline(page).startswith("support is in training"), (
        "a long run is older than the 30 that the page shows"
    )
    older = re.findall(r'href="(/runs\?before=[^"]+)"', page)
    page = client.get(html.unescape(older[0])).text
    assert (
        headline(page).startswith("Runs, started before 20")
        and "in training" not in page
        and page.count("<tr data-row>") == 11
    )
    page = client.get("/runs?alias=leg&state=failed").text
    assert (
        headline(page) == "Runs of leg… that failed"
        and page.count("<tr data-row>") == 20
        and 'data-live="/runs/live?alias=leg&amp;state=failed"' in page
    )
    assert client.get("/runs/live?alias=le%25").text.count("<tr data-row>") == 1, "a % is a %"
    assert "No run is like that." in client.get("/runs?alias=none").text


def test_a_failed_run_says_how_it_goes_on_and_long_errors_and_commands_are_shown_as_such(
    sqlite_context: Context,
) -> None:
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        recipe = {
            "rank": 16,
            "packing": False,
            "dataset_path": "datasets/x",
            "dataset_name": "support",
            "rows": {"train": 500, "test": 140},
        }
        run = builders.add_run(
            connection,
            NOW,
            dataset=data,
            state="failed",
            error="No room: try `--micro-batch 2` <b>",
            recipe=recipe,
        )
        early = builders.add_run(
            connection, NOW, dataset="f" * 64, state="failed", recipe={"rank": 16}
        )
        file = builders.add_run(connection, NOW, dataset="f" * 64, recipe=recipe)
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get(f"/runs/{run}").text
    assert (
        f"whet train resume {run}" in page and "try <code>--micro-batch 2</code> &lt;b&gt;" in page
    )
    assert "whet train resume" not in client.get(f"/runs/{early}").text, (
        "it ended before it knew its rows"
    )
    page = client.get(f"/runs/{file}").text
    assert (
        "500 rows" in page
        and "<dd>no</dd>" in page
        and "datasets/x" not in page
        and "{&#39;" not in page
    )


@pytest.mark.parametrize(
    ("method", "shown", "hidden"),
    [
        ("lora", {"rank", "packing"}, {"beta", "samples", "virtual tokens", "teacher"}),
        ("dpo", {"rank", "beta"}, {"samples", "teacher"}),
        ("prompt", {"virtual tokens"}, {"rank", "beta"}),
    ],
)
def test_a_page_shows_of_a_recipe_what_its_method_reads(
    sqlite_context: Context, method: str, shown: set[str], hidden: set[str]
) -> None:
    with writing(sqlite_context.database) as connection:
        run = builders.add_run(
            connection,
            NOW,
            dataset="f" * 64,
            recipe={**load_recipe(method).as_json(), "rows": {"train": 5}},
        )
    page = console_client(sqlite_context, "viewer", clock=lambda: NOW).get(f"/runs/{run}").text
    named = set(re.findall(r"<dt>([^<]+)</dt>", page))
    assert shown <= named and not hidden & named, named
    assert relevant_fields({"method": "unheard of", "beta": 0.1}) == {
        "method": "unheard of",
        "beta": 0.1,
    }, "what it reads is not known"


def test_what_was_estimated_stands_beside_what_was_measured() -> None:
    estimate = {
        "seconds": 151.5,
        "tokens_per_s": 1610,
        "peak_memory_bytes": 2e9,
        "measured": {"seconds": 198.1, "tokens_per_s": 1232},
        "error": {"seconds": -0.235},
    }
    assert estimated(estimate) == [
        ("Training", "2 min 32 s", "3 min 18 s", "-24 %"),
        ("Speed", "1,610 tokens/s", "1,232 tokens/s", "–"),
    ]
    assert estimated({}) == [] and estimated({"seconds": 3}) == [], (
        "a run that goes on has nothing measured"
    )
    assert [said_value(value) for value in (True, [1, "a"], {"train": 3}, None, 0)] == [
        "yes",
        "1, a",
        "train 3",
        "–",
        "0",
    ]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("pass", "passed its gate"),
        ("fail", "did not pass its gate"),
        ("inconclusive", "The gate could not decide on support@v3"),
    ],
)
def test_the_headline_of_a_run_is_its_verdict(verdict: str, said: str) -> None:
    row = {
        "state": "succeeded",
        "alias": "support",
        "label": "support@v3",
        "silent": False,
        "heartbeat_at": NOW,
    }
    assert said in run_headline(row, {"verdict": verdict}, NOW)


def test_a_run_whose_process_is_gone_is_not_shown_as_running(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        run = builders.add_run(
            connection,
            NOW - builders.HOUR,
            dataset=data,
            state="running",
            heartbeat_at=NOW - 10 * builders.MINUTE,
        )
    page = console_client(sqlite_context, "viewer", clock=lambda: NOW).get(f"/runs/{run}").text
    assert headline(page) == "The run for support is silent since 10 min: its process may be gone"


def test_answers_of_a_run_are_sorted_by_what_changed(sqlite_context: Context) -> None:
    torn_by_splitlines = json.loads(_sample("c", 1, 1)) | {
        "reference": "one\u2028two\u2029three\x85"
    }
    lines = [
        _sample("a", 0, 1),
        _sample("b", 1, 0),
        json.dumps(torn_by_splitlines, ensure_ascii=False),
    ]
    sqlite_context.store.put_folder(
        "evaluations/x", lambda folder: (folder / "samples.jsonl").write_text("\n".join(lines))
    )
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        run = builders.add_run(connection, NOW, dataset=data)
        builders.add_evaluation(
            connection,
            NOW,
            adapter="d" * 64,
            dataset=data,
            run=run,
            samples_path="evaluations/x/samples.jsonl",
        )
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get(f"/runs/{run}/samples").text
    assert headline(page) == "1 answer became right, 1 answer became wrong"
    assert "question a" in page and "question b" not in page
    assert "question b" in client.get(f"/runs/{run}/samples?show=fixed").text


def test_answers_are_shown_whatever_they_are(sqlite_context: Context) -> None:
    """Nothing became wrong, so that what became right is shown; long texts fold, an empty one says
    so, earlier turns are there, markup is text.
    """
    row = json.loads(_sample("a", 1, 0))
    row["candidate"]["text"], row["against"]["text"], row["reference"] = (
        "word " * 400,
        "",
        "<b>36</b> months",
    )
    row["prompt"] = [{"role": "system", "content": "You are <i>it</i>."}, *row["prompt"]]
    sqlite_context.store.put_folder(
        "evaluations/x", lambda folder: (folder / "samples.jsonl").write_text(json.dumps(row))
    )
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        run = builders.add_run(connection, NOW, dataset=data)
        own = builders.add_adapter(connection, NOW, version=7, run=run)
        builders.add_evaluation(
            connection,
            NOW,
            adapter=own,
            dataset=data,
            run=run,
            samples_path="evaluations/x/samples.jsonl",
        )
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get(f"/runs/{run}/samples").text
    assert (
        "question a" in page
        and "2,000 characters" in page
        and "an empty answer" in page
        and "1 turn before" in page
        and "support@v7" in page
    )
    assert "&lt;i&gt;it" in page and "&lt;b&gt;36" in page and "<i>it" not in page
    assert "No answer became wrong." in client.get(f"/runs/{run}/samples?show=broken").text


def test_words_that_the_right_answer_lacks_are_marked() -> None:
    assert marked("The warranty is 24 months long.", "The warranty is 36 months long.") == [
        ("The warranty is ", False),
        ("24", True),
        (" months long.", False),
    ]
    assert marked("", "x") == [] and marked("All else", "The warranty is 36 months.") == [
        ("All else", False)
    ]
    assert marked("a " * 5000, "a") == [("a " * 5000, False)], "too long to compare"


def test_the_report_of_a_run_is_a_page_with_its_texts_escaped(sqlite_context: Context) -> None:
    measure = {
        "name": "right",
        "n": 20,
        "better": "higher",
        "values": {"candidate": 0.9, "the base": 0.2},
        "against": {"the base": {"difference": 0.7, "low": 0.5, "high": 0.8, "verdict": "better"}},
    }
    lost = {**measure, "name": "facts <i>found", "n": 48, "values": {"candidate": 0.1, "the base": 0.6}, "against": {"the base": {"difference": -0.5, "low": -0.6, "high": -0.3, "verdict": "worse"}}}  # fmt: skip
    cost = {"name": "perplexity of dialogues", "n": 40, "better": "lower", "difference_in": "nats per token", "values": {"candidate": 3.34, "the base": 1.17}, "against": {"the base": {"difference": 1.05, "low": 0.9, "high": 1.19, "verdict": "not enough data to tell"}}}  # fmt: skip
    found = {
        "format": 1, "against": "the base", "base": "the base", "gate": {"verdict": "pass", "reason": "Better <b>than</b> the base."}, "measures": {"old": [measure]},
        "probes": {"forgetting": [lost, cost], "bias": [], "safety": [], "refused_by_category": {"drugs": {"candidate": 1, "the base": 0, "of": 3}}},
    }  # fmt: skip
    sqlite_context.store.put_folder(
        "evaluations/x",
        lambda folder: [
            (folder / "samples.jsonl").write_text(""),
            (folder / "report.json").write_text(json.dumps(found)),
        ],
    )
    with writing(sqlite_context.database) as connection:
        data = builders.add_dataset(connection, NOW)
        run, old = (
            builders.add_run(connection, NOW, dataset=data),
            builders.add_run(connection, NOW - 1, dataset=data),
        )
        builders.add_evaluation(
            connection,
            NOW,
            adapter="d" * 64,
            dataset=data,
            run=run,
            samples_path="evaluations/x/samples.jsonl",
        )
        builders.add_evaluation(
            connection,
            NOW,
            adapter="e" * 64,
            dataset=data,
            run=old,
            samples_path="evaluations/y/samples.jsonl",
        )
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    page = client.get(f"/runs/{run}/report").text
    assert (
        headline(page) == "the candidate passed its gate, and is worse in 1 of 3 comparisons"
        and "+70.0 points (+50.0 to +80.0)" in page
    )
    assert (
        "facts &lt;i&gt;found: 10.0 % instead of 60.0 % (the base), 48 rows" in page
        and "+1.05 nats per token (+0.90 to +1.19)" in page
    )
    places = [float(place) for place in re.findall(r'<circle cx="([0-9.]+)" cy="7"', page)]
    assert len(places) == 2 and places[1] < 80 < places[0] < 160, (
        "right of nothing is more, left of it less; what is no share has another scale"
    )
    assert "Better &lt;b&gt;than" in page and "candidate 1 of 3" in page
    assert client.get(f"/runs/{old}/report").status_code == 404, (
        "a run that was judged before there were reports"
    )


def _sample(name: str, ours: float, theirs: float) -> str:
    side = lambda correct: {  # noqa: E731
        "text": f"answer {name}",
        "tokens": 3,
        "stopped": True,
        "score": {"correct": correct, "f1": 0.5},
    }
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


def test_the_command_line_draws_a_loss_in_as_many_bars_as_fit() -> None:
    assert loss_bars([]) == "" and loss_bars([2.0]) == "▁" and loss_bars([1.0, 1.0]) == "▁▁"
    falling = loss_bars([10.0 / (step + 1) for step in range(1000)])
    assert (
        len(falling) == 50
        and falling[0] == "█"
        and falling[-1] == "▁"
        and list(falling) == sorted(falling, reverse=True)
    )
    assert loss_bars([1.0, 0.0]) == "█▁", "a loss of nothing"
