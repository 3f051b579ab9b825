"""Retention: after one night nothing older is left, in no table and no file, and writers go on."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from feedback.jobs import jobs as feedback_jobs
from monitoring.retention import clean as clean_monitoring
from serving.jobs import jobs as serving_jobs
from serving.log.pruning import append_rejected, prune_spool
from serving.log.records import RatingRecord, encode
from serving.search_index.indexing import index_all
from tests import builders
from tests.builders import DAY, HOUR
from whet.access import hash_key
from whet.context import Context
from whet.database import reading, writing
from whet.doctor_retention import check_retention
from whet.ids import lowest_id, new_id
from whet.retention import CONVERSATION_ROWS, Needed, is_due, load_needed, run_nightly
from whet.settings import load_settings
from whet.tables import (
    answer_scores,
    blame_verdicts,
    drift_days,
    drift_reports,
    erasures,
    examples,
    interactions,
    metadata,
    ratings,
    review_items,
    review_left_out,
    reviews,
)

NOW = 20_500 * DAY + 3 * HOUR  # three in the morning
KEPT_DAYS = 30
PLANTED = re.compile(rb"planted(?:-|word)(\d+)[-x]")  # the second as the full-text index has it
LONG = 6_000  # characters of a long answer: more than a page of the database
SLICE = 500  # rows of one insert


def planted(day: int, what: str) -> str:
    return f"planted-{day}-{what}"


def fill(context: Context, count: int, days: int) -> dict[str, str]:
    """`count` conversations, evenly over the last `days`, with what is derived of them.

    Returns the names of two that are older than the limit and have to stay.
    """
    kept: dict[str, str] = {}
    rows = [_conversation(n, count, days) for n in range(count)]
    for start in range(0, count, SLICE):
        block = rows[start : start + SLICE]
        with writing(context.database) as connection:
            connection.execute(insert(interactions), block)
            with_more = [row for row in block[3:] if int(row["id"][-2:], 36) % 4 == 0]
            for table, of in _DERIVED.items():
                found = [of(row) for row in with_more]
                if found:
                    connection.execute(insert(table), found)
    with writing(context.database) as connection:
        kept["example"], kept["incident"] = rows[0]["id"], rows[1]["id"]
        builders.add_example(connection, kept["example"], NOW)
        undone, _ = builders.add_example(connection, rows[2]["id"], NOW)
        connection.execute(examples.update().where(examples.c.id == undone).values(withdrawn_at=1))
        builders.add_alert(
            connection, NOW - 40 * DAY, interaction_ids=[kept["incident"]], state="open"
        )
    _fill_files(context, days)
    index_all(context, sleep=lambda _: None)
    return kept


def _conversation(n: int, count: int, days: int) -> dict[str, Any]:
    age = (n * days) // count  # days, 0 is today
    at = NOW - (days - 1 - age) * DAY - n % 1000
    day = (NOW - at) // DAY
    row = builders.interaction_row(
        at,
        question=f"{planted(day, 'question')} plantedword{day}x",
        answer=planted(day, "answer") + "x" * (n % 20 // 19 * LONG),
    )
    return {
        **row,
        "end_user": planted(day, f"user-{n % 50}"),
        "error": planted(day, "error"),
        "retrieved": [{"text": planted(day, "passage")}],
        "metadata": {"planted": planted(day, "metadata")},
    }


def _day(row: dict[str, Any]) -> int:
    return (NOW - row["created_at"]) // DAY


def _of(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        "id": new_id(prefix, at=NOW),
        "interaction_id": row["id"],
        "created_at": row["created_at"] + 1,
    }


_DERIVED = {
    ratings: lambda row: {
        **_of(row, "rat"),
        "api_key_id": "key_test",
        "rating": -1,
        "comment": planted(_day(row), "comment"),
        "correction": planted(_day(row), "correction"),
        "labels": [planted(_day(row), "label")],
    },
    review_items: lambda row: {
        **_of(row, "itm"),
        "alias": "support",
        "reason": "rating",
        "why": planted(_day(row), "why"),
        "priority": 1.0,
        "state": "done",
    },
    reviews: lambda row: {
        **_of(row, "rev"),
        "item_id": "itm",
        "reviewer": "ada",
        "decision": "reject",
        "answer": planted(_day(row), "reviewed"),
        "note": planted(_day(row), "note"),
    },
    review_left_out: lambda row: {
        "interaction_id": row["id"],
        "alias": "support",
        "reason": "cap",
        "sentence": planted(_day(row), "left out"),
        "created_at": row["created_at"],
        "changed_at": NOW,
    },
    blame_verdicts: lambda row: {
        "interaction_id": row["id"],
        "alias": "support",
        "fault": "none",
        "detail": "",
        "reason": planted(_day(row), "reason"),
        "report": {},
        "actor": "ada",
        "created_at": NOW,
    },
    answer_scores: lambda row: {
        "interaction_id": row["id"],
        "alias": planted(_day(row), "alias"),
        "adapter_digest": "a",
        "tokens": 3,
        "created_at": row["created_at"],
        "scored_at": NOW,
    },
}


def _fill_files(context: Context, days: int) -> None:
    """Day samples, drift reports with their pages, and lines that no database took."""
    spool = context.settings.home / "spool"
    spool.mkdir(parents=True, exist_ok=True)
    cache = context.settings.home / "cache" / "drift"
    cache.mkdir(parents=True, exist_ok=True)
    for day in range(days - 10, -1, -10):  # oldest first, as lines are put aside
        at = NOW - day * DAY
        sample = context.store.put_json(f"reports/days/support/{day}.json", planted(day, "sample"))
        report = new_id("drf", at=at)
        path = context.store.put_json(f"reports/drift/{report}.json", planted(day, "report"))
        (cache / f"{report}.html").write_text(planted(day, "page"))
        with writing(context.database) as connection:
            connection.execute(
                insert(drift_days).values(
                    alias="support",
                    day=at // DAY,
                    rows=1,
                    statistics={},
                    confirmed=[],
                    judged=False,
                    sample_path=sample,
                    created_at=at,
                )
            )
            connection.execute(
                insert(drift_reports).values(
                    id=report,
                    alias="support",
                    n_reference=0,
                    n_window=0,
                    verdict="drift",
                    summary=planted(day, "summary"),
                    signals=[planted(day, "signal")],
                    report_path=path,
                    created_at=at,
                )
            )
        record = RatingRecord(
            id=f"rat_{day}", interaction_id=new_id("int", at=at), api_key_id="key_test",
            rating=1, comment=planted(day, "rejected"), created_at=at,
        )  # fmt: skip
        append_rejected(spool, encode(record)[:-1])
        append_rejected(spool, f'{{"half a line, {planted(day, "half")}'.encode())


def old_strings(context: Context, folder: Path) -> dict[str, set[str]]:
    """Where strings lie that are older than the limit: table or file → what they are."""
    found: dict[str, set[str]] = {}
    with reading(context.database) as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(select(table)):
                _search(str(table.name), repr(tuple(row)).encode(), found)
    for path in folder.rglob("*"):
        if path.is_file():
            _search(str(path.relative_to(folder)), path.read_bytes(), found)
    return found


def _search(where: str, content: bytes, found: dict[str, set[str]]) -> None:
    for match in PLANTED.finditer(content):
        if int(match[1]) > KEPT_DAYS:
            found.setdefault(where, set()).add(match[0].decode())


def run_night(context: Context, now: int) -> list[str]:
    """Every package's job, one after the other, as the scheduler's threads have to."""
    own = {job.name: job for job in (*serving_jobs(context), *feedback_jobs(context))}
    said = [own["log-retention"].run(now), own["review-retention"].run(now)]
    said.append(run_nightly(context, "monitoring", lambda c: clean_monitoring(context, c), now))
    return [sentence for sentence in said if sentence]


class Writer(threading.Thread):
    """Writes small rows as the gateway does, and measures how long each takes."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context, self.ended, self.waits_s = context, threading.Event(), [0.0]

    def run(self) -> None:
        while not self.ended.wait(0.005):
            row = builders.interaction_row(NOW, question="fresh", answer="fresh")
            began = time.perf_counter()
            with writing(self.context.database) as connection:
                connection.execute(insert(interactions).values(**row))
            self.waits_s.append(time.perf_counter() - began)


@pytest.fixture
def thirty_days(tmp_path: Path, database_url: str) -> Iterator[Context]:
    from whet.context import open_context

    opened = open_context(
        load_settings(home=tmp_path / "home", database_url=database_url, retention_days=KEPT_DAYS)
    )
    yield opened
    opened.close()


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize(
    ("count", "longest_wait_s"),
    [
        # In company of other tests a machine of two cores stalls for longer than a batch takes.
        pytest.param(1_200, 2.0, id="small"),
        pytest.param(100_000, 0.2, id="large", marks=pytest.mark.slow),
    ],
)
def test_one_night_deletes_what_is_old_everywhere(
    thirty_days: Context, tmp_path: Path, count: int, longest_wait_s: float
) -> None:
    context = thirty_days
    kept = fill(context, count, 400)
    if count < 10_000:  # the search finds what is there
        places = {str(key.table.name) for key, _ in CONVERSATION_ROWS}
        places |= {"drift_reports", "home/spool/rejected.lines"}
        assert places <= set(old_strings(context, tmp_path))
    writer = Writer(context)
    writer.start()
    began = time.perf_counter()
    said = run_night(context, NOW)
    took_s = time.perf_counter() - began
    writer.ended.set()
    writer.join()
    print(f"{took_s:.1f} s, {len(writer.waits_s)} writes, longest {max(writer.waits_s):.3f} s")
    assert len(said) == 3 and "1 for standing examples, 1 for open incidents" in said[0]
    assert max(writer.waits_s) <= longest_wait_s
    left = old_strings(context, tmp_path)
    with reading(context.database) as connection:
        floor = lowest_id("int", NOW - KEPT_DAYS * DAY)
        old = select(interactions.c.id).where(interactions.c.id < floor)
        assert set(connection.scalars(old)) == set(kept.values())
    days = {
        where: {int(re.sub(r"\D", "", string)) for string in strings} - {399}
        for where, strings in left.items()
    }  # the two that stay are of the first day
    stray = days.pop("whet.db", set())  # SQLite leaves pieces where it moved rows between pages
    assert len(stray) <= 5 and not any(days.values()), left
    assert not {where for where in left if where.endswith((".lines", ".json", ".html"))}
    check = next(check_retention(context.settings, context.database, NOW + DAY))
    assert check.verdict == "ok" and "1 for standing examples" in check.found


def test_a_night_runs_once_and_a_missed_one_is_made_up_for(thirty_days: Context) -> None:
    context = thirty_days
    assert len(run_night(context, NOW)) == 3
    assert run_night(context, NOW + HOUR) == [], "not twice in one night"
    assert len(run_night(context, NOW + 5 * DAY + 11 * HOUR)) == 3, "the scheduler was down"
    assert run_night(context, NOW + 5 * DAY + 20 * HOUR) == []


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        (None, 0, True),
        (10 * DAY + 2 * HOUR, 11 * DAY + 2 * HOUR - 1, False),
        (10 * DAY + 2 * HOUR, 11 * DAY + 2 * HOUR, True),
        (10 * DAY + HOUR, 10 * DAY + 3 * HOUR, True),
    ],
)
def test_retention_is_due_after_two_at_night(last: int | None, now: int, due: bool) -> None:
    assert is_due(now, last) is due


def test_doctor_says_that_nothing_runs(thirty_days: Context) -> None:
    context = thirty_days
    check = next(check_retention(context.settings, context.database, NOW))
    assert check.verdict == "ok" and "has not run yet" in check.found
    with writing(context.database) as connection:
        old = builders.add_interaction(connection, NOW - 33 * DAY)
        builders.add_rating(connection, old, NOW - 33 * DAY)
    check = next(check_retention(context.settings, context.database, NOW))
    assert check.verdict == "fail" and "1 interactions, 1 ratings" in check.found
    run_night(context, NOW)
    assert next(check_retention(context.settings, context.database, NOW)).verdict == "ok"
    assert (
        next(check_retention(context.settings, context.database, NOW + 3 * DAY)).verdict == "note"
    )


def test_what_is_needed_by_a_closed_incident_or_an_undone_example_goes(
    thirty_days: Context,
) -> None:
    context = thirty_days
    with writing(context.database) as connection:
        one, two = (builders.add_interaction(connection, NOW - 90 * DAY) for _ in range(2))
        builders.add_alert(connection, NOW - 80 * DAY, interaction_ids=[one], state="resolved")
        example, _ = builders.add_example(connection, two, NOW)
        connection.execute(examples.update().where(examples.c.id == example).values(withdrawn_at=1))
        assert load_needed(connection, NOW) == Needed()
    run_night(context, NOW)
    with reading(context.database) as connection:
        assert not connection.scalars(select(interactions.c.id)).all()
        assert not connection.scalars(select(examples.c.id)).all()


def test_the_erased_users_conversations_go_within_a_minute(thirty_days: Context) -> None:
    context = thirty_days
    with writing(context.database) as connection:
        theirs = builders.add_interaction(connection, NOW - HOUR, end_user="u-1")
        later = builders.add_interaction(connection, NOW + HOUR, end_user="u-1")
        other = builders.add_interaction(connection, NOW - HOUR, end_user="u-2")
        for one in (theirs, other):
            builders.add_rating(connection, one, NOW - HOUR)
        connection.execute(
            insert(erasures).values(
                id="ers_1",
                subject_hash=hash_key("u-1", context.secret),
                receipt={},
                requested_by="ada",
                created_at=NOW,
            )
        )
    erase = next(job for job in serving_jobs(context) if job.name == "log-erasure")
    assert erase.run(NOW + 60_000) == "Deleted 1 interactions, 1 ratings."
    assert erase.run(NOW + 120_000) is None
    with reading(context.database) as connection:
        assert set(connection.scalars(select(interactions.c.id))) == {later, other}
        assert list(connection.scalars(select(ratings.c.interaction_id))) == [other]
    with writing(context.database) as connection:  # a row that came through the spool days later
        builders.add_interaction(connection, NOW - HOUR, end_user="u-1")
    assert erase.run(NOW + 3 * DAY) is None
    run_night(context, NOW + 3 * DAY)
    with reading(context.database) as connection:
        assert set(connection.scalars(select(interactions.c.id))) == {later, other}


def test_lines_without_a_date_go_with_the_one_before_them(tmp_path: Path) -> None:
    dated = [json.dumps({"created_at": at}).encode() for at in (50, 70)]
    for line in (b"torn 1", dated[0], b"torn 2", dated[1], b"torn 3"):
        append_rejected(tmp_path, line)
    assert prune_spool(tmp_path, 60) == {"lines of rejected.lines": 2}
    assert (tmp_path / "rejected.lines").read_bytes() == b"torn 1\n" + dated[1] + b"\ntorn 3\n"
    far = round(time.time() * 1000) + DAY
    assert prune_spool(tmp_path, far) == {"lines of rejected.lines": 3}, "the file is older"
    assert not list(tmp_path.iterdir())
