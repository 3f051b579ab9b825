"""Cancelling runs and requests, and what stands against training on the same rows once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from tests import builders
from tests.web import console_client
from training.store import runs
from training.store.requests import dataset_row, open_requests
from training.worker import Worker
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, NotFoundError
from whet.tables import training_requests, training_runs

NOW = 1_763_000_000_000


@pytest.fixture
def request_id(context: Context) -> str:
    with writing(context.database) as connection:
        dataset = builders.add_dataset(connection, NOW, version=3)
        return builders.add_request(connection, NOW, dataset=dataset)


def begin(context: Context, request: str, worker: str = "w", at: int = NOW) -> runs.Run:
    with reading(context.database) as connection:
        known = training_requests.c.id == request
        row = connection.execute(select(training_requests).where(known)).one()
    return runs.start(
        context, alias=row.alias, dataset_digest=row.dataset_digest, base_digest="", recipe={},
        estimate={}, worker=worker, now=at, request_id=request,
    )  # fmt: skip


def test_a_request_that_nobody_took_up_is_withdrawn_and_never_run(
    context: Context, request_id: str
) -> None:
    row = runs.request_cancel(context, request_id, actor="ola", now=NOW + 1)
    assert (row["state"], row["cancel_requested_by"]) == (runs.CANCELLED, "ola")
    with reading(context.database) as connection:
        assert open_requests(connection) == []
        kept = connection.execute(select(training_runs)).one()
    assert (kept.id, kept.request_id, kept.finished_at) == (row["id"], request_id, NOW + 1)
    with pytest.raises(ConflictError, match="has a run already"):
        begin(context, request_id)
    assert not Worker(context).work_once()
    with pytest.raises(ConflictError, match="has ended: cancelled"):
        runs.request_cancel(context, request_id, actor="ola", now=NOW + 2)


def test_a_worker_that_meets_a_request_withdrawn_at_the_same_moment_goes_on(
    context: Context, request_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = runs.start

    def late(*args: Any, **kwargs: Any) -> runs.Run:
        runs.request_cancel(context, request_id, actor="ola", now=NOW + 1)
        return real(*args, **kwargs)

    monkeypatch.setattr(runs, "start", late)
    assert not Worker(context).work_once(), "nothing was trained, and nothing failed"


def test_a_run_with_a_process_stops_at_its_next_step_and_others_are_over_at_once(
    context: Context, request_id: str
) -> None:
    run = begin(context, request_id)
    row = runs.request_cancel(context, run.id, actor="ola", now=NOW + 1)
    assert row["state"] == runs.RUNNING, "its process ends it"
    assert runs.report(context, run, progress={}, curve=None, now=NOW + 2)
    later = NOW + 2 + runs.SILENT_MS
    row = runs.request_cancel(context, request_id, actor="ola", now=later)
    assert row["state"] == runs.CANCELLED, "its process is gone"
    with pytest.raises(runs.Superseded):
        runs.report(context, run, progress={}, curve=None, now=later + 1)


def test_a_run_that_waits_for_a_worker_is_cancelled_at_once(
    context: Context, request_id: str
) -> None:
    run = begin(context, request_id)
    runs.release(context, run, NOW + 1)
    row = runs.request_cancel(context, run.id[:12], actor="ola", now=NOW + 2)
    assert row["state"] == runs.CANCELLED
    with pytest.raises(runs.Superseded):
        runs.reclaim(context, run.id, worker="x", now=NOW + 3)


def test_what_ended_says_the_whole_command_that_trains_on_its_rows_again(
    context: Context, request_id: str
) -> None:
    run = begin(context, request_id)
    assert runs.end(context, run, runs.CANCELLED, "Cancelled on request.", NOW + 1)
    with pytest.raises(ConflictError) as refused:
        runs.resume(context, run.id, worker="cli", actor="ola", now=NOW + 2)
    command = "whet train run --dataset support@3 --alias support --recipe continue"
    assert f"`{command}`" in refused.value.hint


def test_a_failed_run_is_not_resumed_beside_the_one_that_followed_it(
    context: Context, request_id: str
) -> None:
    run = begin(context, request_id)
    assert runs.end(context, run, runs.FAILED, "Out of memory.", NOW + 1)
    with writing(context.database) as connection:
        digest = connection.execute(select(training_requests.c.dataset_digest)).scalar_one()
        again = builders.add_run(connection, NOW + 2, dataset=digest, state="running")
    with pytest.raises(ConflictError, match=again):
        runs.resume(context, run.id, worker="cli", actor="ola", now=NOW + 3)
    with writing(context.database) as connection:
        failed = update(training_runs).where(training_runs.c.id == again)
        connection.execute(failed.values(state="failed"))
    resumed, _ = runs.resume(context, run.id, worker="cli", actor="ola", now=NOW + 4)
    assert resumed.id == run.id


def test_rows_from_a_file_are_named_by_the_copy_in_the_store(sqlite_context: Context) -> None:
    context = sqlite_context
    started = runs.start(
        context, alias="desk", dataset_digest="d", base_digest="b",
        recipe={"method": "dora", "dataset_path": "datasets/d"}, estimate={}, worker="cli",
        now=NOW,
    )  # fmt: skip

    def fill(folder: Any) -> None:
        for name in ("train.jsonl", "test.jsonl"):
            (folder / name).write_text("{}\n")

    context.store.put_folder("datasets/d", fill)
    runs.end(context, started, runs.CANCELLED, "Cancelled on request.", NOW + 1)
    with pytest.raises(ConflictError) as refused:
        runs.resume(context, started.id, worker="cli", actor="ola", now=NOW + 2)
    folder = context.store.local_folder("datasets/d")
    command = (
        f"whet train run {folder}/train.jsonl --test {folder}/test.jsonl --alias desk --method dora"
    )
    assert f"`{command}`" in refused.value.hint


def test_a_version_goes_by_the_label_that_every_command_prints(context: Context) -> None:
    with writing(context.database) as connection:
        digest = builders.add_dataset(connection, NOW, version=3)
        builders.add_dataset(connection, NOW, version=4)
    with reading(context.database) as connection:
        for reference in ("support@3", "support@v3", digest, digest[:8]):
            assert dataset_row(connection, reference)["version"] == 3
        assert dataset_row(connection, "support")["version"] == 4
        with pytest.raises(NotFoundError, match="support@9"):
            dataset_row(connection, "support@9")


def test_a_waiting_request_is_withdrawn_from_the_list_of_runs(
    context: Context, request_id: str
) -> None:
    operator = console_client(context, "operator", clock=lambda: NOW + 5)
    assert "Withdraw" in operator.get("/runs").text
    assert "Withdraw" not in console_client(context, "viewer").get("/runs").text
    answer = operator.post(f"/runs/{request_id}/cancel")
    assert answer.status_code == 303
    page = operator.get("/runs").text
    assert "Withdraw" not in page and "cancelled" in page
