"""Every common format of files and rows gives the same rows; what is not a row is named with its
place.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from training.data.formats import read_file
from training.data.rows import Reading
from whet.errors import InputError

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"question {number}, with\na break",
        "completion": f'answer "{number}"',
        "task": "t",
        "weight": 2.0,
    }
    for number in range(3)
]
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
WORSE = {"role": "assistant", "content": "b"}


def _jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _json(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def _under_data(path: Path, rows: list[Any]) -> Path:
    path.write_text(json.dumps({"version": 1, "data": rows}, indent=2))
    return path


def _csv(path: Path, rows: list[Any]) -> Path:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(
            {
                name: json.dumps(value) if isinstance(value, list) else value
                for name, value in row.items()
            }
            for row in rows
        )
    return path


def _parquet(path: Path, rows: list[Any]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def _saved(path: Path, rows: list[Any]) -> Path:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path


WRITERS: list[tuple[str, Callable[[Path, list[Any]], Path]]] = [
    ("rows.jsonl", _jsonl),
    ("rows.json", _json),
    ("data.json", _under_data),
    ("lines.json", _jsonl),
    ("rows.csv", _csv),
    ("rows.tsv", _csv),
    ("rows.parquet", _parquet),
    ("folder", _saved),
]


@pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])
def test_every_kind_of_file_gives_the_same_rows(
    tmp_path: Path, name: str, write: Callable[[Path, list[Any]], Path]
) -> None:
    reading = read_file(write(tmp_path / name, ROWS))
    assert reading.bad == []
    assert [
        (row.messages[0]["content"], row.answer, row.task, row.weight) for row in reading.rows
    ] == [(row["prompt"], row["completion"], "t", 2.0) for row in ROWS]
    assert [row.digest for row in reading.rows] == [
        row.digest for row in read_file(_jsonl(tmp_path / "again.jsonl", ROWS)).rows
    ]


@pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])
def test_conversations_survive_every_kind_of_file(
    tmp_path: Path, name: str, write: Callable[[Path, list[Any]], Path]
) -> None:
    reading = read_file(
        write(tmp_path / name, [{**CHAT, "context": ["p"]}, {**CHAT, "context": ["p", "r"]}])
    )
    assert [row.answer for row in reading.rows] == ["a", "a"] and reading.rows[1].context == (
        "p",
        "r",
    )


@pytest.mark.parametrize(
    ("row", "texts", "kind"),
    [
        (
            {"instruction": "Translate.", "input": "Haus", "output": "house"},
            ["Translate.\n\nHaus", "house"],
            "instruction",
        ),
        (
            {"instruction": "Greet.", "input": "", "output": "Hello"},
            ["Greet.", "Hello"],
            "instruction",
        ),
        (
            {"system": "Be brief.", "instruction": "Greet.", "output": "Hi"},
            ["Be brief.", "Greet.", "Hi"],
            "instruction",
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            ["q", "a"],
            "messages",
        ),
        (
            {"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:]},
            ["q", "a"],
            "prompt",
        ),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, ["q", "a"], "preference"),
        (
            {"chosen": CHAT["messages"], "rejected": [CHAT["messages"][0], WORSE]},
            ["q", "a"],
            "preference",
        ),
        (
            {"prompt": CHAT["messages"][:1], "chosen": CHAT["messages"][1:], "rejected": [WORSE]},
            ["q", "a"],
            "preference",
        ),
    ],
)
def test_every_shape_of_row_becomes_a_conversation(
    tmp_path: Path, row: dict[str, Any], texts: list[str], kind: str
) -> None:
    (found,) = read_file(_jsonl(tmp_path / "rows.jsonl", [row])).rows
    assert [message["content"] for message in found.messages] == texts and found.kind == kind


@pytest.mark.parametrize(
    ("name", "write", "number", "unit"),
    [
        ("rows.json", _json, 2, "row"),
        ("rows.parquet", _parquet, 2, "row"),
        ("folder", _saved, 2, "row"),
        ("rows.csv", _csv, 4, "line"),
    ],
)
def test_a_wrong_row_is_named_with_its_place_whatever_the_file(
    tmp_path: Path, name: str, write: Callable[[Path, list[Any]], Path], number: int, unit: str
) -> None:
    reading = read_file(write(tmp_path / name, [ROWS[0], {**ROWS[1], "completion": None}, ROWS[2]]))
    assert len(reading.rows) == 2
    (bad,) = reading.bad
    assert str(bad).startswith(f"{unit} {number}: found ") and str(bad).endswith(
        "expected a text in 'completion'"
    )


def test_cells_that_are_json_by_chance_stay_texts_and_wrong_ones_are_named(tmp_path: Path) -> None:
    cells = [
        ("extract", '{"a": 1}'),
        ("extract", "[1, 2]"),
        ("extract", '[{"a": 1}]'),
        ("extract", "[]"),
        (json.dumps(CHAT["messages"][:1]), json.dumps(CHAT["messages"][1:])),
        ("[" * 100_000, "deep"),
    ]
    reading = read_file(
        _csv(
            tmp_path / "rows.csv",
            [{"prompt": prompt, "completion": completion} for prompt, completion in cells],
        )
    )
    assert [row.answer for row in reading.rows] == [
        '{"a": 1}',
        "[1, 2]",
        '[{"a": 1}]',
        "[]",
        "a",
        "deep",
    ] and reading.rows[4].messages[0]["content"] == "q"
    twice = '[{"role": "user", "role": "user", "content": "q"}]'
    bad = read_file(
        _csv(tmp_path / "bad.csv", [{"messages": "[" * 100_000}, {"messages": twice}])
    ).bad
    assert [str(each).split(";")[0] for each in bad] == [
        f"line 2: found '{'[' * 60}…' in 'messages' (nested too deep, or a number too long)",
        "line 3: found the name 'role' twice in one object",
    ]
    written = str(CHAT["messages"])
    (tmp_path / "python.csv").write_text(f'messages\n"{written}"\n"{written[:-2]}"\n')
    reading = read_file(tmp_path / "python.csv")
    assert [row.answer for row in reading.rows] == ["a"], "what pandas writes of a list"
    assert (
        "in 'messages' (Expecting property name enclosed in double quotes" in reading.bad[0].found
    )


def test_ratings_in_cells_are_numbers_and_blank_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "prompt,completion,rating\nq,a,1\n\n , ,\nq,b,-1\nq,c,5\nq,d,up\nq,e,\n"
    )
    reading = read_file(tmp_path / "rows.csv")
    assert [(row.answer, row.rating, row.raw.get("rating")) for row in reading.rows] == [
        ("a", 1, 1),
        ("b", -1, -1),
        ("e", 0, None),
    ]
    assert [str(bad).split(";")[0] for bad in reading.bad] == [
        "line 6: found the rating is 5",
        "line 7: found the rating is up",
    ]
    assert reading.blank == [3, 4]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_is_read_with_the_delimiter_that_its_first_line_has(
    tmp_path: Path, delimiter: str
) -> None:
    lines = [["prompt", '"completion"', "task"], ["q, or q", "a; b".replace(delimiter, "-"), "t"]]
    (tmp_path / "rows.csv").write_text(
        "\ufeff"
        + "".join(
            delimiter.join(f'"{cell}"' if "," in cell else cell for cell in line) + "\r\n"
            for line in lines
        )
    )
    (row,) = read_file(tmp_path / "rows.csv").rows
    assert (row.messages[0]["content"], row.answer, row.task) == ("q, or q", lines[1][1], "t")


def test_columns_without_a_name_are_named_by_their_number_and_count_as_unknown(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.csv").write_text(",prompt,completion,,\n0,q,a,,\n1,r,b,,note\n")
    reading = read_file(tmp_path / "rows.csv")
    assert len(reading.rows) == 2 and reading.unknown_fields == {"column 1": 2, "column 5": 1}


def test_decimals_of_a_database_are_numbers_and_a_value_that_is_none_is_named_with_its_field(
    tmp_path: Path,
) -> None:
    rows = [
        {**ROWS[0], "price": Decimal("1.5"), "photo": None},
        {**ROWS[1], "price": Decimal("2"), "photo": b"\xff"},
    ]
    reading = read_file(_parquet(tmp_path / "rows.parquet", rows))
    assert [row.raw["price"] for row in reading.rows] == [1.5] and "in 'photo'" in reading.bad[
        0
    ].found


def test_a_csv_row_with_too_many_cells_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\nq,a\nq,a,b\n")
    reading = read_file(tmp_path / "rows.csv")
    assert len(reading.rows) == 1 and "line 3: found 3 cells" in str(reading.bad[0])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("rows.json", b'{"data": [', "is not JSON"),
        ("rows.json", b'"text"', "expected a list of rows"),
        ("rows.json", b"\xff\xfe{", "not utf-16"),
        ("rows.csv", b"prompt,completion\n\xff,a\n", "not UTF-8"),
        ("rows.csv", b"prompt,prompt\nq,a\n", "twice"),
        (
            "rows.json",
            b'[{"prompt": "q", "prompt": "r", "completion": "a"}]',
            "'prompt' twice in one object",
        ),
        ("rows.json", b'{"data": [], "rows": []}', "lists under 'data' and 'rows'"),
        (
            "rows.jsonl.gz",
            gzip.compress(json.dumps(CHAT).encode(), mtime=0),
            r"is compressed \(gzip\)",
        ),
        ("rows.csv", b"PK\x03\x04 a workbook", r"is compressed \(ZIP\)"),
        ("n" * 300 + ".jsonl", None, "cannot be read: File name too long"),
        ("zero\0byte.jsonl", None, "cannot be read: embedded null byte"),
        ("zero\0byte.parquet", None, "cannot be read: embedded null byte"),
        ("rows.csv", b'prompt,completion\n"q,a\n', "quotation mark .* in line 2 .* never closed"),
        (
            "rows.csv",
            b"What is it?,A lamp\nHow big?,Small\n",
            "no column is known as a question or a conversation; found 'What is it\\?', 'A lamp'",
        ),
        ("rows.parquet", b"PAR1 but not really", "not a Parquet file"),
        ("none.parquet", None, "cannot be read"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_such_file_gets_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_file(tmp_path / name)


def test_of_a_folder_of_several_parts_train_is_read(tmp_path: Path) -> None:
    import datasets

    part = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "both"))
    reading: Reading = read_file(tmp_path / "both")
    assert len(reading.rows) == 3 and "the part train is read (others: test)" in "".join(
        reading.notices
    )
    assert len(read_file(tmp_path / "both" / "test").rows) == 3
    datasets.DatasetDict({"one": part, "two": part}).save_to_disk(str(tmp_path / "unnamed"))
    with pytest.raises(InputError, match="holds 2 parts: one, two"):
        read_file(tmp_path / "unnamed")
