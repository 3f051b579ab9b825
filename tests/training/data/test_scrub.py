"""Personal data: what is taken for it, what is not, and that its placeholders are seen and never
learned.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.clean import clean, normalise_text
from training.data.pii import Scrubber, find, known_region
from training.data.rows import read_lines
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from whet.errors import InputError


def _row(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        **fields,
    }


def _rows(*rows: dict[str, Any]) -> Any:
    found = read_lines(json.dumps(row).encode() for row in rows)
    assert not found.bad
    return found.rows


@pytest.mark.parametrize(
    ("text", "kind", "piece"),
    [
        ("write to Ann.Lee+x@mail.example.co.uk, please", "EMAIL", "Ann.Lee+x@mail.example.co.uk"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN", "DE89 3704 0044 0532 0130 00"),
        ("to GB29NWBK60161331926819.", "IBAN", "GB29NWBK60161331926819"),
        ("card 4111 1111 1111 1111", "CARD", "4111 1111 1111 1111"),
        ("the server 192.168.1.20.", "IP", "192.168.1.20"),
        ("from 2001:db8::1:", "IP", "2001:db8::1"),
        ("call +49 30 901820 today", "PHONE", "+49 30 901820"),
        ("call (650) 253-0000 today", "PHONE", "(650) 253-0000"),
        ("12 7 4111 1111 1111 1111 12 5", "CARD", "4111 1111 1111 1111"),
        ("at 7, 12 +49 30 901820", "PHONE", "+49 30 901820"),
        ("Schreib jörg.müller@exämple.de, bitte", "EMAIL", "jörg.müller@exämple.de"),
        ("an jo\u0308rg@example.de", "EMAIL", "jo\u0308rg@example.de"),
        ("пиши на иван@почта.рф.", "EMAIL", "иван@почта.рф"),
        ("to ann@xn--exmple-cua.xn--p1ai today", "EMAIL", "ann@xn--exmple-cua.xn--p1ai"),
        ("メールはtaro@example.jpまで", "EMAIL", "taro@example.jp"),
        ("-" * 90 + "x" * 60 + "@example.org", "EMAIL", "----" + "x" * 60 + "@example.org"),
    ],
)
def test_personal_data_is_found_with_its_kind_and_place(text: str, kind: str, piece: str) -> None:
    assert [(found.kind, text[found.start : found.end]) for found in find(text, "US")] == [
        (kind, piece)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "order 1234567890",  # no country was named, so a number without + is none of a phone
        "4111 1111 1111 1112",  # the check digit is wrong
        "DE88 3704 0044 0532 0130 00",
        "at 10:30:00 on 12.5.2023, twice",
        "127.0.0.1 and ::1",
        "a@b and @home",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert find(text) == []


def test_the_same_text_has_the_same_placeholder_all_over_its_row() -> None:
    row = Scrubber().row(
        _row(
            "I am a@b.com or A@b.com; she is c@d.org",
            "Mail a@b.com",
            context=["c@d.org"],
            checks=["a@b.com"],
            user="a@b.com",
        )
    )
    assert row["messages"][0]["content"] == "I am <EMAIL_1> or <EMAIL_1>; she is <EMAIL_2>"
    assert (row["messages"][1]["content"], row["context"], row["checks"]) == (
        "Mail <EMAIL_1>",
        ["<EMAIL_2>"],
        ["<EMAIL_1>"],
    )
    assert row["scrubbed"] == ["<EMAIL_1>", "<EMAIL_2>"]
    other = Scrubber().row(_row("q", "a", user="a@b.com"))
    assert row["user"] == other["user"] and "@" not in row["user"], (
        "rows of one user must still be known as such"
    )


def test_no_field_is_left_out_of_scrubbing_whatever_its_name_and_depth() -> None:
    raw = _row(
        "q",
        "a",
        task="a@b.com",
        meta={
            "from": "a@b.com",
            "type": ["c@d.org"],
            "card": 4111111111111111,
            "e@f.org": True,
            "train": "+49 30 901820",
        },
    )
    row = clean(_rows(raw)).rows[0]
    assert row["meta"] == {
        "from": "<EMAIL_1>",
        "type": ["<EMAIL_2>"],
        "card": "<CARD_1>",
        "<EMAIL_3>": True,
        "train": "<PHONE_1>",
    }
    assert (
        row["task"].startswith("task-")
        and row["task"] == clean(_rows(_row("r", "b", task="a@b.com"))).rows[0]["task"]
    ), "a task is one task still"
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]


def test_a_row_whose_names_of_fields_would_fall_together_is_refused() -> None:
    made = clean(_rows(_row("q", "a", meta={"a@b.com": 1, "A@b.com": 2})))
    assert made.rows == [] and [bad.line for bad in made.refused] == [1]


def test_rows_that_are_renamed_keep_their_relations() -> None:
    """An id that is made of the text changes with it, and a personal one gets a pseudonym: a row
    that was made from another still names it.
    """
    parent, personal, copy = (
        _row("How do I  clean it? ", "Vinegar."),
        _row("Where is it?", "Here.", id="ann@example.org"),
        _row("How do I  clean it?", "Vinegar."),
    )
    read = _rows(parent, personal, copy)
    children = [
        _row(f"Child {n}?", "Yes.", id=f"c{n}", origin="synthetic", parent=row.id)
        for n, row in enumerate(read)
    ]
    made = {row["id"]: row for row in clean(_rows(parent, personal, copy, *children)).rows}
    parents = [made[f"c{n}"]["parent"] for n in range(3)]
    assert [made[name]["messages"][0]["content"] for name in parents] == [
        "How do I  clean it?",
        "Where is it?",
        "How do I  clean it?",
    ]
    assert (
        "@" not in json.dumps(list(made.values()))
        and read[0].id not in made
        and read[2].id in parents
    )


@pytest.mark.parametrize(("given", "region"), [("", None), ("de", "DE"), (" GB ", "GB")])
def test_a_region_is_a_country_of_the_numbering_plans(given: str, region: str | None) -> None:
    assert known_region(given) == region


@pytest.mark.parametrize("given", ["germany", "UK", "+49", "EN"])
def test_a_region_that_is_none_is_refused_instead_of_finding_nothing(given: str) -> None:
    with pytest.raises(InputError, match="not one that phone numbers are known of"):
        known_region(given)


_TEXT = st.lists(
    st.sampled_from(
        [
            "mail",
            "a@b.com",
            "c.d@e.org",
            "+49 30 901820",
            "192.168.7.7",
            "<EMAIL_1>",
            "4111111111111111",
            "DE89370400440532013000",
            "12",
            ",",
            "\u00e9",
        ]
    )
).map(" ".join)


@given(_TEXT, _TEXT)
@settings(max_examples=60, deadline=None)
def test_scrubbing_twice_is_scrubbing_once_and_leaves_nothing_to_find(
    question: str, answer: str
) -> None:
    once = Scrubber().row(_row(question, answer))
    assert Scrubber().row(once) == once
    assert not [found for message in once["messages"] for found in find(message["content"])]


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
@pytest.mark.seconds
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise_text(normalise_text(text)) == normalise_text(text)


def test_a_row_on_which_the_scrubber_fails_is_refused_and_named_and_is_in_no_output() -> None:
    def breaks(text: str, region: str | None) -> Any:
        if "poison" in text:
            raise RuntimeError("a library's own trouble")
        return find(text, region)

    made = clean(_rows(_row("poison a@b.com", "x"), _row("fine a@b.com", "y")), find=breaks)
    assert [bad.line for bad in made.refused] == [1] and "scrub failed" in made.refused[0].found
    assert "poison" not in json.dumps(made.rows) and "<EMAIL_1>" in json.dumps(made.rows)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 99_000 + "@",
        "ж" * 99_000 + "@",
        "é@b." * 9_000,
        "a@" * 20_000,
        "9" * 50_000,
        "4 " * 9_000,
        "+" * 50_000,
        "AB12 " * 9_000,
        "1." * 9_000,
        "(1" * 9_000,
    ],
)
@pytest.mark.seconds
def test_long_hostile_texts_take_time_in_line_with_their_length(text: str) -> None:
    """Twice the text, about twice the time; a pattern that backtracks would need four times or
    never end.
    """
    taken = []
    for times in (1, 2, 2):
        began = time.process_time()
        find(text * times, "US")
        taken.append(time.process_time() - began)
    assert min(taken[1:]) < 3 * taken[0] + 0.2, f"{taken} seconds"


@pytest.mark.parametrize("name", ["chatml", "brackets", "turns"])
@pytest.mark.parametrize("mode", ["last", "all"])
def test_placeholders_in_an_answer_are_seen_and_never_learned(
    bases: dict[str, BaseModel], name: str, mode: str
) -> None:
    base = bases[name]
    raw = clean(
        _rows(
            _row(
                "Who?",
                "It is24.Ann <ann@example.org>,or call +49 30 901820.It is fine.",
                train=mode,
            )
        )
    ).rows[0]
    (row,) = _rows(raw)
    encoded = Encoder(base, 512).encode(row)
    assert isinstance(encoded, Encoded)
    assert "<EMAIL_1>" in base.tokenizer.decode(
        list(encoded.ids)
    ) and "<PHONE_1>" in base.tokenizer.decode(list(encoded.ids))
    text = base.tokenizer.apply_chat_template(list(row.messages), tokenize=False)
    places = base.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    learned = [place for place, trained in zip(places, encoded.trained, strict=False) if trained]
    for placeholder in ("<EMAIL_1>", "<PHONE_1>"):
        first = text.index(placeholder)
        assert not [
            place for place in learned if place[0] < first + len(placeholder) and first < place[1]
        ], f"a token of {placeholder} is in the loss"
    assert encoded.trained[-1] and encoded.ids[-1] in base.stop_ids, (
        "the end of the turn is still learned"
    )
    said = base.tokenizer.decode(
        [token for token, trained in zip(encoded.ids, encoded.trained, strict=True) if trained]
    )
    assert "fine" in said and "EMAIL" not in said and "PHONE" not in said


def test_a_text_that_looks_like_a_placeholder_is_learned_unless_it_was_scrubbed(
    bases: dict[str, BaseModel],
) -> None:
    """The planted fault of the test above: without the list, the mask would not know."""
    encoded = Encoder(bases["chatml"], 512).encode(_rows(_row("Who?", "It is <EMAIL_1>."))[0])
    assert isinstance(encoded, Encoded)
    assert "EMAIL" in bases["chatml"].tokenizer.decode(
        [token for token, trained in zip(encoded.ids, encoded.trained, strict=True) if trained]
    )
