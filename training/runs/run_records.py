"""What the stages of a run hand on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from training.evaluation.judge import Judgement
from training.loop.checkpoint import Checkpoints, LoopState, Snapshot
from training.loop.faults import (
    FileSignature,
)
from training.loop.loss import Loss
from training.methods.families import Family
from training.models.fingerprint import Fingerprint
from training.plan.prepare import Prepared
from training.store.evaluation_types import Metrics
from training.store.table_rows import Estimate

# Checkpoints' worth of disk: two are kept while a third is written; the adapter itself is smaller
# than one


@dataclass(frozen=True)
class LoadedRun:
    """What a run trains with, once its model is loaded and measured. The model itself goes by hand:
    evaluation replaces it, and what is held here is not given back to the machine."""

    prepared: Prepared
    method: Family
    loss_of: Loss
    pad_id: int
    folder: Path  # of the run
    checkpoints: Checkpoints
    resume: Snapshot | None  # where an earlier attempt stopped
    base_files: FileSignature  # as they were when the model was loaded
    estimate: Estimate

    @property
    def earlier(self) -> LoopState | None:
        """The state of the loop where an earlier attempt stopped."""
        return self.resume.state if self.resume else None


@dataclass(frozen=True)
class EvaluatedRun:
    """What a run is stored as."""

    model: nn.Module
    judgement: Judgement
    fingerprint: Fingerprint | None  # None for what is no version
    refit_seconds: float = 0.0

    @property
    def metrics(self) -> Metrics:
        return self.judgement.decision.metrics if self.judgement.decision else {}
