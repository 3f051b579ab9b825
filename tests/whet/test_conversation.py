"""A logged request and its answer read as one conversation, whichever route it came by."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.conversation import (
    ToolCall,
    answer_of,
    given_beginning,
    history,
    last_question,
    other_parts_of,
    plain_text_of,
    text_of,
)

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
ASKED = {"role": "user", "content": "Warranty?"}
BEGUN = {"role": "assistant", "content": "The warranty is"}
CONTINUED = {"messages": [ASKED, BEGUN], "continue_final_message": True}


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, [("user", "a")]),
        (
            {"messages": [{"role": "user", "content": [{"text": "a"}, {"type": "image_url"}]}]},
            [("user", "a[image_url]")],
        ),
        ({"messages": [{"role": "assistant", "content": None}]}, [("assistant", "")]),
        ({"messages": ["no message", 3, None]}, []),
        ({"messages": "no list"}, []),
        ({"prompt": "Once"}, [("user", "Once")]),
        ({"prompt": ["a", "b"]}, [("user", "a\nb")]),
        ({"prompt": [1, 2]}, [("user", "[1, 2]")]),
        ({"prompt": [[1, 2], [3]]}, [("user", "[[1, 2], [3]]")]),
        ({"input": "hi", "instructions": "be kind"}, [("system", "be kind"), ("user", "hi")]),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, [("user", "x")]),
        ({"input": ["x", {"type": "message", "content": "y"}]}, [("user", "x"), ("user", "y")]),
        ({"input": [{"type": "item_reference", "id": "i"}]}, [("user", "[item_reference]")]),
        ({"input": [{"type": "reasoning", "content": []}]}, []),
        ({}, []),
        ([], []),
        (None, []),
    ],
)
def test_the_history_of_every_route(request_body: Any, expected: list[tuple[str, str]]) -> None:
    assert [(message.role, message.content) for message in history(request_body)] == expected


def test_a_tool_turn_of_a_chat_keeps_calls_results_and_their_ids() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "w?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "ok"},
    ]
    found = history({"messages": messages})
    assert found[1].tool_calls == (ToolCall("c1", "f", '{"a":1}'),)
    assert [message.as_chat() for message in found] == [
        messages[0],
        {**messages[1], "content": ""},
        messages[2],
    ]


def test_a_tool_turn_of_responses_reads_as_that_of_a_chat() -> None:
    """Calls join the assistant's message before them, as in the engine."""
    items = [
        {"role": "user", "content": "w?"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "One moment."}],
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "ok"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"text": "fine"}]},
        {"type": "custom_tool_call", "call_id": "c3", "name": "h", "input": "raw"},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": {"n": 1}},
    ]
    assert [message.as_chat() for message in history({"input": items})] == [
        {"role": "user", "content": "w?"},
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [CALL, ToolCall("c2", "g", "{}").as_chat()],
        },
        {"role": "tool", "content": "ok", "tool_call_id": "c1"},
        {"role": "tool", "content": "fine", "tool_call_id": "c2"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [ToolCall("c3", "h", "raw").as_chat()],
        },
        {"role": "tool", "content": '{"n": 1}', "tool_call_id": "c3"},
    ]


@pytest.mark.parametrize(
    "call", [None, 3, {}, {"function": None}, {"function": {"arguments": None}}, {"id": None}]
)
def test_a_call_of_no_known_shape_is_still_a_call(call: Any) -> None:
    (message,) = history({"messages": [{"role": "assistant", "tool_calls": [call]}]})
    assert message.tool_calls == (ToolCall("", "?", ""),)


def test_arguments_are_readable_whether_they_are_json_or_not() -> None:
    assert ToolCall("", "f", '{"city":"Köln"}').readable_arguments == '{\n "city": "Köln"\n}'
    assert ToolCall("", "f", '{"city":').readable_arguments == '{"city":'
    decoded = {**CALL, "function": {"name": "f", "arguments": {"a": 1}}}
    (message,) = history({"messages": [{"role": "assistant", "tool_calls": [decoded]}]})
    assert message.tool_calls[0].arguments == '{"a": 1}', "a client may send them decoded"


def test_a_continued_answer_is_one_answer_and_not_part_of_the_history() -> None:
    stored = "The warranty is 48 months."
    assert [message.role for message in history(CONTINUED)] == ["user"]
    found = answer_of(CONTINUED, {"role": "assistant", "content": " 48 months."}, stored)
    assert (found.text, found.given) == (stored, "The warranty is")


@pytest.mark.parametrize("response", [{"content": " 48 months."}, None])
def test_an_older_row_without_the_given_beginning_gets_it(response: Any) -> None:
    found = answer_of(CONTINUED, response, " 48 months.")
    assert (found.text, found.given) == ("The warranty is 48 months.", "The warranty is")


def test_a_continuation_that_repeats_the_beginning_is_kept_whole() -> None:
    text = "The warranty is long: 48 months."
    older = answer_of(CONTINUED, {"content": text}, text)
    assert older.text == f"The warranty is{text}"
    assert answer_of(CONTINUED, {"content": text}, f"The warranty is{text}").text == older.text
    echoed = answer_of({**CONTINUED, "echo": True}, {"content": text}, text)
    assert echoed.text == text, "an echo holds the beginning already"


@pytest.mark.parametrize(
    "request_body",
    [
        {**CONTINUED, "continue_final_message": False},
        {"messages": [ASKED, BEGUN]},
        {**CONTINUED, "messages": [ASKED]},
        {**CONTINUED, "messages": []},
        {"prompt": "x", "continue_final_message": True},
        {},
        None,
    ],
)
def test_nothing_is_joined_where_nothing_was_continued(request_body: Any) -> None:
    assert given_beginning(request_body) == ""
    assert answer_of(request_body, None, "48 months.").text == "48 months."


def test_an_answer_that_never_came_is_empty() -> None:
    assert answer_of(CONTINUED, None, None).text == ""
    assert answer_of({}, None, None) == answer_of(None, [], None)


def test_tool_calls_of_an_answer_are_read_from_both_routes() -> None:
    expected = (ToolCall("c1", "f", '{"a":1}'),)
    assert answer_of({}, {"content": None, "tool_calls": [CALL]}, None).tool_calls == expected
    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
    assert answer_of({}, {"output": [{"type": "message"}, item]}, "").tool_calls == expected


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        ({"messages": [ASKED, BEGUN, {"role": "user", "content": [{"text": "And?"}]}]}, "And?"),
        ({"messages": [ASKED, {"role": "user", "content": [{"type": "image_url"}]}]}, "Warranty?"),
        (CONTINUED, "Warranty?"),
        ({"input": [ASKED, {"type": "function_call_output", "output": "x"}]}, "Warranty?"),
        ({"input": "q"}, "q"),
        ({"prompt": ["a", "b"]}, "a\nb"),
        ({"prompt": [1, 2]}, ""),
        ({"messages": 5}, ""),
        (7, ""),
    ],
)
def test_the_last_question(request_body: Any, expected: str) -> None:
    assert last_question(request_body) == expected


def test_text_and_other_parts_of_a_content() -> None:
    parts = [{"type": "text", "text": "a"}, "b", {"type": "image_url"}, {"text": None}]
    assert text_of(parts) == "ab[image_url][part]"
    assert plain_text_of(parts) == "a\nb"
    assert other_parts_of(parts) == ["image_url"]
    assert other_parts_of([[1, 2], [3]]) == ["3 token ids"]
    assert other_parts_of("text") == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "messages", "input", "prompt", "instructions", "role", "content", "type", "text",
                "tool_calls", "function", "name", "arguments", "output", "call_id",
                "continue_final_message",
            ]
        ),
        inner | st.sampled_from(["user", "assistant", "function_call", "message", True]),
        max_size=4,
    ),
    max_leaves=15,
)  # fmt: skip


@given(ANYTHING, ANYTHING, st.none() | st.text(max_size=5))
@settings(max_examples=300)
def test_no_shape_is_an_error(request_body: Any, response: Any, text: str | None) -> None:
    for message in history(request_body):
        assert isinstance(message.as_chat()["content"], str)
    assert isinstance(last_question(request_body), str)
    assert answer_of(request_body, response, text).text.endswith(text or "")
