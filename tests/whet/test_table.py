"""Tables for people: identifiers stay whole however narrow the terminal is."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from rich.console import Console

from whet.ids import new_id
from whet.table import column_widths, print_rows

SENTENCE = "An alert alone teaches nothing; review the conversations that it names."


def printed(rows: list[dict[str, Any]], width: int, title: str = "") -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    print_rows(out, rows, list(rows[0]), title)
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_sentences_wrap_and_ids_do_not() -> None:
    rows = [{"run": new_id("run"), "alias": "support", "why": SENTENCE} for _ in range(3)]
    text = printed(rows, 80)
    assert all(row["run"] in text for row in rows)
    assert max(map(len, text.splitlines())) <= 80 and "run" in text.splitlines()[0]
    assert " ".join(text.split()).count("An alert alone") == 3


def test_rows_stand_one_under_the_other_where_a_table_would_break_an_id() -> None:
    rows = [{name: new_id(name) for name in ("run", "req", "int", "rev")} for _ in range(2)]
    text = printed(rows, 80, "runs")
    assert text.splitlines()[0] == "runs"
    lines = [line.split() for line in text.splitlines()[1:] if line]
    assert lines == [[name, row[name]] for row in rows for name in row]


def test_brackets_colours_and_empty_cells_are_text() -> None:
    text = printed([{"a": "[red]x[/red]", "b": None, "c": 0}], 80)
    assert "[red]x[/red]" in text and "None" not in text and "0" in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_whatever_is_printed_no_word_is_broken(width: int) -> None:
    rng = random.Random(width)
    for _ in range(100):
        names = [f"column{number}" for number in range(rng.randrange(1, 9))]
        rows = [
            {name: " ".join("x" * rng.randrange(1, 40) for _ in range(rng.randrange(4)))}
            | {other: rng.choice([None, 7, new_id("run"), SENTENCE]) for other in names}
            for name in names[:1]
            for _ in range(3)
        ]
        words = {word for row in rows for cell in row.values() for word in str(cell).split()}
        text = printed(rows, width)
        missing = words - set(text.split()) - {"None"}
        assert not missing, f"broken at {width} columns:\n{text}"


def test_columns_get_what_they_need_before_sentences_get_more() -> None:
    assert column_widths(["id", "why"], [["run_12345", SENTENCE]], 40) == [9, 29]
    assert column_widths(["id", "why"], [["run_12345", "short"]], 40) == [9, 5]
    assert column_widths(["id", "why"], [["r" * 30, "s" * 20]], 40) is None
