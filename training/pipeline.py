"""One run from prepared rows to a judged, stored adapter. What the worker's child process and `whet train run` both call."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from training import adapter_store, runs
from training.adapter_store import NewAdapter
from training.encode import Encoded
from training.fingerprint import PROMPTS, fingerprint
from training.judge import Judgement, judge
from training.lora import adapter_weights, plain_config, set_adapter_weights, trainable
from training.prepare import Prepared, choose_threads, estimate, peak_memory_bytes
from training.reporter import Reporter
from training.trainer import Trained, train
from whet.clock import now_ms
from whet.context import Context
from whet.errors import TrainingError
from whet.registry import Adapter

_LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers")


@dataclass(frozen=True)
class Outcome:
    """What a run made."""

    run_id: str
    adapter: Adapter
    judgement: Judgement
    trained: Trained
    seconds: dict[str, float]  # by stage
    estimate: dict[str, Any]


def run_training(context: Context, run: runs.Run, prepared: Prepared, reporter: Reporter, *, actor: str) -> Outcome:
    """Train, evaluate, gate and store; the run's row ends as `succeeded` in the transaction that makes the adapter visible.

    Raises WhetError when it cannot, trainer.Cancelled when somebody asked to stop, runs.Superseded when the run is no longer ours;
    then no part of an adapter is visible, and the row is the caller's to end.
    """
    clock = _Stopwatch()
    reporter.stage("loading")
    pad_id = pad_token(prepared)
    with _memory_in_words(prepared):
        model = load(context, prepared)
        threads, speed = choose_threads(model, prepared.train, prepared.recipe, pad_id)
    prepared = replace(prepared, recipe=replace(prepared.recipe, threads=threads))
    expected = estimate(prepared, speed)
    runs.describe(context, run, recipe=recipe_json(prepared), estimate=expected, base_digest=prepared.base.digest)
    clock.mark("loading")

    reporter.stage("training")
    with _memory_in_words(prepared):
        trained = train(model, prepared.train, prepared.validation, prepared.recipe, pad_id=pad_id, on_step=reporter.step)
    clock.mark("training")

    reporter.stage("evaluating")
    judgement = judge(context, model, prepared, sample_name=f"{run.id}-{run.attempt}", on_batch=reporter.evaluating)
    evidence = fingerprint(model, probes(prepared))
    clock.mark("evaluating")

    reporter.stage("storing")
    new = _new_adapter(model, prepared, run, trained, judgement, evidence, expected, clock.seconds, actor)
    adapter = adapter_store.publish(
        context,
        replace(
            new,
            also=lambda connection, stored: runs.succeed(
                connection, run, adapter_digest=stored.digest, progress=reporter.final(trained), curve=reporter.curve, now=now_ms()
            ),
        ),
    )
    clock.mark("storing")
    return Outcome(run.id, adapter, judgement, trained, clock.seconds, expected)


@contextmanager
def _memory_in_words(prepared: Prepared) -> Iterator[None]:
    """Raises TrainingError in place of torch's own error when memory runs out."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        recipe = prepared.recipe
        raise TrainingError(
            f"Memory ran out with {recipe.batch_size} rows per step of up to {recipe.max_length} tokens.",
            hint=f"Use --batch-size {max(1, recipe.batch_size // 2)} or a smaller --max-length.",
        ) from error


def load(context: Context, prepared: Prepared) -> Any:
    """The base with a fresh adapter on it, or with the weights of the adapter that the run starts from."""
    model = trainable(prepared.base, prepared.recipe)
    if prepared.start_adapter is not None:
        weights, _ = adapter_store.read_weights(context, prepared.start_adapter)
        set_adapter_weights(model, weights)
    return model


def probes(prepared: Prepared) -> list[list[int]]:
    """Token ids of a few whole conversations, held-out ones where there are any."""
    rows = prepared.dataset.test or prepared.dataset.validation or prepared.dataset.train
    found = (prepared.encoder.encode(row) for row in rows[:PROMPTS])
    return [list(encoded.ids) for encoded in found if isinstance(encoded, Encoded)]


def pad_token(prepared: Prepared) -> int:
    """Any token serves: nothing attends to it and it is never learned."""
    pad = prepared.base.tokenizer.pad_token_id
    return int(pad if pad is not None else min(prepared.base.stop_ids))


def recipe_json(prepared: Prepared) -> dict[str, Any]:
    """The complete recipe as it is stored with the run and on the card."""
    return {**prepared.recipe.as_json(), "dataset_path": prepared.dataset.path, "dataset_name": prepared.dataset.name, "rows": prepared.dataset.rows}


def _new_adapter(
    model: Any,
    prepared: Prepared,
    run: runs.Run,
    trained: Trained,
    judgement: Judgement,
    evidence: dict[str, Any],
    expected: dict[str, Any],
    seconds: dict[str, float],
    actor: str,
) -> NewAdapter:
    recipe = prepared.recipe
    return NewAdapter(
        name=prepared.alias,
        weights=adapter_weights(model, recipe.dtype),
        config=plain_config(recipe.rank, recipe.alpha, sorted(model.peft_config["default"].target_modules)),
        base_digest=prepared.base.digest,
        template_digest=prepared.base.template_digest,
        rank=recipe.rank,
        dataset_digest=prepared.dataset.digest,
        run_id=run.id,
        gate=judgement.verdict,
        evaluation=judgement.row(run.id, prepared.dataset.digest),
        created_by=actor,
        card={
            "base": prepared.base.name,
            "dataset_path": prepared.dataset.path,
            "recipe": recipe_json(prepared),
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
            },
            "fingerprint": evidence,
            "left_out": [bad.as_json() for bad in prepared.left_out],
            "libraries": {name: version(name) for name in _LIBRARIES},
            "python": platform.python_version(),
        },
    )


class _Stopwatch:
    """Seconds by stage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._last = clock, clock()
        self.seconds: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        now = self._clock()
        self.seconds[stage], self._last = now - self._last, now
