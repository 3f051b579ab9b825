"""`whet train search`: find a recipe within a budget."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from training.commands.options import COLUMNS, ENCODING
from training.commands.sources import RowSource, rows_of
from training.commands.train import train
from whet.cli import emit, err, opened, out
from whet.errors import InputError
from whet.ids import check_name

_STATES = {"complete": "finished", "pruned": "ended early", "fail": "failed"}


@train.command("search")
def search(
    file: Path | None = typer.Argument(None, metavar="[FILE]", help="JSONL file of training rows."),
    dataset: str = typer.Option(
        "", "--dataset", help="A dataset version instead of a file, such as support@v2."
    ),
    trials: int = typer.Option(
        0,
        "--trials",
        min=0,
        help="Trials in all; those of an earlier call of the same search count.",
    ),
    minutes: float = typer.Option(
        0.0, "--minutes", min=0.0, help="Minutes of this call; a trial that has begun is finished."
    ),
    params: str = typer.Option(
        "learning_rate,rank,epochs",
        "--params",
        help="What is searched: learning_rate, rank, epochs, batch_size, alpha.",
    ),
    pruner: str = typer.Option(
        "median", "--pruner", help="How hopeless trials are ended early: median or hyperband."
    ),
    recipe_name: str = typer.Option(
        "lora", "--recipe", help="Where what is not searched comes from."
    ),
    alias: str = typer.Option(
        "",
        "--alias",
        help="Name of the adapter that the rows are for. Default: the setting default_alias.",
    ),
    seed: int = typer.Option(0, "--seed", help="Of the proposals."),
    skip_bad: bool = typer.Option(
        False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."
    ),
    on: str = typer.Option(
        "",
        "--on",
        help="ray (one that is started here), or ray=ADDRESS of a cluster: several trials at once.",
    ),
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Search learning rate, rank, epochs … by the loss on validation rows; write the best recipe
    and a picture of what mattered.
    """
    if not trials and not minutes:
        raise InputError("A search needs a budget.", hint="Give --trials N, --minutes M, or both.")
    with opened() as context:
        from training.allocator import keep_memory
        from training.base_model import open_base, quiet_environment
        from training.data.formats import read_options
        from training.methods.registry import find
        from training.pipeline import load, pad_token
        from training.prepare import prepare
        from training.recipe import load_recipe
        from training.run.search import Plan, Search, require_searchable, with_validation
        from training.throughput import choose_threads

        if on:
            from training.run.places import LOCAL, ray_address, require_ray

            ray_address(on, LOCAL)
            require_ray()
        quiet_environment()
        keep_memory()
        name = check_name(alias or context.settings.default_alias, "alias")
        wanted = tuple(each.strip() for each in params.split(",") if each.strip())
        plan = Plan(wanted, pruner, seed, context.settings.engine_max_lora_rank)
        recipe = load_recipe(recipe_name)
        require_searchable(recipe, wanted)
        read = rows_of(
            context,
            name,
            RowSource(
                file,
                dataset,
                skip_bad=skip_bad,
                folds=0,
                options=read_options(columns, encoding),
                method=find(recipe.method),
            ),
        )
        rows, notices = read.dataset, read.notices
        prepared = prepare(
            context,
            name,
            with_validation(rows),
            recipe,
            open_base(context.settings),
            skip_bad=skip_bad,
        )
        if prepared.start_adapter is not None and "rank" in wanted:
            raise InputError(
                "A run that goes on from a version keeps its rank.",
                hint="Leave rank out of --params, or use a recipe without init_from.",
            )
        threads, _ = choose_threads(
            load(context, prepared), prepared.train, prepared.recipe, pad_token(prepared)
        )
        found = Search(
            context, replace(prepared, recipe=replace(prepared.recipe, threads=threads)), plan
        )
        with _bar(trials or None, quiet=as_json) as (on_trial, on_step):
            budget: dict[str, Any] = {
                "trials": trials or None,
                "seconds": 60 * minutes or None,
                "on_trial": on_trial,
            }
            if on:
                from training.commands.on_ray import search_there

                search_there(found, on, **budget)
            else:
                found.run(**budget, on_step=on_step)
        results = found.write_results()
        source = [str(file)] if file else ["--dataset", dataset]
        following = shlex.join(
            ["whet", "train", "run", *source, "--alias", name, "--recipe", results["recipe"]]
        )
        if as_json:
            emit({**results, "next": following, "notices": notices}, True)
            return
        for notice in notices:
            out.print(f"• {notice}", markup=False, soft_wrap=True)
        emit(_for_people(results), False)
        out.print(f"Next: {following}", markup=False, soft_wrap=True)


def _for_people(results: dict[str, Any]) -> dict[str, str]:
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
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("trials"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}  {task.fields[best]} {task.fields[at]}"),
        TimeElapsedColumn(),
        console=err,
    ) as bar:
        task: Any = bar.add_task("trials", total=trials, best="", at="")

        def on_trial(ended: int, best: float | None) -> None:
            bar.update(task, completed=ended, best="" if best is None else f"best loss {best:.4f}")

        yield on_trial, lambda step, steps: bar.update(task, at=f"step {step} of {steps}")
