"""A run in words, for the console and for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from training.store import runs
from training.store.evaluation_types import EvaluationRow
from training.store.table_rows import Estimate, Measured, RunRow, ShownRun
from whet.web.filters import duration, number, relative

# What a run keeps beside its recipe; shown as its data
DATA_IN_RECIPE = ("dataset_path", "dataset_name", "rows")
# The trainer writes its heartbeat every 5 s; after this much silence it is gone
_SILENT_MS = 120_000

_Figure = Literal["seconds", "tokens_per_s", "peak_memory_bytes"]


def is_silent(row: RunRow, now: int) -> bool:
    """Whether a run that should be running has not been heard of for long."""
    return bool(row["state"] == runs.RUNNING and now - row["heartbeat_at"] > _SILENT_MS)


def run_headline(row: ShownRun, evaluation: EvaluationRow | None, now: int) -> str:
    if row["silent"]:
        return (
            f"The run for {row['alias']} is silent since"
            f" {relative(row['heartbeat_at'], now).removesuffix(' ago')}: its process may be gone"
        )
    if row["state"] == runs.RUNNING:
        return f"{row['alias']} is in training: {said_progress(row)}"
    if row["state"] == runs.FAILED:
        return f"The run for {row['alias']} failed"
    if row["state"] == runs.CANCELLED:
        return f"The run for {row['alias']} was cancelled" + (
            f" by {row['cancel_requested_by']}" if row["cancel_requested_by"] else ""
        )
    made = row["label"] or "a version that was removed"
    verdicts = {
        "pass": f"{made} passed its gate",
        "fail": f"{made} did not pass its gate",
        "inconclusive": f"The gate could not decide on {made}",
    }
    return (
        verdicts.get(evaluation["verdict"], f"The run made {made}")
        if evaluation
        else f"The run made {made}; nothing was held out to judge it by"
    )


def said_progress(row: RunRow) -> str:
    """`step 88 of 160, 31 s left`, or the stage."""
    progress = row["progress"] or {}
    stage = progress.get("stage", "loading")
    if stage == "training" and progress.get("steps"):
        left = f", {duration(1000 * progress['eta_s'])} left" if progress.get("eta_s") else ""
        return f"step {number(progress['step'])} of {number(progress['steps'])}{left}"
    if stage == "evaluating" and progress.get("to_answer"):
        return (
            f"{number(progress['answered'])} of {number(progress['to_answer'])} held-out answers"
            " compared"
        )
    return str(stage)


def estimated(estimate: Estimate) -> list[tuple[str, str, str, str]]:
    """(what, estimated, measured, how far the estimate was off) of each figure that was both
    estimated and measured.
    """
    error = estimate.get("error", {})
    figures: dict[_Figure, tuple[str, Callable[[float], str]]] = {
        "seconds": ("Training", lambda value: duration(1000 * value)),
        "tokens_per_s": ("Speed", lambda value: f"{number(value)} tokens/s"),
        "peak_memory_bytes": ("Peak of memory", lambda value: f"{value / 1e6:,.0f} MB"),
    }
    found = []
    for name, (title, said) in figures.items():
        expected, measured = estimate.get(name), estimate.get("measured", Measured()).get(name)
        if expected is not None and measured is not None:
            off = f"{100 * error[name]:+.0f} %" if error.get(name) is not None else "–"
            found.append((title, said(expected), said(measured), off))
    return found


def said_value(value: object) -> str:
    """A recipe's value in words: `yes` and `no`, lists and parts without brackets, nothing as a
    dash.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {said_value(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(said_value, value))
    return "–" if value is None or value == "" else str(value)


def memory_text(count: float) -> str:
    """Return bytes as `880 MB` or `1.3 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
