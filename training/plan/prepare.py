"""Everything that can be known and refused before the first step: rows to tokens, recipe to
figures, time and memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from sqlalchemy import Connection

from training.data.bad_lines import sentences
from training.data.counterfactual_mix import mix_counterfactuals
from training.data.datasets import Dataset, with_standing_reviews
from training.data.leaks import without_leaks
from training.data.passages import load_passages
from training.data.rows import BadLine, Row
from training.data.variants import question_variants
from training.data.wanted import only_fitting
from training.loop.faults import require_device
from training.loop.pairs import Work, check_batches, refused, work
from training.loop.samples import Sampler, sampled_rows
from training.loop.trainer import total_steps
from training.machine.device import compute_dtype
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.plan.notices import length_notices, row_notices, run_notices
from training.plan.tracker import require_installed
from training.recipes.methods import ANSWERS, METHODS, Method
from training.recipes.recipe import PRODUCTION, Recipe
from training.recipes.recipe_checks import check_servable
from training.recipes.recipe_choices import chosen_variants, resolved
from training.store.adapter_store import require_base
from whet.context import Context
from whet.database import reading
from whet.errors import InputError
from whet.registry import Adapter, current_rollouts, find_adapter


@dataclass(frozen=True)
class Prepared:
    """A run that may start."""

    alias: str
    dataset: Dataset
    recipe: Recipe
    base: BaseModel
    encoder: Encoder
    train: list[Encoded]
    validation: list[Encoded]
    left_out: list[BadLine]
    start_adapter: Adapter | None  # whose weights the run starts from
    notices: list[str]
    # `train` in other words, for each pass after the first
    variants: list[list[Encoded]] = field(default_factory=list)
    # Rows at the end of `train`, of each variant and of the dataset's training part that were made
    # here
    counterfactuals: int = 0
    rehearsed: int = 0  # of these, the last: general questions as the base answers them

    @cached_property
    def work(self) -> Work:
        """Of an epoch."""
        if METHODS[self.recipe.method].rows != ANSWERS:
            return work(self.recipe, self.encoder, self.dataset.train)
        passes = [self.train, *self.variants]
        tokens, trained = (
            round(sum(map(count, (row for rows in passes for row in rows))) / len(passes))
            for count in (lambda row: len(row.ids), lambda row: row.trained_tokens)
        )
        return Work(len(self.train), tokens, trained)

    @property
    def steps(self) -> int:
        return total_steps(self.work.examples, self.recipe)


def prepare(
    context: Context,
    alias: str,
    dataset: Dataset,
    recipe: Recipe,
    base: BaseModel,
    *,
    skip_bad: bool = False,
    drop_leaks: bool = True,
) -> Prepared:
    """Encode the rows and settle the recipe.

    Raises InputError or ConfigurationError with what is wrong, before anything is loaded.

    No run is judged by rows that it trains on: such rows are dropped, the test's first, or refused
    where they are many and `drop_leaks` is not set.
    """
    method = METHODS[recipe.method]
    room = _check_recipe(context, recipe, base)
    dataset = _rows_for(method, dataset)
    _require_teachable(recipe, dataset.train)
    standing = with_standing_reviews(context, alias, dataset).regression
    start, no_start = _start_adapter(context, alias, recipe, base)
    bounded = length_notices(context, recipe.max_length, room, base)
    recipe = replace(
        resolved(recipe, parameters=base.parameters, max_length=room),
        init_from=start.digest if start else "",
        dtype=compute_dtype(recipe.dtype),
    )
    encoder = Encoder(base, recipe.max_length)
    dataset, leaks = without_leaks(dataset, drop=drop_leaks)
    encoded = _encode_parts(encoder, method, dataset)
    _refuse_left_out(encoded, bounded, skip_bad=skip_bad)
    dataset = replace(
        dataset,
        train=encoded.rows["train"],
        validation=encoded.rows["validation"],
        test=encoded.rows["test"],
        regression=[row for row in _not_bad(standing) if encoder.takes(row)],
    )
    left_out = [*encoded.left_out, *(leak.as_bad_line() for leak in leaks)]
    parts = encoded.tokens
    recipe = _chosen(recipe, len(dataset.train))
    said = [*bounded, *run_notices(recipe, base, dataset, goes_on=start is not None)]
    variants, about_variants = _variants(encoder, dataset.train, parts["train"], recipe)
    notices = [*said, *about_variants, *no_start, *row_notices(dataset, method, parts["train"])]
    prepared = Prepared(
        alias,
        dataset,
        recipe,
        base,
        encoder,
        parts["train"],
        parts["validation"],
        left_out,
        start,
        notices,
        variants,
    )
    return _with_counterfactuals(context, prepared)


def _chosen(recipe: Recipe, rows: int) -> Recipe:
    """The recipe with what follows from the number of training rows."""
    recipe = chosen_variants(recipe, rows)
    is_open = "refit" in METHODS[recipe.method].reads
    return replace(recipe, refit=bool(recipe.refit)) if is_open else recipe


def _check_recipe(context: Context, recipe: Recipe, base: BaseModel) -> int:
    """Refuse what the machine, the engine or the trackers cannot do; returns the tokens a row may
    have."""
    method = METHODS[recipe.method]
    check_servable(recipe, context.settings.engine_max_lora_rank)
    check_batches(recipe)
    require_device(recipe.device, recipe.processes)
    require_installed(context.settings.wandb_project, context.settings.mlflow_tracking_uri)
    if "teacher" in method.reads and not recipe.teacher:
        raise InputError(
            "Distillation needs a teacher.",
            hint=(
                "Give --teacher FOLDER (a larger model with the same tokenizer) or --teacher"
                " http://host/v1#MODEL."
            ),
        )
    return min(base.max_positions, context.settings.engine_max_model_len) - (
        recipe.virtual_tokens if "virtual_tokens" in method.reads else 0
    )


@dataclass(frozen=True)
class _EncodedParts:
    """Rows by part: as tokens, as they were, and what cannot be learned from."""

    tokens: dict[str, list[Encoded]]
    rows: dict[str, list[Row]]
    left_out: list[BadLine]


def _encode_parts(encoder: Encoder, method: Method, dataset: Dataset) -> _EncodedParts:
    found = _EncodedParts({}, {}, [])
    for part in ("train", "validation", "test"):
        rows, rejected = dataset.part(part), []
        if method.rows != ANSWERS:  # which reads the rejected answers too
            checked = [(row, refused(encoder, row)) for row in rows]
            rows, rejected = (
                [row for row, bad in checked if bad is None],
                [bad for _, bad in checked if bad is not None],
            )
        found.tokens[part], found.rows[part], other = encoder.encode_all(rows)
        found.left_out.extend([*rejected, *other])
    return found


def _refuse_left_out(encoded: _EncodedParts, bounded: list[str], *, skip_bad: bool) -> None:
    """Raises InputError for rows that cannot be learned from, and where none is left."""
    left_out = encoded.left_out
    if left_out and not skip_bad:
        shown = "\n".join(f"  {sentence}" for sentence in sentences(left_out))
        raise InputError(
            f"{len(left_out)} rows cannot be learned from with this base:\n{shown}",
            hint=" ".join(["Correct them, or leave them out with --skip-bad.", *bounded]),
        )
    if not encoded.tokens["train"]:
        raise InputError(
            "No row is left to train on.",
            hint="`whet data check FILE` says why each row was refused.",
        )


def _with_counterfactuals(context: Context, prepared: Prepared) -> Prepared:
    """The run with rows whose passages say otherwise, where its recipe asks for them."""
    recipe, rows = prepared.recipe, prepared.dataset.train
    if not recipe.counterfactual_share:
        return prepared
    with reading(context.database) as connection:
        texts = load_passages(connection, prepared.alias)
    passes = 1 + len(prepared.variants)
    made = mix_counterfactuals(rows, recipe.counterfactual_share, passes, recipe.seed, texts)
    encoded = [[prepared.encoder.encode(row) for row in some] for some in made.passes]
    fits = [
        at for at in range(made.count) if all(isinstance(some[at], Encoded) for some in encoded)
    ]
    tails = [[one for at in fits if isinstance(one := some[at], Encoded)] for some in encoded]
    if not fits:
        return replace(prepared, notices=[*prepared.notices, made.notice])
    return replace(
        prepared,
        dataset=replace(prepared.dataset, train=[*rows, *(made.passes[0][at] for at in fits)]),
        train=[*prepared.train, *tails[0]],
        variants=[[*some, *tail] for some, tail in zip(prepared.variants, tails[1:], strict=True)],
        notices=[*prepared.notices, made.notice],
        counterfactuals=len(fits),
    )


def with_all_rows(prepared: Prepared) -> Prepared:
    """The run on all its rows, held-out ones too; nothing is left to be judged by."""
    dataset, made = prepared.dataset, prepared.counterfactuals + prepared.rehearsed
    rows, encoded = (
        dataset.train[: len(dataset.train) - made],
        prepared.train[: len(prepared.train) - made],
    )
    made_rows, tail = dataset.train[len(rows) :], prepared.train[len(encoded) :]
    for row in (*dataset.validation, *dataset.test):
        found = prepared.encoder.encode(row)
        if isinstance(found, Encoded):
            rows.append(row)
            encoded.append(found)
    variants, _ = _variants(prepared.encoder, rows, encoded, prepared.recipe)
    if made:
        tails = [some[-made:] for some in prepared.variants] or [tail] * len(variants)
        variants = [[*some, *last] for some, last in zip(variants, tails, strict=False)]
    parts = replace(dataset, train=[*rows, *made_rows], validation=[], test=[])
    return replace(
        prepared, dataset=parts, train=[*encoded, *tail], validation=[], variants=variants
    )


def _variants(
    encoder: Encoder, rows: list[Row], encoded: list[Encoded], recipe: Recipe
) -> tuple[list[list[Encoded]], list[str]]:
    """The training rows in other words, and what to say about it.

    A wording that does not fit stays as it is.
    """
    passes = min(recipe.question_variants, math.ceil(recipe.epochs))
    if passes < 2 or "question_variants" not in METHODS[recipe.method].reads:
        return [], []
    if len(rows) != len(encoded):  # texts among them, cut into windows
        return [], []
    made = question_variants(rows, passes, recipe.seed)
    if not made.reworded:
        return [], []

    def tokens(row: Row, original: Row, as_it_is: Encoded) -> Encoded:
        found = as_it_is if row is original else encoder.encode(row)
        return found if isinstance(found, Encoded) else as_it_is

    variants = [
        [tokens(*each) for each in zip(some, rows, encoded, strict=True)]
        for some in made.passes[1:]
    ]
    text = (
        f"{made.reworded} questions are worded otherwise in each pass, {made.transferable} of them"
        " also as other rows ask the same; --question-variants 1 trains them as they are."
    )
    return variants, [text]


def _rows_for(method: Method, dataset: Dataset) -> Dataset:
    """The dataset without bad answers to be judged by.

    Raises InputError when the method cannot learn from the training rows.
    """
    only_fitting(method, dataset.train, skip_bad=False)
    return replace(dataset, validation=_not_bad(dataset.validation), test=_not_bad(dataset.test))


def _require_teachable(recipe: Recipe, rows: list[Row]) -> None:
    """Raises InputError for rows that an endpoint's answers in words cannot stand for."""
    if "teacher" not in METHODS[recipe.method].reads or not recipe.teacher.startswith(
        ("http://", "https://")
    ):
        return
    if others := [row for row in rows if row.is_text or row.tools or row.calls]:
        raise InputError(
            f"{len(others)} of {len(rows)} rows are plain texts, or hold tools or calls of tools"
            f" (the first on line {others[0].line}); the teacher at an address is asked for answers"
            " in words.",
            hint="Leave these rows out, name a teacher's folder, or learn them with --method lora.",
        )


def _not_bad(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.rating >= 0]


def _start_adapter(
    context: Context, alias: str, recipe: Recipe, base: BaseModel
) -> tuple[Adapter | None, list[str]]:
    """(the adapter to go on from, why there is none although one was wished for).

    A named version has to fit; `production` is a wish.
    """

    if not recipe.init_from:
        return None, []
    with reading(context.database) as connection:
        if recipe.init_from == PRODUCTION:
            return _live_adapter(connection, alias, recipe, base)
        adapter = find_adapter(connection, recipe.init_from)
    require_base(adapter, base.digest, base.name)
    if adapter.rank != recipe.rank:
        raise InputError(
            f"{adapter.label} has rank {adapter.rank}, the recipe {recipe.rank}; a run continues"
            " with the rank it starts from.",
            hint=f"Use --rank {adapter.rank}, or start without init_from.",
        )
    return adapter, []


def _live_adapter(
    connection: Connection, alias: str, recipe: Recipe, base: BaseModel
) -> tuple[Adapter | None, list[str]]:
    rollout = current_rollouts(connection).get(alias)
    if rollout is None or rollout.stable_digest is None:
        return None, [f"Nothing is live under {alias}, so the run starts from nothing."]
    adapter = find_adapter(connection, rollout.stable_digest)
    unfit = [
        (adapter.base_digest != base.digest, "belongs to another base"),
        (adapter.rank != recipe.rank, f"has rank {adapter.rank}, the recipe {recipe.rank}"),
        (adapter.run_id is None, "was imported"),
    ]
    reason = next((words for wrong, words in unfit if wrong), "")
    return (
        (None, [f"{adapter.label} {reason}, so the run starts from nothing."])
        if reason
        else (adapter, [])
    )


def sampler_of(prepared: Prepared) -> Sampler | None:
    """Return what samples a run's answers; None where none are asked for, or nothing is held out."""
    rows = sampled_rows(prepared.dataset.validation, prepared.dataset.test)
    if not prepared.recipe.sample_every or not rows:
        return None
    return Sampler(prepared.encoder, rows, prepared.recipe.sample_every)
