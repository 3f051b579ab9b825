"""Tables of interactions: what is read, what is refused in which words, and a replay from file to
incidents.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks.drift.worlds import FIRST_DAY, SHIFTS, World
from monitoring import cli
from monitoring.detector.columns import Table, concatenated, date_of, day_number
from monitoring.detector.reading import declared_changes, documented_columns, read_table
from monitoring.detector.replay import Declared, poisson_interval, replay
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.table import table_from_columns
from whet.errors import InputError, NotFoundError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["2026-01-05T23:59:59", "2026-01-06T00:00:00Z"], ["2026-01-05", "2026-01-06"]),
        (["2026-01-05 23:30:00-05:00", "2026-01-06"], ["2026-01-06", "2026-01-06"]),
        ([1_767_571_200, 1_767_657_600], ["2026-01-05", "2026-01-06"]),
        ([1_767_571_200_000, 1_767_657_600_000], ["2026-01-05", "2026-01-06"]),
        (pd.to_datetime(["2026-01-05 08:00", "2026-01-06 09:00"]), ["2026-01-05", "2026-01-06"]),
        ([date(2026, 1, 5), date(2026, 1, 6)], ["2026-01-05", "2026-01-06"]),
    ],
)
def test_moments_are_read_in_every_documented_form(given: Any, expected: list[str]) -> None:
    table = table_from_columns({"timestamp": given})
    assert [date_of(int(day)).isoformat() for day in table.columns["day"]] == expected
    assert table.columns["id"].tolist() == ["row-1", "row-2"]


def test_days_may_be_numbers() -> None:
    assert table_from_columns({"day": [0, 99]}).columns["day"].tolist() == [0, 99]
    with pytest.raises(InputError, match="whole number of days"):
        table_from_columns({"day": [0.5]})


def test_flags_numbers_and_blanks() -> None:
    table = table_from_columns({
        "day": ["2026-01-05"] * 5,
        "refusal": ["true", "0", "", None, "Yes"],
        "ttft_ms": ["12.5", "", None, "nan", "3"],
        "language": ["en", "", None, "NA", "de"],
        "embedding": ["[1, 2]", [3, 4], None, np.array([5, 6]), "[7.5, 8]"],
        "something_else": [object()] * 5,
    })  # fmt: skip
    assert np.array_equal(table.columns["refusal"], [1, 0, np.nan, np.nan, 1], equal_nan=True)
    assert np.array_equal(
        table.columns["ttft_ms"], [12.5, np.nan, np.nan, np.nan, 3], equal_nan=True
    )
    assert table.columns["language"].tolist() == ["en", None, None, "NA", "de"]
    assert table.columns["embedding"].shape == (5, 2)
    assert np.isnan(table.columns["embedding"][2]).all()
    assert "something_else" not in table


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"refusal": [1]}, "neither a column `timestamp` nor a column `day`"),
        ({"day": []}, "no rows"),
        ({"day": ["2026-01-05", "soon"]}, "Column `day`, row 2: expected a moment"),
        ({"day": ["2026-01-05"], "ttft_ms": ["fast"]}, "Column `ttft_ms`, row 1: expected a number or nothing, found 'fast'"),
        ({"day": ["2026-01-05"] * 3, "refusal": [0, 2, 3]}, r"Column `refusal`, row 2: expected true, false, 1, 0 or nothing, found .*2.*\(2 rows are like that\)"),
        ({"day": ["2026-01-05"], "refusal": ["maybe"]}, "Column `refusal`, row 1"),
        ({"day": ["2026-01-05"], "logprob": [0.3]}, "Column `logprob`, row 1: expected a number between -inf and 0"),
        ({"day": ["2026-01-05"], "prompt_tokens": [-1]}, "between 0 and inf"),
        ({"day": ["2026-01-05"] * 2, "embedding": [[1, 2], [1]]}, "list of the same length"),
        ({"day": ["2026-01-05"], "embedding": ["[1, two]"]}, "Column `embedding`, row 1: expected a list of numbers"),
        ({"day": ["2026-01-05"] * 2, "user": ["a"]}, "one length"),
        ({"day": ["1871-01-05"]}, "between 1970 and 2200"),
    ],
)  # fmt: skip
def test_what_is_not_as_documented_is_refused_with_column_row_and_value(
    columns: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        table_from_columns(columns)


def test_tables_of_different_columns_are_joined() -> None:
    joined = concatenated(
        [
            Table({"a": np.array([1.0])}),
            Table({"a": np.array([2.0]), "b": np.array(["x"], dtype=object)}),
            Table({}),
        ]
    )
    assert joined.columns["b"].tolist() == [None, "x"]
    assert joined.columns["a"].tolist() == [1, 2]


def test_files_are_read_alike_and_problems_are_said(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "timestamp": ["2026-01-05T10:00:00", "2026-01-06T10:00:00"], "user": ["7", "007"], "adapter": ["1", "2"], "refusal": [True, False],
        "prompt": ["What, \"now\"?\nPlease", "ok"], "embedding_0": [0.5, 1.5], "embedding_1": [1.0, 2.0],
    })  # fmt: skip
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for name in ("t.csv", "t.csv.gz", "t.parquet", "t.jsonl"):
        table = read_table(tmp_path / name)
        assert table.columns["user"].tolist() == ["7", "007"], name
        assert table.columns["refusal"].tolist() == [1, 0], name
        assert table.columns["prompt"][0] == 'What, "now"?\nPlease', name
        assert table.columns["embedding"].tolist() == [[0.5, 1.0], [1.5, 2.0]], name
    (tmp_path / "t.txt").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(NotFoundError):
        read_table(tmp_path / "absent.csv")
    for name, said in (
        ("t.txt", "ends in .csv"),
        ("broken.parquet", "cannot be read as parquet"),
        ("empty.csv", "cannot be read as csv"),
    ):
        with pytest.raises(InputError, match=said):
            read_table(tmp_path / name)


def test_every_column_that_is_read_is_documented() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    missing = [
        name
        for name, kind, text in documented_columns()
        if f"| `{name}` | {kind} | {text} |" not in page
    ]
    assert not missing


def test_declared_changes_are_read_and_checked() -> None:
    assert declared_changes(["2026-03-01:answers", "2026-03-02"])[0] == Declared(
        date(2026, 3, 1), "declared on the command line", side="answers"
    )
    with pytest.raises(InputError, match="expected a day"):
        declared_changes(["soon"])
    table = table_from_columns({"day": ["2026-01-05"], "refusal": [1]})
    with pytest.raises(InputError, match="the table holds default"):
        replay(table, declared=[Declared(date(2026, 1, 5), alias="nobody")])
    with pytest.raises(InputError, match="expected one of"):
        replay(table, declared=[Declared(date(2026, 1, 5), side="weather")])


def test_exact_intervals_of_rates() -> None:
    assert poisson_interval(0, 100) == (0.0, 3.689)
    assert poisson_interval(1, 1000) == (0.003, 0.557)
    assert poisson_interval(0, 0) == (None, None)


# --- replays -------------------------------------------------------------------------------------------------------


def world(
    shift: str | None, days: int, *, volume: int = 400, seed: int = 3, texts: bool = False
) -> Table:
    service = World(seed, volume, shift=SHIFTS[shift] if shift else None, start=56, texts=texts)
    return concatenated([service.day(day) for day in range(days)])


@pytest.fixture(scope="module")
def shifted() -> Table:
    return world("refusal x4", 64)


def test_a_replay_finds_a_change_and_says_where_and_since_when(shifted: Table) -> None:
    found = replay(shifted)
    (incident,) = found.incidents
    assert incident.signals[0] == "refusal"
    assert abs(incident.since - FIRST_DAY - 56) <= 1
    shown = found.as_json()
    assert shown["judged_days"] == 64 - 42
    assert shown["incidents"][0]["examples"], "conversations to read"
    refused = dict(zip(shifted.columns["id"], shifted.columns["refusal"], strict=True))
    assert all(refused[name] == 1 for name in shown["incidents"][0]["examples"])
    assert json.loads(json.dumps(shown)) == shown
    assert shown["aliases"][0]["thresholds"]["refusal"] >= DetectorSettings().least_threshold


@pytest.mark.seconds
def test_a_replay_is_the_same_whatever_the_order_of_rows_within_days(shifted: Table) -> None:
    first, second = (replay(shifted).as_json() for _ in range(2))
    assert first == second


def test_the_future_changes_nothing(shifted: Table) -> None:
    until = FIRST_DAY + 61
    short = replay(shifted.take(shifted.columns["day"] <= until)).as_json()["incidents"]
    long = [
        one
        for one in replay(shifted).as_json()["incidents"]
        if day_number(date.fromisoformat(one["detected_on"])) <= until
    ]
    assert [one["id"] for one in short] == [one["id"] for one in long]


def test_a_declared_change_is_no_incident(shifted: Table) -> None:
    assert (
        replay(
            shifted, declared=[Declared(date_of(FIRST_DAY + 56), "new policy", side="refusal")]
        ).incidents
        == []
    )


@pytest.mark.seconds
def test_two_aliases_are_watched_apart(shifted: Table) -> None:
    n = len(shifted)
    calm = world(None, 64, seed=4)
    both = concatenated([
        Table({**shifted.columns, "alias": np.full(n, "billing", dtype=object)}),
        Table({**calm.columns, "alias": np.full(len(calm), "care", dtype=object)}),
    ])  # fmt: skip
    assert [incident.alias for incident in replay(both).incidents] == ["billing"]


def test_a_new_topic_in_sentences_is_named_by_its_words() -> None:
    table = world("new topic 15 %", 62, texts=True)
    (incident,) = replay(table).incidents
    assert set(incident.signals) & {"prompt_novelty", "prompt_topics"}
    words = incident.explanation.topics[0].words
    assert set(words) & {
        "solar",
        "panel",
        "inverter",
        "roof",
        "kilowatt",
        "grid",
        "feed",
        "in",
        "installer",
        "mounting",
        "tariff",
        "photovoltaic",
    }
    topic = dict(zip(table.columns["id"], table.columns["truth_topic"], strict=True))
    assert all(topic[name] == 12 for name in incident.explanation.topics[0].examples)


def test_first_weeks_give_information_and_no_incidents() -> None:
    service = World(5, 1000, "independent", shift=SHIFTS["refusal x4"], start=28)
    found = replay(concatenated([service.day(day) for day in range(40)]))
    assert found.incidents == [] and found.judged_days == 0
    assert any(finding.signal == "refusal" for one in found.early for finding in one.findings)
    assert found.as_json()["information"][0]["severity"] == "information"


def test_odd_tables_are_survived() -> None:
    rng = np.random.default_rng(6)
    days = [date_of(FIRST_DAY + i).isoformat() for i in range(60) for _ in range(60)]
    n = len(days)
    columns: dict[str, Any] = {
        "day": days, "user": ["one"] * n, "ttft_ms": [np.inf] * n, "prompt_tokens": [0] * n, "refusal": [True] * n, "language": [f"l{i}" for i in range(n)],
        "thumb": [np.nan] * n, "prompt": [None if i % 3 else "?!" for i in range(n)], "answer": [""] * n, "template": [f"t{i}" for i in range(n)],
        "value_zero": [0.0] * n, "completion_tokens": rng.integers(0, 3, n), "embedding": [None if i % 2 else [0.0, 0.0] for i in range(n)],
    }  # fmt: skip
    assert replay(table_from_columns(columns)).incidents == []


def test_the_command_prints_a_document_a_table_or_a_sentence(
    shifted: Table, tmp_path: Path
) -> None:
    frame = pd.DataFrame(
        {
            name: values
            for name, values in shifted.columns.items()
            if name not in ("embedding", "truth_topic", "day")
        }
    )
    frame["day"] = [date_of(int(day)).isoformat() for day in shifted.columns["day"]]
    path = tmp_path / "world.csv"
    frame.to_csv(path, index=False)
    runner = CliRunner()
    done = runner.invoke(cli.drift, ["replay", str(path), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    (incident,) = json.loads(done.stdout)["incidents"]
    assert incident["signal"] == "refusal"
    shown = runner.invoke(
        cli.drift,
        ["replay", str(path), "--declared", f"{date_of(FIRST_DAY + 56)}"],
        catch_exceptions=False,
    )
    assert "No incidents" in shown.stdout
    assert isinstance(
        runner.invoke(cli.drift, ["replay", str(tmp_path / "none.csv")]).exception, NotFoundError
    )
