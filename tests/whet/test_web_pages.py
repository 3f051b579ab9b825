"""What the pages say: sentences first, with 0, 7 and many rows, on both databases, and with hostile content."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from serving.pages import reading, search, versions
from serving.pages.versions import promote_sentence, rollback_sentence
from tests import builders, worlds
from tests.web import console_client
from training.pages import list_headline, run_headline, sparkline
from whet.context import Context
from whet.database import reading as reads
from whet.database import writing
from whet.registry import current_rollouts
from whet.tables import api_keys, audit, interactions, rollouts, training_runs
from whet.web import circle, filters

NOW = 1_900_000_000_000
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg/onload=alert(3)>{{7*7}}"
PAGES = (
    "/",
    "/overview/live",
    "/traffic",
    "/review",
    "/review/list",
    "/datasets",
    "/drift",
    "/runs",
    "/runs/live",
    "/adapters",
    "/playground",
    "/settings",
    "/settings/keys",
    "/settings/people",
    "/settings/audit",
)


def pages_of(context: Context, made: dict[str, Any]) -> list[str]:
    """Every page of an installation with `worlds.world` in it."""
    own = [f"/traffic/{made['interactions'][0]}", f"/traffic/{made['interactions'][-1]}", "/adapters/support", "/adapters/support/live"]
    own += [f"/adapters/support/v{number}" for number in (1, 2, 3)]
    for run in (made["live_run"], made["failed_run"], made["runs"][0]):
        own += [f"/runs/{run}", f"/runs/{run}/live?part=top", f"/runs/{run}/live?part=rest", f"/runs/{run}/curve"]
    return [*PAGES, *own]


def headline(html: str) -> str:
    found = re.search(r'<h1 id="headline"[^>]*>(.*?)</h1>', html, re.S)
    assert found, "the page has no headline"
    return re.sub(r"<[^>]+>", "", found[1]).strip()


@pytest.mark.parametrize("rows", [0, 7, 300])
def test_every_page_answers_on_both_databases_with_few_and_many_rows(context: Context, rows: int) -> None:
    made = worlds.world(context, rows, NOW)
    client = console_client(context, "admin", clock=lambda: NOW, raise_errors=True)
    for path in pages_of(context, made) if made else PAGES:
        answer = client.get(path)
        assert answer.status_code == 200, path
        if "/live" not in path and not path.endswith("/curve"):
            assert headline(answer.text), path
            assert "None" not in headline(answer.text) and "undefined" not in answer.text.lower(), path


def test_an_empty_installation_teaches_its_first_commands(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    first = client.get("/").text
    assert headline(first) == "Nothing has been asked yet"
    for command in ("whet keys create my-app", "/v1/chat/completions", "whet train run FILE.jsonl --alias support"):
        assert command in first
    assert "whet train run" in client.get("/runs").text and "whet train run" in client.get("/adapters").text
    assert "whet keys create" in client.get("/traffic").text


# --- hostile content -----------------------------------------------------------------------------------------------


def poisoned(context: Context) -> list[str]:
    """Every text that a client, an engine or a file can influence, with markup in it."""
    now = NOW - builders.HOUR
    with writing(context.database) as connection:
        passage = {"document_id": EVIL, "title": EVIL, "text": EVIL, "score": 0.5}
        call = {"role": "assistant", "content": EVIL, "tool_calls": [{"id": "1", "type": "function", "function": {"name": EVIL, "arguments": EVIL}}]}
        digest = builders.add_adapter(connection, now, gate="fail", card={"recipe": {EVIL: EVIL}})
        data = builders.add_dataset(connection, now)
        row = builders.interaction_row(
            now,
            question=EVIL,
            answer=EVIL,
            retrieved=[passage],
            response=call,
            end_user=EVIL,
            metadata={EVIL: EVIL},
            error=EVIL,
            status="error",
            adapter_digest=digest,
            model=EVIL,
            replica=EVIL,
        )
        connection.execute(insert(interactions).values(**row))
        item = builders.add_interaction(connection, now + 1, question=EVIL, answer=EVIL, adapter_digest=digest)
        for each in (row["id"], item):
            builders.add_rating(connection, each, now, comment=EVIL, correction=EVIL, labels=[EVIL])
        builders.add_review_item(connection, item, now, why=EVIL)
        failed = builders.add_run(connection, now, dataset=data, state="failed", error=EVIL, worker=EVIL, recipe={EVIL: EVIL}, progress={"stage": EVIL})
        passed = builders.add_run(connection, now, dataset=data, adapter_digest=digest)
        builders.add_evaluation(connection, now, adapter=digest, dataset=data, run=passed, reason=EVIL, verdict="fail")
        builders.add_rollout(connection, now, stable=digest, reason=EVIL, actor=EVIL[:64])
        builders.add_replica(connection, now, url="http://" + EVIL[:150], refused={digest: EVIL})
        builders.add_alert(connection, now, title=EVIL)
        builders.add_drift_report(connection, now, summary=EVIL)
        builders.add_request(connection, now, dataset=data, reason=EVIL)
        builders.add_lease(connection, EVIL[:128], EVIL[:128], now)
    return [
        f"/traffic/{row['id']}",
        f"/traffic/{item}",
        f"/runs/{failed}",
        f"/runs/{passed}",
        "/adapters/support",
        "/adapters/support/v1",
        f"/traffic?q={EVIL}",
        f"/traffic?user={EVIL}",
        f"/login?next={EVIL}",
        f"/adapters/{EVIL}",
        f"/settings/audit?actor={EVIL}",
        f"/playground?prompt={EVIL}&system={EVIL}",
    ]


def test_markup_in_logged_text_is_text_on_every_page(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin", clock=lambda: NOW)
    for path in [*PAGES, *poisoned(sqlite_context)]:
        html = client.get(path).text
        for tag in ("<script>alert", "<img src=x", "<svg/onload", "onerror=alert(2)>\"'>", ">49<"):
            assert tag not in html, f"{tag} lives in {path}"


def test_no_page_has_an_inline_script_or_style_or_a_remote_asset(context: Context) -> None:
    made = worlds.world(context, 30, NOW)
    client = console_client(context, "admin", clock=lambda: NOW)
    for path in ["/login", *pages_of(context, made)]:
        html = client.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", html), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html), path
        assert not re.search(r'(?:src|href)="(?:https?:)?//', html), path


# --- Overview ------------------------------------------------------------------------------------------------------


def facts(context: Context, now: int = NOW) -> circle.Facts:
    with reads(context.database) as connection:
        return circle.look(connection, now)


def test_what_needs_a_person_is_ordered_by_what_waiting_costs(context: Context) -> None:
    worlds.world(context, 120, NOW)
    with writing(context.database) as connection:
        builders.add_replica(connection, NOW, url="http://127.0.0.1:8002", state="hung")
    found = circle.needs(facts(context))
    assert [need.cost for need in found] == sorted((need.cost for need in found), reverse=True)
    assert "does not answer: http://127.0.0.1:8002" in found[0].sentence
    assert "wait for review" in found[-1].sentence


def test_no_engine_at_all_comes_before_everything_else(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        builders.add_interaction(connection, NOW - 1000)
        builders.add_alert(connection, NOW, severity="bad")
        builders.add_replica(connection, NOW, state="gone")
    found = circle.needs(facts(sqlite_context))
    assert found[0].sentence.startswith("No engine replica can answer")
    assert circle.headline(facts(sqlite_context), found).startswith("No engine replica can answer")


def test_one_failure_in_a_quiet_hour_is_no_alarm_and_many_are(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        for index in range(9):
            builders.add_interaction(connection, NOW - 60_000 - index, status="error" if index == 0 else "complete")
    assert circle.headline(facts(sqlite_context), circle.needs(facts(sqlite_context))) == "Nothing needs you"
    with writing(sqlite_context.database) as connection:
        for index in range(3):
            builders.add_interaction(connection, NOW - 30_000 - index, status="cut")
    assert circle.needs(facts(sqlite_context))[0].sentence == "4 of 12 answers failed in the last hour."


def test_a_version_that_passed_while_its_alias_is_pinned_asks_for_a_person(sqlite_context: Context) -> None:
    with writing(sqlite_context.database) as connection:
        first = builders.add_adapter(connection, NOW - 2000)
        builders.add_adapter(connection, NOW - 1000, version=2)
        builders.add_rollout(connection, NOW - 1500, stable=first, pinned=True)
    assert [need.sentence for need in circle.needs(facts(sqlite_context))] == ["support@v2 passed its gate, but support is pinned."]


def test_the_aliases_say_how_the_live_version_does_against_the_one_before(context: Context) -> None:
    with writing(context.database) as connection:
        one, two = builders.add_adapter(connection, NOW - 9000), builders.add_adapter(connection, NOW - 5000, version=2)
        builders.add_rollout(connection, NOW - 8000, stable=one)
        builders.add_rollout(connection, NOW - 4000, generation=2, stable=two, previous_digest=one)
        builders.add_rollout(connection, NOW - 2000, generation=3, stable=two, previous_digest=one, pinned=True)
        ids = [builders.add_interaction(connection, NOW - 3000 - index, version=2, ttft_ms=40.0 + index) for index in range(4)]
        builders.add_interaction(connection, NOW - 7000, version=1, status="error")
        builders.add_rating(connection, ids[0], NOW, rating=1)
        builders.add_rating(connection, ids[1], NOW, rating=-1)
        builders.add_rating(connection, ids[2], NOW, rating=0)
    found = facts(context)
    with reads(context.database) as connection:
        (state,) = circle.alias_states(connection, found)
    assert (state.live, state.live_since) == ("v2", NOW - 4000)
    assert state.doing[0] == circle.Doing("v2", 4, 0, 2, 1, 41.5)
    assert (state.doing[1].label, state.doing[1].n, state.doing[1].failed) == ("v1", 1, 1)


def test_overview_with_a_hundred_thousand_answers_takes_less_than_two_seconds(sqlite_context: Context) -> None:
    row = builders.interaction_row(NOW)
    with writing(sqlite_context.database) as connection:
        digest = builders.add_adapter(connection, NOW)
        builders.add_rollout(connection, NOW - 10, stable=digest)
        for start in range(0, 100_000, 10_000):
            connection.execute(
                insert(interactions), [row | {"id": f"int_{number:08d}", "created_at": NOW - number * 40} for number in range(start, start + 10_000)]
            )
    client = console_client(sqlite_context, "viewer", clock=lambda: NOW)
    for path in ("/", "/traffic", "/traffic?q=zebra", "/traffic?alias=support&status=complete", "/adapters/support"):
        began = time.process_time()
        assert client.get(path).status_code == 200
        assert time.process_time() - began < 2, path


# --- Traffic -------------------------------------------------------------------------------------------------------


def rows_of(context: Context, **filters_: str) -> list[str]:
    with reads(context.database) as connection:
        return [row["id"] for row in search.search(connection, search.Filters(**filters_), NOW).rows]


def test_search_finds_words_of_the_question_and_of_the_answer_in_any_letters(context: Context) -> None:
    with writing(context.database) as connection:
        wanted = builders.add_interaction(
            connection, NOW - 1000, question="Wie lange gilt die Gewährleistung für den „Würfel“?", answer="100 % sicher: 24_Monate"
        )
        builders.add_interaction(connection, NOW - 2000, question="other", answer="100 pieces, 24 Monate")
    for words in ("gewährleistung".capitalize(), "Würfel", "100 % sicher", "24_mon", "LANGE GILT"):
        assert rows_of(context, q=words) == [wanted], words


def test_filters_narrow_by_alias_version_outcome_rating_user_and_period(context: Context) -> None:
    with writing(context.database) as connection:
        a = builders.add_interaction(connection, NOW - 1000, version=7, end_user="ada")
        b = builders.add_interaction(connection, NOW - 2000, alias=None, version=None, status="cancelled")
        c = builders.add_interaction(connection, NOW - 3000, alias="billing", status="error")
        old = builders.add_interaction(connection, NOW - 9 * builders.DAY)
        builders.add_rating(connection, c, NOW, rating=-1)
        builders.add_rating(connection, a, NOW, rating=1)
    assert rows_of(context) == [a, b, c] and rows_of(context, since="all") == [a, b, c, old]
    assert rows_of(context, alias="billing") == [c] and rows_of(context, alias="(none)") == [b]
    assert rows_of(context, version="v7") == [a] and rows_of(context, version="7") == [a] and rows_of(context, version="base") == [b]
    assert rows_of(context, status="cancelled") == [b] and rows_of(context, user="ada") == [a]
    assert rows_of(context, rating="down") == [c] and rows_of(context, rating="up") == [a] and rows_of(context, rating="any") == [a, c]
    assert rows_of(context, status="nonsense", rating="nonsense", since="nonsense", before="nonsense") == [a, b, c]


def test_pages_follow_each_other_without_a_gap_even_where_times_are_equal(context: Context) -> None:
    with writing(context.database) as connection:
        made = sorted((builders.add_interaction(connection, NOW - 5000) for _ in range(2 * search.PAGE_ROWS + 3)), reverse=True)
    seen, before = [], ""
    while True:
        with reads(context.database) as connection:
            found = search.search(connection, search.Filters(before=before), NOW)
        seen += [row["id"] for row in found.rows]
        if not found.next:
            break
        before = found.next
    assert seen == made


def test_a_text_search_stops_after_its_bound_and_goes_on_from_there(sqlite_context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TEXT_SCAN_ROWS", 5)
    with writing(sqlite_context.database) as connection:
        for index in range(12):
            builders.add_interaction(connection, NOW - 1000 - index, answer="needle" if index == 8 else "hay")
    with reads(sqlite_context.database) as connection:
        first = search.search(connection, search.Filters(q="needle"), NOW)
        assert first.rows == [] and first.scanned_to == NOW - 1004
        second = search.search(connection, search.Filters(q="needle", before=first.next), NOW)
    assert [row["response_text"] for row in second.rows] == ["needle"]


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, [("user", "hi", "")]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]}, [("user", "a", "image_url")]),
        ({"prompt": "once"}, [("user", "once", "")]),
        ({"prompt": ["a", "b"]}, [("user", "a\nb", "")]),
        ({"prompt": [1, 2, 3]}, [("user", "", "3 token ids")]),
        ({"input": "q", "instructions": "be brief"}, [("system", "be brief", ""), ("user", "q", "")]),
        ({"input": [{"role": "user", "content": "q"}]}, [("user", "q", "")]),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
            [("assistant", "", "calls f({})")],
        ),
        ({}, []),
        ([], []),
        ({"messages": ["not a message", 3]}, []),
    ],
)
def test_a_request_of_any_form_reads_as_turns(request_body: Any, said: list[tuple[str, str, str]]) -> None:
    assert [(turn.role, turn.text, turn.note) for turn in reading.asked(request_body)] == said


def test_a_conversation_leads_back_to_the_people_and_forward_to_what_it_taught(context: Context) -> None:
    made = worlds.world(context, 90, NOW)
    client = console_client(context, "viewer", clock=lambda: NOW)
    with reads(context.database) as connection:
        learned = connection.execute(select(interactions.c.id).where(interactions.c.version == 3).limit(1)).scalar_one()
    html = client.get(f"/traffic/{learned}").text
    for piece in ("/adapters/support/v3", f"/runs/{made['runs'][2]}", "support v2", "by reviewer (30)", f"/traffic/{made['interactions'][0]}", "whet replay"):
        assert piece in html, piece
    taught = client.get(f"/traffic/{made['interactions'][0]}").text
    assert "support v2, support v3" in taught and "trained support@v3" in taught
    assert "Review this" not in taught


def test_a_conversation_that_is_not_there_says_so(sqlite_context: Context) -> None:
    answer = console_client(sqlite_context, "viewer").get("/traffic/int_nothing")
    assert answer.status_code == 404 and "There is no conversation" in answer.text


# --- Adapters ------------------------------------------------------------------------------------------------------


def operated(context: Context) -> tuple[Any, list[str]]:
    with writing(context.database) as connection:
        digests = [builders.add_adapter(connection, NOW - 5000 + number, version=number, gate=gate) for number, gate in ((1, "pass"), (2, "pass"), (3, "fail"))]
        builders.add_rollout(connection, NOW - 4000, stable=digests[0])
    return console_client(context, "operator", clock=lambda: NOW), digests


def live(context: Context) -> tuple[str | None, int]:
    with reads(context.database) as connection:
        row = current_rollouts(connection)["support"]
    return row.stable_digest, row.generation


def test_promote_roll_back_and_pin_from_the_page_are_written_under_the_persons_name(context: Context) -> None:
    client, digests = operated(context)
    done = client.post("/adapters/support/promote", data={"version": digests[1], "expected": "1"})
    assert done.headers["location"] == "/adapters/support" and live(context) == (digests[1], 2)
    assert "support@v2 answers support now." in client.get("/adapters/support").text
    client.post("/adapters/support/rollback", data={"expected": "2"})
    assert live(context) == (digests[0], 3)
    client.post("/adapters/support/pin", data={"expected": "3"})
    assert client.post("/adapters/support/promote", data={"version": digests[1]}).status_code == 409
    client.post("/adapters/support/unpin", data={"expected": "4"})
    with reads(context.database) as connection:
        assert {row.actor for row in connection.execute(select(rollouts).where(rollouts.c.generation > 1))} == {"operator"}
        assert [row.action for row in connection.execute(select(audit).order_by(audit.c.sequence))] == [
            "rollout.promote",
            "rollout.rollback",
            "rollout.pin",
            "rollout.unpin",
        ]


def test_a_deed_on_a_page_that_is_out_of_date_does_nothing_and_says_who_was_faster(context: Context) -> None:
    client, digests = operated(context)
    client.post("/adapters/support/promote", data={"version": digests[1], "expected": "1"})
    late = client.post("/adapters/support/rollback", data={"expected": "1"})
    assert late.status_code == 409 and "was changed meanwhile" in late.text and live(context) == (digests[1], 2)


def test_a_version_that_failed_its_gate_needs_the_word_all_the_same(sqlite_context: Context) -> None:
    client, digests = operated(sqlite_context)
    assert client.post("/adapters/support/promote", data={"version": digests[2]}).status_code == 409
    page = client.get("/adapters/support").text
    assert "Promote support@v3 all the same" in page and "support@v3 did not pass its gate." in page
    assert client.post("/adapters/support/promote", data={"version": digests[2], "force": "1"}).status_code == 303


def test_the_page_offers_deeds_only_to_whom_they_belong(sqlite_context: Context) -> None:
    operated(sqlite_context)
    assert "Roll back" not in console_client(sqlite_context, "reviewer").get("/adapters/support").text
    assert "Roll back" in console_client(sqlite_context, "operator").get("/adapters/support").text


def test_the_sentence_before_a_deed_says_what_it_does(sqlite_context: Context) -> None:
    _, digests = operated(sqlite_context)
    with reads(sqlite_context.database) as connection:
        found = versions.board(connection, "support")
    assert found.live and found.live.adapter.digest == digests[0]
    two = found.by_digest(digests[1])
    assert two and promote_sentence(found, two).startswith("support@v2 will answer every new request for support. support@v1 is kept")
    assert rollback_sentence(found) == "The base model answers every new request for support again; support@v1 is not tried again by itself."
    trial = replace(found, rollout=replace(found.rollout, candidate_digest=digests[1], candidate_share=0.1)) if found.rollout else found
    trial = replace(trial, versions=[replace(item, role="candidate") if item.adapter.digest == digests[1] else item for item in trial.versions])
    assert rollback_sentence(trial) == "support@v2 goes off trial and is not tried again by itself; support@v1 answers every request for support."


def test_a_version_that_an_engine_refused_says_why(sqlite_context: Context) -> None:
    client, digests = operated(sqlite_context)
    with writing(sqlite_context.database) as connection:
        builders.add_replica(connection, NOW, ready=(digests[0],), refused={digests[1]: "log-probabilities differ by 1.4"})
    assert "log-probabilities differ by 1.4" in client.get("/adapters/support/v2").text
    assert "refused on 1" in client.get("/adapters/support").text


# --- Runs ----------------------------------------------------------------------------------------------------------


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


def _sample(name: str, ours: float, theirs: float) -> str:
    import json

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


# --- Settings ------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_kept_as_a_hash(context: Context) -> None:
    client = console_client(context, "admin", clock=lambda: NOW)
    made = client.post("/settings/keys", data={"name": "my-app"}).text
    key = re.search(r"whet-[A-Za-z0-9_-]{43}", made)
    assert key
    again = client.get("/settings/keys").text
    assert key[0] not in again and "my-app" in again
    with reads(context.database) as connection:
        row = connection.execute(select(api_keys).where(api_keys.c.name == "my-app")).one()
    assert key[0] not in str(row)
    client.post(f"/settings/keys/{row.id}/revoke")
    assert "revoked" in client.get("/settings/keys").text
    assert client.post(f"/settings/keys/{row.id}/revoke").status_code == 404


def test_people_are_added_and_removed_and_bad_input_gets_a_sentence(context: Context) -> None:
    client = console_client(context, "admin", clock=lambda: NOW)
    assert client.post("/settings/people", data={"name": "ada", "role": "reviewer", "password": "a long password"}).status_code == 303
    short = client.post("/settings/people", data={"name": "bob", "role": "reviewer", "password": "short"})
    assert short.status_code == 400 and "expected at least 10" in short.text
    assert client.post("/settings/people", data={"name": "ada", "role": "viewer", "password": "a long password"}).status_code == 409
    assert client.post("/settings/people", data={"name": "Bob!", "role": "viewer", "password": "a long password"}).status_code == 400
    assert client.post("/settings/people", data={"name": "eve", "role": "owner", "password": "a long password"}).status_code == 400
    assert client.post("/settings/people/ada/remove").status_code == 303
    assert client.post("/settings/people/ada/remove").status_code == 404


def test_the_audit_page_names_the_entry_that_was_altered(context: Context) -> None:
    client = console_client(context, "admin", clock=lambda: NOW)
    for name in ("one", "two", "three"):
        client.post("/settings/keys", data={"name": name})
    assert headline(client.get("/settings/audit").text) == "3 entries, the chain holds"
    with writing(context.database) as connection:
        connection.execute(audit.update().where(audit.c.sequence == 2).values(actor="somebody else"))
    assert headline(client.get("/settings/audit").text) == "The chain is broken at entry 2"


def test_settings_show_every_value_and_no_secret(tmp_path: Any) -> None:
    from whet.context import open_context
    from whet.settings import Settings, load_settings
    from whet.web.admin import setting_groups

    settings = load_settings(home=tmp_path / "home", engine_key="very secret", database_url=f"sqlite:///{tmp_path / 'x.db'}")
    shown = [row["name"] for _, rows in setting_groups(settings) for row in rows]
    assert sorted(shown) == sorted(Settings.model_fields)
    context = open_context(settings)
    page = console_client(context, "viewer").get("/settings").text
    context.close()
    assert "very secret" not in page and "set, not shown" in page
    rows = {row["name"]: row for _, group in setting_groups(settings.model_copy(update={"database_url": "postgresql://u:hidden@h/d"})) for row in group}
    assert "hidden" not in rows["database_url"]["value"]


# --- colours -------------------------------------------------------------------------------------------------------


def _themes() -> list[dict[str, str]]:
    """The colour tokens of the stylesheet: light, dark by the system, dark by choice."""
    css = (Path(circle.__file__).parent / "static" / "shell.css").read_text()
    blocks = re.findall(r"(:root[^{]*)\{([^}]*--ground[^}]*)\}", css)
    return [dict(re.findall(r"--([a-z0-9-]+):\s*(#[0-9a-f]{6})", body)) for _, body in blocks]


def _luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, two: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_every_text_colour_has_contrast_aa_on_every_ground_it_stands_on_in_both_themes() -> None:
    themes = _themes()
    assert len(themes) == 3 and themes[1] == themes[2]
    for theme in themes:
        pairs = [(ink, ground) for ink in ("ink", "ink-2", "ink-3", "accent") for ground in ("ground", "surface", "sunk", "hover")]
        pairs += [(kind, ground) for kind in ("good", "attention", "bad", "information") for ground in ("ground", "surface", f"{kind}-soft")]
        pairs += [("accent-ink", "accent"), ("ink", "accent-soft"), ("ink-2", "attention-soft"), ("surface", "bad")]
        low = {pair: round(_contrast(theme[pair[0]], theme[pair[1]]), 2) for pair in pairs if _contrast(theme[pair[0]], theme[pair[1]]) < 4.5}
        assert low == {}
        assert _contrast(theme["line-strong"], theme["surface"]) >= 3  # borders of fields and buttons


# --- writing of numbers and times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (filters.duration(340), "340 ms"),
        (filters.duration(1240), "1.2 s"),
        (filters.duration(31_000), "31 s"),
        (filters.duration(200_000), "3 min 20 s"),
        (filters.duration(7_500_000), "2 h 5 min"),
        (filters.duration(None), "–"),
        (filters.number(12_345), "12,345"),
        (filters.number(0.1234), "0.123"),
        (filters.number(0), "0"),
        (filters.number(2_500_000), "2.5 M"),
        (filters.number(None), "–"),
        (filters.percent(0.965, 1), "96.5 %"),
        (filters.plural(0, "run"), "no runs"),
        (filters.plural(1, "run"), "1 run"),
        (filters.plural(3, "entry", "entries"), "3 entries"),
        (filters.relative(NOW - 3000, NOW), "just now"),
        (filters.relative(NOW - 300_000, NOW), "5 min ago"),
        (filters.relative(NOW + 7_200_000, NOW), "in 2 h"),
        (filters.clip("a  b\nc", 10), "a b c"),
        (filters.clip("abcdef", 4), "abc…"),
        (str(filters.code("run `whet <up>` now")), "run <code>whet &lt;up&gt;</code> now"),
        (str(filters.code("a ` alone <b>")), "a ` alone &lt;b&gt;"),
    ],
)
def test_how_values_are_written(written: str, expected: str) -> None:
    assert written == expected


def test_a_time_carries_its_absolute_form() -> None:
    assert str(filters.ago(NOW, NOW)) == f'<time datetime="2030-03-17T17:46:40Z" data-at="{NOW}" title="2030-03-17 17:46:40 UTC">just now</time>'
