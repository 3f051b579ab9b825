"""The reports that are files of their own: they open with their answer, need nothing from elsewhere
and show every text as text.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.web import headline
from training.data.report import render
from training.evaluation import report
from training.runs.search_page import page

EVIL = "<script>alert(1)</script>"
_NOTHING_ELSE = (
    "Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\""
)


def checked(**over: Any) -> dict[str, Any]:
    """What `check` returns for 500 rows without a fault."""
    found = {
        "rows": 500, "tokens": 40_666, "tokens_learned": 26_535, "base": "the built-in base", "template": "08be58e0", "errors": 0, "warnings": 0, "findings": [], "rejected": [], "rejected_lines": 0,
        "tasks": {"zenith": 500}, "labels": {}, "languages": {}, "histogram": [{"from": 54, "to": 58, "rows": 1}, {"from": 59, "to": 63, "rows": 499}],
        "longest_allowed": 1024, "too_long": 0, "previews": [],
    }  # fmt: skip
    return found | over


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({}, "A run takes all 500 rows: nothing was found"),
        ({"rows": 1}, "A run takes this row: nothing was found"),
        ({"warnings": 2}, "A run takes all 500 rows; 2 warnings to look at"),
        ({"errors": 1, "warnings": 1}, "A run refuses these rows: 1 error and 1 warning"),
    ],
)
def test_a_check_opens_with_whether_a_run_takes_the_rows(over: dict[str, Any], said: str) -> None:
    shown = render(checked(**over), "rows.jsonl", 0)
    assert f"<h1>{said}</h1>" in shown and _NOTHING_ELSE in shown


def test_a_check_names_commands_as_commands_and_units_with_numbers() -> None:
    finding = {
        "code": "duplicates",
        "severity": "warning",
        "count": 1,
        "found": f"1 row repeats {EVIL}.",
        "do": "Take it out with `whet data clean`.",
        "lines": [3],
    }
    shown = render(checked(findings=[finding], tasks={EVIL: 1, "long" * 40: 2}), EVIL, 0)
    assert "<code>whet data clean</code>" in shown and "<script" not in shown
    assert (
        '1 <span class="soft">row</span>' in shown
        and '499 <span class="soft">rows</span>' in shown
        and "no row is longer" in shown
    )
    assert "<text" not in shown, (
        "words in a picture shrink with it: on a phone nobody could read them"
    )


def test_an_evaluation_opens_with_the_verdict_and_what_got_worse() -> None:
    def measure(name: str, ours: float, theirs: float, verdict: str) -> dict[str, Any]:
        between = {
            "difference": ours - theirs,
            "low": ours - theirs - 0.1,
            "high": ours - theirs + 0.1,
            "verdict": verdict,
        }
        return {
            "name": name,
            "n": 48,
            "better": "higher",
            "values": {"candidate": ours, "the base": theirs},
            "against": {"the base": between},
        }

    kinds = [
        measure("all: pairs that differ in length", 0.1, 0.1, "the same"),
        measure(f"{EVIL}: pairs that differ in length", 0.1, 0.2, "not enough data to tell"),
    ]
    found = {
        "format": 1, "adapter": "support@v2", "against": "the base", "base": "the base", "gate": {"verdict": "pass", "reason": "Better."},
        "measures": {"old": [measure("right", 0.9, 0.2, "better")]},
        "probes": {"forgetting": [measure("facts found in the prompt", 0.1, 0.6, "worse")], "bias": kinds, "safety": [], "refused_by_category": {}},
    }  # fmt: skip
    shown = report.html(found)
    assert (
        "<h1>support@v2 passed its gate, and is worse in 1 of 4 comparisons</h1>" in shown
        and _NOTHING_ELSE in shown
        and "<script" not in shown
    )
    assert shown.index(
        "facts found in the prompt: 10.0 % instead of 60.0 % (the base), 48 rows"
    ) < shown.index("Held-out rows")
    assert (
        '<details class="fold"><summary>By what they differ in: 48 pairs of each kind' in shown
    ), "kinds that tell nothing are folded"
    (left, _, right) = re.search(
        r'd="M([0-9.]+) 7H([0-9.]+)"/><circle cx="([0-9.]+)"', shown
    ).groups()  # type: ignore[union-attr]
    assert 80 < float(left) < float(right) < 160, (
        "all of the interval is right of nothing, and inside of the picture"
    )
    kinds[1]["against"]["the base"]["verdict"] = "worse"
    assert '<details class="fold" open>' in report.html(found)
    found["gate"]["verdict"] = "inconclusive"
    assert "<h1>The gate could not decide on support@v2" in report.html(found)


def test_a_search_opens_with_the_best_recipe_and_folds_what_nobody_reads() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    spans: dict[str, Any] = {
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "rank": optuna.distributions.IntDistribution(4, 32),
    }
    for number in range(50):
        state = optuna.trial.TrialState.PRUNED if number == 49 else optuna.trial.TrialState.COMPLETE
        values: dict[str, Any] = (
            {"intermediate_values": {1: 2.0}} if number == 49 else {"value": 1.0 - number / 100}
        )
        study.add_trial(
            optuna.trial.create_trial(
                params={"learning_rate": 0.001, "rank": 8},
                distributions=spans,
                state=state,
                **values,
            )
        )
    shown = page(study, {"learning_rate": 0.9, "rank": 0.1})
    assert (
        headline(shown.replace("<h1>", '<h1 id="headline">'))
        == "Best: learning rate 0.001, rank 8, with a validation loss of 0.5200"
    )
    assert (
        "49 trials came to an end, 1 was ended early. The loss is in nats per token" in shown
        and 'name="viewport"' in shown
    )
    assert "<summary>The 20 others</summary>" in shown and shown.count("<tr class=best>") == 1
    assert (
        "learning_rate" not in shown
        and "learning rate (log)" in shown
        and "pruned</td>" not in shown
    )
