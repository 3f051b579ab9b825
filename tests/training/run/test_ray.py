"""A run as a Ray job and a search whose trials are Ray tasks: what is sent, what is refused, how
each ends; and both on a Ray of this machine.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.training.test_commands import Shell
from training.data.datasets import Dataset
from training.recipes.recipe import Recipe
from training.runs import ray_job, search_ray
from training.runs.places import JOBS, ray_address, require_job_address, require_ray, send_token
from training.store import runs
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import ConfigurationError, InputError, TrainingError
from whet.settings import load_settings


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


# --- what is said and refused ---------------------------------------------------------------------------------------


def test_on_names_ray_with_or_without_an_address() -> None:
    assert (
        ray_address("ray", JOBS) == JOBS
        and ray_address("ray=http://head:8265", JOBS) == "http://head:8265"
    )
    for wrong in ("slurm", "ray=", "rays", "http://head:8265"):
        with pytest.raises(InputError, match="can be put on Ray"):
            ray_address(wrong, JOBS)


def test_a_missing_ray_is_said_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with pytest.raises(ConfigurationError, match=r"Ray is not installed.*make setup-ray"):
        require_ray(lambda name: None)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0", "nothing is reported to anybody"


def test_a_token_that_lies_here_is_sent_unless_somebody_said_otherwise(tmp_path: Path) -> None:
    def mode(**environment: str) -> str | None:
        send_token(environment, tmp_path)
        return environment.get("RAY_AUTH_MODE")

    assert mode() is None and mode(RAY_AUTH_TOKEN="t") == mode(RAY_AUTH_TOKEN_PATH="p") == "token"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    assert mode() == "token" and mode(RAY_AUTH_MODE="disabled") == "disabled"


@pytest.mark.parametrize(
    ("address", "database", "sentence"),
    [
        ("http://127.0.0.1:8265", "", ""),
        ("http://localhost:8265", "", ""),
        ("https://head.example:8265", "postgresql+psycopg://u:p@db/whet", ""),
        (
            "http://head.example:8265",
            "",
            "a SQLite file of this machine, which a job on head.example cannot write",
        ),
        ("http://10.0.0.7:8265", "", "cannot write"),
        ("ray://head:10001", "", "takes jobs at an http address"),
        ("head:6379", "", "takes jobs at an http address"),
    ],
)
def test_a_job_goes_where_the_runs_row_can_be_written(
    tmp_path: Path, address: str, database: str, sentence: str
) -> None:
    settings = load_settings(home=tmp_path, database_url=database)
    if not sentence:
        require_job_address(address, settings)
        return
    with pytest.raises((InputError, ConfigurationError), match=sentence):
        require_job_address(address, settings)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("train", "run", "none.jsonl", "--on", "moon"), "found --on 'moon'"),
        (("train", "run", "none.jsonl", "--on", "ray", "--dry-run"), "measures this machine"),
        (
            ("train", "run", "none.jsonl", "--on", "ray", "--method", "full", "--into", "there"),
            "names a folder of this machine",
        ),
        (("train", "search", "none.jsonl", "--trials", "1", "--on", "moon"), "found --on 'moon'"),
    ],
)
def test_what_ray_cannot_do_is_refused_before_anything_is_read(
    shell: Shell, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in shell.refused(*arguments)


def test_commands_without_ray_say_so(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.runs.places.require_ray.__defaults__", (lambda name: None,))
    for command in (("run",), ("search", "--trials", "1")):
        assert "Ray is not installed" in shell.refused(
            "train", command[0], "none.jsonl", *command[1:], "--on", "ray"
        )


def test_the_job_gets_the_settings_it_needs_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    settings = load_settings(
        home=tmp_path / "home",
        base_model="base",
        notify_urls="slack://secret",
        engine_key="secret",
        engine_max_lora_rank=16,
    )
    assert ray_job.environment(settings) == {
        "WHET_HOME": str(tmp_path / "home"),
        "WHET_BASE_MODEL": str(tmp_path / "base"),
        "WHET_ENGINE_MAX_LORA_RANK": "16",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    assert "WHET_BASE_MODEL" not in ray_job.environment(load_settings(home=tmp_path)), (
        "the built-in base lies elsewhere on each machine"
    )


def test_a_job_holds_a_processor_for_each_thread_and_a_gpu_for_each_process_that_asks_for_one() -> (
    None
):
    assert ray_job.resources(Recipe()) == {"entrypoint_num_cpus": 1}
    assert ray_job.resources(Recipe(processes=2, threads=4, device="cuda")) == {
        "entrypoint_num_cpus": 8,
        "entrypoint_num_gpus": 2,
    }


def test_the_cluster_chooses_what_belongs_to_its_machine() -> None:
    asked = Recipe(device="cuda", processes=4, dtype="auto")
    here: Any = SimpleNamespace(recipe=Recipe(dtype="float32", learning_rate=1e-3, max_length=64))
    made = _as_asked(here, asked)
    assert (made.device, made.processes, made.dtype, made.learning_rate, made.max_length) == (
        "cuda",
        4,
        "auto",
        1e-3,
        64,
    )


def _as_asked(prepared: Any, asked: Recipe) -> Recipe:
    from dataclasses import make_dataclass

    return ray_job.as_asked(make_dataclass("P", ["recipe"])(prepared.recipe), asked).recipe  # type: ignore[arg-type]


# --- how a job ends -------------------------------------------------------------------------------------------------


class Jobs:
    """A cluster of one job that does `work(run id)` when it is looked at for the third time, and
    then has `status`.
    """

    def __init__(self, work: Any, status: str, message: str = "") -> None:
        self._work, self._ends, self._message = work, status, message
        self.looks, self.stopped, self.submitted = 0, [], {}

    def submit_job(self, **given: Any) -> str:
        self.submitted = given
        return str(given["submission_id"])

    def get_job_status(self, job: str) -> Any:
        self.looks += 1
        if self.looks == 3:
            self._work(job)
        return SimpleNamespace(is_terminal=lambda: self.looks >= 3 and self._ends != "PENDING")

    def get_job_logs(self, job: str) -> str:
        return "a warning\n" + (
            '{"run": "early"}\nmore\n{"adapter": "support@v1"}\n' if self.looks >= 3 else ""
        )

    def get_job_info(self, job: str) -> Any:
        return SimpleNamespace(message=self._message)

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ray_job, "_LOOK_S", 0.0)
    return SimpleNamespace(
        alias="support",
        dataset=Dataset("d", "d" * 64, "datasets/d", [], [], []),
        base=SimpleNamespace(digest="b" * 64),
        recipe=Recipe(),
        counterfactuals=0,
        rehearsed=0,
    )


def _run(
    context: Context, jobs: Jobs, prepared: Any, on_log: Any = lambda text: None
) -> dict[str, Any]:
    return ray_job.run_on_ray(context, jobs, prepared, watch=lambda progress: None, on_log=on_log)


def _row(context: Context) -> dict[str, Any]:
    with reading(context.database) as connection:
        return runs.newest(connection, None, 1)[0]


def test_a_job_takes_up_the_runs_row_and_its_last_word_is_the_result(
    sqlite_context: Context, prepared: Any
) -> None:
    from whet.database import writing

    def work(run_id: str) -> None:
        taken, row = runs.resume(sqlite_context, run_id, worker="ray:1", actor="cli", now=now_ms())
        assert row["worker"] == "" and row["recipe"]["dataset_path"] == "datasets/d"
        with writing(sqlite_context.database) as connection:
            runs.succeed(
                connection, taken, adapter_digest=None, progress={}, curve=[], now=now_ms()
            )

    said: list[str] = []
    jobs = Jobs(work, "SUCCEEDED")
    assert _run(sqlite_context, jobs, prepared, said.append) == {"adapter": "support@v1"}
    run = _row(sqlite_context)
    assert (
        jobs.submitted["entrypoint"] == f"whet train resume {run['id']} --json"
        and jobs.submitted["submission_id"] == run["id"]
        and run["state"] == "succeeded"
    )
    assert "".join(said).count("a warning") == 1, "each line of the log once"


def test_a_job_that_dies_ends_the_runs_row(sqlite_context: Context, prepared: Any) -> None:
    def work(run_id: str) -> None:
        runs.resume(sqlite_context, run_id, worker="ray:1", actor="cli", now=now_ms())

    with pytest.raises(
        TrainingError, match=r"The Ray job ended before the run did\. The node is gone\."
    ):
        _run(sqlite_context, Jobs(work, "FAILED", "The node is gone."), prepared)
    assert (_row(sqlite_context)["state"], _row(sqlite_context)["error"]) == (
        "failed",
        "The Ray job ended before the run did. The node is gone.",
    )


def test_what_the_run_said_there_is_said_here(sqlite_context: Context, prepared: Any) -> None:
    def work(run_id: str) -> None:
        taken, _ = runs.resume(sqlite_context, run_id, worker="ray:1", actor="cli", now=now_ms())
        runs.end(sqlite_context, taken, runs.FAILED, "The run diverged.", now_ms())

    with pytest.raises(TrainingError, match="did not succeed on Ray: The run diverged"):
        _run(sqlite_context, Jobs(work, "FAILED"), prepared)


def test_a_job_that_the_cluster_has_no_room_for_can_be_cancelled(
    sqlite_context: Context, prepared: Any
) -> None:
    def work(run_id: str) -> None:
        runs.request_cancel(sqlite_context, run_id, actor="ada", now=now_ms())

    jobs = Jobs(work, "PENDING")
    with pytest.raises(TrainingError, match="Cancelled on request"):
        _run(sqlite_context, jobs, prepared)
    assert _row(sqlite_context)["state"] == "cancelled" and jobs.stopped == [
        _row(sqlite_context)["id"]
    ]


def test_whoever_interrupts_stops_the_job(sqlite_context: Context, prepared: Any) -> None:
    def work(run_id: str) -> None:
        runs.resume(sqlite_context, run_id, worker="ray:1", actor="cli", now=now_ms())
        raise KeyboardInterrupt

    jobs = Jobs(work, "PENDING")
    with pytest.raises(KeyboardInterrupt):
        _run(sqlite_context, jobs, prepared)
    row = _row(sqlite_context)
    assert (
        row["state"] == "failed"
        and "whet train resume" in row["error"]
        and jobs.stopped == [row["id"]]
    )


def test_a_cluster_that_is_out_of_reach_for_a_while_keeps_its_job(
    sqlite_context: Context, prepared: Any
) -> None:
    def work(run_id: str) -> None:
        raise ConnectionError("no route")

    jobs = Jobs(work, "PENDING")
    with pytest.raises(TrainingError, match="can no longer be followed: no route"):
        _run(sqlite_context, jobs, prepared)
    assert _row(sqlite_context)["state"] == "running" and jobs.stopped == []


def test_a_job_that_ray_refuses_ends_the_run(sqlite_context: Context, prepared: Any) -> None:
    jobs = Jobs(lambda run_id: None, "PENDING")
    jobs.submit_job = lambda **given: (_ for _ in ()).throw(RuntimeError("no such environment"))  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="Ray did not take the job: no such environment"):
        _run(sqlite_context, jobs, prepared)
    assert _row(sqlite_context)["state"] == "failed"


def test_a_run_is_not_resumed_on_another_base(shell: Shell, tmp_path: Path) -> None:
    from whet.context import open_context

    context = open_context(load_settings(home=tmp_path / "home"))
    run = runs.start(
        context,
        alias="support",
        dataset_digest="d",
        base_digest="b" * 64,
        recipe={"dataset_path": "p", "dataset_name": "n"},
        estimate={},
        worker="",
        now=now_ms(),
    )
    context.close()
    assert "was begun on the base bbbbbbbb" in shell.refused("train", "resume", run.id)


# --- how a trial ends -----------------------------------------------------------------------------------------------


class Trial:
    def __init__(self, number: int, hopeless_at: int = 99) -> None:
        self.number, self._hopeless_at, self.losses, self.notes = number, hopeless_at, {}, {}

    def report(self, loss: float, check: int) -> None:
        self.losses[check] = loss

    def should_prune(self) -> bool:
        return max(self.losses) >= self._hopeless_at

    def set_user_attr(self, name: str, value: Any) -> None:
        self.notes[name] = value


def test_losses_reach_their_trials_and_a_hopeless_one_is_given_up_once() -> None:
    running = {
        "a": search_ray._Running(Trial(1)),
        "b": search_ray._Running(Trial(2, hopeless_at=2)),
    }  # type: ignore[arg-type]
    assert search_ray._hopeless(running, [(1, 1, 0.5), (2, 1, 0.9), (7, 1, 0.1)]) == []
    assert search_ray._hopeless(running, [(2, 2, 0.9), (2, 3, 0.9), (1, 2, 0.4)]) == ["b"]
    assert search_ray._hopeless(running, [(2, 4, 0.9)]) == []
    assert running["a"].trial.losses == {1: 0.5, 2: 0.4}  # type: ignore[attr-defined]


def test_a_trial_ends_as_its_task_did() -> None:
    class RayError(Exception): ...

    def get(reference: Any) -> Any:
        if isinstance(reference, Exception):
            raise reference
        return reference

    ray = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayError=RayError))
    told: list[tuple[Any, ...]] = []
    study: Any = SimpleNamespace(
        tell=lambda trial, value=None, state=None: told.append(
            (trial.number, value, state and state.name)
        )
    )
    for number, (reference, pruned) in enumerate(
        [
            ((0.5, ""), False),
            ((0.5, ""), True),
            ((None, "It diverged."), False),
            (RayError("node lost\nat x"), False),
        ]
    ):
        one = search_ray._Running(Trial(number), pruned)  # type: ignore[arg-type]
        search_ray._tell(ray, study, one, reference)
        if number >= 2:
            assert one.trial.notes["error"] == ("It diverged." if number == 2 else "node lost")  # type: ignore[attr-defined]
    assert told == [(0, 0.5, None), (1, None, "PRUNED"), (2, None, "FAIL"), (3, None, "FAIL")]


def test_as_many_trials_are_under_way_as_the_cluster_holds_and_one_more() -> None:
    assert search_ray.room({"CPU": 8.0}, {"num_cpus": 2, "num_gpus": 0}) == 5
    assert search_ray.room({"CPU": 8.0, "GPU": 1.0}, {"num_cpus": 2, "num_gpus": 1}) == 2
    with pytest.raises(ConfigurationError, match="needs 2 CPU, 1 GPU, and the cluster has no room"):
        search_ray.room({"CPU": 8.0}, {"num_cpus": 2, "num_gpus": 1})


def test_a_trial_gets_tokens_and_no_conversations() -> None:
    from dataclasses import make_dataclass

    row: Any = object()
    whole: Any = make_dataclass("P", ["dataset", "left_out", "train"])(
        Dataset("d", "d", "p", [row], [row], [row]), [row], ["tokens"]
    )
    sent = search_ray.without_texts(whole)
    assert (
        sent.dataset == replace(whole.dataset, train=[], validation=[], test=[])
        and sent.left_out == []
        and sent.train == ["tokens"]
    )
