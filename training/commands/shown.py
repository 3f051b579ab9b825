"""`whet train show` for people: what the run's page says, in lines."""

from __future__ import annotations

import math

from training.commands.tables import metrics_table
from training.recipes.recipe_checks import relevant_fields
from training.store.table_rows import AnswerSamples, Estimate, Progress, RunRecipe, ShownRun
from training.web.words import DATA_IN_RECIPE, estimated, is_silent, run_headline, said_value
from whet.cli import emit, out
from whet.clock import iso
from whet.web.filters import duration

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 50  # columns of the loss's picture
_COLOURS = {"pass": "green", "fail": "red"}


def show_run(row: ShownRun, against: dict[str, str], now: int) -> None:
    """`row`: as the table has it, with `label` (of the adapter it made) and `evaluations`;
    `against`: labels by digest of what those compared with.
    """
    recipe, estimate = row["recipe"] or RunRecipe(), row["estimate"] or Estimate()
    progress = row["progress"] or Progress()
    row = {**row, "silent": is_silent(row, now)}
    newest = row["evaluations"][0] if row["evaluations"] else None
    out.print(f"[bold]{row['id']}[/bold]  ", end="")
    out.print(run_headline(row, newest, now), markup=False)
    for sentence in (row["error"], *progress.get("signs", [])):
        if sentence:
            out.print(f"• {sentence}", style="yellow", markup=False)
    curve = row["curve"] or []
    lines = {
        "started": (
            f"{iso(row['started_at'])} by {row['worker'] or 'no worker yet'}"
            + (f", attempt {row['attempt']}" if row["attempt"] > 1 else "")
        ),
        "took": (
            duration((row["finished_at"] or now) - row["started_at"])
            + ("" if row["finished_at"] else " so far")
        ),
        "data": (
            f"{said_value(recipe.get('rows'))} rows,"
            f" {recipe.get('dataset_path', row['dataset_digest'])}"
        ),
        "recipe": ", ".join(
            f"{name} {said_value(value)}"
            for name, value in relevant_fields(recipe).items()
            if name not in DATA_IN_RECIPE and value not in ("", None)
        ),
        "steps": f"{progress.get('step', 0)} of {progress.get('steps', '?')}",
        "loss": (
            f"{curve[0][1]:.3g} {loss_bars([point[1] for point in curve])} {curve[-1][1]:.3g}"
            if curve
            else ""
        ),
        "expected": "" if estimate.get("measured") else _expected(estimate),
        **{
            title.lower(): f"{measured}, expected {expected}"
            for title, expected, measured, _ in estimated(estimate)
        },
        "memory": ", ".join(
            f"{part} {size / 1e6:,.0f} MB" for part, size in estimate.get("memory", {}).items()
        ),
    }
    emit({name: line for name, line in lines.items() if line}, False)
    show_samples(progress.get("samples"))
    _show_evaluations(row, against)


def _show_evaluations(row: ShownRun, against: dict[str, str]) -> None:
    for evaluation in row["evaluations"]:
        other = against.get(evaluation["against_digest"] or "", "the base")
        emit(
            metrics_table(evaluation["metrics"] or {}, row["label"] or "this run", other),
            False,
            title="held-out rows",
        )
        out.print(
            f"[bold {_COLOURS.get(evaluation['verdict'], 'yellow')}]{evaluation['verdict']}[/]  ",
            end="",
        )
        out.print(evaluation["reason"], markup=False)
        out.print(f"Every answer: {evaluation['samples_path']} in the store", markup=False)


def show_samples(samples: AnswerSamples | None) -> None:
    """Print each question that was asked while training, with its answers by step."""
    for number, question in enumerate(samples["questions"] if samples else []):
        out.print(f"sampled: {question}", style="bold", markup=False, soft_wrap=True)
        for step, answers in samples["answers"] if samples else []:
            said = answers[number] if isinstance(answers, list) else answers
            out.print(f"  step {step}: {said}", markup=False, soft_wrap=True)


def _expected(estimate: Estimate) -> str:
    return (
        f"{duration(1000 * estimate['seconds'])}, {estimate['peak_memory_bytes'] / 1e6:,.0f} MB"
        if estimate.get("seconds")
        else ""
    )


def loss_bars(losses: list[float], width: int = _WIDTH) -> str:
    """A row of bars, on a logarithmic scale, of at most `width` means over equal parts of the
    losses.
    """
    width = min(width, len(losses))
    parts = [
        losses[number * len(losses) // width : (number + 1) * len(losses) // width]
        for number in range(width)
    ]
    # A loss of nothing has no logarithm
    heights = [math.log(max(sum(part) / len(part), 1e-9)) for part in parts]
    low, span = min(heights, default=0.0), max(heights, default=0.0) - min(heights, default=0.0)
    return "".join(
        _BARS[round((height - low) / span * (len(_BARS) - 1))] if span else _BARS[0]
        for height in heights
    )
