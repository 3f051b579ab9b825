"""What a run says before its first step: what bounds it, what it does otherwise than one may think."""

from __future__ import annotations

from training.data.datasets import Dataset
from training.loop.samples import sampled_rows
from training.models.base_model import BaseModel
from training.models.encoded import Encoded
from training.recipes.methods import ADAPTER, ANSWERS, METHODS, Method
from training.recipes.recipe import Recipe
from whet.context import Context

# Methods that only weigh answers against each other: there is nothing to prefer in answers that
# know nothing. ORPO learns the chosen answers as well.
_NEEDS_ANSWERS = frozenset({"dpo", "kto", "simpo", "rlhf"})


def length_notices(context: Context, asked: int, room: int, base: BaseModel) -> list[str]:
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


def run_notices(recipe: Recipe, base: BaseModel, dataset: Dataset, *, goes_on: bool) -> list[str]:
    """Say what follows from method, recipe and base. `goes_on`: the run starts from a version."""
    method = METHODS[recipe.method]
    said = [method.said] if method.said else []
    if not goes_on and method.name in _NEEDS_ANSWERS:
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
    if recipe.rehearsal_share:
        said.append(
            f"Up to {100 * recipe.rehearsal_share:.0f} % of each pass are general questions as the"
            " base answers them, so that it keeps what it can do (--rehearsal-share 0 leaves them"
            " out)."
        )
    if recipe.refit and dataset.test:
        said.append(
            "After the verdict the version is trained again, on the"
            f" {len(dataset.test)} held-out rows too, which takes as long as before"
            " (--no-refit stores the model that was judged)."
        )
    return said


def row_notices(dataset: Dataset, method: Method, encoded: list[Encoded]) -> list[str]:
    """Say what the method does with the rows otherwise than their form suggests."""
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
