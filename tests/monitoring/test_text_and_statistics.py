"""The tests behind a verdict: right where the answer is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from monitoring.signals.answers import repeats
from monitoring.signals.language import detect
from monitoring.signals.refusals import refuses
from monitoring.statistics import (
    change_point,
    compare_categories,
    compare_rates,
    design_effect,
    holm,
    mann_whitney,
)
from monitoring.text import rising_words, separate, words_of

RNG = np.random.default_rng(7)


def test_mann_whitney_agrees_with_scipy() -> None:
    from scipy.stats import mannwhitneyu

    before, after = RNG.poisson(3, 80).astype(float), RNG.poisson(4, 120).astype(float)
    expected = mannwhitneyu(after, before, use_continuity=False, method="asymptotic")
    p_value, superiority = mann_whitney(before, after, "both")
    assert p_value == pytest.approx(expected.pvalue)
    assert superiority == pytest.approx(expected.statistic / (80 * 120))


def test_equal_values_and_single_categories_are_no_evidence() -> None:
    assert mann_whitney(np.ones(50), np.ones(70), "both") == (1.0, 0.5)
    assert compare_categories(np.array([50.0]), np.array([70.0])) == 1.0
    assert compare_rates(0, 50, 0, 70, "both") == 1.0


def test_two_sample_chi_squared_agrees_with_scipy_and_pools_rare_categories() -> None:
    from scipy.stats import chi2_contingency

    table = np.array([[50.0, 30, 20], [40, 45, 30]])
    assert compare_categories(*table) == pytest.approx(
        chi2_contingency(table, correction=False).pvalue
    )
    with_rare = np.column_stack([table, [[1, 2], [2, 1], [0, 1]][:2]])
    assert compare_categories(*with_rare) > 0.01


def test_few_events_are_judged_exactly_and_only_in_the_direction_that_is_asked() -> None:
    assert compare_rates(0, 100, 8, 100, "up") == pytest.approx(0.0034, abs=0.0005)
    assert compare_rates(8, 100, 0, 100, "up") > 0.99


def test_rows_of_one_user_count_less_the_more_they_resemble_each_other() -> None:
    groups = [f"u{i // 5}" for i in range(500)]
    alike = np.repeat(RNG.normal(size=100), 5)
    assert design_effect(alike, groups) == pytest.approx(5, abs=0.01)
    assert design_effect(RNG.normal(size=500), groups) < 1.5
    assert design_effect(alike, [str(i) for i in range(500)]) == 1


def test_holm_is_the_step_down_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_a_change_point_is_where_the_level_turns() -> None:
    values = np.concatenate([np.zeros(40), np.ones(60)])
    assert change_point(values, 0, 1) == 40
    assert change_point(np.ones(10), 0, 1) == 0


def test_words_are_compared_without_case_and_numbers_and_in_scripts_without_spaces_by_pairs() -> (
    None
):
    assert words_of("Order 12345: it's BROKEN") == ("order", "0", "it", "s", "broken")
    assert words_of("保証期間") == ("保証", "証期", "期間")


def test_a_word_of_one_person_is_not_named() -> None:
    before = ["my lamp is dark"] * 100
    after = ["my lamp is dark"] * 80 + ["my lamp is dark says rumpelstilzchen"] * 20
    groups = [f"u{i}" for i in range(100)]
    assert rising_words(before, after, groups + [f"v{i}" for i in range(80)] + ["w"] * 20) == []
    found = rising_words(before, after, groups + [f"v{i}" for i in range(100)])
    assert {"says", "rumpelstilzchen"} == {word.word for word in found}
    assert all(word.is_new and word.window_share == 0.2 for word in found)


def test_texts_of_the_same_users_in_both_samples_are_not_told_apart() -> None:
    texts = [f"{'hello ' * (i % 7)} product {'abcdefghij'[i % 10]}" for i in range(200)]
    found = separate(
        texts[:100], texts[100:], [f"u{i % 50}" for i in range(200)], np.random.default_rng(0)
    )
    assert found.p_value > 0.05


def test_repetition_is_seen_and_ordinary_prose_is_not_called_that() -> None:
    assert repeats("please send it back " * 10)
    assert not repeats("short text")
    prose = (
        "The warranty of the kettle is two years. Send it with the receipt to our workshop, and we"
        " repair it within ten days without any cost to you."
    )
    assert not repeats(prose)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How long is the warranty of my kettle?", "en"),
        ("Wie lange ist die Garantie für meinen Wasserkocher?", "de"),
        ("Quelle est la garantie pour ma bouilloire ?", "fr"),
        ("¿Cuánto tiempo es la garantía de mi hervidor?", "es"),
        ("保証期間はどのくらいですか", "ja"),
        ("Как долго действует гарантия?", "ru"),
        ("12345", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_language_of_ordinary_questions_is_recognised(text: str, language: str) -> None:
    assert detect(text) == language


def test_patterns_stay_linear_on_hostile_text() -> None:
    hostile = ("i can" * 50_000) + ("\u2019" * 50_000)
    started = time.process_time()
    refuses(hostile)
    repeats(hostile)
    detect(hostile)
    words_of(hostile)
    assert time.process_time() - started < 1.0
