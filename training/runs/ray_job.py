"""A run as a Ray job.

Rows are checked and its row is written here; the job is `whet train resume RUN` on the cluster,
which knows the run by its row.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypedDict, cast

from training.loop.trainer import Cancelled
from training.optional import RAY_JOBS, RAY_REFUSAL
from training.plan.prepare import Prepared
from training.plan.reporter import Watch
from training.recipes.recipe import Recipe
from training.runs.places import SEND_A_TOKEN, send_token
from training.runs.version_card import recipe_json
from training.store import runs
from training.store.table_rows import ShownRun
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import ConfigurationError, TrainingError
from whet.lazy import load
from whet.lines import split_lines
from whet.settings import Settings

# Settings that a training reads. The job gets those that are set here; whoever may look at the
# cluster's jobs can read them.
_PASSED = (
    "home", "database_url", "store_url", "base_model", "engine_max_lora_rank", "engine_max_model_len", "checkpoint_interval_s", "wandb_project", "mlflow_tracking_uri",
)  # fmt: skip
# Between looks at the job: a person waits for it, and the cluster answers hundreds a second
_LOOK_S = 1.0


class JobStatus(Protocol):
    """Ray's state of a job."""

    def is_terminal(self) -> bool: ...


class JobDetails(Protocol):
    """What Ray says of a job."""

    message: str | None


class JobClient(Protocol):
    """What is called of Ray's client for jobs."""

    def submit_job(
        self,
        *,
        entrypoint: str,
        submission_id: str,
        runtime_env: Mapping[str, object],
        metadata: Mapping[str, str],
        entrypoint_num_cpus: float = ...,
        entrypoint_num_gpus: float = ...,
    ) -> str: ...

    def stop_job(self, job_id: str) -> object: ...

    def get_job_status(self, job_id: str) -> JobStatus: ...

    def get_job_logs(self, job_id: str) -> str: ...

    def get_job_info(self, job_id: str) -> JobDetails: ...


class RunSummary(TypedDict, total=False):
    """What `whet train resume --json` says, as far as it is read here."""

    adapter: str | None
    path: str | None
    verdict: str
    reason: str
    next: str
    notices: list[str]


def client_of(address: str) -> JobClient:
    """Ray's client for jobs.

    Raises ConfigurationError when nobody takes jobs there, or not from us.
    """
    send_token(os.environ, Path.home())
    refusal = load(RAY_REFUSAL)
    try:
        return cast(JobClient, load(RAY_JOBS)(address))
    except refusal as error:
        raise ConfigurationError(
            f"The Ray cluster at {address} asks for a token: {error.message.splitlines()[0]}",
            hint=SEND_A_TOKEN,
        ) from error
    except (ConnectionError, RuntimeError) as error:
        raise ConfigurationError(
            f"No Ray cluster takes jobs at {address}: {str(error).splitlines()[0]}",
            hint="Start one with `ray start --head`, or give --on ray=ADDRESS.",
        ) from error


def as_asked(prepared: Prepared, asked: Recipe) -> Prepared:
    """The prepared run with what the machine that trains has to choose itself."""
    return replace(
        prepared,
        recipe=replace(
            prepared.recipe, dtype=asked.dtype, device=asked.device, processes=asked.processes
        ),
    )


def run_on_ray(
    context: Context,
    client: JobClient,
    prepared: Prepared,
    *,
    watch: Watch,
    on_log: Callable[[str], None],
) -> RunSummary:
    """Start the run as a job and see it through; returns what `whet train resume --json` says of it
    there.

    `watch` gets the run's progress, `on_log` each new piece of the job's log. Raises TrainingError
    when the run fails or is cancelled.
    """
    run = runs.start(
        context,
        alias=prepared.alias,
        dataset_digest=prepared.dataset.digest,
        base_digest=prepared.base.digest,
        recipe=recipe_json(prepared),
        estimate={},
        worker="",  # nobody's yet: the job takes it up
        now=now_ms(),
    )
    try:
        job = client.submit_job(
            entrypoint=f"whet train resume {run.id} --json",
            submission_id=run.id,
            runtime_env={"env_vars": environment(context.settings)},
            metadata={"alias": prepared.alias},
            **resources(prepared.recipe),
        )
    except (OSError, RuntimeError) as error:
        _end(context, run, f"Ray did not take the job: {error}")
        raise TrainingError(f"Ray did not take the job: {error}") from error
    try:
        log = _follow(context, client, run, job, watch, on_log)
    except Cancelled:
        client.stop_job(job)
        runs.end(context, run, runs.CANCELLED, "Cancelled on request.", now_ms())
    except KeyboardInterrupt:
        client.stop_job(job)
        resume = f"`whet train resume {run.id}` goes on with it."
        _end(context, run, f"Interrupted on the command line. {resume}")
        raise
    except (
        OSError,
        RuntimeError,
    ) as error:  # the cluster cannot be reached; the job may go on without us
        raise TrainingError(
            f"The job can no longer be followed: {error}",
            hint=f"`whet train show {run.id}` says how the run goes.",
        ) from error
    _require_success(context, client, run, job)
    return _summary(log)


def _require_success(context: Context, client: JobClient, run: runs.Run, job: str) -> None:
    """Raise TrainingError where the job is over and the run did not succeed."""
    row = _row(context, run)
    if row["state"] == runs.RUNNING:  # the job is over, and nobody is left who would end the row
        said = str(client.get_job_info(job).message or "").strip()
        ended = f"The Ray job ended before the run did. {said}".strip()
        row["error"] = ended
        _end(context, run, ended)
    if row["state"] != runs.SUCCEEDED:
        raise TrainingError(
            f"The run {run.id} did not succeed on Ray: {row['error']}",
            hint=f"`ray job logs {job}` has what the job said.",
        )


def environment(settings: Settings) -> dict[str, str]:
    """`WHET_…` variables of the job.

    A relative base folder is made absolute, because the job has another current folder.
    """
    given = {
        name: getattr(settings, name)
        for name in _PASSED
        if name in settings.model_fields_set or name == "home"
    }
    if Path(given.get("base_model") or "").is_dir() and given.get("base_model"):
        given["base_model"] = Path(given["base_model"]).resolve()
    return {f"WHET_{name.upper()}": str(value) for name, value in given.items()} | {
        "RAY_USAGE_STATS_ENABLED": "0"
    }


def resources(recipe: Recipe) -> dict[str, float]:
    """What the job holds of the cluster: a processor for each thread of each process, and with
    device cuda a GPU for each process.
    """
    held: dict[str, float] = {"entrypoint_num_cpus": recipe.processes * max(1, recipe.threads)}
    return {**held, "entrypoint_num_gpus": recipe.processes} if recipe.device == "cuda" else held


def _follow(
    context: Context,
    client: JobClient,
    run: runs.Run,
    job: str,
    watch: Watch,
    on_log: Callable[[str], None],
) -> str:
    """Look at the job until it is over; returns its log.

    Raises Cancelled when somebody asked to stop before it began.
    """
    log = ""
    while True:
        status = client.get_job_status(job)
        row = _row(context, run)
        if row["worker"]:
            watch(row["progress"])
        elif not status.is_terminal():
            _wait_for_room(context, run)
        found: str = client.get_job_logs(job)
        if found[len(log) :]:
            on_log(found[len(log) :])
        log = found
        if status.is_terminal():
            return log
        time.sleep(_LOOK_S)


def _wait_for_room(context: Context, run: runs.Run) -> None:
    """The cluster has not begun the job. Its row stays alive meanwhile, and can be cancelled."""
    try:
        if runs.report(context, run, progress={"stage": "waiting"}, curve=None, now=now_ms()):
            raise Cancelled
    except runs.Superseded as error:
        # It was ended: by the job, or by who cancelled before it began
        if _row(context, run)["state"] == runs.CANCELLED:
            raise Cancelled from error


def _row(context: Context, run: runs.Run) -> ShownRun:
    with reading(context.database) as connection:
        return runs.find(connection, run.id)


def _end(context: Context, run: runs.Run, error: str) -> None:
    """End the row under whichever attempt it is now."""
    runs.end(
        context, replace(run, attempt=_row(context, run)["attempt"]), runs.FAILED, error, now_ms()
    )


def _summary(log: str) -> RunSummary:
    """The last JSON document in a log that holds warnings too."""
    lines = [line for line in split_lines(log) if line.startswith("{")]
    return cast(RunSummary, json.loads(lines[-1])) if lines else {}
