"""Preference and rated rows as tokens, through the template that the engine uses; how many they
are, and in which batches they are learned.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from training.data.rows import BadLine, Row
from training.loop.generation import answer_limit
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.recipes.methods import ANSWERS, APO_ZERO_UNPAIRED, METHODS, PREFERENCES, RATINGS
from training.recipes.recipe import Recipe
from whet.errors import InputError

# What is computed of each sequence without gradients, beside the step's own pass: by DPO the
# reference; by KTO the reference, and policy and reference of the answer to another question; by
# RLHF the policy as it was, the reference, and the reward.
EXTRA_FORWARD_PASSES = {"dpo": 1, "kto": 3, "orpo": 0, "simpo": 0, "rlhf": 3}


def passes_beside(recipe: Recipe) -> int:
    """Return how often a sequence is computed without gradients, beside the step's own pass."""
    return 1 if recipe.loss_type == APO_ZERO_UNPAIRED else EXTRA_FORWARD_PASSES[recipe.method]


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with its better and its worse answer; ids end with the end-of-turn token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def tokens(self) -> int:
        """Of both conversations."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer that was liked, or not."""

    prompt: list[int]
    answer: list[int]
    liked: bool

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Work:
    """What an epoch takes."""

    examples: int  # what a batch is counted in
    tokens: int
    trained_tokens: int
    # Times the tokens, what is computed: a library's batches are of any lengths; ours are of like
    # ones, and measured with what they waste
    padding: float = 1.0


def check_batches(recipe: Recipe) -> None:
    """Raises InputError for batches that a library's trainer cannot make, or cannot learn from.

    A method that learns answers takes any.
    """
    parts = at_once(recipe)
    if METHODS[recipe.method].rows == ANSWERS:
        return
    if recipe.batch_size % parts:
        raise InputError(
            f"A step of {recipe.batch_size} rows cannot be computed {parts} rows at a time with the"
            f" method {recipe.method}.",
            hint="Use a micro_batch that divides batch_size.",
        )
    if recipe.method == "kto" and recipe.loss_type != APO_ZERO_UNPAIRED and parts < 2:
        name = "micro_batch" if recipe.batch_size > 1 else "batch_size"
        raise InputError(
            "KTO compares each answer with answers to other questions of the same batch, so one row"
            " at a time teaches nothing.",
            hint=f"Use a {name} of at least 2.",
        )


def at_once(recipe: Recipe) -> int:
    """Rows whose activations are in memory together."""
    return min(recipe.micro_batch or recipe.batch_size, recipe.batch_size)


def sequences(recipe: Recipe) -> int:
    """That are learned from of each row: both answers of a preference, what RLHF writes; KTO's
    answer to another question is only compared with.
    """
    if recipe.method == "rlhf":
        return recipe.samples
    return 2 if METHODS[recipe.method].rows == PREFERENCES else 1


def examples(method: str, rows: list[Row]) -> int:
    """How many the method makes of these rows: a preference is two to a method that learns from
    ratings, one to every other.
    """
    return sum(
        2 if row.kind == "preference" and METHODS[method].rows == RATINGS else 1 for row in rows
    )


def work(
    recipe: Recipe, encoder: Encoder, rows: list[Row], written: Sequence[Sequence[int]] = ()
) -> Work:
    """Of a method that learns from preferences or ratings.

    For RLHF that of the policy, whose answers have the lengths of those of some steps that were
    `written` (tokens), or else of the chosen ones.

    Raises InputError as `pairs` does.
    """
    if recipe.method == "kto":
        answers, parts = rated(encoder, rows), at_once(recipe)
        padding = padded(
            [[each.tokens] for each, _ in mismatched(answers, parts, recipe.seed)], parts
        )
        return Work(
            len(answers),
            sum(each.tokens for each in answers),
            sum(len(each.answer) for each in answers),
            padding,
        )
    return (
        _policys_work(recipe, pairs(encoder, rows), written)
        if recipe.method == "rlhf"
        else work_of_pairs(recipe, encoder, rows)
    )


def work_of_pairs(recipe: Recipe, encoder: Encoder, rows: list[Row]) -> Work:
    """Of what reads both answers of each preference: DPO, ORPO, and RLHF's reward model."""
    found = pairs(encoder, rows)
    mixed = random.Random(recipe.seed).sample(found, len(found))
    padding = padded(
        [
            [len(each.prompt) + len(answer) for answer in (each.chosen, each.rejected)]
            for each in mixed
        ],
        at_once(recipe),
    )
    return Work(
        len(found),
        sum(each.tokens for each in found),
        sum(len(each.chosen) + len(each.rejected) for each in found),
        padding,
    )


def _policys_work(recipe: Recipe, found: list[Pair], written: Sequence[Sequence[int]]) -> Work:
    mixed = random.Random(recipe.seed).sample(found, len(found))
    steps = [
        mixed[first : first + recipe.batch_size]
        for first in range(0, len(mixed), recipe.batch_size)
    ]
    asked = [max(len(each.prompt) for each in step) for step in steps]
    longest = [
        fmean(map(max, written)) if written else max(len(each.chosen) for each in step)
        for step in steps
    ]
    mean = fmean(
        [length for step in written for length in step] or [len(each.chosen) for each in found]
    )
    learned = round(recipe.samples * len(found) * mean)
    tokens = recipe.samples * sum(len(each.prompt) for each in found) + learned
    computed = sum(
        recipe.samples * len(step) * (prompt + answer)
        for step, prompt, answer in zip(steps, asked, longest, strict=True)
    )
    return Work(len(found), tokens, learned, computed / max(1, tokens))


def max_completion_tokens(rows: list[Encoded]) -> int:
    """Tokens at which RLHF cuts an answer."""
    return answer_limit(max(len(row.ids) - row.prompt_tokens for row in rows))


def with_longest_completions(rows: list[Encoded], recipe: Recipe) -> list[Encoded]:
    """The rows as RLHF may come to learn from them: any answer may be as long as the longest may
    be.
    """
    most = max_completion_tokens(rows)

    def filled(row: Encoded) -> Encoded:
        prompt = row.ids[: row.prompt_tokens]
        return replace(
            row, ids=prompt + row.ids[-1:] * most, trained=(False,) * len(prompt) + (True,) * most
        )

    return [filled(row) for row in rows] if recipe.method == "rlhf" else rows


def padded(lengths: list[list[int]], parts: int) -> float:
    """How much more is computed than there is, where `parts` rows (each of one or more sequences)
    are filled up to the longest of them.
    """
    batches = [
        [length for row in lengths[first : first + parts] for length in row]
        for first in range(0, len(lengths), parts)
    ]
    return sum(len(batch) * max(batch) for batch in batches) / max(1, sum(map(sum, batches)))


def mismatched(found: list[Rated], size: int, seed: int) -> list[tuple[Rated, Rated]]:
    """Every example beside one whose answer is to another question, mixed by the seed, to be
    learned `size` at a time in this order.

    KTO takes its reference point from such pairs, and best from those of a batch. So answers to the
    same question are dealt to different batches; one whose batch has no other question all the same
    is put beside one of another batch, or, where there is one question alone, beside an answer to
    that.
    """
    generator = random.Random(seed)
    by_question: dict[tuple[int, ...], list[Rated]] = {}
    for each in generator.sample(found, len(found)):
        by_question.setdefault(tuple(each.prompt), []).append(each)
    grouped = [each for same in by_question.values() for each in same]
    # The first of each batch, then the second of each
    places = sorted(range(len(grouped)), key=lambda place: place % size)
    dealt = [
        each for _, each in sorted(zip(places, grouped, strict=True), key=lambda pair: pair[0])
    ]
    return [
        pair
        for first in range(0, len(dealt), size)
        for pair in _turned(dealt[first : first + size], by_question, generator)
    ]


def _turned(
    batch: list[Rated], by_question: dict[tuple[int, ...], list[Rated]], generator: random.Random
) -> list[tuple[Rated, Rated]]:
    """Sorted by question and turned by as many as the most frequent one has, none meets its own
    question unless that one has more than half.
    """
    batch = sorted(batch, key=lambda each: each.prompt)
    most = max(Counter(tuple(each.prompt) for each in batch).values())
    found = []
    for number, each in enumerate(batch):
        other = batch[(number + most) % len(batch)]
        if other.prompt == each.prompt and len(by_question) > 1:
            other = generator.choice(
                by_question[
                    generator.choice(
                        [question for question in by_question if question != tuple(each.prompt)]
                    )
                ]
            )
        found.append((each, other))
    return found


def refused(encoder: Encoder, row: Row) -> BadLine | None:
    """Why the rejected answer of a row cannot be learned from, if there is one that cannot."""
    found = encoder.encode(_instead(row, row.rejected)) if row.kind == "preference" else None
    return found if isinstance(found, BadLine) else None


def pairs(encoder: Encoder, rows: list[Row]) -> list[Pair]:
    """Raises InputError when a rejected answer cannot be encoded; the chosen ones were before."""
    found, bad = [], []
    for row in rows:
        chosen, rejected = encoder.encode(row), encoder.encode(_instead(row, row.rejected))
        if isinstance(chosen, BadLine) or isinstance(rejected, BadLine):
            bad += [each for each in (chosen, rejected) if isinstance(each, BadLine)]
            continue
        found.append(Pair(*_parts(chosen), _parts(rejected)[1]))
    if bad:
        raise InputError(
            f"{len(bad)} answers of preference rows cannot be learned from: {bad[0]}.",
            hint="Correct or remove those rows.",
        )
    return found


def rated(encoder: Encoder, rows: list[Row]) -> list[Rated]:
    """Both answers of a preference, one of a rated row. Raises InputError as `pairs` does."""
    found: list[Rated] = []
    for row in rows:
        if row.kind == "preference":
            pair = pairs(encoder, [row])[0]
            found += [
                Rated(pair.prompt, pair.chosen, True),
                Rated(pair.prompt, pair.rejected, False),
            ]
        else:
            encoded = encoder.encode(row)
            if isinstance(encoded, Encoded):
                found.append(Rated(*_parts(encoded), row.rating > 0))
    return found


def _instead(row: Row, answer: str) -> Row:
    return replace(row, messages=(*row.messages[:-1], {"role": "assistant", "content": answer}))


def _parts(encoded: Encoded) -> tuple[list[int], list[int]]:
    return list(encoded.ids[: encoded.prompt_tokens]), list(encoded.ids[encoded.prompt_tokens :])
