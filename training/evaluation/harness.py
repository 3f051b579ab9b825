"""lm-evaluation-harness: a version and its base on the field's benchmarks, in this process.

The package `lm-eval` is optional. Its tasks take their questions from data sets of a hub, or from a
folder of one's own. Results are kept beside the version and shown with its report; no verdict reads
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from training.store.evaluation_types import HarnessResult, TaskScoreJson
from whet.context import Context
from whet.errors import ConfigurationError
from whet.json_types import JsonObject
from whet.registry import Adapter

_KEPT = 50  # results of a version that are kept, newest first
_NO_FIGURES = ("name", "alias", "sample_len")  # of a task's result

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HarnessOptions:
    """What is asked, and how."""

    tasks: tuple[str, ...]
    include_path: Path | None = None  # folder of task files (YAML) of one's own
    examples: int | None = None  # questions of each task at most
    shots: int | None = None  # worked examples before each question; None: as the task says
    chat_template: bool = True
    compare_base: bool = True


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One figure of one task."""

    task: str
    metric: str
    questions: int
    candidate: float
    candidate_error: float | None  # standard error
    base: float | None
    base_error: float | None

    def as_json(self) -> TaskScoreJson:
        return {
            "task": self.task,
            "metric": self.metric,
            "questions": self.questions,
            "candidate": self.candidate,
            "candidate_error": self.candidate_error,
            "base": self.base,
            "base_error": self.base_error,
        }


# What the harness itself returns for one model, as far as it is read.
HarnessFigures = TypedDict(
    "HarnessFigures",
    {
        "results": Mapping[str, Mapping[str, object]],  # task → figure → value
        "n-samples": Mapping[str, Mapping[str, int]],  # task → `original`, `effective`
        "n-shot": JsonObject,
    },
    total=False,
)


def require_installed() -> None:
    """Raises ConfigurationError where the harness is not installed."""
    if find_spec("lm_eval") is None:
        raise ConfigurationError(
            "`whet eval harness` needs the package 'lm-eval', which is not installed here.",
            hint="`make setup-harness` installs it, or pip install 'whet[harness]'.",
        )


def stored_results(context: Context, adapter: Adapter) -> list[HarnessResult]:
    """Return what the harness found of a version, newest first."""
    path = _path(adapter)
    return list(context.store.read_json(path)) if context.store.exists(path) else []


def _path(adapter: Adapter) -> str:
    return f"harness/{adapter.digest}.json"


def scores(results: Mapping[str, HarnessFigures]) -> list[TaskScore]:
    """Return the figures of all tasks, those of the base beside them where it was asked."""
    base = results.get("base", HarnessFigures()).get("results", {})
    asked = results["candidate"].get("n-samples", {})
    found = []
    for task, figures in results["candidate"]["results"].items():
        for name, value in figures.items():
            metric, _, condition = name.partition(",")
            if name in _NO_FIGURES or metric.endswith("_stderr"):
                continue
            if not isinstance(value, int | float):
                continue
            error = f"{metric}_stderr,{condition}"
            other = base.get(task, {})
            found.append(
                TaskScore(
                    task,
                    metric if condition in ("", "none") else f"{metric} ({condition})",
                    int(asked.get(task, {}).get("effective", 0)),
                    float(value),
                    _number(figures.get(error)),
                    _number(other.get(name)),
                    _number(other.get(error)),
                )
            )
    return found


def _number(value: object) -> float | None:
    """Return a figure; the harness writes a text where there is none."""
    return float(value) if isinstance(value, int | float) else None


def table(found: HarnessResult) -> list[dict[str, object]]:
    """One line per figure, for people."""
    return [
        {
            "task": score["task"],
            "metric": score["metric"],
            "questions": score["questions"],
            "version": _with_error(score["candidate"], score["candidate_error"]),
            "base": _with_error(score["base"], score["base_error"]),
        }
        for score in found["scores"]
    ]


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")
