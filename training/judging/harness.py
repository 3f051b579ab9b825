"""lm-evaluation-harness: a version and its base on the field's benchmarks, in this process.

The package `lm-eval` is optional. Its tasks take their questions from data sets of a hub, or from a
folder of one's own. Results are kept beside the version and shown with its report; no verdict reads
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version as package_version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training import adapter_store
from training.base_model import BaseModel, open_base
from training.device import compute_dtype
from training.lora import merged_once, with_stored
from whet.clock import now_ms
from whet.context import Context
from whet.errors import ConfigurationError, InputError
from whet.registry import Adapter

_BATCH_ROWS = 8
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

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def require_installed() -> None:
    """Raises ConfigurationError where the harness is not installed."""
    if find_spec("lm_eval") is None:
        raise ConfigurationError(
            "`whet eval harness` needs the package 'lm-eval', which is not installed here.",
            hint="`make setup-harness` installs it, or pip install 'whet[harness]'.",
        )


def run_harness(
    context: Context, adapter: Adapter, options: HarnessOptions, *, progress: Progress
) -> dict[str, Any]:
    """Ask the tasks of a version and of its base, and keep the result; returns it.

    Raises ConfigurationError where the harness is not installed, InputError for a task that is not
    there or whose data cannot be had, AdapterError for a version of another base.
    """
    require_installed()
    base = open_base(context.settings)
    adapter_store.require_base(adapter, base.digest, base.name)
    weights, config = adapter_store.read_weights(context, adapter)
    progress("reading tasks")
    manager = _task_manager(options)
    dtype = compute_dtype("auto")
    results = {}
    if options.compare_base:
        progress(f"asking {base.name}")
        results["base"] = _evaluate(context, base, base.load_model(dtype).eval(), manager, options)
    progress(f"asking {adapter.label}")
    # Merged, because the harness takes plain models alone.
    model = merged_once(with_stored(base.load_model(dtype), config, weights), dtype)
    results["candidate"] = _evaluate(context, base, model, manager, options)
    found = {
        "at": now_ms(),
        "harness": package_version("lm-eval"),
        "chat_template": options.chat_template,
        "examples": options.examples,
        "shots": results["candidate"].get("n-shot"),
        "scores": [score.as_json() for score in scores(results)],
    }
    kept = [found, *stored_results(context, adapter)][:_KEPT]
    context.store.put_json(_path(adapter), kept)
    return {"adapter": adapter.label, **found}


def stored_results(context: Context, adapter: Adapter) -> list[dict[str, Any]]:
    """Return what the harness found of a version, newest first."""
    path = _path(adapter)
    return list(context.store.read_json(path)) if context.store.exists(path) else []


def _path(adapter: Adapter) -> str:
    return f"harness/{adapter.digest}.json"


def scores(results: Mapping[str, Mapping[str, Any]]) -> list[TaskScore]:
    """Return the figures of all tasks, those of the base beside them where it was asked."""
    base = results.get("base", {}).get("results", {})
    asked = results["candidate"].get("n-samples", {})
    found = []
    for task, figures in results["candidate"]["results"].items():
        for name, value in figures.items():
            metric, _, condition = name.partition(",")
            is_figure = isinstance(value, int | float) and not metric.endswith("_stderr")
            if name in _NO_FIGURES or not is_figure:
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


def _number(value: Any) -> float | None:
    """Return a figure; the harness writes a text where there is none."""
    return float(value) if isinstance(value, int | float) else None


def _task_manager(options: HarnessOptions) -> Any:
    """Return the harness's index of tasks: of one's own folder, and with its own where one is
    asked.

    Its own are 15,000, which take half a minute to read. Raises InputError.
    """
    from lm_eval.tasks import TaskManager

    folder = options.include_path
    if folder is not None and not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder.", hint="--include-path names a folder of task files (YAML)."
        )
    place = str(folder) if folder else None
    if place:
        own = TaskManager(include_path=place, include_defaults=False)
        if set(options.tasks) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=place)
    if missing := sorted(set(options.tasks) - set(manager.all_tasks)):
        raise InputError(
            f"The harness has no task {', '.join(map(repr, missing))}.",
            hint="`lm-eval ls tasks` lists its own; --include-path adds a folder of yours.",
        )
    return manager


def _evaluate(
    context: Context, base: BaseModel, model: Any, manager: Any, options: HarnessOptions
) -> dict[str, Any]:
    """Return what the harness returns. Raises InputError where a task's data cannot be had."""
    import lm_eval
    from datasets.exceptions import DatasetsError
    from lm_eval.models.huggingface import HFLM

    room = min(base.max_positions, context.settings.engine_max_model_len)
    asked: Any = HFLM(
        pretrained=model,
        tokenizer=base.tokenizer,
        batch_size=_BATCH_ROWS,
        max_length=room,
    )
    try:
        found: Any = lm_eval.simple_evaluate(
            model=asked,
            tasks=list(options.tasks),
            task_manager=manager,
            num_fewshot=options.shots,
            limit=options.examples,
            apply_chat_template=options.chat_template,
            log_samples=False,
        )
    except (DatasetsError, OSError) as error:
        said = str(error).partition("\n")[0]
        raise InputError(
            f"The data of {', '.join(options.tasks)} cannot be had: {said}.",
            hint="The harness loads it from the Hugging Face hub: allow that, load it into the "
            f"cache beforehand (HF_HOME is {os.environ.get('HF_HOME', 'not set')}), or give tasks "
            "with local files (--include-path).",
        ) from error
    return dict(found)


def table(found: Mapping[str, Any]) -> list[dict[str, Any]]:
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
