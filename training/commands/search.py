"""`whet train search`: find a recipe within a budget."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from training.commands.on_ray import search_there
from training.commands.sources import RowSource, rows_of
from training.data.formats import read_options
from training.loop.throughput import choose_threads
from training.machine.allocator import keep_memory
from training.models.base_choice import open_base
from training.plan.prepare import Prepared, prepare
from training.recipes.methods import find
from training.recipes.recipe import Recipe, load_recipe
from training.runs.load_model import load, pad_token
from training.runs.places import LOCAL, ray_address, require_ray
from training.runs.search import Plan, Search, require_searchable, with_validation
from training.runs.search_page import SearchResults
from training.runs.search_ray import Follow
from whet.cli import emit, err, opened, out
from whet.context import Context
from whet.errors import InputError
from whet.ids import check_name

_STATES = {"complete": "finished", "pruned": "ended early", "fail": "failed"}


def search(
    *,
    file: Path | None,
    dataset: str,
    trials: int,
    minutes: float,
    params: str,
    pruner: str,
    recipe_name: str,
    alias: str,
    seed: int,
    skip_bad: bool,
    on: str,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """Search learning rate, rank, epochs … by the loss on validation rows; write the best recipe
    and a picture of what mattered.
    """
    if not trials and not minutes:
        raise InputError("A search needs a budget.", hint="Give --trials N, --minutes M, or both.")
    with opened() as context:
        if on:
            ray_address(on, LOCAL)
            require_ray()
        keep_memory()
        name = check_name(alias or context.settings.default_alias, "alias")
        wanted = tuple(each.strip() for each in params.split(",") if each.strip())
        plan = Plan(wanted, pruner, seed, context.settings.engine_max_lora_rank)
        recipe = load_recipe(recipe_name)
        require_searchable(recipe, wanted)
        options = read_options(columns, encoding)
        rows = RowSource(
            file, dataset, skip_bad=skip_bad, folds=0, options=options, method=find(recipe.method)
        )
        prepared, notices = _prepared(context, name, rows, recipe, wanted)
        found = Search(context, prepared, plan)
        with _bar(trials or None, quiet=as_json) as (on_trial, on_step):
            budget: Follow = {
                "trials": trials or None,
                "seconds": 60 * minutes or None,
                "on_trial": on_trial,
            }
            if on:
                search_there(found, on, **budget)
            else:
                found.run(**budget, on_step=on_step)
        source = [str(file)] if file else ["--dataset", dataset]
        _show(found.write_results(), [*source, "--alias", name], notices, as_json=as_json)


def _prepared(
    context: Context, alias: str, source: RowSource, recipe: Recipe, wanted: tuple[str, ...]
) -> tuple[Prepared, list[str]]:
    """Read and prepare the rows, and choose the threads; returns notices, too."""
    read = rows_of(context, alias, source)
    prepared = prepare(
        context,
        alias,
        with_validation(read.dataset),
        recipe,
        open_base(context.settings),
        skip_bad=source.skip_bad,
    )
    if prepared.start_adapter is not None and "rank" in wanted:
        raise InputError(
            "A run that goes on from a version keeps its rank.",
            hint="Leave rank out of --params, or use a recipe without init_from.",
        )
    threads, _ = choose_threads(
        load(context, prepared), prepared.train, prepared.recipe, pad_token(prepared)
    )
    chosen = replace(prepared, recipe=replace(prepared.recipe, threads=threads))
    return chosen, read.notices


def _show(results: SearchResults, source: list[str], notices: list[str], *, as_json: bool) -> None:
    following = shlex.join(["whet", "train", "run", *source, "--recipe", results["recipe"]])
    if as_json:
        emit({**results, "next": following, "notices": notices}, True)
        return
    for notice in notices:
        out.print(f"• {notice}", markup=False, soft_wrap=True)
    emit(_for_people(results), False)
    out.print(f"Next: {following}", markup=False, soft_wrap=True)


def _for_people(results: SearchResults) -> dict[str, str]:
    """Lines of a search's results; the shares of parameters only where there were trials enough."""
    best = dict(results["best"])
    lines = {
        "trials": ", ".join(
            f"{count} {_STATES[state]}" for state, count in results["trials"].items()
        ),
        "best": f"trial {best.pop('trial')}, validation loss {best.pop('validation_loss'):.4f}: "
        + ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in best.items()
        ),
        "what mattered": ", ".join(
            f"{name} {share:.0%}" for name, share in results["importances"].items()
        ),
        "recipe": results["recipe"],
        "picture": results["picture"],
    }
    return {name: line for name, line in lines.items() if line}


@contextmanager
def _bar(
    trials: int | None, *, quiet: bool
) -> Iterator[tuple[Callable[[int, float | None], None], Callable[[int, int], None]]]:
    """Progress of the search on standard error: trials, the best loss, the step of the trial at
    work.
    """
    if quiet:
        yield (lambda ended, best: None), (lambda step, steps: None)
        return
    with Progress(
        TextColumn("trials"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}  {task.fields[best]} {task.fields[at]}"),
        TimeElapsedColumn(),
        console=err,
    ) as bar:
        task = bar.add_task("trials", total=trials, best="", at="")

        def on_trial(ended: int, best: float | None) -> None:
            bar.update(task, completed=ended, best="" if best is None else f"best loss {best:.4f}")

        yield on_trial, lambda step, steps: bar.update(task, at=f"step {step} of {steps}")
