"""What of lm-evaluation-harness is called: its index of tasks, and an evaluation."""

from __future__ import annotations

import os
from typing import cast

import lm_eval
from datasets.exceptions import DatasetsError
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from torch import nn

from training.evaluation.harness import HarnessFigures, HarnessOptions
from training.models.base_model import BaseModel
from whet.context import Context
from whet.errors import InputError

_BATCH_ROWS = 8


def task_manager(options: HarnessOptions) -> TaskManager:
    """Return the harness's index of tasks: of one's own folder, and with its own where one is
    asked.

    Its own are 15,000, which take half a minute to read. Raises InputError.
    """
    folder = options.include_path
    if folder is not None and not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder.", hint="--include-path names a folder of task files (YAML)."
        )
    place = str(folder) if folder else None
    if place:
        own = TaskManager(include_path=place, include_defaults=False)
        if set(options.tasks) <= set(own.all_tasks):
            return own
    manager = TaskManager(include_path=place)
    if missing := sorted(set(options.tasks) - set(manager.all_tasks)):
        raise InputError(
            f"The harness has no task {', '.join(map(repr, missing))}.",
            hint="`lm-eval ls tasks` lists its own; --include-path adds a folder of yours.",
        )
    return manager


def evaluate(
    context: Context,
    base: BaseModel,
    model: nn.Module,
    manager: TaskManager,
    options: HarnessOptions,
) -> HarnessFigures:
    """Return what the harness returns. Raises InputError where a task's data cannot be had."""
    room = min(base.max_positions, context.settings.engine_max_model_len)
    asked = HFLM(
        pretrained=model,
        tokenizer=base.tokenizer,
        batch_size=_BATCH_ROWS,
        max_length=room,
    )
    try:
        found = lm_eval.simple_evaluate(
            model=asked,
            tasks=list(options.tasks),
            task_manager=manager,
            num_fewshot=options.shots,
            limit=options.examples,
            apply_chat_template=options.chat_template,
            log_samples=False,
        )
    except (DatasetsError, OSError) as error:
        said = str(error).partition("\n")[0]
        raise InputError(
            f"The data of {', '.join(options.tasks)} cannot be had: {said}.",
            hint="The harness loads it from the Hugging Face hub: allow that, load it into the "
            f"cache beforehand (HF_HOME is {os.environ.get('HF_HOME', 'not set')}), or give tasks "
            "with local files (--include-path).",
        ) from error
    return cast(HarnessFigures, dict(found))
