"""Tables of an evaluation for people, and the bar of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress

from training.store.evaluation_types import GroupMetrics, Measure, Metrics, VotesSummary
from whet.cli import emit, err, out


def report_table(measures: list[Measure]) -> list[dict[str, object]]:
    """One line per measure and comparison, for people."""
    return [
        {
            "measure": measure["name"],
            "rows": measure["n"],
            **measure["values"],
            "against": other,
            "difference": (
                f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"
            ),
            "verdict": found["verdict"],
        }
        for measure in measures
        for other, found in measure["against"].items()
    ]


def votes_table(found: VotesSummary) -> list[dict[str, object]]:
    """One line per version that the candidate was compared with, for people."""
    return [
        {
            "against": pair["name"],
            "better": pair["wins"],
            "worse": pair["losses"],
            "ties": pair["ties"],
            "preference": (
                f"{pair['preference']['difference']:+.3f} ({pair['preference']['low']:+.3f} to"
                f" {pair['preference']['high']:+.3f})"
            ),
            "verdict": pair["preference"]["verdict"],
        }
        for pair in found["pairs"].values()
    ]


@contextmanager
def progress_bar(quiet: bool, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that is told (done, total); silent when data is wanted."""
    if quiet:
        yield lambda done, total: None
        return
    with Progress(console=err) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _interval(found: GroupMetrics) -> str:
    """Where the candidate's score on other questions of this kind is to be expected."""
    low, high = found.get("candidate_low"), found.get("candidate_high")
    if low is None or high is None:
        return "–"
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def metrics_table(metrics: Metrics, candidate: str, against: str) -> list[dict[str, object]]:
    """One line per group that had rows, for people."""
    return [
        {
            "group": group,
            "rows": found["n"],
            "measure": found["measure"],
            candidate: f"{found['candidate']:.1%}",
            "90 % interval": _interval(found),
            against: f"{found['against']:.1%}",
            "regressions": found["broken"],
            "newly correct": found["fixed"],
        }
        for group, found in metrics.items()
        if found["n"]
    ]


def print_details(metrics: Metrics, candidate: str, against: str) -> None:
    """Print the scores by task, and the slices that got worse."""
    overall = metrics.get("all", GroupMetrics())
    tasks = [
        {
            "task": task,
            "rows": found["n"],
            candidate: f"{found['candidate']:g}",
            against: f"{found['against']:g}",
        }
        for task, found in overall.get("tasks", {}).items()
    ]
    if tasks:
        emit(tasks, False, title="right by task")
    for found in overall.get("worse_slices", []):
        out.print(
            f"• Worse on questions about {found['slice']!r}: {found['candidate']:g} of"
            f" {found['n']} right, {against} had {found['against']:g}.",
            style="yellow",
            markup=False,
        )
