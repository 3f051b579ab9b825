"""Measures by task: the right ones for the rows, equal to the libraries' where there are any, with intervals that admit what they cannot tell."""

from __future__ import annotations

import random

import pytest

from tests.training.judging.rows import named, rows_of, side
from training.judging.measures import BETTER, SAME, UNKNOWN, WORSE, fields_right, leaves, macro, measure_rows, parsed, verdict

LABELS = ["refund", "complaint", "question"]


@pytest.mark.parametrize(
    ("count", "low", "high", "better", "said"),
    [
        (9, 0.5, 0.9, "higher", UNKNOWN),
        (50, 0.1, 0.3, "higher", BETTER),
        (50, 0.1, 0.3, "lower", WORSE),
        (50, -0.3, -0.1, "lower", BETTER),
        (50, -0.1, 0.1, "higher", UNKNOWN),
        (50, 0.0, 0.0, "higher", SAME),
        (50, 0.1, 0.3, "", "higher"),
    ],
)
def test_a_verdict_says_when_it_cannot_tell(count: int, low: float, high: float, better: str, said: str) -> None:
    assert verdict(count, low, high, better) == said


def test_a_better_model_is_better_in_every_measure_and_the_same_model_in_none() -> None:
    truth = [f"The {thing} costs {number} coins." for number, thing in enumerate(["kettle", "lamp", "radio", "fan"] * 10)]
    rows = rows_of(truth)
    found = named(measure_rows(rows, {"candidate": side(rows, truth, 0.1), "base": side(rows, ["I do not know."] * 40, 4.0)}))
    quality = ("right", "exact match", "word overlap", "chrF", "ROUGE-L", "BLEU", "perplexity of the reference")
    assert {name: found[name]["against"]["base"]["verdict"] for name in quality} == dict.fromkeys(quality, BETTER)
    assert found["perplexity of the reference"]["values"]["candidate"] == pytest.approx(1.105, abs=0.001)
    same = measure_rows(rows, {"candidate": side(rows, truth, 0.1), "v1": side(rows, truth, 0.1)})
    assert {measure["against"]["v1"]["verdict"] for measure in same} == {SAME}


def test_the_interval_of_a_corpus_measure_is_the_same_every_time_and_holds_its_difference() -> None:
    draw = random.Random(1)
    rows = rows_of([f"answer number {number} about things" for number in range(60)])
    worse = [row.answer if draw.random() < 0.6 else "something else entirely" for row in rows]
    sides = {"candidate": side(rows, worse), "v1": side(rows, [row.answer for row in rows])}
    first, second = (named(measure_rows(rows, sides))["BLEU"]["against"]["v1"] for _ in range(2))
    assert first == second and first["low"] < first["difference"] < first["high"] < 0 and first["verdict"] == WORSE


def test_labels_are_measured_as_scikit_learn_does() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    draw = random.Random(3)
    truth = [draw.choice(LABELS) for _ in range(90)]
    said = [label if draw.random() < 0.7 else draw.choice([*LABELS, "no idea"]) for label in truth]
    rows = rows_of(truth)
    found = named(measure_rows(rows, {"candidate": side(rows, said), "base": side(rows, ["refund"] * 90)}))
    expected = precision_recall_fscore_support(truth, said, labels=LABELS, average="macro", zero_division=0)[:3]
    values = [found[name]["values"]["candidate"] for name in ("macro precision", "macro recall", "macro F1")]
    assert values == pytest.approx(list(expected), abs=1e-4)
    assert found["macro F1"]["values"]["base"] < 0.3, "always the same label is right often and knows nothing"
    assert macro(*(__import__("numpy").array(some) for some in ([0, 0, 1], [0, 1, 2])), 2) == pytest.approx((1 / 3, 0.5, 0.25, 1 / 3))


def test_long_or_ever_new_answers_are_no_labels() -> None:
    for truth in ([f"text {number}" for number in range(40)], ["one two three four five six seven eight nine", "x"] * 20, LABELS):
        rows = rows_of(truth)
        assert "macro F1" not in named(measure_rows(rows, {"candidate": side(rows, truth), "base": side(rows, truth)}))


def test_json_answers_are_judged_by_validity_and_fields() -> None:
    truth = ['{"item": "Lamp", "price": 12, "tags": ["a", "b"], "sold": true}'] * 12 + ["plain text"] * 3
    rows = rows_of(truth)
    said = ['{"sold": true, "tags": ["a", "x"], "price": 12, "item": "lamp "}'] * 6 + ['{"item": "Lamp"'] * 6 + ["plain text"] * 3
    found = named(measure_rows(rows, {"candidate": side(rows, said), "base": side(rows, ["no"] * 15)}))
    assert (found["valid JSON"]["n"], found["valid JSON"]["values"]["candidate"]) == (12, 0.5)
    assert found["fields right"]["values"]["candidate"] == pytest.approx(0.5 * 4 / 5)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1} {"b": 2}', "[" * 100_000, "", '```json\n{"a": 1}\n```'])
def test_what_is_not_strictly_json_is_not_json(text: str) -> None:
    assert parsed(text) is None


def test_true_is_not_one_and_nested_fields_have_paths() -> None:
    assert fields_right('{"a": true}', '{"a": 1}') == 0
    assert leaves({"a": [1, {"b": 2}]}) == {".a[0]": (False, 1), ".a[1].b": (False, 2)}


def test_words_of_every_script_count() -> None:
    """rouge-score's own tokenizer sees nothing in a text without Latin letters."""
    rows = rows_of(["гарантия двенадцать месяцев"] * 12)
    found = named(measure_rows(rows, {"candidate": side(rows, ["гарантия двенадцать месяцев"] * 12), "base": side(rows, ["не знаю"] * 12)}))
    assert found["ROUGE-L"]["values"] == {"candidate": 1.0, "base": 0.0}


def test_rows_that_a_side_did_not_answer_are_left_out_for_all() -> None:
    rows = rows_of(["a b c"] * 20)
    rows_seen = rows[:15]
    found = measure_rows(rows, {"candidate": side(rows, ["a b c"] * 20), "base": side(rows_seen, ["a"] * 15)})
    assert found[0]["n"] == len({row.id for row in rows_seen})
    assert measure_rows([], {"candidate": side([], []), "base": side([], [])}) == []
