"""What the pages say: sentences first, with 0, 7 and many rows, on both databases, and with hostile
content.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import insert

from tests import builders, worlds
from tests.web import NOW, console_client, headline
from whet.context import Context
from whet.database import writing
from whet.tables import interactions

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg/onload=alert(3)>{{7*7}}"
PAGES = (
    "/",
    "/overview/live",
    "/traffic",
    "/review",
    "/review/list",
    "/datasets",
    "/drift",
    "/health",
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
    own = [
        f"/traffic/{made['interactions'][0]}",
        f"/traffic/{made['interactions'][-1]}",
        "/adapters/support",
        "/adapters/support/live",
    ]
    own += [f"/adapters/support/v{number}" for number in (1, 2, 3)]
    for run in (made["live_run"], made["failed_run"], made["runs"][0]):
        own += [
            f"/runs/{run}",
            f"/runs/{run}/live?part=top",
            f"/runs/{run}/live?part=rest",
            f"/runs/{run}/curve",
        ]
    return [*PAGES, *own]


@pytest.mark.parametrize("rows", [0, 7, 300])
def test_every_page_answers_on_both_databases_with_few_and_many_rows(
    context: Context, rows: int
) -> None:
    made = worlds.world(context, rows, NOW)
    client = console_client(context, "admin", clock=lambda: NOW, raise_errors=True)
    for path in pages_of(context, made) if made else PAGES:
        answer = client.get(path)
        assert answer.status_code == 200, path
        if "/live" not in path and not path.endswith("/curve"):
            assert headline(answer.text), path
            assert "None" not in headline(answer.text) and "undefined" not in answer.text.lower(), (
                path
            )


def test_an_empty_installation_teaches_its_first_commands(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "admin")
    first = client.get("/").text
    assert headline(first) == "Nothing has been asked yet"
    for command in (
        "whet keys create my-app",
        "/v1/chat/completions",
        "whet train run FILE.jsonl --alias support",
    ):
        assert command in first
    assert (
        "whet train run" in client.get("/runs").text
        and "whet train run" in client.get("/adapters").text
    )
    assert "whet keys create" in client.get("/traffic").text


# --- hostile content -----------------------------------------------------------------------------------------------


def poisoned(context: Context) -> list[str]:
    """Every text that a client, an engine or a file can influence, with markup in it."""
    now = NOW - builders.HOUR
    with writing(context.database) as connection:
        passage = {"document_id": EVIL, "title": EVIL, "text": EVIL, "score": 0.5}
        call = {
            "role": "assistant",
            "content": EVIL,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": EVIL, "arguments": EVIL}}
            ],
        }
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
        item = builders.add_interaction(
            connection, now + 1, question=EVIL, answer=EVIL, adapter_digest=digest
        )
        for each in (row["id"], item):
            builders.add_rating(connection, each, now, comment=EVIL, correction=EVIL, labels=[EVIL])
        builders.add_review_item(connection, item, now, why=EVIL)
        failed = builders.add_run(
            connection,
            now,
            dataset=data,
            state="failed",
            error=EVIL,
            worker=EVIL,
            recipe={EVIL: EVIL},
            progress={"stage": EVIL},
        )
        passed = builders.add_run(connection, now, dataset=data, adapter_digest=digest)
        builders.add_evaluation(
            connection, now, adapter=digest, dataset=data, run=passed, reason=EVIL, verdict="fail"
        )
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
