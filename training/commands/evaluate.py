"""`whet eval …`: judge a stored version again, or two against each other; its report; people's
votes; another model's opinion; a person's signature.
"""

from __future__ import annotations

from pathlib import Path

from training.commands.sources import find_dataset
from training.commands.tables import (
    metrics_table,
    print_details,
    progress_bar,
)
from training.data.datasets import Dataset, rows_digest
from training.data.formats import read_good, read_options
from training.evaluation import harness as benchmarks
from training.evaluation.harness_run import run_harness
from training.evaluation.judge_stored import judge_stored
from whet.cli import actor, emit, opened, out, show_stages
from whet.context import Context
from whet.database import reading
from whet.errors import InputError
from whet.registry import find_adapter


def run(
    *, adapter: str, test: Path | None, dataset: str, columns: str, encoding: str, as_json: bool
) -> None:
    """A version against what is in production (or the base). The result joins its evaluations."""
    with opened() as context:
        rows = _rows_to_judge_by(context, test, dataset, columns, encoding)
        _judge(context, adapter, None, rows, as_json)


def compare(
    *,
    adapter: str,
    against: str,
    test: Path | None,
    dataset: str,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """Two versions on the same rows. The result joins the candidate's evaluations."""
    with opened() as context:
        rows = _rows_to_judge_by(context, test, dataset, columns, encoding)
        _judge(context, adapter, against, rows, as_json)


def harness(
    *,
    adapter: str,
    tasks: str,
    include_path: Path | None,
    examples: int | None,
    shots: int | None,
    chat_template: bool,
    compare_base: bool,
    as_json: bool,
) -> None:
    """Benchmarks of lm-evaluation-harness, of a version and its base; kept beside its report.

    They decide nothing.
    """
    with opened() as context:
        names = tuple(name.strip() for name in tasks.split(",") if name.strip())
        if not names:
            raise InputError("--tasks names nothing.", hint="Such as --tasks arc_easy,piqa.")
        benchmarks.require_installed()
        with reading(context.database) as connection:
            version = find_adapter(connection, adapter)
        options = benchmarks.HarnessOptions(
            names, include_path, examples, shots, chat_template, compare_base
        )
        with show_stages() as progress:
            found = run_harness(context, version, options, progress=progress)
        if as_json:
            emit(found, True)
            return
        emit(benchmarks.table(found), False, title=f"{version.label} by lm-eval {found['harness']}")


def _rows_to_judge_by(
    context: Context, test: Path | None, dataset: str, columns: str, encoding: str
) -> Dataset:
    if bool(test) == bool(dataset):
        found = "both." if test else "neither."
        raise InputError(f"Expected either --test FILE or --dataset NAME@vN, found {found}")
    if test is None:
        found_version: Dataset = find_dataset(context, dataset)
        return found_version
    rows = read_good(test, skip_bad=False, options=read_options(columns, encoding)).rows
    digest = rows_digest({"train": [], "validation": [], "test": rows})
    return Dataset(test.stem, digest, "", [], [], rows)


def _judge(
    context: Context, adapter: str, against: str | None, rows: Dataset, as_json: bool
) -> None:
    with progress_bar(as_json, "answering") as on_batch:
        result = judge_stored(context, adapter, against, rows, actor=actor(), on_batch=on_batch)
    if as_json:
        emit(result, True)
        return
    emit(metrics_table(result["metrics"], result["adapter"], result["against"]), False)
    print_details(result["metrics"], result["adapter"], result["against"])
    out.print(f"[bold]{result['verdict']}[/bold]  ", end="")
    out.print(result["reason"], markup=False)
