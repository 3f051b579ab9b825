"""What a method makes that no engine serves as an adapter: a folder outside the store, with a card
that says what it is.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from training.adapters.copies import whole_folder
from training.adapters.export import save_model
from training.evaluation.judge import Judgement
from training.plan.prepare import Prepared
from training.recipes.methods import METHODS, MODEL
from training.runs.version_card import VersionCard
from training.store import runs
from training.store.adapter_store import CARD
from training.store.table_rows import Progress
from whet.clock import now_ms
from whet.context import Context
from whet.database import writing
from whet.store import digest_files


def write_folder(
    context: Context,
    run: runs.Run,
    prepared: Prepared,
    model: nn.Module,
    judgement: Judgement,
    card: VersionCard,
    into: Path,
    progress: Progress,
    curve: list[list[float]],
) -> None:
    """Write `into` (complete or not at all) and end the run's row, which names it.

    Raises InputError, StoreError, runs.Superseded; then there is no folder.
    """
    method = METHODS[prepared.recipe.method]

    def fill(folder: Path) -> None:
        if method.engine == MODEL:
            save_model(cast(PreTrainedModel, model), prepared.base, folder)
        else:
            cast(PeftModel, model).save_pretrained(str(folder))
        told: dict[str, object] = {
            "method": method.name,
            "engine": method.engine,
            "said": method.said,
            "files": {
                file.name: digest_files(folder, (file.name,)) for file in sorted(folder.iterdir())
            },
            "base_digest": prepared.base.digest,
            "template_digest": prepared.base.template_digest,
            "dataset_digest": prepared.dataset.digest,
            "run_id": run.id,
            "gate": judgement.verdict,
            "evaluation": judgement.row(run.id, prepared.dataset.digest),
            **card,
        }
        (folder / CARD).write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")

    whole_folder(into, fill)
    try:
        with writing(context.database) as connection:
            runs.succeed(
                connection,
                run,
                adapter_digest=None,
                progress={
                    **progress,
                    "folder": str(into),
                    "verdict": judgement.verdict,
                    "reason": judgement.reason,
                },
                curve=curve,
                now=now_ms(),
            )
    except runs.Superseded:
        shutil.rmtree(into)
        raise
