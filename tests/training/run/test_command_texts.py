"""What `whet train` prints: progress in lines, the stored version, the next command, recipe fields
as options.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training.commands.outcome import next_command, show_stored
from training.commands.progress import LineProgress
from training.commands.recipe_options import overrides
from training.evaluation.intervals import BETTER, NEGLIGIBLE, SAME, compared
from training.evaluation.probes import probes
from training.evaluation.report import report_path
from training.loop.diagnostics import warn_no_gain
from training.recipes.recipe import Recipe, recipe_from
from whet.errors import InputError

# --- progress without a terminal -----------------------------------------------------------------------------------


def steps(count: int, seconds_each: float) -> list[str]:
    """The lines of a run of `count` steps."""
    clock, lines = [0.0], list[str]()
    watch = LineProgress(lines.append, lambda: clock[0])
    watch({"stage": "training"})
    for step in range(1, count + 1):
        clock[0] += seconds_each
        watch(
            {
                "stage": "training",
                "step": step,
                "steps": count,
                "loss": 1 / step,
                "tokens_per_s": 10,
                "eta_s": 0,
            }
        )
    return lines


@pytest.mark.parametrize(
    ("count", "seconds_each", "least", "most"),
    [
        (52, 0.1, 4, 8),
        (1000, 0.01, 9, 13),
        (10, 60.0, 10, 11),
        (3, 0.01, 3, 3),
        (1, 5.0, 2, 2),
        (100, 1.0, 10, 13),
    ],
)
def test_a_run_writes_some_lines_and_never_floods(
    count: int, seconds_each: float, least: int, most: int
) -> None:
    lines = steps(count, seconds_each)
    assert least <= len(lines) <= most, lines
    assert lines[0] == "training …" and lines[-1].startswith(f"training  step {count} of {count}")
    assert len(set(lines)) == len(lines)


def test_stages_are_lines_and_long_ones_are_followed() -> None:
    clock, lines = [0.0], list[str]()
    watch = LineProgress(lines.append, lambda: clock[0])
    for done in range(0, 100, 10):
        watch({"stage": "evaluating", "answered": done, "to_answer": 100})
        clock[0] += 4.0
    assert lines[:3] == [
        "evaluating …",
        "evaluating  30 of 100 answers",
        "evaluating  60 of 100 answers",
    ]


def test_a_step_says_its_validation_loss_and_what_is_left() -> None:
    lines: list[str] = []
    watch = LineProgress(lines.append, lambda: 0.0)
    watch(
        {
            "stage": "training",
            "step": 1,
            "steps": 9,
            "loss": 2.5,
            "tokens_per_s": 1234,
            "eta_s": 90.0,
            "validation": [[1, 0.75]],
        }
    )
    assert lines == [
        "training  step 1 of 9  loss 2.5000  validation loss 0.750  1,234 tokens/s  1 min 30 s left"
    ]


# --- recipe fields as options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "assignments", "expected"),
    [
        ({"dropout": 0.1, "rank": None}, [], {"dropout": 0.1}),
        ({"target_modules": "q_proj, v_proj"}, [], {"target_modules": ["q_proj", "v_proj"]}),
        ({}, ["dropout=0.05", "epochs=2"], {"dropout": 0.05, "epochs": 2}),
        ({}, ["target_modules=q_proj,v_proj"], {"target_modules": ["q_proj", "v_proj"]}),
        ({}, ['target_modules=["q_proj"]'], {"target_modules": ["q_proj"]}),
        (
            {},
            ["gradient-checkpointing=True", "learning_rate=3e-4"],
            {"gradient_checkpointing": True, "learning_rate": 3e-4},
        ),
        (
            {},
            ["schedule=linear", "teacher=http://h/v1#m"],
            {"schedule": "linear", "teacher": "http://h/v1#m"},
        ),
        ({}, ["teacher="], {"teacher": ""}),
    ],
)
def test_options_and_assignments_become_recipe_fields(
    options: dict[str, Any], assignments: list[str], expected: dict[str, Any]
) -> None:
    found = overrides(options, assignments)
    assert found == expected
    assert recipe_from(
        found, Recipe(method="distill", teacher="x") if "teacher" in expected else None
    )


@pytest.mark.parametrize(
    ("options", "assignments", "sentence"),
    [
        ({}, ["dropout"], "expected FIELD=VALUE"),
        ({}, ["=1"], "expected FIELD=VALUE"),
        (
            {"dropout": 0.1},
            ["dropout=0.2"],
            "dropout is given twice, as 0.1 and by --set dropout=0.2",
        ),
        ({}, ["colour=red"], "A recipe has no field 'colour'"),
        ({}, ["dropout=lots"], "The recipe's dropout is 'lots'; expected a number"),
        ({"warmup": 2.0}, [], "The recipe's warmup is 2.0; expected 0 to 1"),
        ({"schedule": "stairs"}, [], "expected one of cosine, linear, constant"),
        ({"weight_decay": -1.0}, [], "The recipe's weight_decay is -1.0"),
        ({"target_modules": ","}, [], "expected names of layers"),
        ({}, ["rank=3.5"], "The recipe's rank is 3.5; expected a whole number"),
    ],
)
def test_a_wrong_field_gets_the_recipes_own_sentence(
    options: dict[str, Any], assignments: list[str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        recipe_from(overrides(options, assignments))


# --- what was made -------------------------------------------------------------------------------------------------


def outcome(
    verdict: str, *, method: str = "lora", folder: Path | None = None, signs: tuple[str, ...] = ()
) -> Any:
    adapter = (
        None
        if folder
        else SimpleNamespace(name="bikes", label="bikes@v1", path="adapters/bikes/v1--ab")
    )
    return SimpleNamespace(
        run_id="run_1",
        adapter=adapter,
        folder=folder,
        label=adapter.label if adapter else str(folder),
        method=method,
        judgement=SimpleNamespace(
            verdict=verdict,
            reason="Because.",
            decision=None,
            against_name="the base",
            samples_path="evaluations/x/samples.jsonl",
        ),
        trained=SimpleNamespace(
            steps=340,
            seconds=436.0,
            tokens=120_000,
            tokens_per_s=275.0,
            first_loss=3.7,
            last_loss=0.045,
            signs=list(signs),
        ),
        estimate={
            "seconds": 300.0,
            "peak_memory_bytes": 880e6,
            "measured": {"seconds": 436.0, "tokens_per_s": 275, "peak_memory_bytes": 1.3e9},
            "error": {"seconds": -0.31},
        },
    )


@pytest.mark.parametrize(
    ("verdict", "first", "following"),
    [
        ("pass", "stored as bikes@v1, may be promoted", "whet rollout promote bikes"),
        (
            "fail",
            "stored as bikes@v1, did not pass its gate and should not be promoted",
            "whet train show run_1",
        ),
        (
            "inconclusive",
            "stored as bikes@v1, undecided: there is too little to judge it by",
            "whet eval run bikes@v1 --test FILE",
        ),
        (
            "none",
            "stored as bikes@v1, not judged: nothing was held out",
            "whet eval run bikes@v1 --test FILE",
        ),
    ],
)
def test_the_first_line_says_what_is_stored_and_what_it_is_good_for(
    capsys: pytest.CaptureFixture[str], verdict: str, first: str, following: str
) -> None:
    show_stored(outcome(verdict, signs=("Nothing was learned.",)))
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == first
    assert (
        "340 steps in 7 min 16 s (expected 5 min)" in lines[1]
        and "memory 1.3 GB at most (expected 880 MB)" in lines[1]
    )
    assert "%" not in lines[1]
    assert "• Nothing was learned." in lines
    assert f"Next: {following}" in "\n".join(lines)


@pytest.mark.parametrize(
    ("verdict", "meaning"), [("pass", "passed its gate"), ("fail", "did not pass its gate")]
)
def test_what_is_no_version_is_written_and_judged(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, verdict: str, meaning: str
) -> None:
    show_stored(outcome(verdict, method="prompt", folder=tmp_path / "out"))
    said = capsys.readouterr().out
    assert (
        said.split("\n")[0] == f"written to {tmp_path / 'out'}, {meaning}" and "promote" not in said
    )


def test_a_folder_says_how_it_is_served_or_loaded(tmp_path: Path) -> None:
    assert (
        next_command(outcome("pass", method="dora", folder=tmp_path))
        == f"WHET_BASE_MODEL={tmp_path} whet up"
    )
    loads = next_command(outcome("inconclusive", method="prompt", folder=tmp_path))
    assert (
        loads.startswith('python -c "from peft import')
        and f"from_pretrained('{tmp_path}')" in loads
    )


@pytest.mark.parametrize(
    ("group", "is_said"),
    [
        (
            {"n": 6, "candidate": 0.0, "against": 0.0, "candidate_f1": 0.193, "against_f1": 0.223},
            True,
        ),
        (
            {"n": 6, "candidate": 0.0, "against": 0.0, "candidate_f1": 0.225, "against_f1": 0.223},
            True,
        ),
        (
            {"n": 6, "candidate": 0.0, "against": 0.0, "candidate_f1": 0.5, "against_f1": 0.223},
            False,
        ),
        (
            {"n": 6, "candidate": 0.5, "against": 0.0, "candidate_f1": 0.2, "against_f1": 0.223},
            False,
        ),
        (
            {"n": 2, "candidate": 0.0, "against": 0.0, "candidate_f1": 0.1, "against_f1": 0.223},
            False,
        ),
        ({"n": 0, "candidate": None, "against": None}, False),
    ],
)
def test_a_method_that_gained_nothing_says_so(group: dict[str, Any], is_said: bool) -> None:
    assert bool(warn_no_gain({"all": group}, "the base")) is is_said
    assert warn_no_gain({}, "the base") == ""


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(-0.0001, NEGLIGIBLE), (0.0004, NEGLIGIBLE), (-0.01, BETTER), (0.0, SAME)],
)
def test_a_difference_that_nobody_sees_is_no_verdict(difference: float, verdict: str) -> None:
    differ = 30 if difference else 0
    found = compared(30, differ, difference, difference - 0.00001, difference + 0.00001, "lower")
    assert found["verdict"] == verdict


def test_a_first_looks_report_says_its_share() -> None:
    from training.evaluation.report import html

    found: dict[str, Any] = {
        "adapter": "bikes@v1",
        "at": 0,
        "against": "the base",
        "base": "the base",
        "gate": {
            "verdict": "pass",
            "reason": "Better.",
            "metrics": {},
            "thresholds": {},
            "failed": [],
        },
        "measures": {},
        "probes": {
            "forgetting": [],
            "bias": [],
            "safety": [],
            "refused_by_category": {},
            "seed": "x",
        },
        "earlier": "None.",
    }
    assert "first look" not in html(found)
    assert "A first look: 12 % of the probes were asked." in html({**found, "asked_share": 0.12})


def test_a_sample_of_the_probes_is_spread_over_their_kinds() -> None:
    whole = probes([], lambda row: True)
    half = whole.sample(0.5)
    assert len(half.pairs) == len(whole.pairs) // 2 and {pair.kind for pair in half.pairs} == {
        pair.kind for pair in whole.pairs
    }
    assert set(half.harmful) == set(whole.harmful)
    assert not whole.sample(0.0).answered and whole.sample(1.0) == whole
    assert report_path("evaluations/x/samples.jsonl") == "evaluations/x/report.json"
