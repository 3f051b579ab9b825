"""Reading rows: every format is understood, every wrong line is named, nothing is dropped in
silence.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.data.datasets import PARTS, Shares, default_shares, rows_digest, save
from training.data.formats import read_file
from training.data.rows import read_lines
from training.data.split import split
from whet.errors import InputError
from whet.store import Store

USER, ANSWER, SYSTEM = (
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a"},
    {"role": "system", "content": "Be brief."},
)
GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def _read(*objects: object) -> object:
    return read_lines(
        [value if isinstance(value, bytes) else json.dumps(value).encode() for value in objects],
        asked=True,
    )


def test_all_three_formats_are_understood() -> None:
    reading = _read(
        GOOD,
        {"prompt": "q", "completion": "a"},
        {"messages": GOOD["messages"][:1], "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    )
    assert reading.bad == []
    assert [row.kind for row in reading.rows] == ["messages", "prompt", "preference", "preference"]
    assert {(row.messages[0]["content"], row.answer) for row in reading.rows} == {("q", "a")}


def test_every_field_arrives() -> None:
    row = _read(
        {
            **GOOD,
            "weight": 2,
            "task": "t",
            "id": 7,
            "user": "u",
            "context": [{"text": "p", "score": 1}],
            "train": "all",
            "checks": ["a"],
            "origin": "review",
        }
    ).rows[0]
    assert (
        row.weight,
        row.task,
        row.id,
        row.user,
        row.context,
        row.mode,
        row.checks,
        row.origin,
    ) == (2.0, "t", "7", "u", ("p",), "all", ("a",), "review")
    assert _read({**GOOD, "context": "text"}).rows[0].context == ("text",)
    assert (
        _read(
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}]},
                    GOOD["messages"][1],
                ]
            }
        )
        .rows[0]
        .messages[0]["content"]
        == "q"
    )


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        (b"{", "column", "one JSON object per line"),
        (b"not json", "'not json'", "one JSON object per line"),
        (b"[1]", "a list", "a JSON object"),
        (b"null", "null", "a JSON object"),
        (b"\xff{}", "0xff at position 1", "UTF-8"),
        (b'{"prompt": "\\ud800", "completion": "a"}', "surrogate", "whole Unicode"),
        (
            b'{"prompt": "q", "completion": "a", "weight": NaN}',
            "NaN or Infinity in 'weight'",
            "finite",
        ),
        (b"[" * 100_000, "nested", "one JSON object"),
        ({}, "none", "'messages'"),
        ({"body": "x"}, "body", "'messages'"),
        ({"messages": []}, "empty list", "at least one message"),
        ({"messages": "hi"}, "a text", "a list"),
        ({"messages": ["hi"]}, "message 1 is a text", '"role" and "content"'),
        ({"messages": [{"role": "narrator", "content": "q"}]}, "'narrator'", "one of system"),
        ({"messages": [{"role": "user"}]}, "the content of message 1 is null", "a text"),
        ({"messages": [{"role": "user", "content": 3}]}, "a number", "a text"),
        ({"messages": [{"role": "user", "content": "q"}]}, "the role 'user'", "'assistant'"),
        ({"messages": [GOOD["messages"][1]]}, "without a question", "before the last"),
        (
            {"messages": [GOOD["messages"][0], {"role": "assistant", "content": " "}]},
            "no text",
            "the answer",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "not text",
            "parts of the form",
        ),
        ({"prompt": "q"}, "no field 'completion'", "a text"),
        ({"prompt": "q", "completion": ""}, "an empty 'completion'", "a text"),
        ({"prompt": 1, "completion": "a"}, "'prompt' is a number", "a text"),
        ({**GOOD, "chosen": "a", "rejected": "b"}, "ends with an assistant", "up to the question"),
        ({**GOOD, "weight": 0}, "0", "above 0"),
        ({**GOOD, "weight": "2"}, "'2'", "above 0"),
        ({**GOOD, "weight": True}, "true", "above 0"),
        ({**GOOD, "train": "first"}, "'first'", "last, all"),
        ({**GOOD, "checks": "a"}, "a text", "a list of texts"),
        ({**GOOD, "checks": [""]}, "a list", "not empty"),
        ({**GOOD, "context": 5}, "a number", "a text, a list"),
        ({**GOOD, "origin": "web"}, "'web'", "seed, review"),
        ({**GOOD, "task": 5}, "a number", "a text"),
        ({**GOOD, "weight": 1e-5}, "1e-05", "above 0, from 0.0001 to 10000"),
        ({**GOOD, "weight": 10001}, "10001", "above 0, from 0.0001 to 10000"),
        ({**GOOD, "weight": 10**400}, "1000", "above 0, from 0.0001 to 10000"),
        ({**GOOD, "rating": 5}, "the rating is 5", "or -1"),
        ({**GOOD, "rating": "up"}, "the rating is up", "or -1"),
        ({**GOOD, "rating": True}, "the rating is true", "or -1"),
        (
            b'{"prompt": "q", "completion": "a", "completion": "b"}',
            "'completion' twice",
            "each name once",
        ),
        (
            (
                b'{"messages": [{"role": "user", "content": "q", "content": "r"}, {"role":'
                b' "assistant", "content": "a"}]}'
            ),
            "'content' twice",
            "each name once",
        ),
        # two formats in one row, and two questions
        ({**GOOD, "prompt": "another"}, "'prompt' beside 'messages'", "one format"),
        ({**GOOD, "completion": "another"}, "'completion' beside 'messages'", "one format"),
        (
            {**GOOD, "conversations": [{"from": "human", "value": "q"}]},
            "'conversations' beside 'messages'",
            "one format",
        ),
        (
            {"instruction": "q", "output": "a", "prompt": "another"},
            "'prompt' beside 'instruction', 'output'",
            "one format",
        ),
        (
            {"prompt": "q", "completion": "z", "chosen": "a", "rejected": "b"},
            "'completion' beside 'prompt', 'chosen', 'rejected'",
            "one format",
        ),
        (
            {
                "prompt": "q",
                "chosen": [USER, ANSWER],
                "rejected": [{**USER, "content": "r"}, {**ANSWER, "content": "b"}],
            },
            "different messages",
            "the same question",
        ),
        (
            {
                "prompt": "r",
                "chosen": [USER, ANSWER],
                "rejected": [USER, {**ANSWER, "content": "b"}],
            },
            "another question",
            "the same question",
        ),
        (
            {"prompt": "q", "chosen": "a", "rejected": " a "},
            "the same as 'chosen'",
            "better than the other",
        ),
        (
            {**GOOD, "messages": [SYSTEM, USER, ANSWER], "system": "s"},
            "'system' beside a message of the role system",
            "one of the two",
        ),
        ({**GOOD, "system": 5}, "'system' is a number", "a text"),
        # an answer to nothing
        ({"messages": [SYSTEM, ANSWER]}, "nobody asked for", "of the role user"),
        ({"messages": [{**USER, "content": " "}, ANSWER]}, "an empty question", "of the role user"),
        ({"prompt": [SYSTEM], "completion": "a"}, "nobody asked for", "of the role user"),
        (
            {"messages": [ANSWER, USER]},
            "the first message of 'messages' is the assistant's and the last the user's",
            "swapped",
        ),
        (
            {
                "prompt": "q",
                "chosen": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
                "rejected": "b",
            },
            "a call of a tool in 'chosen'",
            "in words",
        ),
        ({"text": "t", "label": "spam"}, "'label' beside 'text'", "the text alone"),
        ({"text": "t", "checks": ["t"]}, "'checks' beside 'text'", "the text alone"),
        ({"text": "\u200b"}, "a text without a visible character", "the text to learn"),
        ({"text": " "}, "an empty 'text'", "a text"),
        # nothing that can be seen
        (
            {"prompt": "q", "completion": "\u200b\ufeff"},
            "without a visible character",
            "the answer",
        ),
        ({"prompt": "\u200b", "completion": "a"}, "an empty question", "of the role user"),
        (
            {"prompt": "q", "chosen": "a", "rejected": "\u200b"},
            "without a visible character",
            "the answer",
        ),
        (
            {"messages": [USER, ANSWER, ANSWER]},
            "messages 2 and 3 are both of the assistant",
            "in between",
        ),
    ],
)
def test_a_wrong_line_says_where_what_and_what_is_expected(
    line: object, found: str, expected: str
) -> None:
    reading = _read(GOOD, line, GOOD)
    assert len(reading.rows) == 2
    assert [bad.line for bad in reading.bad] == [2]
    assert found in reading.bad[0].found
    assert expected in reading.bad[0].expected


def test_a_file_with_wrong_lines_is_refused_unless_they_are_to_be_skipped(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD) + "\n\n{bad\n")
    reading = read_file(file)
    assert (len(reading.rows), [bad.line for bad in reading.bad], reading.blank) == (1, [3], [2])
    with pytest.raises(InputError, match="line 3"):
        reading.refuse_bad("rows.jsonl", skip_bad=False)
    reading.refuse_bad("rows.jsonl", skip_bad=True)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match="no training row"):
        read_file(file).refuse_bad("rows.jsonl", skip_bad=True)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        read_file(tmp_path)


def test_misspelt_fields_and_a_byte_order_mark_are_noticed_not_fatal(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({**GOOD, "wieght": 2}).encode() + b"\r\n")
    reading = read_file(file)
    assert reading.unknown_fields == {"wieght": 1}
    assert len(reading.rows) == 1


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "output": "a"},
    ],
)
def test_a_system_text_beside_any_format_leads_the_conversation(row: dict[str, object]) -> None:
    assert _read({**row, "system": "Be brief."}).rows[0].messages == (SYSTEM, USER, ANSWER)
    assert _read({**row, "system": ""}).rows[0].messages == (USER, ANSWER)


def test_a_second_format_that_says_the_same_passes() -> None:
    """Published sets repeat the question, and others hold fields without content."""
    reading = _read(
        {**GOOD, "prompt": " q", "completion": "a"},
        {"instruction": "q", "output": "a", "prompt": None, "input": ""},
    )
    assert [row.messages for row in reading.rows] == [(USER, ANSWER)] * 2


def test_people_s_own_conversations_stay_as_they_were() -> None:
    """A request may hold anything, and what people reviewed is stored; a stored version must be
    read again.
    """
    met = [
        {"messages": messages}
        for messages in (
            [SYSTEM, ANSWER],
            [USER, ANSWER, ANSWER],
            [{**USER, "content": ""}, ANSWER],
        )
    ]
    assert [bad.line for bad in _read(*met).bad] == [1, 2, 3] and not _read(
        *({**row, "origin": "review"} for row in met)
    ).bad
    assert not read_lines(json.dumps(row).encode() for row in met).bad, (
        "what is in the store already"
    )
    tool = {"role": "tool", "content": "5", "tool_call_id": "1"}
    calls = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert not _read(
        {"messages": [calls, tool, ANSWER]},
        {"messages": [USER, calls, {**tool, "content": ""}, ANSWER]},
    ).bad


def test_unknown_fields_of_messages_are_noticed_too() -> None:
    reading = _read(
        {"messages": [USER, {**ANSWER, "wieght": 0}]},
        {
            "conversations": [
                {"from": "human", "value": "q", "loss": 0},
                {"from": "gpt", "value": "a"},
            ]
        },
    )
    assert reading.unknown_fields == {"messages[].wieght": 1, "messages[].loss": 1}


def _many(count: int) -> list[dict[str, object]]:
    return [
        {"prompt": f"question {number}", "completion": f"answer {number}"}
        for number in range(count)
    ]


def test_a_row_lands_in_the_same_part_whatever_is_added() -> None:
    few, more = _read(*_many(200)).rows, _read(*_many(400)).rows
    shares = Shares(0.1, 0.1)
    part_of = {row.id: part for part, rows in split(more, shares).parts.items() for row in rows}
    for part, rows in split(few, shares).parts.items():
        assert all(part_of[row.id] == part for row in rows)


def test_equal_questions_users_and_groups_are_never_parted() -> None:
    same_question = [
        {
            "prompt": f"  Question   {number} ".upper() if twice else f"question {number}",
            "completion": f"{twice}",
        }
        for number in range(100)
        for twice in (0, 1)
    ]
    same_user = [{**row, "user": f"u{number % 9}"} for number, row in enumerate(_many(100))]
    for objects, key in (
        (same_question, lambda row: row.prompt_digest),
        (same_user, lambda row: row.user),
    ):
        seen: dict[str, str] = {}
        for part, rows in split(_read(*objects).rows, Shares(0.2, 0.2)).parts.items():
            for row in rows:
                assert seen.setdefault(key(row), part) == part


def test_a_small_set_still_gets_a_test_part_and_large_ones_a_validation_part() -> None:
    parts = split(_read(*_many(6)).rows, default_shares(6, separate_test=False)).parts
    assert parts["test"] and not parts["validation"] and len(parts["train"]) >= 3
    assert default_shares(2000, separate_test=False) == Shares(0.1, 0.1)
    assert default_shares(500, separate_test=True) == Shares(0.0, 0.0)


def test_a_dataset_is_its_rows_and_is_stored_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    parts = split(_read(*_many(50)).rows, Shares(0.1, 0.1)).parts
    first = save(store, "a", parts)
    assert first.digest == rows_digest({part: list(reversed(rows)) for part, rows in parts.items()})
    again = save(store, "b", parts)
    assert again.path == first.path == f"datasets/{first.digest}"
    manifest = store.read_json(f"{first.path}/manifest.json")
    assert manifest["digest"] == first.digest
    assert manifest["rows"] == {part: len(parts[part]) for part in PARTS}
    stored = [
        json.loads(line) for line in store.read_bytes(f"{first.path}/train.jsonl").splitlines()
    ]
    assert all(row["id"] and row["origin"] == "seed" for row in stored)
