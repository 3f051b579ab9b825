"""What `--on ray` does in place of `whet train run` and `whet train search` doing it here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from training.plan.prepare import Prepared
from training.plan.reporter import Watch
from training.recipes.recipe import Recipe
from training.runs.places import JOBS, LOCAL, ray_address, require_job_address, require_ray
from training.runs.ray_job import JobClient, as_asked, client_of, run_on_ray
from training.runs.search import Search
from training.runs.search_ray import Follow, cluster, search_on_ray
from whet.cli import emit, err, out
from whet.context import Context
from whet.errors import InputError
from whet.lines import split_lines


def client_for(context: Context, on: str, into: Path | None, *, dry_run: bool) -> JobClient:
    """Ray's client for jobs, after everything about the place that can be refused."""

    address = ray_address(on, JOBS)
    require_job_address(address, context.settings)
    if into is not None:
        raise InputError(
            "A run on Ray makes a version in the store; --into names a folder of this machine.",
            hint="Leave --on out.",
        )
    if dry_run:
        raise InputError(
            "--dry-run measures this machine, not the cluster.", hint="Leave --on out of it."
        )
    require_ray()
    return client_of(address)


def prepared_for(recipe: Recipe) -> Recipe:
    """The recipe as far as this machine can check it: what it lacks, the cluster may have."""
    return replace(recipe, device="auto", processes=1)


def run_there(
    context: Context,
    client: JobClient,
    prepared: Prepared,
    asked: Recipe,
    watch: Watch,
    notices: list[str],
    as_json: bool,
) -> None:
    """Have Ray do the run, and say what it made."""

    def on_log(text: str) -> None:
        for line in split_lines(text):
            if not line.startswith("{"):  # the document at the end is told below
                err.print(line, markup=False)

    found = run_on_ray(context, client, as_asked(prepared, asked), watch=watch, on_log=on_log)
    found["notices"] = notices
    if as_json:
        emit(found, True)
        return
    out.print(f"[bold]{found['adapter']}[/bold]  stored as {found['path']}, trained on Ray")
    out.print(f"[bold]{found['verdict']}[/bold]  ", end="")
    out.print(found["reason"], markup=False)
    out.print(f"Next: {found['next']}", markup=False)


def search_there(found: Search, on: str, **follow: Unpack[Follow]) -> None:
    """Have Ray try the recipes."""

    if found.prepared.start_adapter is not None:
        raise InputError(
            "Trials on Ray start from the base; the recipe goes on from a version.",
            hint="Search without init_from, or leave --on out.",
        )
    with cluster(ray_address(on, LOCAL)) as ray:
        search_on_ray(found, ray, **follow)
