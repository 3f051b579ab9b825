"""One run in a process of its own: `python -m training.child PARENT`, started by the worker, told
on standard input what to run.

It imports what it needs before it is told, so that a request does not wait ten seconds for imports.
It ends its run's row itself, in every way but one: when it is killed, the worker sees that.
"""

from __future__ import annotations

import json
import logging
import sys
from io import BufferedReader, FileIO
from typing import Any, cast

from training.allocator import keep_memory
from training.imports import import_libraries
from training.parent_process import end_with_parent, end_with_pipe

log = logging.getLogger(__name__)


def main(parent: int) -> None:
    """Wait for one line on standard input, `{"run", "attempt", "alias", "started_at", "request"}`,
    and do it.
    """
    end_with_parent(parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_memory()
    import_libraries(four_bits=True)  # which method comes is not known yet
    # unbuffered: what follows is the pipe's end, which others watch
    line = cast(FileIO, cast(BufferedReader, sys.stdin.buffer).raw).readline()
    if not line:
        return
    end_with_pipe(sys.stdin.fileno())
    _run(json.loads(line))


def _run(told: dict[str, Any]) -> None:
    from training import runs
    from training.requests import requested
    from training.run.resume import checkpoints_of
    from training.trainer import Cancelled
    from whet.clock import now_ms
    from whet.context import open_context
    from whet.errors import WhetError
    from whet.settings import load_settings

    context = open_context(load_settings())
    run = runs.Run(told["run"], told["attempt"], told["alias"], told["started_at"], told["request"])
    try:
        _train(context, run, requested(context, told["request"]))
    except runs.Superseded:
        log.warning("run %s: another process has it now; stopping", run.id)
    except Cancelled:
        runs.end(context, run, runs.CANCELLED, "Cancelled on request.", now_ms())
        checkpoints_of(context, run.id).remove()
    except WhetError as error:
        log.error("run %s: %s", run.id, error)
        runs.end(context, run, runs.FAILED, str(error), now_ms())
    except MemoryError:
        runs.end(
            context,
            run,
            runs.FAILED,
            "The machine has too little memory for this run. Use a smaller batch_size or"
            " max_length, or a smaller base.",
            now_ms(),
        )
    except Exception as error:
        log.exception("run %s failed", run.id)
        runs.end(
            context,
            run,
            runs.FAILED,
            f"A defect in Whet: {type(error).__name__}: {error}. The worker's log has the details.",
            now_ms(),
        )
    finally:
        context.close()


def _train(context: Any, run: Any, request: dict[str, Any]) -> None:
    from training import datasets
    from training.base_model import open_base
    from training.pipeline import run_training
    from training.prepare import prepare
    from training.recipe import check_into, load_recipe, recipe_from
    from training.reporter import Reporter
    from training.run.resume import recipe_of

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


def _rows_of(context: Any, request: dict[str, Any]) -> tuple[str, str, str]:
    """(folder, digest, name) of the rows that an earlier attempt went on with, because a teacher's
    answers are asked for once; else of the request's.
    """
    from training.requests import run_of
    from whet.database import reading

    with reading(context.database) as connection:
        row = run_of(connection, request["id"])
    if row is not None and "dataset_path" in row["recipe"]:
        return row["recipe"]["dataset_path"], row["dataset_digest"], row["recipe"]["dataset_name"]
    return request["dataset_path"], request["dataset_digest"], request["dataset_name"]


if __name__ == "__main__":
    main(int(sys.argv[1]))
