"""`whet train lr-find`: suggest a learning rate by a range test."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from training.commands.options import COLUMNS, ENCODING
from training.commands.progress import Watch, run_progress
from training.commands.recipe_options import overrides, with_alpha
from training.commands.sources import RowSource, rows_of
from training.commands.train import train
from whet.cli import emit, opened, out
from whet.context import Context
from whet.ids import check_name
from whet.store import digest_json

if TYPE_CHECKING:
    from training.recipe import Recipe

_MINUTES = 5.0  # a hundred steps of a small base take seconds


@train.command("lr-find")
def lr_find(
    file: Path | None = typer.Argument(None, metavar="[FILE]", help="File of training rows."),
    dataset: str = typer.Option(
        "", "--dataset", help="A dataset version instead of a file, such as support@v2."
    ),
    recipe_name: str = typer.Option(
        "", "--recipe", help="A recipe, by name or path. Default: the method's own."
    ),
    method: str = typer.Option("", "--method", help="How to train. Default: lora."),
    rank: int | None = typer.Option(None, "--rank", help="Inner width of the adapter."),
    batch_size: int | None = typer.Option(None, "--batch-size", help="Rows per step."),
    assignments: list[str] = typer.Option(
        [], "--set", metavar="FIELD=VALUE", help="Any other field of a recipe; may be given again."
    ),
    minutes: float = typer.Option(
        _MINUTES,
        "--minutes",
        min=0.1,
        help="Longest time of the test; fewer steps where it takes longer.",
    ),
    alias: str = typer.Option(
        "",
        "--alias",
        help="Name of the adapter that the rows are for. Default: the setting default_alias.",
    ),
    skip_bad: bool = typer.Option(
        False, "--skip-bad", help="Leave out rows that cannot be learned from, instead of refusing."
    ),
    columns: str = COLUMNS,
    encoding: str = ENCODING,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Train some hundred steps at rising learning rates and suggest one; nothing is stored but a
    picture.
    """
    given = overrides(
        {"method": method or None, "rank": rank, "batch_size": batch_size}, assignments
    )
    with opened() as context:
        from training.data.formats import read_options
        from training.methods.registry import find
        from training.recipe import load_recipe, recipe_from

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


def _test(
    context: Context,
    alias: str,
    source: RowSource,
    recipe: Recipe,
    limit_s: float,
    watch: Watch,
) -> tuple[dict[str, Any], list[str]]:
    """Return (the test as JSON, what is to be said of the rows)."""
    from training.allocator import keep_memory
    from training.base_model import open_base, quiet_environment
    from training.methods.registry import METHODS, family
    from training.pipeline import load, pad_token
    from training.prepare import prepare
    from training.run.faults import translate_oom
    from training.run.lr_find import RangePoint, require_testable, run_range_test, steps_within
    from training.run.lr_find_page import page
    from training.throughput import choose_threads

    quiet_environment()
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
    chosen = {"chosen_by_size": prepared.recipe.learning_rate, "picture": str(picture)}
    return {**found.as_json(), **chosen}, [*read.notices, *prepared.notices]


def _for_people(found: dict[str, Any]) -> dict[str, str]:
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
