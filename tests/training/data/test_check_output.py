"""What `whet data check` prints: a fault of many rows once, repeats as a count, all of it on
request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from training.data.bad_lines import BadLine, ranges, sentences

UNUSABLE: list[dict[str, Any]] = [{"title": f"t{number}"} for number in range(3000)]


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


def test_a_fault_of_all_rows_is_one_sentence_in_check_and_run(shell: Shell, tmp_path: Path) -> None:
    file = str(write_rows(tmp_path / "rows.jsonl", UNUSABLE))
    checked = shell.refused("data", "check", file)
    assert checked.count("all 3,000 lines: found the fields title; expected") == 1
    assert len(checked.split("\n")) < 60
    refused = shell.refused("train", "run", file)
    assert refused.count("found the fields title; expected") == 1 and len(refused.split("\n")) < 10
    listed = json.loads(shell.refused("data", "check", file, "--json"))["rejected"]
    every = shell.refused("data", "check", file, "--verbose").count("found the fields title")
    assert len(listed) == every == len(UNUSABLE)


def test_exact_repeats_are_a_count_and_on_request_a_list(shell: Shell, tmp_path: Path) -> None:
    file = str(write_rows(tmp_path / "rows.jsonl", [*facts(40), *facts(40), *facts(40)]))
    checked = " ".join(shell("data", "check", file).split())
    assert "80 of 120 rows repeat another one exactly, and count several times." in checked
    assert "1+41+81" not in checked
    assert "1+41+81" in shell("data", "check", file, "--verbose")


def test_equal_faults_are_counted_with_their_lines_and_an_example() -> None:
    bad = [BadLine(number, f"the rating is '{number}'", "1 or -1") for number in (3, 4, 5, 9)]
    other = BadLine(7, "no field 'completion'", "a text in 'completion'")
    assert sentences([*bad, other]) == [
        "4 lines (3-5, 9): found such as the rating is '3'; expected 1 or -1",
        "line 7: found no field 'completion'; expected a text in 'completion'",
    ]
    assert sentences(bad, of=4) == [
        "all 4 lines: found such as the rating is '3'; expected 1 or -1"
    ]
    many = [BadLine(number, "x" * number, "y") for number in range(1, 100)]
    assert len(sentences(many)) == 21 and sentences(many)[-1].startswith("… and 79 more")


def test_line_numbers_are_written_as_ranges() -> None:
    assert ranges([5, 1, 2, 3, 9, 9]) == "1-3, 5, 9"
    assert ranges(list(range(1, 100, 2)), most=2) == "1, 3, …"
