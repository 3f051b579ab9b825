"""The questions and the tables of the benchmark of retrieval."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.document import put_between_markers
from benchmarks.retrieval.figures import BEGIN, END, tables
from benchmarks.retrieval.manual import load_questions

_FOLDER = Path(__file__).parents[2] / "benchmarks" / "retrieval"


def test_questions_name_pages_and_none_is_asked_twice() -> None:
    questions = load_questions()
    assert len({each.question.lower() for each in questions}) == len(questions) >= 100
    assert all(page.endswith(".html") for each in questions for page in each.pages)
    assert all(each.pages for each in questions)
    assert {each.kind for each in questions} == {"intent", "known"}
    assert 0.2 < sum(each.unseen for each in questions) / len(questions) < 0.5


def test_the_tables_are_those_of_the_results() -> None:
    document = (_FOLDER / "README.md").read_text()
    results = json.loads((_FOLDER / "results" / "results.json").read_text())
    assert put_between_markers(document, tables(results), BEGIN, END) == document
