"""Everything that can be known and refused before the first step: rows to tokens, recipe to
figures, time and memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

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
from training.plan.tracker import require_installed
from training.recipes.methods import ADAPTER, ANSWERS, METHODS, Method
from training.recipes.recipe import PRODUCTION, Recipe, chosen_variants, resolved
from training.recipes.recipe_checks import check_servable
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
    check_servable(recipe, context.settings.engine_max_lora_rank)
    check_batches(recipe)
    require_device(recipe.device, recipe.processes)
    require_installed(context.settings.wandb_project, context.settings.mlflow_tracking_uri)
    room = min(base.max_positions, context.settings.engine_max_model_len) - (
        recipe.virtual_tokens if "virtual_tokens" in method.reads else 0
    )
    if "teacher" in method.reads and not recipe.teacher:
        raise InputError(
            "Distillation needs a teacher.",
            hint=(
                "Give --teacher FOLDER (a larger model with the same tokenizer) or --teacher"
                " http://host/v1#MODEL."
            ),
        )
    dataset = _rows_for(method, dataset)
    _require_teachable(recipe, dataset.train)
    standing = with_standing_reviews(context, alias, dataset).regression
    start, no_start = _start_adapter(context, alias, recipe, base)
    asked_length = recipe.max_length
    recipe = replace(recipe, init_from=start.digest if start else "")
    recipe = replace(
        resolved(recipe, parameters=base.parameters, max_length=room),
        dtype=compute_dtype(recipe.dtype),
    )
    bounded = _length_bound(context, asked_length, room, base)
    encoder = Encoder(base, recipe.max_length)
    dataset, leaks = without_leaks(dataset, drop=drop_leaks)
    left_out: list[BadLine] = []
    parts: dict[str, list[Encoded]] = {}
    kept: dict[str, Any] = {}
    for part in ("train", "validation", "test"):
        rows, rejected = dataset.part(part), []
        if method.rows != ANSWERS:  # which reads the rejected answers too
            found = [(row, refused(encoder, row)) for row in rows]
            rows, rejected = (
                [row for row, bad in found if bad is None],
                [bad for _, bad in found if bad is not None],
            )
        parts[part], kept[part], other = encoder.encode_all(rows)
        left_out += [*rejected, *other]
    if left_out and not skip_bad:
        shown = "\n".join(f"  {sentence}" for sentence in sentences(left_out))
        raise InputError(
            f"{len(left_out)} rows cannot be learned from with this base:\n{shown}",
            hint=" ".join(["Correct them, or leave them out with --skip-bad.", *bounded]),
        )
    if not parts["train"]:
        raise InputError(
            "No row is left to train on.",
            hint="`whet data check FILE` says why each row was refused.",
        )
    dataset = replace(
        dataset, **kept, regression=[row for row in _not_bad(standing) if encoder.takes(row)]
    )
    left_out += [leak.as_bad_line() for leak in leaks]
    said = [*bounded, *([method.said] if method.said else [])]
    if start is None and method.name in _NEEDS_ANSWERS:
        said.append(
            f"{method.name} starts from the bare base. It moves answers that the model gives"
            " already and teaches no facts: first train lora on right answers, then go on from"
            " that version (--init-from LABEL)."
        )
    if recipe.processes > 1:
        said.append(
            f"{recipe.processes} processes share the training; the estimate of time and memory is"
            " that of one process which does it alone."
        )
    if base.has_experts and method.engine == ADAPTER and recipe.target_modules == ("all-linear",):
        said.append(
            "The base is a mixture of experts: its attention is trained, its experts stay as they"
            " are. vLLM's CPU build serves no such base with adapters; there, export the version"
            " merged (whet export merge VERSION --to FOLDER), and serve that as the base"
            " (WHET_BASE_MODEL, with WHET_ENGINE_MAX_LORAS=0)."
        )
    if recipe.sample_every and not sampled_rows(dataset.validation, dataset.test):
        said.append(
            "No answers are sampled while training (sample_every): no question is held out."
        )
    recipe = chosen_variants(recipe, len(dataset.train))
    if recipe.rehearsal_share:
        said.append(
            f"Up to {100 * recipe.rehearsal_share:.0f} % of each pass are general questions as the"
            " base answers them, so that it keeps what it can do (--rehearsal-share 0 leaves them"
            " out)."
        )
    if "refit" in method.reads:
        recipe = replace(recipe, refit=bool(recipe.refit))
    if recipe.refit and dataset.test:
        said.append(
            "After the verdict the version is trained again, on the"
            f" {len(dataset.test)} held-out rows too, which takes as long as before"
            " (--no-refit stores the model that was judged)."
        )
    variants, about_variants = _variants(encoder, dataset.train, parts["train"], recipe)
    notices = [*said, *about_variants, *no_start, *_notices(dataset, method, parts["train"])]
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


# Methods that only weigh answers against each other: there is nothing to prefer in answers that
# know nothing. ORPO learns the chosen answers as well.
_NEEDS_ANSWERS = frozenset({"dpo", "kto", "simpo", "rlhf"})


def _length_bound(context: Context, asked: int, room: int, base: BaseModel) -> list[str]:
    """Say what bounds a `max_length` that was asked for; [] where nothing does."""
    if asked <= room:
        return []
    setting = context.settings.engine_max_model_len
    if base.max_positions < setting:
        return [
            f"max_length {asked} is bounded to {room}: the base has {base.max_positions} positions."
        ]
    return [
        f"max_length {asked} is bounded to {room}: the engine serves {setting} tokens"
        " (WHET_ENGINE_MAX_MODEL_LEN), so longer rows would never be answered."
    ]


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


def _notices(dataset: Dataset, method: Method, encoded: list[Encoded]) -> list[str]:
    rows = [row for part in (dataset.train, dataset.validation, dataset.test) for row in part]
    preferences = sum(row.kind == "preference" for row in rows)
    found = []
    if preferences and method.rows == ANSWERS:
        found.append(
            f"{preferences} rows are preferences: this method learns their chosen answers and does"
            " not look at the rejected ones."
        )
    if texts := sum(row.is_text for row in dataset.train):
        cut = sum(row.prompt_tokens == 0 for row in encoded)
        found.append(
            f"{texts} training rows are plain texts: every token is learned, in {cut} windows; a"
            " text longer than a window goes on in the next one."
        )
    weighted = sum(row.weight != 1 for row in dataset.train)
    if weighted and not method.own_loop:
        found.append(
            f"{weighted} rows have a weight, which the method {method.name} does not read: every"
            " row counts alike."
        )
    return found


def sampler_of(prepared: Prepared) -> Sampler | None:
    """Return what samples a run's answers; None where none are asked for, or nothing is held out."""
    rows = sampled_rows(prepared.dataset.validation, prepared.dataset.test)
    if not prepared.recipe.sample_every or not rows:
        return None
    return Sampler(prepared.encoder, rows, prepared.recipe.sample_every)
