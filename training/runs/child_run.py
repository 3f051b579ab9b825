"""A run as the worker asks for it: rows, recipe, training; every error ends its row."""

from __future__ import annotations

import logging
from typing import TypedDict

# Most bases are of its kind, and a run would wait for it
import transformers.models.llama.modeling_llama  # noqa: F401

from training.data import datasets
from training.loop.trainer import Cancelled
from training.models.base_choice import open_base
from training.plan.prepare import prepare
from training.plan.reporter import Reporter
from training.recipes.recipe import load_recipe, recipe_from
from training.recipes.recipe_checks import check_into
from training.runs.pipeline import run_training
from training.runs.resume import checkpoints_of, recipe_of
from training.store import runs
from training.store.requests import requested, run_of
from training.store.table_rows import PlacedRequest
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading
from whet.errors import WhetError
from whet.settings import load_settings

log = logging.getLogger(__name__)


class Order(TypedDict):
    """What the worker tells its child."""

    run: str
    attempt: int
    alias: str
    started_at: int
    request: str


def run(told: Order) -> None:
    """Do the run that the worker tells of, and end its row."""
    context = open_context(load_settings())
    started = runs.Run(
        told["run"], told["attempt"], told["alias"], told["started_at"], told["request"]
    )
    try:
        _train(context, started, requested(context, told["request"]))
    except runs.Superseded:
        log.warning("run %s: another process has it now; stopping", started.id)
    except Cancelled:
        runs.end(context, started, runs.CANCELLED, "Cancelled on request.", now_ms())
        checkpoints_of(context, started.id).remove()
    except WhetError as error:
        log.error("run %s: %s", started.id, error)
        runs.end(context, started, runs.FAILED, str(error), now_ms())
    except MemoryError:
        runs.end(
            context,
            started,
            runs.FAILED,
            "The machine has too little memory for this run. Use a smaller batch_size or"
            " max_length, or a smaller base.",
            now_ms(),
        )
    except Exception as error:
        log.exception("run %s failed", started.id)
        runs.end(
            context,
            started,
            runs.FAILED,
            f"A defect in Whet: {type(error).__name__}: {error}. The worker's log has the details.",
            now_ms(),
        )
    finally:
        context.close()


def _train(context: Context, run: runs.Run, request: PlacedRequest) -> None:
    with Reporter(context, run) as reporter:
        recipe = recipe_of(context, run.id) or recipe_from(
            request["recipe"], load_recipe(context.settings.retrain_recipe)
        )
        check_into(recipe, None)
        dataset = datasets.load(context.store, *_rows_of(context, request))
        # Rows that this base cannot take are left out and named on the card: nobody watches who
        # could be asked.
        prepared = prepare(
            context, run.alias, dataset, recipe, open_base(context.settings), skip_bad=True
        )
        outcome = run_training(context, run, prepared, reporter, actor=request["requested_by"])
    log.info(
        "run %s: %s stored, gate %s: %s",
        run.id,
        outcome.label,
        outcome.judgement.verdict,
        outcome.judgement.reason,
    )


def _rows_of(context: Context, request: PlacedRequest) -> tuple[str, str, str]:
    """(folder, digest, name) of the rows that an earlier attempt went on with, because a teacher's
    answers are asked for once; else of the request's.
    """

    with reading(context.database) as connection:
        row = run_of(connection, request["id"])
    if row is not None and "dataset_path" in row["recipe"]:
        return row["recipe"]["dataset_path"], row["dataset_digest"], row["recipe"]["dataset_name"]
    return request["dataset_path"], request["dataset_digest"], request["dataset_name"]
