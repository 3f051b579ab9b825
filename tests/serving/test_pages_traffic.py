"""The pages of traffic: search, filters, and one conversation with where it came from and what it
taught.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from pyarrow import parquet
from sqlalchemy import insert, select

from serving.pages import reading, search
from serving.pages.saved_views import list_views
from serving.pages.search_filters import Filters
from serving.pages.search_words import SearchWords, parse_search, snippet
from serving.search_index.indexing import Indexer, index_all
from serving.search_index.query import Phrase
from tests import builders, worlds
from tests.web import NOW, console_client
from whet.context import Context
from whet.database import reading as reads
from whet.database import writing
from whet.tables import interactions, review_left_out, saved_views


def rows_of(context: Context, **filters_: str) -> list[str]:
    index_all(context, sleep=lambda _: None)
    with reads(context.database) as connection:
        return [row["id"] for row in search.search(connection, Filters(**filters_), NOW).rows]


def test_search_finds_words_of_the_question_and_of_the_answer_in_any_letters(
    context: Context,
) -> None:
    with writing(context.database) as connection:
        wanted = builders.add_interaction(
            connection,
            NOW - 1000,
            question="Wie lange gilt die Gewährleistung für den „Würfel“?",
            answer="100 % sicher: 24_Monate",
        )
        builders.add_interaction(
            connection, NOW - 2000, question="other", answer="100 pieces, 24 Monate"
        )
    for words in ("gewährleistung".capitalize(), "Würfel", "100 % sicher", "gewahr*", "LANGE GILT"):
        assert rows_of(context, q=words) == [wanted], words


def test_search_wants_every_word_and_phrases_as_they_stand(context: Context) -> None:
    with writing(context.database) as connection:
        both = builders.add_interaction(
            connection,
            NOW - 1000,
            question="My zodiac has a crack",
            answer="Sorry.",
            end_user="ada",
        )
        near = builders.add_interaction(
            connection, NOW - 2000, question="A zodiac crack?", answer="Repair.", version=7
        )
        builders.add_interaction(connection, NOW - 3000, question="The zodiac", answer="")
    assert rows_of(context, q="crack zodiac") == [both, near]
    assert rows_of(context, q='"zodiac crack"') == [near]
    assert rows_of(context, q="zodiac -repair crack") == [both]
    assert rows_of(context, q="-crack") and both not in rows_of(context, q="-crack")
    client = console_client(context, "viewer", clock=lambda: NOW)
    page = client.get("/traffic", params={"q": "user:ada crack"}).text
    assert both in page and near not in page and "<mark>crack</mark>" in page
    assert near in client.get("/traffic", params={"q": "version:7"}).text
    missing = client.get("/traffic", params={"q": "crack <b>nowhere"}).text
    assert "Search all time" in missing and "<b>nowhere" not in missing


@pytest.mark.parametrize(
    ("typed", "wanted", "unwanted", "filters"),
    [
        ("", (), (), {}),
        ("a - b", ("a", "-", "b"), (), {}),
        ('"open phrase', ('"open', "phrase"), (), {}),
        ('say "two words" -not -"these two"', ("say", "two words"), ("not", "these two"), {}),
        ('user:"Ada L" status:error x', ("x",), (), {"user": "Ada L", "status": "error"}),
        ("-user:ada http://a.test", ("-user:ada", "http://a.test"), (), {}),
        ('"" user:', ("user:",), (), {}),
    ],
)
def test_search_is_read_as_it_was_typed(
    typed: str, wanted: tuple[str, ...], unwanted: tuple[str, ...], filters: dict[str, str]
) -> None:
    assert parse_search(typed) == SearchWords(wanted, unwanted, filters)


def test_snippet_shows_the_word_that_was_found_however_late() -> None:
    pieces = snippet("x " * 300 + "a NEEDLE here", [Phrase(("needle",))], 60)
    assert ("NEEDLE", True) in pieces and pieces[0][0].startswith("…")
    assert snippet("short", [], 60) == [("short", False)]


def test_filters_narrow_by_alias_version_outcome_rating_user_and_period(context: Context) -> None:
    with writing(context.database) as connection:
        a = builders.add_interaction(connection, NOW - 1000, version=7, end_user="ada")
        b = builders.add_interaction(
            connection, NOW - 2000, alias=None, version=None, status="cancelled"
        )
        c = builders.add_interaction(connection, NOW - 3000, alias="billing", status="error")
        old = builders.add_interaction(connection, NOW - 9 * builders.DAY)
        builders.add_rating(connection, c, NOW, rating=-1)
        builders.add_rating(connection, a, NOW, rating=1)
    assert rows_of(context) == [a, b, c] and rows_of(context, since="all") == [a, b, c, old]
    assert rows_of(context, alias="billing") == [c] and rows_of(context, alias="(none)") == [b]
    assert (
        rows_of(context, version="v7") == [a]
        and rows_of(context, version="7") == [a]
        and rows_of(context, version="base") == [b]
    )
    assert rows_of(context, status="cancelled") == [b] and rows_of(context, user="ada") == [a]
    assert (
        rows_of(context, rating="down") == [c]
        and rows_of(context, rating="up") == [a]
        and rows_of(context, rating="any") == [a, c]
    )
    assert rows_of(
        context, status="nonsense", rating="nonsense", since="nonsense", before="nonsense"
    ) == [a, b, c]


def test_pages_follow_each_other_without_a_gap_even_where_times_are_equal(context: Context) -> None:
    with writing(context.database) as connection:
        made = sorted(
            (
                builders.add_interaction(connection, NOW - 5000)
                for _ in range(2 * search.PAGE_ROWS + 3)
            ),
            reverse=True,
        )
    seen, before = [], ""
    while True:
        with reads(context.database) as connection:
            found = search.search(connection, Filters(before=before), NOW)
        seen += [row["id"] for row in found.rows]
        if not found.next:
            break
        before = found.next
    assert seen == made


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, [("user", "hi", "")]),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "image_url"}],
                    }
                ]
            },
            [("user", "a", "image_url")],
        ),
        ({"prompt": "once"}, [("user", "once", "")]),
        ({"prompt": ["a", "b"]}, [("user", "a\nb", "")]),
        ({"prompt": [1, 2, 3]}, [("user", "", "3 token ids")]),
        (
            {"input": "q", "instructions": "be brief"},
            [("system", "be brief", ""), ("user", "q", "")],
        ),
        ({"input": [{"role": "user", "content": "q"}]}, [("user", "q", "")]),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                    }
                ]
            },
            [("assistant", "", "calls f({})")],
        ),
        (
            {"messages": [{"role": "tool", "name": "f", "tool_call_id": "c1", "content": "ok"}]},
            [("tool", "ok", "result of f (c1)")],
        ),
        (
            {
                "input": [
                    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c1", "output": "ok"},
                ]
            },
            [("assistant", "", "calls f({}) (c1)"), ("tool", "ok", "result (c1)")],
        ),
        ({}, []),
        ([], []),
        ({"messages": ["not a message", 3]}, []),
    ],
)
def test_a_request_of_any_form_reads_as_turns(
    request_body: Any, said: list[tuple[str, str, str]]
) -> None:
    assert [(turn.role, turn.text, turn.note) for turn in reading.asked(request_body)] == said


@pytest.mark.parametrize("stored", ["It lasts 48 months.", " 48 months."])
def test_a_continued_answer_is_one_turn_of_the_assistant(stored: str) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It lasts"}]
    asked = {"messages": messages, "continue_final_message": True}
    found = reading.turns(asked, {"role": "assistant", "content": " 48 months."}, stored)
    assert [(turn.role, turn.text) for turn in found] == [
        ("user", "q"),
        ("assistant", "It lasts 48 months."),
    ]
    assert "gave the beginning" in found[-1].note and "It lasts" in found[-1].note


@pytest.mark.parametrize(
    "response",
    [
        {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
        {"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
    ],
)
def test_an_answer_that_is_a_tool_call_is_shown(response: Any) -> None:
    assert reading.answered({}, response, "") == [reading.Turn("assistant", "", "calls f({})")]
    assert reading.answer_line({}, response, "") == "calls f({})"
    assert reading.answered({}, {"output": []}, None) == []
    assert reading.answer_line({}, None, None) == ""


def test_a_conversation_leads_back_to_the_people_and_forward_to_what_it_taught(
    context: Context,
) -> None:
    made = worlds.world(context, 90, NOW)
    client = console_client(context, "viewer", clock=lambda: NOW)
    with reads(context.database) as connection:
        learned = connection.execute(
            select(interactions.c.id).where(interactions.c.version == 3).limit(1)
        ).scalar_one()
    html = client.get(f"/traffic/{learned}").text
    for piece in (
        "/adapters/support/v3",
        f"/runs/{made['runs'][2]}",
        "support v2",
        "by reviewer (30)",
        f"/traffic/{made['interactions'][0]}",
        "whet replay",
    ):
        assert piece in html, piece
    taught = client.get(f"/traffic/{made['interactions'][0]}").text
    assert "support v2, support v3" in taught and "trained support@v3" in taught
    assert "Review this" not in taught


def test_a_conversation_says_why_it_is_not_in_review(sqlite_context: Context) -> None:
    said = "The day's budget of 200 conversations for reviewers is used up."
    with writing(sqlite_context.database) as connection:
        item = builders.add_interaction(connection, NOW)
        row = {"interaction_id": item, "alias": "support", "reason": "budget", "sentence": said}
        connection.execute(insert(review_left_out).values(**row, created_at=NOW, changed_at=NOW))
    page = console_client(sqlite_context, "viewer").get(f"/traffic/{item}").text
    assert said.replace("'", "&#39;") in page and "not in review" in page


def test_a_conversation_that_is_not_there_says_so(sqlite_context: Context) -> None:
    answer = console_client(sqlite_context, "viewer").get("/traffic/int_nothing")
    assert answer.status_code == 404 and "There is no conversation" in answer.text


def test_conversation_shows_what_was_searched_and_found(context: Context) -> None:
    hostile = "<script>alert(1)</script>"
    hit = {
        "passage_id": "p", "document_id": "d", "collection": "manual", "title": hostile,
        "address": "a.md", "section": hostile, "text": f"{hostile} Lamps are kept 24 months.",
        "score": 0.5, "lexical_rank": 2, "vector_rank": 1,
    }  # fmt: skip
    how = {
        "collection": "manual", "query": hostile, "outcome": "found", "message": "",
        "dropped_by_budget": 2, "cited": [1], "invalid_marks": 1,
    }  # fmt: skip
    with writing(context.database) as connection:
        found = builders.add_interaction(
            connection, NOW - 1000, retrieved=[hit, hit | {"text": "Other words"}], retrieval=how,
            answer=f"{hostile} They are kept 24 months [1].",
        )  # fmt: skip
    page = console_client(context).get(f"/traffic/{found}").text
    assert hostile not in page and page.count("&lt;script&gt;") >= 3
    assert "2 passages of <code>manual</code> stood in the prompt." in page
    assert "2 passages left out for want of room" in page and "1 mark in the answer" in page
    assert page.count("</span>cited") == 0 and page.count("cited") >= 2 and "not cited" in page
    assert "words #2 · vectors #1" in page
    assert (
        '<a class="shared" href="#passage-1" title="in [1]"><mark>are kept 24 months</mark></a>'
        in page
    )
    assert "Lamps <mark>are kept 24 months</mark>." in page, "marked in the passage too"
    assert "/documents/manual/documents/d?passage=p#p" in page


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ("empty", "Nothing in <code>manual</code> fits the question"),
        ("failed", "The search of <code>manual</code> failed: The index is gone."),
        ("forbidden", "For this key there is no collection <code>manual</code>"),
    ],
)
def test_conversation_says_why_it_has_no_passages(
    sqlite_context: Context, outcome: str, sentence: str
) -> None:
    how = {
        "collection": "manual",
        "query": "x",
        "outcome": outcome,
        "message": "The index is gone.",
    }
    with writing(sqlite_context.database) as connection:
        asked = builders.add_interaction(connection, NOW - 1000, retrieved=[], retrieval=how)
        none = builders.add_interaction(connection, NOW - 1000)
    client = console_client(sqlite_context)
    assert sentence in client.get(f"/traffic/{asked}").text
    assert "Retrieved passages" not in client.get(f"/traffic/{none}").text


def test_the_page_sorts_counts_shows_columns_and_says_what_is_sorted(context: Context) -> None:
    with writing(context.database) as connection:
        slow, fast, failed = (
            builders.add_interaction(
                connection, NOW - 1000 * at, answer="needle", ttft_ms=ttft, status=status,
                duration_ms=ttft, end_user="ada", metadata={"tags": ["Checkout"], "session_id": "s1"},
            )
            for at, ttft, status in ((1, 900.0, "complete"), (2, 5.0, "complete"), (3, 50.0, "error"))
        )  # fmt: skip
    assert rows_of(context, q="needle") == [slow, fast, failed]
    assert rows_of(context, q="needle", sort="ttft") == [slow, failed, fast]
    assert rows_of(context, sort="-duration") == [fast, failed, slow]
    assert rows_of(context, sort="failed")[0] == failed and rows_of(context, sort="x") == [
        slow, fast, failed,
    ]  # fmt: skip
    assert rows_of(context, q="tag:checkout session:s1") == [slow, fast, failed]
    assert rows_of(context, q="tag:elsewhere") == [] and rows_of(context, q="need") != []
    client = console_client(context, "viewer", clock=lambda: NOW)
    page = client.get("/traffic?q=needle&sort=ttft&column=user&column=duration").text
    assert "3 conversations say “needle”" in page and 'aria-sort="descending"' not in page
    assert ">ada</a>" in page and "Whole answer</a>" in page and "TTFT</a>" not in page
    assert "have words that begin so" in client.get("/traffic?q=need").text
    assert 'aria-sort="descending"' in client.get("/traffic?q=needle&sort=ttft").text


def test_the_page_says_how_far_the_index_goes(context: Context) -> None:
    with writing(context.database) as connection:
        builders.add_interaction(connection, NOW - builders.DAY)
        new = builders.add_interaction(connection, NOW - builders.MINUTE * 5)
    client = console_client(context, "viewer", clock=lambda: NOW)
    assert "0 of 2 conversations" in client.get("/traffic?q=warranty").text
    Indexer(context.database).index_recent(NOW - builders.MINUTE * 4)
    assert "1 of 2 conversations" in client.get("/traffic?q=warranty").text
    index_all(context)
    page = client.get("/traffic?q=warranty").text
    assert "The search knows" not in page and new in page
    assert "nothing that was logged after" in console_client(
        context, "viewer", clock=lambda: NOW + add_later(context)
    ).get("/traffic?q=warranty").text  # fmt: skip


def add_later(context: Context) -> int:
    """Log one that nothing indexes; returns the ms after which that is noticed."""
    with writing(context.database) as connection:
        builders.add_interaction(connection, NOW + 1000)
    return 5 * builders.MINUTE


def test_views_are_saved_shared_and_removed_by_their_owner(context: Context) -> None:
    with writing(context.database) as connection:
        builders.add_interaction(connection, NOW - 1000)
    ann = console_client(context, "reviewer", clock=lambda: NOW)
    oli = console_client(context, "operator", clock=lambda: NOW)
    query = "/traffic?q=refund&since=7d&sort=ttft"
    assert (
        ann.post("/traffic/views", data={"name": "Slow  refunds", "query": query}).status_code
        == 303
    )
    assert ann.post("/traffic/views", data={"name": " ", "query": query}).status_code == 400
    own = ann.get("/traffic").text
    assert "Slow refunds" in own and "/traffic?q=refund&amp;since=7d&amp;sort=ttft" in own
    assert "Slow refunds" not in oli.get("/traffic").text
    ann.get("/traffic")  # which says once what was done
    ann.post("/traffic/views", data={"name": "Slow refunds", "query": query, "shared": "true"})
    assert "Slow refunds" in oli.get("/traffic").text
    viewer = console_client(context, "viewer", clock=lambda: NOW)
    view = {"name": "Mine", "query": query}
    assert viewer.post("/traffic/views", data={**view, "shared": "true"}).status_code == 403
    assert viewer.post("/traffic/views", data=view).status_code == 303
    with reads(context.database) as connection:
        query = select(saved_views).where(saved_views.c.is_shared)
        (shared,) = connection.execute(query).all()
    assert viewer.post(f"/traffic/views/{shared.id}/remove").status_code == 404
    assert oli.post(f"/traffic/views/{shared.id}/remove").status_code == 303
    with reads(context.database) as connection:
        assert list_views(connection, shared.owner) == []


def test_turns_of_a_thread_lead_to_each_other(context: Context) -> None:
    said: list[dict[str, str]] = []
    ids = []
    with writing(context.database) as connection:
        for turn in range(3):
            said.append({"role": "user", "content": f"question {turn}"})
            request = {"messages": [{"role": "system", "content": f"now {turn}"}, *said]}
            ids.append(
                builders.add_interaction(
                    connection, NOW - 9000 + turn, answer=f" answer {turn}", request=request,
                    end_user="ada",
                )
            )  # fmt: skip
            said.append({"role": "assistant", "content": f"answer {turn} "})
        other = builders.add_interaction(
            connection, NOW, request={"messages": said[:3]}, end_user="bob"
        )
        named = [
            builders.add_interaction(connection, NOW - at, metadata={"session_id": "s 7"})
            for at in (3, 2)
        ]
    index_all(context)
    client = console_client(context, "viewer", clock=lambda: NOW)
    middle = client.get(f"/traffic/{ids[1]}").text
    assert f'href="/traffic/{ids[0]}" data-key="p"' in middle and "3 turns" in middle
    assert f'href="/traffic/{ids[2]}" data-key="n"' in middle
    assert 'data-key="p"' not in client.get(f"/traffic/{ids[0]}").text
    assert "Thread" not in client.get(f"/traffic/{other}").text, "of another user"
    assert f'href="/traffic/{named[1]}" data-key="n"' in client.get(f"/traffic/{named[0]}").text


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_hits_and_chosen_rows_are_exported(context: Context, form: str) -> None:
    with writing(context.database) as connection:
        ids = [
            builders.add_interaction(connection, NOW - 1000 - at, answer=f"needle {at} ü")
            for at in range(60)
        ]
        builders.add_interaction(connection, NOW, answer="hay")
    index_all(context)
    client = console_client(context, "viewer", clock=lambda: NOW)
    found = client.get(f"/traffic/export?q=needle&format={form}")
    assert [row["id"] for row in read_export(found.content, form)] == ids
    chosen = client.post("/traffic/export", data={"interaction": ids[3:5], "format": form})
    rows = read_export(chosen.content, form)
    assert [row["answer"] for row in rows] == ["needle 3 ü", "needle 4 ü"]
    assert client.post("/traffic/export", data={"format": form}).status_code == 400
    assert client.get("/traffic/export?format=xls").status_code == 400


def read_export(content: bytes, form: str) -> list[dict[str, Any]]:
    if form == "jsonl":
        return [json.loads(line) for line in content.splitlines()]
    rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(content)).to_pylist()
    return rows
