"""Files as people have them are read into the rows they stand for, or refused with what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.training.data.people_files import READ, REFUSED, Case, lines
from training.data.dataset_folders import parts_of
from training.data.formats import read_file, read_good, read_options
from training.data.record import jsonl
from training.data.rows import Row, read_lines
from whet.errors import InputError, NotFoundError


def _reading(case: Case, folder: Path) -> Any:
    path = folder / case.name
    case.write(path)
    options = read_options(case.columns, case.encoding)
    return read_good(path / case.part if case.part else path, skip_bad=False, options=options)


def _known_as(row: Row) -> tuple[Any, ...]:
    """What a row teaches, and whom it belongs to."""
    return row.digest, row.prompt_digest, row.rating, row.user, row.group, row.weight


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_a_file_is_read_as_the_rows_it_stands_for(case: Case, tmp_path: Path) -> None:
    reading = _reading(case, tmp_path)
    twin = tmp_path / "twin.jsonl"
    lines(*case.rows)(twin)
    assert reading.bad == []
    assert [_known_as(row) for row in reading.rows] == [
        _known_as(row) for row in read_file(twin).rows
    ]
    assert [row.messages for row in reading.rows] == [row.messages for row in read_file(twin).rows]


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_what_a_step_writes_is_read_as_the_same_rows(case: Case, tmp_path: Path) -> None:
    """Steps write `raw`; it is read again as a stored dataset and as a file that somebody brings."""
    rows = _reading(case, tmp_path).rows
    written = tmp_path / "written.jsonl"
    written.write_text(jsonl(row.raw for row in rows), encoding="utf-8")
    stored = read_lines(written.read_bytes().split(b"\n")).rows
    for again in (stored, read_file(written).rows):
        assert [(row.id, *_known_as(row)) for row in again] == [
            (row.id, *_known_as(row)) for row in rows
        ]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        _reading(case, tmp_path)
    said = f"{refused.value.message} {refused.value.hint}"
    assert re.search(case.refused, said, re.DOTALL), said


def test_there_are_enough_kinds_of_files() -> None:
    names = [case.name for case in (*READ, *REFUSED)]
    assert len(set(names)) == len(names) >= 100


def test_a_missing_file_beside_very_many_others_is_missing_at_once(tmp_path: Path) -> None:
    """Its folder is not looked through for parts: a home folder holds a hundred thousand files."""
    for number in range(101):
        folder = tmp_path / f"f{number}"
        folder.mkdir()
        for name in range(100):
            (folder / f"{name}.txt").touch()
    with pytest.raises(InputError, match="holds more than 10,000 files"):
        parts_of(tmp_path)
    with pytest.raises((InputError, NotFoundError), match="missing"):
        read_good(tmp_path / "missing", skip_bad=False)
