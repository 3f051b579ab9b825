"""The refusal rule: right on labelled sentences of seven languages, silent about others, cheap."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift.refusals import ordinary_answers, read_sentences
from monitoring.detector.signals import BY_NAME, numbers_of
from monitoring.detector.table import table_from_columns
from monitoring.intake import take_in_frame
from monitoring.signals.refusals import WATCHED_LANGUAGES, refusal_of, refuses

USUAL = [one for one in read_sentences() if one.split != "evading"]


def test_there_are_enough_labelled_sentences_of_each_language() -> None:
    assert len(USUAL) >= 300
    assert {one.language for one in USUAL} == WATCHED_LANGUAGES
    assert len({one.text for one in read_sentences()}) == len(read_sentences())


@pytest.mark.parametrize("language", sorted(WATCHED_LANGUAGES))
def test_usual_refusals_are_seen_and_answers_are_not_called_so(language: str) -> None:
    mine = [one for one in USUAL if one.language == language]
    missed = [one.text for one in mine if one.label != "ordinary" and not refuses(one.text)]
    wrong = [one.text for one in mine if one.label == "ordinary" and refuses(one.text)]
    assert not missed
    assert not wrong


def test_apostrophes_case_and_line_breaks_change_nothing() -> None:
    for one in USUAL:
        for text in (one.text.replace("'", "’"), one.text.replace("’", "'"), one.text.upper()):
            assert refuses(text) == refuses(one.text), text
    assert refuses("I\ncan’t help\nwith that.")


def test_only_the_beginning_counts_and_nothing_quoted() -> None:
    assert not refuses("x " * 250 + "I can't help with that.")
    assert not refuses("Write to them: “I cannot help you with that.”")
    assert refuses("“Help me” is what you said, but I cannot help you with that.")


def test_a_language_that_the_rule_does_not_know_is_not_counted() -> None:
    assert refusal_of("申し訳ありませんが、お手伝いできません。") is None
    assert refusal_of("Это невозможно, к сожалению.") is None
    assert refusal_of("ok") is False, "too short to have a language"
    answers = ["Das kann ich leider nicht.", "申し訳ありません", "Gern helfe ich dabei.", None]
    table = table_from_columns({"day": [1, 1, 1, 1], "answer": answers})
    found = numbers_of(BY_NAME["refusal"], table)
    assert np.array_equal(found, [1, np.nan, 0, np.nan], equal_nan=True)


def test_a_replay_names_languages_whose_refusals_are_not_recognised() -> None:
    answers = ["Gern helfe ich Ihnen dabei, das ist nicht schwer."] * 30 + ["お手伝いします"] * 10
    frame = pd.DataFrame({"day": ["2026-01-05"] * 40, "id": map(str, range(40)), "answer": answers})
    (covered,) = take_in_frame(frame).coverage
    said = " ".join(covered.notes())
    assert "Refusals are not recognised in ja (25% of answers)" in said


def test_the_rule_is_linear_on_hostile_text_and_cheap_on_ordinary_answers() -> None:
    hostile = [
        "ich kann " * 60_000,
        "i'm " + "a " * 200_000 + "not",
        "je ne peux pas " * 40_000,
        '"' * 200_000 + "not",
    ]
    began = time.process_time()
    for text in hostile:
        refuses(text)
    assert time.process_time() - began < 0.2
    answers = ordinary_answers(2_000)
    began = time.process_time()
    assert not any(map(refuses, answers))
    assert time.process_time() - began < 0.4, "above 200 µs an answer, eight times the usual"
