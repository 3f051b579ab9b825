"""What a run made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.evaluation.judge import Judgement
from training.loop.trainer import Trained
from training.store.table_rows import Estimate
from whet.registry import Adapter


@dataclass(frozen=True)
class Outcome:
    """What a run made: a version, or a folder outside the store where the engine serves no such
    adapter.
    """

    run_id: str
    adapter: Adapter | None
    folder: Path | None
    judgement: Judgement
    trained: Trained
    seconds: dict[str, float]  # by stage
    estimate: Estimate
    dataset_digest: str
    method: str

    @property
    def label(self) -> str:
        return self.adapter.label if self.adapter else str(self.folder)
