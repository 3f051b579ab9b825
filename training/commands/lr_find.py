"""`whet train lr-find`: suggest a learning rate by a range test."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from training.commands.progress import Watch, run_progress
from training.commands.recipe_options import overrides, with_alpha
from training.commands.sources import RowSource, rows_of
from training.data.formats import read_options
from training.loop.faults import translate_oom
from training.loop.throughput import choose_threads
from training.machine.allocator import keep_memory
from training.methods.families import family
from training.models.base_choice import open_base
from training.plan.prepare import prepare
from training.recipes.methods import METHODS, find
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from training.runs.load_model import load, pad_token
from training.runs.lr_find import (
    RangeJson,
    RangePoint,
    require_testable,
    run_range_test,
    steps_within,
)
from training.runs.lr_find_page import page
from whet.cli import emit, opened, out
from whet.context import Context
from whet.ids import check_name
from whet.store import digest_json


def lr_find(
    *,
    file: Path | None,
    dataset: str,
    recipe_name: str,
    method: str,
    rank: int | None,
    batch_size: int | None,
    assignments: list[str],
    minutes: float,
    alias: str,
    skip_bad: bool,
    columns: str,
    encoding: str,
    as_json: bool,
) -> None:
    """Train some hundred steps at rising learning rates and suggest one; nothing is stored but a
    picture.
    """
    given = overrides(
        {"method": method or None, "rank": rank, "batch_size": batch_size}, assignments
    )
    with opened() as context:
        name = check_name(alias or context.settings.default_alias, "alias")
        begun = load_recipe(recipe_name or find(str(given.get("method", "lora"))).name)
        chosen = find(str(given.get("method", begun.method)))
        recipe = recipe_from(with_alpha(given, chosen), begun)
        options = read_options(columns, encoding)
        rows = RowSource(file, dataset, skip_bad=skip_bad, folds=0, options=options, method=chosen)
        with run_progress() as watch:
            found, notices = _test(context, name, rows, recipe, 60 * minutes, watch)
    source = [str(file)] if file else ["--dataset", dataset]
    again = [f"--set={each}" for each in assignments]
    for option, value in (("--rank", rank), ("--batch-size", batch_size)):
        again += [option, str(value)] if value is not None else []
    again += ["--method", method] if method else []
    again += ["--recipe", recipe_name] if recipe_name else []
    rate = found["suggestion"]
    command = ["whet", "train", "run", *source, "--alias", name, *again]
    following = shlex.join([*command, "--learning-rate", f"{rate:.2g}"]) if rate else ""
    if as_json:
        emit({**found, "next": following, "notices": notices}, True)
        return
    for notice in notices:
        out.print(f"• {notice}", markup=False, soft_wrap=True)
    emit(_for_people(found), False)
    if following:
        out.print(f"Next: {following}", markup=False, soft_wrap=True)


class FoundRate(RangeJson):
    """What the command prints."""

    chosen_by_size: float  # the rate that follows from the size of the base
    picture: str


def _test(
    context: Context,
    alias: str,
    source: RowSource,
    recipe: Recipe,
    limit_s: float,
    watch: Watch,
) -> tuple[FoundRate, list[str]]:
    """Return (the test as JSON, what is to be said of the rows)."""

    keep_memory()
    require_testable(recipe)
    watch({"stage": "loading"})
    read = rows_of(context, alias, source)
    base = open_base(context.settings)
    prepared = prepare(context, alias, read.dataset, recipe, base, skip_bad=source.skip_bad)
    with translate_oom(prepared.recipe):
        model, pad_id = load(context, prepared), pad_token(prepared)
        loss_of = family(METHODS[prepared.recipe.method]).loss(prepared)
        threads, speed = choose_threads(model, prepared.train, prepared.recipe, pad_id, loss_of)
        recipe = replace(prepared.recipe, threads=threads)
        tokens = sum(len(row.ids) for row in prepared.train) / len(prepared.train)
        steps = steps_within(limit_s, tokens * recipe.batch_size / speed)

        def told(step: int, point: RangePoint) -> None:
            watch(
                {
                    "stage": "training",
                    "step": step,
                    "steps": steps,
                    "loss": point.smoothed,
                    "tokens_per_s": round(speed),
                    "eta_s": (steps - step) * tokens * recipe.batch_size / speed,
                }
            )

        found = run_range_test(
            model,
            prepared.train,
            recipe,
            pad_id=pad_id,
            loss_of=loss_of,
            steps=steps,
            limit_s=limit_s,
            on_step=told,
        )
    named = digest_json([prepared.dataset.digest, base.digest, recipe.as_json()])
    folder = context.settings.home / "searches" / f"rate-{named[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "learning-rate.html"
    picture.write_text(page(found), encoding="utf-8")
    printed: FoundRate = {
        **found.as_json(),
        "chosen_by_size": prepared.recipe.learning_rate,
        "picture": str(picture),
    }
    return printed, [*read.notices, *prepared.notices]


def _for_people(found: FoundRate) -> dict[str, str]:
    """Return the lines of a test's result."""
    rate, lowest, points = found["suggestion"], found["lowest_at"], found["points"]
    none = "none: the loss fell at no rate; give more rows, or look at them with `whet data check`"
    ends = {"end": "all rates tried", "diverged": "diverged", "time": "time over"}
    return {
        "suggestion": f"{rate:.2g}" if rate else none,
        "without a test": f"{found['chosen_by_size']:.2g}, which follows from the size of the base",
        "loss lowest at": f"{lowest:.2g}, too high to train at" if lowest else "",
        "steps": f"{len(points)} from {points[0]['rate']:.2g} to {points[-1]['rate']:.2g}: "
        f"{ends[found['stopped']]}",
        "picture": found["picture"],
    }
