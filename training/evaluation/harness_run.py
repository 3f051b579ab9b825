"""Ask lm-evaluation-harness of a version and of its base."""

from __future__ import annotations

from importlib.metadata import version as package_version

from training.evaluation.harness import (
    _KEPT,
    HarnessFigures,
    HarnessOptions,
    Progress,
    _path,
    require_installed,
    scores,
    stored_results,
)
from training.machine.device import compute_dtype
from training.models.base_choice import open_base
from training.models.lora import merged_once, with_stored
from training.optional import HARNESS_EVALUATE, HARNESS_TASKS
from training.store import adapter_publish, adapter_store
from training.store.evaluation_types import HarnessResult
from whet.clock import now_ms
from whet.context import Context
from whet.lazy import load
from whet.registry import Adapter


def run_harness(
    context: Context, adapter: Adapter, options: HarnessOptions, *, progress: Progress
) -> HarnessResult:
    """Ask the tasks of a version and of its base, and keep the result; returns it.

    Raises ConfigurationError where the harness is not installed, InputError for a task that is not
    there or whose data cannot be had, AdapterError for a version of another base.
    """
    require_installed()
    base = open_base(context.settings)
    adapter_store.require_base(adapter, base.digest, base.name)
    weights, config = adapter_publish.read_weights(context, adapter)
    progress("reading tasks")
    manager, evaluate = load(HARNESS_TASKS)(options), load(HARNESS_EVALUATE)
    dtype = compute_dtype("auto")
    results: dict[str, HarnessFigures] = {}
    if options.compare_base:
        progress(f"asking {base.name}")
        results["base"] = evaluate(
            context, base, base.load_model(dtype).train(False), manager, options
        )
    progress(f"asking {adapter.label}")
    # Merged, because the harness takes plain models alone.
    model = merged_once(with_stored(base.load_model(dtype), config, weights), dtype)
    results["candidate"] = evaluate(context, base, model, manager, options)
    found: HarnessResult = {
        "at": now_ms(),
        "harness": package_version("lm-eval"),
        "chat_template": options.chat_template,
        "examples": options.examples,
        "shots": results["candidate"].get("n-shot"),
        "scores": [score.as_json() for score in scores(results)],
    }
    kept = [found, *stored_results(context, adapter)][:_KEPT]
    context.store.put_json(_path(adapter), kept)
    return {"adapter": adapter.label, **found}
