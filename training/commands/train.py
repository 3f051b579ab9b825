"""`whet train …`: start a run, follow it, stop it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from training.commands.recipe_options import overrides, with_alpha
from training.commands.sources import RowSource, SourceRows, rows_or_ask
from training.data.formats import read_options
from training.imports import load
from training.machine.allocator import keep_memory
from training.recipes.methods import Method, find
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from training.recipes.recipe_checks import check_into, check_servable
from training.recipes.recipe_choices import chosen_refit
from whet.cli import opened
from whet.ids import check_name

# Done once the rows are read, because they import torch
TRAIN_ROWS = "training.commands.train_rows:train_rows"
DRY_RUN = "training.commands.train_rows:dry_run"
ON_RAY = "training.commands.on_ray:client_for"


@dataclass(frozen=True)
class TrainRequest:
    """What a command asks for, once its options make a recipe."""

    alias: str
    recipe: Recipe
    skip_bad: bool
    drop_leaks: bool
    warns: bool  # of rows that a file holds
    into: Path | None
    report: str
    price_per_hour: float
    as_json: bool


class RecipeOptions(TypedDict):
    """Options that are fields of a recipe; None where they were not given."""

    method: str  # "": what the recipe says
    teacher: str | None
    rank: int | None
    alpha: float | None
    epochs: float | None
    batch_size: int | None
    learning_rate: float | None
    micro_batch: int | None
    gradient_checkpointing: bool | None
    processes: int | None
    packing: bool | None
    question_variants: int | None
    counterfactual_share: float | None
    rehearsal_share: float | None
    folds: int | None
    refit: bool | None
    patience: int | None
    sample_every: int | None
    device: str | None
    max_length: int | None
    dropout: float | None
    warmup: float | None
    schedule: str | None
    target_modules: str | None
    weight_decay: float | None
    seed: int | None
    threads: int | None
    init_from: str | None


class RunOptions(RecipeOptions):
    """Every option of `whet train run`; `training/cli/train_options.py` has their help."""

    file: Path | None
    dataset: str
    alias: str
    test: Path | None
    drop_leaks: bool
    no_split: bool
    hold_out: str
    by_time: str
    repeats: str
    recipe_name: str
    into: Path | None
    assignments: list[str]
    skip_bad: bool
    on: str
    no_report: bool
    full_report: bool
    dry_run: bool
    price_per_hour: float
    columns: str
    encoding: str
    as_json: bool


def run(**given: Unpack[RunOptions]) -> None:
    """Check the rows, train, compare with production (or the base) on held-out rows, store a
    version and say what to do next.
    """
    named = {name: value for name, value in given.items() if name in RecipeOptions.__annotations__}
    fields = overrides({**named, "method": given["method"] or None}, given["assignments"])
    with opened() as context:
        keep_memory()
        name = check_name(given["alias"] or context.settings.default_alias, "alias")
        begun = load_recipe(given["recipe_name"] or find(str(fields.get("method", "lora"))).name)
        chosen = find(str(fields.get("method", begun.method)))
        recipe = recipe_from(with_alpha(fields, chosen), begun)
        check_servable(recipe, context.settings.engine_max_lora_rank)
        dry_run, into, ray = given["dry_run"], given["into"], None
        if given["on"]:
            ray = load(ON_RAY)(context, given["on"], into, dry_run=dry_run)
        if not dry_run:
            check_into(recipe, into)
        source = _source(given, fields, chosen)
        read = rows_or_ask(context, name, source, may_ask=not given["as_json"])
        asked = TrainRequest(
            name,
            _with_choices(recipe, read),
            skip_bad=given["skip_bad"],
            drop_leaks=given["drop_leaks"] or given["file"] is None,
            warns=given["file"] is not None,
            into=into,
            report=_report(given),
            price_per_hour=given["price_per_hour"],
            as_json=given["as_json"],
        )
        train: Callable[..., None] = load(DRY_RUN if dry_run else TRAIN_ROWS)
        train(context, asked, read, ray)


def _source(given: RunOptions, fields: Mapping[str, object], method: Method) -> RowSource:
    return RowSource(
        given["file"],
        given["dataset"],
        given["test"],
        no_split=given["no_split"],
        hold_out=given["hold_out"],
        by_time=given["by_time"],
        repeats=given["repeats"],
        skip_bad=given["skip_bad"],
        remember=not given["dry_run"],
        accept_loss=given["drop_leaks"],
        folds=_chosen_folds(fields) if "folds" in method.reads else 0,
        options=read_options(given["columns"], given["encoding"]),
        method=method,
    )


def _report(given: RunOptions) -> str:
    return "none" if given["no_report"] else "full" if given["full_report"] else "first look"


def _with_choices(recipe: Recipe, read: SourceRows) -> Recipe:
    """The recipe with what follows from the rows: folds to judge by, and whether it is refitted."""
    if read.folds:
        recipe = recipe_from({"folds": read.folds}, recipe)
    rows = len(read.dataset.train) + len(read.dataset.test)
    return chosen_refit(recipe, rows, holds_out=read.holds_out)


def _chosen_folds(given: Mapping[str, object]) -> int | None:
    """What somebody asked for; None leaves it to the size of the set."""
    folds = given.get("folds")
    return int(str(folds)) if folds is not None else None
