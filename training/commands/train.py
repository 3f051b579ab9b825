"""`whet train …`: start a run, follow it, stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.commands.recipe_options import overrides, with_alpha
from training.commands.sources import RowSource, SourceRows, rows_or_ask
from training.data.formats import read_options
from training.imports import load
from training.machine.allocator import keep_memory
from training.recipes.methods import find
from training.recipes.recipe import Recipe, chosen_refit, load_recipe, recipe_from
from training.recipes.recipe_checks import check_into, check_servable
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


def run(
    *,
    file: Path | None,
    dataset: str,
    alias: str,
    test: Path | None,
    drop_leaks: bool,
    no_split: bool,
    hold_out: str,
    by_time: str,
    repeats: str,
    recipe_name: str,
    method: str,
    into: Path | None,
    teacher: str | None,
    rank: int | None,
    alpha: float | None,
    epochs: float | None,
    batch_size: int | None,
    learning_rate: float | None,
    micro_batch: int | None,
    gradient_checkpointing: bool | None,
    processes: int | None,
    packing: bool | None,
    question_variants: int | None,
    counterfactual_share: float | None,
    rehearsal_share: float | None,
    folds: int | None,
    refit: bool | None,
    patience: int | None,
    sample_every: int | None,
    device: str | None,
    max_length: int | None,
    dropout: float | None,
    warmup: float | None,
    schedule: str | None,
    target_modules: str | None,
    weight_decay: float | None,
    assignments: list[str],
    seed: int | None,
    threads: int | None,
    init_from: str | None,
    skip_bad: bool,
    on: str,
    no_report: bool,
    full_report: bool,
    dry_run: bool,
    price_per_hour: float,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """Check the rows, train, compare with production (or the base) on held-out rows, store a
    version and say what to do next.
    """
    options = {
        "method": method or None, "rank": rank, "alpha": alpha, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "max_length": max_length, "seed": seed, "threads": threads, "init_from": init_from, "teacher": teacher, "micro_batch": micro_batch,
        "gradient_checkpointing": gradient_checkpointing, "processes": processes, "packing": packing, "question_variants": question_variants, "counterfactual_share": counterfactual_share, "rehearsal_share": rehearsal_share, "folds": folds, "refit": refit, "patience": patience, "sample_every": sample_every, "device": device,
        "dropout": dropout, "warmup": warmup, "schedule": schedule, "target_modules": target_modules, "weight_decay": weight_decay,
    }  # fmt: skip
    given = overrides(options, assignments)
    with opened() as context:
        keep_memory()
        name = check_name(alias or context.settings.default_alias, "alias")
        begun = load_recipe(recipe_name or find(str(given.get("method", "lora"))).name)
        chosen = find(str(given.get("method", begun.method)))
        recipe = recipe_from(with_alpha(given, chosen), begun)
        check_servable(recipe, context.settings.engine_max_lora_rank)
        ray = None
        if on:
            ray = load(ON_RAY)(context, on, into, dry_run=dry_run)
        if not dry_run:
            check_into(recipe, into)
        source = RowSource(
            file,
            dataset,
            test,
            no_split=no_split,
            hold_out=hold_out,
            by_time=by_time,
            repeats=repeats,
            skip_bad=skip_bad,
            remember=not dry_run,
            accept_loss=drop_leaks,
            folds=_chosen_folds(given) if "folds" in chosen.reads else 0,
            options=read_options(columns, encoding),
            method=chosen,
        )
        read = rows_or_ask(context, name, source, may_ask=not as_json)
        asked = TrainRequest(
            name,
            _with_choices(recipe, read),
            skip_bad=skip_bad,
            drop_leaks=drop_leaks or file is None,
            warns=file is not None,
            into=into,
            report="none" if no_report else "full" if full_report else "first look",
            price_per_hour=price_per_hour,
            as_json=as_json,
        )
        train: Callable[..., None] = load(DRY_RUN if dry_run else TRAIN_ROWS)
        train(context, asked, read, ray)


def _with_choices(recipe: Recipe, read: SourceRows) -> Recipe:
    """The recipe with what follows from the rows: folds to judge by, and whether it is refitted."""
    if read.folds:
        recipe = recipe_from({"folds": read.folds}, recipe)
    rows = len(read.dataset.train) + len(read.dataset.test)
    return chosen_refit(recipe, rows, holds_out=read.holds_out)


def _chosen_folds(given: dict[str, Any]) -> int | None:
    """What somebody asked for; None leaves it to the size of the set."""
    return int(given["folds"]) if given.get("folds") is not None else None
