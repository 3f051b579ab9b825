"""The pages of traffic: search, filters, and one conversation with where it came from and what it
taught.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select

from serving.pages import reading, search
from serving.pages.search_words import SearchWords, parse_search, snippet
from tests import builders, worlds
from tests.web import NOW, console_client
from whet.context import Context
from whet.database import reading as reads
from whet.database import writing
from whet.tables import interactions, review_left_out


def rows_of(context: Context, **filters_: str) -> list[str]:
    with reads(context.database) as connection:
        return [
            row["id"] for row in search.search(connection, search.Filters(**filters_), NOW).rows
        ]


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
    for words in ("gewährleistung".capitalize(), "Würfel", "100 % sicher", "24_mon", "LANGE GILT"):
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
    pieces = snippet("x " * 300 + "a needle here", ["NEEDLE"], 60)
    assert ("needle", True) in pieces and pieces[0][0].startswith("…")
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
            found = search.search(connection, search.Filters(before=before), NOW)
        seen += [row["id"] for row in found.rows]
        if not found.next:
            break
        before = found.next
    assert seen == made


def test_a_text_search_stops_after_its_bound_and_goes_on_from_there(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "TEXT_SCAN_ROWS", 5)
    with writing(sqlite_context.database) as connection:
        for index in range(12):
            builders.add_interaction(
                connection, NOW - 1000 - index, answer="needle" if index == 8 else "hay"
            )
    with reads(sqlite_context.database) as connection:
        first = search.search(connection, search.Filters(q="needle"), NOW)
        assert first.rows == [] and first.scanned_to == NOW - 1004
        second = search.search(connection, search.Filters(q="needle", before=first.next), NOW)
    assert [row["response_text"] for row in second.rows] == ["needle"]


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
