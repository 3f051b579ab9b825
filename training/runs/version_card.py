"""What is stored with a version: its recipe, its card."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from peft import PeftModel
from torch import nn

from training.data.check_report import RejectedLine
from training.evaluation.judge import Judgement
from training.loop.trainer import Trained
from training.models.fingerprint import Fingerprint
from training.models.lora import served_adapter
from training.plan.estimates import peak_memory_bytes
from training.plan.prepare import Prepared
from training.recipes.recipe_checks import relevant_fields
from training.store import runs
from training.store.adapter_publish import NewAdapter
from training.store.table_rows import Estimate
from whet.json_types import JsonObject

_LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers")


class TrainingFigures(TypedDict):
    """What the training of a version took and came to."""

    steps: int
    tokens: int
    trained_tokens: int
    tokens_per_s: int
    first_loss: float
    last_loss: float
    validation: list[tuple[int, float]]
    best_step: int
    seconds: dict[str, float]  # by stage
    expected_seconds: float
    peak_memory_bytes: int
    estimate: Estimate
    signs: list[str]


class VersionCard(TypedDict):
    """What is said of a result beyond its hashes and its evaluation."""

    base: str
    dataset_path: str
    recipe: dict[str, object]
    training: TrainingFigures
    left_out: list[RejectedLine]
    libraries: dict[str, str]
    python: str
    fingerprint: NotRequired[Fingerprint | None]


def recipe_json(prepared: Prepared, into: Path | None = None) -> JsonObject:
    """The complete recipe as it is stored with the run and on the card; with the folder that the
    run writes to, for an attempt that goes on with it.
    """
    rows = prepared.dataset.rows
    made = {"counterfactual": prepared.counterfactuals, "rehearsal": prepared.rehearsed}
    rows = {**rows, "train": rows["train"] - sum(made.values())}
    rows |= {kind: count for kind, count in made.items() if count}
    found: JsonObject = {
        **prepared.recipe.as_json(),
        "dataset_path": prepared.dataset.path,
        "dataset_name": prepared.dataset.name,
        "rows": {**rows},
    }
    return {**found, "into": str(into.absolute())} if into else found


def new_adapter(
    model: nn.Module,
    prepared: Prepared,
    run: runs.Run,
    judgement: Judgement,
    card: VersionCard,
    actor: str,
) -> NewAdapter:
    weights, config = served_adapter(cast(PeftModel, model), prepared.recipe.dtype)
    return NewAdapter(
        name=prepared.alias,
        weights=weights,
        config=config,
        base_digest=prepared.base.digest,
        template_digest=prepared.base.template_digest,
        rank=config["r"],
        dataset_digest=prepared.dataset.digest,
        run_id=run.id,
        gate=judgement.verdict,
        evaluation=judgement.row(run.id, prepared.dataset.digest),
        created_by=actor,
        card=card,
    )


def version_card(
    prepared: Prepared, trained: Trained, expected: Estimate, seconds: dict[str, float]
) -> VersionCard:
    """What is said of a result beyond its hashes and its evaluation."""
    return {
        "base": prepared.base.name,
        "dataset_path": prepared.dataset.path,
        "recipe": relevant_fields(recipe_json(prepared)),
        "training": {
            "steps": trained.steps,
            "tokens": trained.tokens,
            "trained_tokens": trained.trained_tokens,
            "tokens_per_s": round(trained.tokens_per_s),
            "first_loss": round(trained.first_loss, 4),
            "last_loss": round(trained.last_loss, 4),
            "validation": trained.validation,
            "best_step": trained.best_step,
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "expected_seconds": expected["seconds"],
            "peak_memory_bytes": peak_memory_bytes(),
            "estimate": {
                "seconds": expected["seconds"],
                "peak_memory_bytes": expected["peak_memory_bytes"],
                "measured": expected["measured"],
                "error": expected["error"],
            },
            "signs": trained.signs,
        },
        "left_out": [bad.as_json() for bad in prepared.left_out],
        "libraries": {name: version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
    }
