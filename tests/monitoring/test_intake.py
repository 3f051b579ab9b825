"""What a replay says about its table: unread columns, missing signals and days, duplicates, clocks."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from monitoring import cli, coverage
from monitoring.coverage import AUDIT, coverage_of, coverage_of_days
from monitoring.detector.columns import COLUMNS, date_of, kind_of
from monitoring.detector.names import is_read, unread_columns
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.table import table_from_columns
from monitoring.history_store import StoredDay
from monitoring.intake import read_interactions, renamed_columns, take_in_frame
from whet.errors import InputError
from whet.records.monitoring import DayRecord

FIRST = date(2026, 1, 5)  # a Monday


def frame(days: int = 10, rows: int = 40, **columns: Any) -> pd.DataFrame:
    """`rows` requests on each of some days, each with `refusal`."""
    stamps = [
        f"{FIRST + timedelta(days=day)}T10:{row:02}:00Z"
        for day in range(days)
        for row in range(rows)
    ]
    return pd.DataFrame({"timestamp": stamps, "refusal": 0, **columns})


@pytest.mark.parametrize(
    ("given", "likely"),
    [
        ("prompt_text", "prompt"), ("question", "prompt"), ("messages", "prompt"), ("completion", "answer"), ("tpot_ms", "time_per_token_ms"),
        ("mean_logprob", "logprob"), ("refused", "refusal"), ("created_at", "timestamp"), ("TTFT (ms)", "ttft_ms"), ("finishReason", "finish_reason"),
        ("usage.completion_tokens", "completion_tokens"), ("promt_tokens", "prompt_tokens"), ("tenant", "slice_tenant"), ("thumbs", "thumb"), ("colour", ""),
    ],
)  # fmt: skip
def test_a_column_that_is_not_read_has_its_likely_name(given: str, likely: str) -> None:
    (found,) = unread_columns([given])
    assert found.likely == likely


def test_a_name_that_the_table_has_is_not_suggested_again() -> None:
    assert [
        one.likely for one in unread_columns(["prompt", "prompt_text", "day", "created_at"])
    ] == ["", ""]


def test_names_and_table_read_the_same_columns() -> None:
    names = [*COLUMNS, "rate_x", "value_x", "category_x", "slice_x", "rate_", "colour"]
    assert [is_read(name) for name in names] == [kind_of(name) is not None for name in names]


def test_columns_are_read_under_another_name() -> None:
    given = frame().rename(columns={"refusal": "refused"}).assign(tenant="acme")
    found = take_in_frame(given, renamed_columns(["refused=refusal", "tenant=slice_tenant"]))
    assert found.unread == []
    assert set(found.table.columns) >= {"refusal", "slice_tenant"}
    for wrong, said in ((["refused"], "expected a column"), (["a=b"], "expected a column")):
        with pytest.raises(InputError, match=said):
            renamed_columns(wrong)
    for wrong, said in (
        ({"no": "prompt"}, "no column 'no'"),
        ({"tenant": "refused"}, "already has"),
    ):
        with pytest.raises(InputError, match=said):
            take_in_frame(given, wrong)


def test_a_table_of_which_nothing_is_known_ends_with_2(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame().rename(columns={"refusal": "refused"}).assign(user="u").to_csv(path, index=False)
    with pytest.raises(InputError) as error:
        read_interactions(path)
    assert error.value.exit_code == 2
    assert "Nothing in this table can be watched" in str(error.value)
    assert "--column refused=refusal" in str(error.value.hint)
    with pytest.raises(InputError, match="Probably it is `created_at`"):
        take_in_frame(frame().rename(columns={"timestamp": "created_at"}))


def test_rows_that_occur_twice_count_once() -> None:
    once = frame(id=[f"r{number}" for number in range(400)], thumb=np.nan)
    later = once.head(5).assign(thumb=1)
    found = take_in_frame(pd.concat([once, later]))
    assert (found.rows, found.duplicates, len(found.table)) == (405, 5, 400)
    assert np.nansum(found.table.columns["thumb"]) == 5, (
        "the later row, which has the rating, counts"
    )
    asked = frame(prompt="hello", user=[f"u{number}" for number in range(400)])
    assert take_in_frame(pd.concat([asked, asked])).duplicates == 400
    turns = once.assign(id="one conversation")
    assert take_in_frame(turns).duplicates == 0, (
        "turns of one conversation are requests of their own"
    )
    assert take_in_frame(frame()).duplicates is None


def test_clocks_of_any_zone_and_order() -> None:
    stamps = ["2026-01-06T00:30:00+09:00", "2026-01-05T10:00:00Z", "2026-01-06 08:00:00"] * 40
    found = take_in_frame(pd.DataFrame({"timestamp": stamps, "refusal": 0}))
    assert not found.is_sorted
    assert found.offsets == 2
    assert [date_of(int(day)).isoformat() for day in found.table.columns["day"][:3]] == [
        "2026-01-05",
        "2026-01-05",
        "2026-01-06",
    ]
    local = take_in_frame(pd.DataFrame({"timestamp": stamps, "refusal": 0}), timezone="Asia/Tokyo")
    assert [date_of(int(day)).isoformat() for day in local.table.columns["day"][:3]] == [
        "2026-01-06",
        "2026-01-05",
        "2026-01-06",
    ]
    assert local.table.columns["hour"][:3].tolist() == [
        0,
        19,
        8,
    ], "a moment without a zone is local"
    days = take_in_frame(
        pd.DataFrame({"day": ["2026-01-05"] * 40, "refusal": 0}), timezone="Asia/Tokyo"
    )
    assert date_of(int(days.table.columns["day"][0])) == FIRST, "a date is no moment"
    with pytest.raises(InputError, match="no time zone"):
        take_in_frame(frame(), timezone="Mars/Base")


@pytest.mark.parametrize("scale", [1, 1_000, 1_000_000, 1_000_000_000])
def test_epochs_of_every_unit_are_read_and_a_gap_is_named(scale: int) -> None:
    seconds = 1_767_571_200 * scale
    table = table_from_columns({"timestamp": [seconds, seconds + 86_400 * scale]})
    assert [date_of(int(day)).isoformat() for day in table.columns["day"]] == [
        "2026-01-05",
        "2026-01-06",
    ]
    with pytest.raises(InputError, match=r"row 2: expected a moment.*found nothing\.$"):
        table_from_columns({"timestamp": [float(seconds), np.nan, float(seconds)]})
    with pytest.raises(InputError) as error:
        table_from_columns({"timestamp": [1.0, 9e25]})
    assert "float64" not in str(error.value)


def test_prompts_may_be_messages(tmp_path: Path) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "second"},
    ]
    in_parts = [*turns[:3], {"role": "user", "content": [{"type": "text", "text": "second"}]}]
    stamp, answer = "2026-01-05T10:00:00Z", {"role": "assistant", "content": "fine"}
    rows = [
        {"id": f"r{i}", "timestamp": stamp, "prompt": turns, "answer": answer} for i in range(3)
    ]
    lines = [json.dumps({**row, "prompt": in_parts}) for row in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    as_text = [{**row, "prompt": json.dumps(turns)} for row in rows]
    pd.DataFrame(as_text).to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        table = read_interactions(tmp_path / name).table
        assert table.columns["prompt"].tolist() == ["second"] * 3, name
    answers = read_interactions(tmp_path / "t.jsonl").table.columns["answer"]
    assert answers.tolist() == ["fine"] * 3
    asked = table_from_columns(
        {
            "day": ["2026-01-05"],
            "prompt": ['{"a": 1} is this valid JSON?'],
            "answer": ['{"ok": true}'],
        }
    )
    assert asked.columns["prompt"][0] == '{"a": 1} is this valid JSON?'
    assert asked.columns["answer"][0] == '{"ok": true}', "an answer in JSON is no message"


def test_what_is_not_watched_is_said() -> None:
    (found,) = take_in_frame(frame(days=10, ttft_ms=[100.0] * 30 + [np.nan] * 370)).coverage
    assert found.first_judged_day == FIRST + timedelta(days=42)
    assert (found.watched, found.thin) == (("refusal",), ("ttft_ms",))
    said = " ".join(found.notes())
    assert "Quality is not watched: no `thumb`, `edited` or `regenerated`; wrong answers" in said
    assert "Latency is not watched: too few values of `ttft_ms`." in said
    assert "days are judged from 2026-02-16 on" in said
    assert DetectorSettings().cold_days == coverage._COLD_DAYS


def test_missing_days_are_told_from_closed_weekdays() -> None:
    start = (FIRST - date(1970, 1, 1)).days
    open_days = [start + day for day in range(42) if day % 7 < 5 and day not in (15, 16, 30)]
    found = coverage_of("desk", open_days, {}, 30)
    assert [str(span) for span in found.missing] == ["2026-01-20 to 2026-01-21", "2026-02-04"]
    assert found.closed_weekdays == (5, 6)
    assert found.notes()[-2:] == [
        "3 days have no rows: 2026-01-20 to 2026-01-21, 2026-02-04.",
        "Saturdays and Sundays have no rows.",
    ]


def test_a_judged_random_sample_watches_quality() -> None:
    points = [("refusal", "", "", 0.0, 0.0, 0.0, 50)]
    statistics = DayRecord(day=0, rows=50, sampled=50, points=points, counts=[], templates={})
    stored = [
        StoredDay("support", 20_000 + day, 50, statistics, [], True, None, 0) for day in range(28)
    ]
    without, with_audit = (
        coverage_of_days("support", stored, 19_000, audited) for audited in (False, True)
    )
    assert not without.is_quality_watched and with_audit.is_quality_watched
    assert AUDIT in with_audit.watched
    assert "no answer of the random sample is judged" in " ".join(without.notes())
    assert without.is_judged, "the first day that was ever taken in counts"


def test_the_command_says_what_it_did_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame(prompt_text="hello").to_csv(path, index=False)
    shown = CliRunner().invoke(cli.drift, ["replay", str(path)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "`prompt_text` is not read; it is probably `prompt`." in shown.stdout
    assert "Quality is not watched" in shown.stdout
    assert "first judged day" in shown.stdout
    printed = CliRunner().invoke(
        cli.drift,
        ["replay", str(path), "--json", "--column", "prompt_text=prompt"],
        catch_exceptions=False,
    )
    given = json.loads(printed.stdout)["input"]
    assert given["columns_not_read"] == []
    assert given["aliases"][0]["quality_watched"] is False
