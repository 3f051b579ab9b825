"""Measures by task: the right ones for the rows, equal to the libraries' where there are any, with
intervals that admit what they cannot tell.
"""

from __future__ import annotations

import random

import pytest

from tests.training.judging.rows import named, rows_of, side
from training.evaluation.answers import NllSum, Side
from training.evaluation.intervals import (
    BETTER,
    SAME,
    UNKNOWN,
    WORSE,
    paired_interval,
    paired_means,
    verdict,
)
from training.evaluation.json_answers import fields_right, leaves, parsed
from training.evaluation.measures import macro, measure_rows, perplexity

LABELS = ["refund", "complaint", "question"]


@pytest.mark.parametrize(
    ("count", "differ", "low", "high", "better", "said"),
    [
        (9, 9, 0.5, 0.9, "higher", UNKNOWN),
        (50, 20, 0.1, 0.3, "higher", BETTER),
        (50, 20, 0.1, 0.3, "lower", WORSE),
        (50, 20, -0.3, -0.1, "lower", BETTER),
        (50, 20, -0.1, 0.1, "higher", UNKNOWN),
        (50, 0, 0.0, 0.0, "higher", SAME),
        (50, 5, 0.1, 0.3, "higher", UNKNOWN),
        (50, 6, 0.1, 0.3, "higher", BETTER),
        (50, 1, 0.0, 0.0, "higher", UNKNOWN),
        (50, 20, 0.1, 0.3, "", "higher"),
    ],
)
def test_a_verdict_says_when_it_cannot_tell(
    count: int, differ: int, low: float, high: float, better: str, said: str
) -> None:
    assert verdict(count, differ, low, high, better) == said


def of_equal_versions(kind: str, count: int, draw: random.Random) -> list[float]:
    """Differences between two versions that are equally good: as often up as down, on most or on
    all rows.
    """
    if kind == "right or wrong":
        return [float(draw.choice((-1, 0, 1))) for _ in range(count)]
    size = {
        "overlaps": lambda: draw.uniform(0.1, 0.9),
        "few large ones": lambda: draw.expovariate(5) ** 1.5,
        "small ones": lambda: draw.gauss(0, 0.02),
    }[kind]
    return [draw.choice((-1, 1)) * size() if draw.random() < 0.8 else 0.0 for _ in range(count)]


@pytest.mark.parametrize("count", [10, 20])
@pytest.mark.parametrize("kind", ["right or wrong", "overlaps", "few large ones", "small ones"])
def test_equally_good_versions_are_told_apart_as_rarely_as_promised(kind: str, count: int) -> None:
    draw = random.Random(5)
    rounds = [of_equal_versions(kind, count, draw) for _ in range(1500)]
    said = [
        verdict(count, sum(map(bool, some)), *paired_interval(some), "higher") for some in rounds
    ]
    assert sum(word in (BETTER, WORSE) for word in said) <= 0.065 * len(said)


@pytest.mark.parametrize("count", [10, 20])
def test_equally_good_versions_are_told_apart_as_rarely_by_corpus_measures(count: int) -> None:
    draw = random.Random(7)
    rows = rows_of(["x"] * count)

    def costs() -> Side:
        return Side(
            {},
            {
                row.id: NllSum(tokens[row.id] * draw.uniform(0.5, 1.5), tokens[row.id])
                for row in rows
            },
        )

    false = 0
    for _ in range(1000):
        tokens = {row.id: draw.randint(2, 30) for row in rows}
        (found,) = perplexity(rows, {"candidate": costs(), "v1": costs()})
        false += found["against"]["v1"]["verdict"] in (BETTER, WORSE)
    assert false <= 0.065 * 1000


def test_five_rows_are_no_verdict_and_six_are_whatever_the_measure() -> None:
    """A sign test of five rows that all point one way has p = 0.06."""
    truth = [
        f"The {thing} costs {number} coins."
        for number, thing in enumerate(["kettle", "lamp", "radio", "fan"] * 5)
    ]
    rows = rows_of(truth)
    for wrong, said in ((5, UNKNOWN), (6, BETTER)):
        found = measure_rows(
            rows,
            {
                "candidate": side(rows, truth),
                "v1": side(rows, ["I do not know it."] * wrong + truth[wrong:]),
            },
        )
        verdicts = {
            measure["name"]: measure["against"]["v1"]
            for measure in found
            if measure["better"] and measure["name"] != "stopped by itself"
        }
        assert {name: one["differ"] for name, one in verdicts.items()} == dict.fromkeys(
            verdicts, wrong
        )
        assert {one["verdict"] for one in verdicts.values()} == {said} and "BLEU" in verdicts


def test_ten_equal_differences_are_a_verdict_by_their_number_and_five_are_none() -> None:
    """The interval has no width; that ten rows all point the same way is what says it (p = 0.002)."""
    ten = paired_means("chrF", "higher", {"candidate": [0.51] * 10, "v1": [0.5] * 10})["against"][
        "v1"
    ]
    assert (ten["verdict"], ten["differ"]) == (BETTER, 10)
    five = paired_means("chrF", "higher", {"candidate": [0.51] * 5 + [0.5] * 5, "v1": [0.5] * 10})[
        "against"
    ]["v1"]
    assert five["verdict"] == UNKNOWN


def test_a_better_model_is_better_in_every_measure_and_the_same_model_in_none() -> None:
    truth = [
        f"The {thing} costs {number} coins."
        for number, thing in enumerate(["kettle", "lamp", "radio", "fan"] * 10)
    ]
    rows = rows_of(truth)
    found = named(
        measure_rows(
            rows,
            {"candidate": side(rows, truth, 0.1), "base": side(rows, ["I do not know."] * 40, 4.0)},
        )
    )
    quality = (
        "right",
        "exact match",
        "word overlap",
        "chrF",
        "ROUGE-L",
        "BLEU",
        "perplexity of the reference",
    )
    assert {name: found[name]["against"]["base"]["verdict"] for name in quality} == dict.fromkeys(
        quality, BETTER
    )
    assert found["perplexity of the reference"]["values"]["candidate"] == pytest.approx(
        1.105, abs=0.001
    )
    same = measure_rows(rows, {"candidate": side(rows, truth, 0.1), "v1": side(rows, truth, 0.1)})
    assert {measure["against"]["v1"]["verdict"] for measure in same} == {SAME}


def test_the_interval_of_a_corpus_measure_is_the_same_every_time_and_holds_its_difference() -> None:
    draw = random.Random(1)
    rows = rows_of([f"answer number {number} about things" for number in range(60)])
    worse = [row.answer if draw.random() < 0.6 else "something else entirely" for row in rows]
    sides = {"candidate": side(rows, worse), "v1": side(rows, [row.answer for row in rows])}
    first, second = (named(measure_rows(rows, sides))["BLEU"]["against"]["v1"] for _ in range(2))
    assert (
        first == second
        and first["low"] < first["difference"] < first["high"] < 0
        and first["verdict"] == WORSE
    )


def test_bleu_is_sacrebleus_and_left_out_where_answers_are_too_short_for_it() -> None:
    """Without four words in a row BLEU is 0 whatever is said: two such sides were once "the same",
    one always right and the other always wrong.
    """
    import sacrebleu

    draw = random.Random(2)
    truth = [" ".join(draw.choice("abcdefg") for _ in range(draw.randint(1, 9))) for _ in range(40)]
    said = [" ".join(draw.choice([*text.split(), "z"]) for _ in text.split()) for text in truth]
    rows = rows_of(truth)
    found = named(measure_rows(rows, {"candidate": side(rows, said), "v1": side(rows, truth)}))[
        "BLEU"
    ]["values"]
    assert found == {
        "candidate": pytest.approx(sacrebleu.corpus_bleu(said, [truth]).score / 100, abs=1e-4),
        "v1": 1.0,
    }
    words = [text[0] for text in truth]
    rows = rows_of(words)
    for other in (["wrong"] * 40, ["I do not know that."] * 40):
        names = named(measure_rows(rows, {"candidate": side(rows, words), "v1": side(rows, other)}))
        assert "BLEU" not in names and names["exact match"]["against"]["v1"]["verdict"] == BETTER


@pytest.mark.parametrize(("rows", "won", "lost"), [(12, 4, 0), (20, 4, 0), (20, 6, 1), (30, 9, 2)])
def test_accuracy_of_labels_has_the_verdict_of_exact_match(rows: int, won: int, lost: int) -> None:
    """One number, one verdict: they are the same share of the same rows."""
    truth = [LABELS[number % 3] for number in range(rows)]
    ours, theirs = list(truth), list(truth)
    theirs[:won], ours[won : won + lost] = ["no idea"] * won, ["no idea"] * lost
    some = rows_of(truth)
    found = named(measure_rows(some, {"candidate": side(some, ours), "v1": side(some, theirs)}))
    assert (
        found["accuracy"]["against"] == found["exact match"]["against"]
        and found["accuracy"]["values"] == found["exact match"]["values"]
    )


def test_labels_are_measured_as_scikit_learn_does() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    draw = random.Random(3)
    truth = [draw.choice(LABELS) for _ in range(90)]
    said = [label if draw.random() < 0.7 else draw.choice([*LABELS, "no idea"]) for label in truth]
    rows = rows_of(truth)
    found = named(
        measure_rows(rows, {"candidate": side(rows, said), "base": side(rows, ["refund"] * 90)})
    )
    expected = precision_recall_fscore_support(
        truth, said, labels=LABELS, average="macro", zero_division=0
    )[:3]
    values = [
        found[name]["values"]["candidate"]
        for name in ("macro precision", "macro recall", "macro F1")
    ]
    assert values == pytest.approx(list(expected), abs=1e-4)
    assert found["macro F1"]["values"]["base"] < 0.3, (
        "always the same label is right often and knows nothing"
    )
    assert macro(
        *(__import__("numpy").array(some) for some in ([0, 0, 1], [0, 1, 2])), 2
    ) == pytest.approx((0.5, 0.25, 1 / 3))


def test_long_or_ever_new_answers_are_no_labels() -> None:
    for truth in (
        [f"text {number}" for number in range(40)],
        ["one two three four five six seven eight nine", "x"] * 20,
        LABELS,
    ):
        rows = rows_of(truth)
        assert "macro F1" not in named(
            measure_rows(rows, {"candidate": side(rows, truth), "base": side(rows, truth)})
        )


def test_json_answers_are_judged_by_validity_and_fields() -> None:
    truth = ['{"item": "Lamp", "price": 12, "tags": ["a", "b"], "sold": true}'] * 12 + [
        "plain text"
    ] * 3
    rows = rows_of(truth)
    said = (
        ['{"sold": true, "tags": ["a", "x"], "price": 12, "item": "lamp "}'] * 6
        + ['{"item": "Lamp"'] * 6
        + ["plain text"] * 3
    )
    found = named(
        measure_rows(rows, {"candidate": side(rows, said), "base": side(rows, ["no"] * 15)})
    )
    assert (found["valid JSON"]["n"], found["valid JSON"]["values"]["candidate"]) == (12, 0.5)
    assert found["fields right"]["values"]["candidate"] == pytest.approx(0.5 * 4 / 5)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": NaN}',
        '{"a": 1} {"b": 2}',
        "[" * 100_000,
        "[" * 101 + "]" * 101,
        '{"a":' * 600 + "1" + "}" * 600,
        '{"a": 1, "a": 2}',
        "",
        '```json\n{"a": 1}\n```',
    ],
)
def test_what_is_not_strictly_json_is_not_json(text: str) -> None:
    assert parsed(text) is None


def test_true_is_not_one_and_nested_fields_have_paths() -> None:
    assert fields_right('{"a": true}', '{"a": 1}') == 0
    assert leaves({"a": [1, {"b": 2}]}) == {("a", 0): (False, 1), ("a", 1, "b"): (False, 2)}
    assert (
        fields_right('{"a": {"b": 1}}', '{"a.b": 1}')
        == fields_right('{"a": [1]}', '{"a[0]": 1}')
        == fields_right("[1]", '{"0": 1}')
        == 0
    )


def test_answers_as_deep_as_json_is_read_are_compared_and_deeper_ones_are_wrong() -> None:
    assert (
        parsed("[" * 100 + "]" * 100) is not None
        and fields_right('{"a": 1}', '{"a":' * 600 + "1" + "}" * 600) == 0
    )


def test_words_of_every_script_count() -> None:
    """rouge-score's own tokenizer sees nothing in a text without Latin letters."""
    rows = rows_of(["гарантия двенадцать месяцев"] * 12)
    found = named(
        measure_rows(
            rows,
            {
                "candidate": side(rows, ["гарантия двенадцать месяцев"] * 12),
                "base": side(rows, ["не знаю"] * 12),
            },
        )
    )
    assert found["ROUGE-L"]["values"] == {"candidate": 1.0, "base": 0.0}


def test_perplexity_is_of_the_rows_whose_cost_both_sides_know() -> None:
    """One row that a side could not be asked about once took the measure away from all of them,
    unsaid.
    """
    rows = rows_of([f"x {number}" for number in range(20)])
    whole = side(rows, ["x y"] * 20, 1.0)
    part = Side(whole.answers, {row.id: NllSum(10.0, 5) for row in rows[1:]})
    found = named(measure_rows(rows, {"candidate": whole, "v1": part}))[
        "perplexity of the reference"
    ]
    assert (found["n"], found["values"]["candidate"], found["against"]["v1"]["verdict"]) == (
        19,
        pytest.approx(2.718, abs=0.001),
        BETTER,
    )
    assert (
        perplexity(rows, {"candidate": whole, "v1": Side({})})
        == perplexity([], {"candidate": whole})
        == []
    )


def test_rows_that_a_side_did_not_answer_are_left_out_for_all() -> None:
    rows = rows_of(["a b c"] * 20)
    rows_seen = rows[:15]
    found = measure_rows(
        rows, {"candidate": side(rows, ["a b c"] * 20), "base": side(rows_seen, ["a"] * 15)}
    )
    assert found[0]["n"] == len({row.id for row in rows_seen})
    assert measure_rows([], {"candidate": side([], []), "base": side([], [])}) == []
