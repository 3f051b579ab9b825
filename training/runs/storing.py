"""Store what a run made, as a version or in a folder, and end its row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from training.loop.trainer import Trained
from training.machine.disk_space import require_disk_space
from training.plan.prepare import Prepared
from training.plan.reporter import Reporter
from training.recipes.methods import METHODS, MODEL
from training.runs.folders import write_folder

# Checkpoints' worth of disk: two are kept while a third is written; the adapter itself is smaller
# than one
from training.runs.run_records import EvaluatedRun, LoadedRun
from training.runs.version_card import VersionCard, new_adapter
from training.store import adapter_publish, runs
from whet.clock import now_ms
from whet.context import Context
from whet.registry import Adapter


def store(
    context: Context,
    run: runs.Run,
    loaded: LoadedRun,
    evaluated: EvaluatedRun,
    trained: Trained,
    card: VersionCard,
    reporter: Reporter,
    actor: str,
    into: Path | None,
) -> Adapter | None:
    """Store a version, or write `into`, and end the run's row."""
    if into is None:
        return _publish(context, run, loaded, evaluated, trained, card, reporter, actor)
    write_folder(
        context,
        run,
        loaded.prepared,
        evaluated.model,
        evaluated.judgement,
        card,
        into,
        reporter.final(trained),
        reporter.curve,
    )
    return None


def _publish(
    context: Context,
    run: runs.Run,
    loaded: LoadedRun,
    evaluated: EvaluatedRun,
    trained: Trained,
    card: VersionCard,
    reporter: Reporter,
    actor: str,
) -> Adapter:
    """Store the version; the run's row ends in the same transaction."""
    new = new_adapter(
        evaluated.model,
        loaded.prepared,
        run,
        evaluated.judgement,
        {**card, "fingerprint": evaluated.fingerprint},
        actor,
    )
    return adapter_publish.publish(
        context,
        replace(
            new,
            also=lambda connection, stored: runs.succeed(
                connection,
                run,
                adapter_digest=stored.digest,
                progress=reporter.final(trained),
                curve=reporter.curve,
                now=now_ms(),
            ),
        ),
    )


def require_place(
    context: Context, model: nn.Module, prepared: Prepared, into: Path | None
) -> None:
    """Raises TrainingError where what comes of the run has no room: hours before it is written."""
    if into is not None:
        whole = METHODS[prepared.recipe.method].engine == MODEL
        learned = (
            prepared.base.parameters
            if whole
            else sum(each.numel() for each in model.parameters() if each.requires_grad)
        )
        require_disk_space(
            into.absolute(), learned * next(model.parameters()).element_size(), "--into"
        )
    elif context.store.is_local:
        sizes = (
            each.numel() * each.element_size() for each in model.parameters() if each.requires_grad
        )
        require_disk_space(Path(context.store.root), sum(sizes), "WHET_STORE_URL")
