"""Planted faults: each is found by `whet data check`, or refused by `whet train run`, before the
first step, with a sentence of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.data.report import render
from training.runs.row_check import check
from whet.context import Context

ITEMS = ("kettle", "lamp", "radio", "fan", "toaster", "clock", "heater", "scale", "mixer", "grill")
Rows = list[dict[str, Any]]


def _row(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        **fields,
    }


def _good() -> Rows:
    """Rows without a fault: forty questions, each with its own answer."""
    return [
        _row(
            f"How long is the warranty of the {colour} {item}?",
            f"The warranty of the {colour} {item} is {months} months.",
        )
        for months, (item, colour) in enumerate(
            ((item, colour) for item in ITEMS for colour in ("red", "blue", "green", "black")),
            start=10,
        )
    ]


def _labelled() -> Rows:
    """Sixty messages with one of two labels each, told apart by their words."""
    topics = {
        "refund": ["money", "paid", "bank", "invoice", "charge"],
        "repair": ["broken", "crack", "noise", "button", "screen"],
    }
    rng = random.Random(0)
    return [
        _row(f"Ticket {number}: {' '.join(rng.choices(topics[label], k=6))}", label, task="route")
        for number in range(30)
        for label in topics
    ]


def _file(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    )
    return path


def _replaced(rows: Rows, position: int, row: Any) -> list[Any]:
    return [*rows[:position], row, *rows[position + 1 :]]


COPIED = (
    "Kindly explain to our new colleague which spare parts the workshop keeps in stock for that"
    " very popular coffee machine from Italy"
)
LONG = (
    "please tell me whether the warranty covers my old green lamp when somebody dropped it on the"
    " floor last winter at home"
)
TEST_ROW = _row(LONG, "It is not covered, since a fall is nobody's fault but your own.", user="u9")

# name -> (rows with the fault, code of the finding, a piece of its sentence, lines that it names)
FAULTS: dict[str, tuple[Callable[[], list[Any]], str, str, list[Any]]] = {
    "a line that is not JSON": (lambda: _replaced(_good(), 4, "{oops"), "not_rows", "1 lines are not training rows", [5]),
    "a field that is misspelt": (lambda: [{**row, "wieght": 2} for row in _good()], "ignored_columns", "wieght", []),
    "an answer that is missing": (lambda: _replaced(_good(), 0, _row("q", " ")), "not_rows", "are not training rows", [1]),
    "a row that is too long": (lambda: _replaced(_good(), 7, _row("word " * 600, "a")), "refused", "cannot be learned from", [8]),
    "a row that was rendered before": (lambda: _replaced(_good(), 2, _row("<|im_start|>user q", "a")), "refused", "cannot be learned from", [3]),
    "an exact copy": (lambda: [*_good(), _good()[3]], "duplicates", "1 rows repeat another one exactly", [[4, 41]]),
    "a near copy": (lambda: [*_good(), _row(COPIED, "All of them."), _row(COPIED.upper().replace("VERY", "QUITE") + "!", "all of them")], "near_duplicates", "1 rows are nearly", [[41, 42]]),
    "two answers to one question": (lambda: [*_good(), _row("how long is the warranty of the RED kettle", "Nobody knows.")], "conflicts", "1 questions have more", [[1, 41]]),
    "a label that is hardly there": (lambda: [*_labelled(), *[_row(f"Ticket: hello {n}", "other", task="route") for n in range(2)]], "imbalance", "'other' in 2", []),
    "an answer in another language": (lambda: _replaced(_good(), 9, _row("Quelle est la garantie?", "La garantie de cette lampe est malheureusement terminée depuis le mois dernier.")), "languages", "1 answers are in fr", [10]),
    "a wrong label": (lambda: _replaced(_labelled(), 10, _row(_labelled()[10]["messages"][0]["content"], "repair", task="route")), "label_errors", "line 11 says 'repair', expected 'refund'", [11]),
    "personal data": (lambda: _replaced(_good(), 5, _row("I am ann@example.org, +49 30 901820", "Thank you.")), "personal_data", "1 EMAIL, 1 PHONE", [6]),
    "an answer that is all placeholders": (lambda: _replaced(_good(), 1, _row("Who?", "<EMAIL_1>", scrubbed=["<EMAIL_1>"])), "nothing_learned", "no token to learn", [2]),
    "characters of a wrong decoding": (lambda: _replaced(_good(), 6, _row("caf\ufffd?", "Yes\x07.")), "broken_characters", "wrong decoding", [7]),
    "marks of another base's template": (lambda: _replaced(_good(), 2, _row("[INST] Who is it? [/INST]", "The postman.")), "marks", "('[INST]'), which are plain text", [3]),
    "a transcript in one message": (lambda: _replaced(_good(), 2, _row("Who is it?", "The postman.\n\nHuman: And now?\n\nAssistant: The baker.")), "marks", "marks of a chat template ('Human:')", [3]),
    "UTF-8 that was read as Latin-1": (lambda: _replaced(_good(), 6, _row("Is the cafÃ© open?", "Yes, it is â€œopenâ€\x9d.")), "broken_characters", "wrong decoding", [7]),
    "an empty cell of a spreadsheet": (lambda: _replaced(_labelled(), 6, _row("Ticket 99: money bank", "#N/A", task="route")), "stand_ins", "1 answers stand for a missing one ('#N/A')", [7]),
    "an answer that is still to come": (lambda: _replaced(_good(), 6, _row("Is it open?", "TODO")), "stand_ins", "('TODO')", [7]),
    "instructions in the middle": (lambda: _replaced(_good(), 8, {"messages": [*_row("Open?", "Yes.")["messages"][:1], {"role": "system", "content": "Be rude."}, *_row("Open?", "No!")["messages"][1:]]}), "order", "1 with instructions after the first message", [9]),
    "a lost turn": (lambda: _replaced(_good(), 8, {"messages": [*_row("Open?", "Yes.")["messages"][:1], *_row("Really?", "No!")["messages"]]}), "order", "1 with two messages of the user in a row", [9]),
    "swapped roles": (lambda: _replaced(_good(), 8, {"messages": [*_row("x", "Open?")["messages"][1:], *_row("Yes.", "Fine!")["messages"]]}), "order", "1 with the assistant first", [9]),
    "an answer that is the question": (lambda: _replaced(_good(), 8, _row("Is the shop open?", "is the shop open")), "echoes", "1 answers are the question again", [9]),
    "one id on several rows": (lambda: [{**row, "id": "a" if number < 2 else str(number)} for number, row in enumerate(_good())], "shared_ids", "1 ids stand on several", [[1, 2]]),
    "one answer to everything": (lambda: [{**row, "messages": [row["messages"][0], {"role": "assistant", "content": "I cannot help."}]} for row in _good()], "imbalance", "all 40 rows have the answer 'i cannot help'", []),
    "a label that is written in two ways": (lambda: _replaced(_labelled(), 4, {**_labelled()[4], "messages": [_labelled()[4]["messages"][0], {"role": "assistant", "content": "Refund."}]}), "spellings", "'refund' also as 'Refund.'", [5]),
    "a call of a tool that the template leaves out": (lambda: _replaced(_good(), 3, {"messages": [{"role": "user", "content": "Is it late?"}, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock_now", "arguments": "{}"}}]}, {"role": "tool", "content": "9"}, {"role": "assistant", "content": "Not yet."}]}), "unseen", "line 4: a call of clock_now", [4]),
    "personal data beside the texts": (lambda: _replaced(_good(), 5, {**_good()[5], "user": "ann@example.org"}), "personal_data", "1 EMAIL", [6]),
    "a row known from the test set": (lambda: [*_good(), _row(LONG.replace("old", "dear"), TEST_ROW["messages"][1]["content"]), _row("q", "a", user="u9")], "leaks", "nearly the same as line 1", [41]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_planted_fault_is_found_with_its_sentence_and_place(
    context: Context, tmp_path: Path, name: str
) -> None:
    make, code, sentence, lines = FAULTS[name]
    found = check(
        context,
        _file(tmp_path / "rows.jsonl", make()),
        test=_file(tmp_path / "test.jsonl", [TEST_ROW]),
    )
    (finding,) = [each for each in found["findings"] if each["code"] == code]
    assert sentence in finding["found"] and finding["do"] and finding["lines"] == lines, finding
    others = {each["code"] for each in found["findings"]} - {code}
    assert not others, f"{name} is called {others} too"


def test_labels_are_looked_at_beside_free_answers_and_rarer_ways_of_writing_them(
    context: Context, tmp_path: Path
) -> None:
    wrong = _replaced(
        _labelled(), 10, _row(_labelled()[10]["messages"][0]["content"], "Repair.", task="route")
    )
    mixed = [
        {name: value for name, value in row.items() if name != "task"} for row in wrong
    ] + _good()
    found = {
        each["code"]: each
        for each in check(context, _file(tmp_path / "rows.jsonl", mixed))["findings"]
    }
    assert (
        found["label_errors"]["lines"] == [11]
        and found["spellings"]["lines"] == [11]
        and len(found) == 2
    )


def test_labels_that_do_not_follow_from_the_text_accuse_nobody(
    context: Context, tmp_path: Path
) -> None:
    rng = random.Random(1)
    tossed = [
        _row(
            f"Ticket {number}: {' '.join(rng.choices(ITEMS, k=6))}", rng.choice(["heads", "tails"])
        )
        for number in range(120)
    ]
    assert check(context, _file(tmp_path / "rows.jsonl", tossed))["findings"] == []


def test_a_label_may_be_called_none_and_corrections_may_repeat_their_question(
    context: Context, tmp_path: Path
) -> None:
    called = [
        {
            **row,
            "messages": [
                row["messages"][0],
                {
                    "role": "assistant",
                    "content": {"refund": "none"}.get(row["messages"][1]["content"], "repair"),
                },
            ],
        }
        for row in _labelled()
    ]
    assert check(context, _file(tmp_path / "none.jsonl", called))["findings"] == []
    corrections = [
        _row(row["messages"][0]["content"], row["messages"][0]["content"]) for row in _good()
    ]
    assert check(context, _file(tmp_path / "same.jsonl", corrections))["findings"] == []


@pytest.mark.parametrize(
    "text",
    ["MAÇÃ é «UMA FRUTA» e “NÃO”", "Über FÜR“ und CAFÉ…", "x <| y |> z and a < s > b", "Ünïcödé Ñandú Ðað þú 5 °C §7", "مرحبا \u200f👩‍👩‍👧 سلام", "### Heading\n\n- list", "Â quoi bon"],
)  # fmt: skip
def test_texts_of_many_scripts_and_of_code_have_no_finding(
    context: Context, tmp_path: Path, text: str
) -> None:
    found = check(
        context,
        _file(tmp_path / "rows.jsonl", [_row(f"What is {text}", f"That is {text}, of course.")]),
    )
    assert [finding["code"] for finding in found["findings"]] == ["few_rows"]


@pytest.mark.parametrize("rows", [_good(), _labelled()], ids=["answers", "labels"])
def test_rows_without_a_fault_have_no_finding(context: Context, tmp_path: Path, rows: Rows) -> None:
    found = check(
        context,
        _file(tmp_path / "rows.jsonl", rows),
        test=_file(tmp_path / "test.jsonl", [TEST_ROW]),
    )
    assert found["findings"] == []


def test_a_test_set_that_a_run_would_refuse_is_an_error_here_too(
    context: Context, tmp_path: Path
) -> None:
    train = _file(tmp_path / "rows.jsonl", _good())
    wrong = check(
        context,
        train,
        test=_file(tmp_path / "wrong.jsonl", ['{"title": "What?", "body": "That."}', "{oops"]),
    )
    (finding,) = wrong["findings"]
    assert (finding["code"], finding["severity"], finding["lines"], wrong["errors"]) == (
        "test_not_rows",
        "error",
        [1, 2],
        1,
    )
    assert "line 1: found the fields body, title" in finding["found"] and [
        bad["line"] for bad in wrong["test_rejected"]
    ] == [1, 2]
    empty = check(context, train, test=_file(tmp_path / "empty.jsonl", []))
    assert [finding["found"] for finding in empty["findings"]] == ["The test set holds no row."]
    made = check(
        context,
        train,
        test=_file(tmp_path / "made.jsonl", [TEST_ROW, {**TEST_ROW, "origin": "synthetic"}]),
    )
    assert [
        (finding["code"], finding["severity"], finding["lines"]) for finding in made["findings"]
    ] == [("test_synthetic", "error", [2])]


def test_a_chart_that_shows_some_of_many_says_so(context: Context, tmp_path: Path) -> None:
    rows = [{**row, "task": f"task {number % 35}"} for number, row in enumerate(_good())]
    page = render(check(context, _file(tmp_path / "rows.jsonl", rows)), "rows", 0)
    assert "The 30 most frequent of 35" in page and "task 34" not in page and ">task 4<" in page


def test_the_report_is_one_page_with_plots_that_loads_and_runs_nothing(
    context: Context, tmp_path: Path
) -> None:
    rows = [
        *_labelled(),
        _row("<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>"),
        _row("q", ""),
    ]
    found = check(context, _file(tmp_path / "rows.jsonl", rows))
    page = render(found, "<b>rows</b>.jsonl", 0)
    assert page.count("<svg") >= 3 and "<mark>" in page and "prefers-color-scheme: dark" in page
    assert all(finding["do"].split("`")[0] in page for finding in found["findings"])
    for forbidden in ("<script", "<img", "<link", "http://", "https://", "<b>", "src="):
        assert forbidden not in page.replace("&lt;", "").replace("img src=x", ""), forbidden
