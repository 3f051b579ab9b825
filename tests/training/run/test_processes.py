"""Several processes at one run: the weights are those of one process, and whatever happens to one
of them ends the run in words.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from tests.training.run.small import RECIPE, begun_in_a_fork, encoded, fresh, until
from tests.training.test_commands import Shell
from tests.training.tiny import facts, write_rows
from training.loop import loss, step_gradients
from training.loop.checkpoint import Checkpoints, ReadOnly
from training.loop.faults import require_device
from training.loop.loss import plain
from training.loop.ranks import Ranks, full_tensor, shard
from training.loop.trainer import Cancelled, Step, Trained, train
from training.methods.families import family
from training.models.base_model import BaseModel
from training.plan import torchrun
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe, load_recipe
from training.runs.search import require_searchable
from whet.context import Context, open_context
from whet.database import reading
from whet.errors import ConfigurationError, InputError, TrainingError
from whet.settings import load_settings
from whet.tables import adapters, training_runs

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = replace(RECIPE, dropout=0.0, micro_batch=0, epochs=2.0)
# Float32: the order of sums is all that differs (measured: at most 9e-7 over two epochs). A mean of
# the processes' means is off by 1e-2.
_TOLERANCE = 1e-5


def _rows(base: BaseModel) -> tuple[Any, Any]:
    """33 rows in steps of 8: the last step of an epoch has one row, so one of two processes has
    none. Their weights differ.
    """
    rows = [replace(row, weight=1.0 + number % 3) for number, row in enumerate(encoded(base, 41))]
    return rows[:33], rows[33:]


def _train(
    base: BaseModel,
    model: Any,
    recipe: Recipe,
    ranks: Ranks,
    checkpoints: Any = None,
    on_step: Any = lambda step: None,
) -> tuple[Trained, Any]:
    import torch

    rows, validation = _rows(base)
    resume = checkpoints.resume() if checkpoints else None
    if resume and not ranks.first:  # each process reads the file's tensors in an order of its own
        resume = replace(resume, tensors=dict(reversed(resume.tensors.items())))
    done = train(
        model,
        rows,
        validation,
        recipe,
        pad_id=0,
        on_step=on_step,
        checkpoints=checkpoints,
        resume=resume,
        ranks=ranks,
    )
    return done, torch.cat(
        [
            full_tensor(parameter.detach()).flatten()
            for parameter in model.parameters()
            if parameter.requires_grad
        ]
    )


def _in_two(
    base: BaseModel, make: Callable[[], Any], recipe: Recipe, work: Callable[[Any, Ranks], Any]
) -> Any:
    """What `work(model in shares, ranks)` returns in rank 0 of two copies of this process; None
    when rank 0 killed itself.

    Copies, so that nothing is imported twice; torchrun itself is tried below.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:

        def share(rank: int) -> None:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
            )
            model = make()
            shard(model, plain(model)._no_split_modules)
            found = work(model, Ranks(rank, 2))
            if rank == 0:
                torch.save(found, f"{folder}/found")

        pids = [
            begun_in_a_fork(partial(share, rank), Path(folder, f"said-by-{rank}"))
            for rank in range(2)
        ]
        ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        if ends[0] == -signal.SIGKILL:
            return None
        said = "\n".join(path.read_text() for path in sorted(Path(folder).glob("said-by-*")))
        assert ends == [
            0,
            0,
        ], f"the processes ended with {ends}; a negative number is a signal\n{said}"
        return torch.load(f"{folder}/found", weights_only=False)


def _apart(one: Any, two: Any) -> float:
    return float((one[1] - two[1]).abs().max())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"micro_batch": 3, "gradient_checkpointing": True},
        {"packing": True},
        {"loraplus_lr_ratio": 4.0},
        {"init_lora_weights": "pissa"},
    ],
    ids=["plain", "accumulated", "packed", "loraplus", "pissa"],
)
def test_two_processes_make_the_adapter_of_one(base: BaseModel, changed: dict[str, Any]) -> None:
    recipe = replace(PLAIN, **changed)
    one = _train(base, fresh(base, recipe), recipe, Ranks())
    two = _in_two(
        base,
        lambda: fresh(base, recipe),
        recipe,
        lambda model, ranks: _train(base, model, recipe, ranks),
    )
    assert _apart(one, two) < _TOLERANCE
    assert (two[0].tokens, two[0].trained_tokens, two[0].steps, two[0].best_step) == (
        one[0].tokens,
        one[0].trained_tokens,
        one[0].steps,
        one[0].best_step,
    )
    assert two[0].validation == [
        (step, pytest.approx(loss, abs=_TOLERANCE)) for step, loss in one[0].validation
    ]
    assert (two[0].first_loss, two[0].last_loss) == pytest.approx(
        (one[0].first_loss, one[0].last_loss), abs=_TOLERANCE
    )


def test_a_mean_of_the_processes_means_would_be_noticed(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault behind the rule: each process's share counts alike, however many learned tokens it
    has and whatever they weigh.
    """
    one = _train(base, fresh(base, PLAIN), PLAIN, Ranks())
    for module in (step_gradients, loss):
        monkeypatch.setattr(module, "batch_weight", lambda batch: 1.0 if batch.trained else 0.0)
    two = _in_two(
        base,
        lambda: fresh(base, PLAIN),
        PLAIN,
        lambda model, ranks: _train(base, model, PLAIN, ranks),
    )
    assert _apart(one, two) > 100 * _TOLERANCE


_SHARED = [name for name, method in METHODS.items() if "processes" in method.reads]


@pytest.mark.parametrize(
    "name",
    [name if name == "full" else pytest.param(name, marks=pytest.mark.slow) for name in _SHARED],
)
def test_every_method_that_says_so_can_hold_its_weights_in_shares(
    base: BaseModel, name: str
) -> None:
    recipe = replace(
        load_recipe(name),
        learning_rate=5e-3,
        epochs=2.0,
        batch_size=8,
        max_length=256,
        dtype="float32",
        threads=1,
    )

    def make() -> Any:
        return family(METHODS[name]).build(SimpleNamespace(base=base, recipe=recipe))  # type: ignore[arg-type]

    one = _train(base, make(), recipe, Ranks())
    two = _in_two(base, make, recipe, lambda model, ranks: _train(base, model, recipe, ranks))
    assert _apart(one, two) < _TOLERANCE


def test_two_processes_that_were_killed_go_on_to_the_same_weights_and_one_can_end_it(
    base: BaseModel, tmp_path: Path
) -> None:
    import torch

    def kept(ranks: Ranks) -> Checkpoints:
        made = (Checkpoints if ranks.first else ReadOnly)(tmp_path, every_s=0.0)
        made.belongs_to(PLAIN.as_json(), {"run": "this"})
        return made

    def work(model: Any, ranks: Ranks, die_at: int) -> Any:
        def on_step(step: Step) -> None:
            if ranks.first and step.step == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        return _train(base, model, PLAIN, ranks, kept(ranks), on_step)

    def make() -> Any:
        return fresh(base, PLAIN)

    undisturbed = _in_two(base, make, PLAIN, lambda model, ranks: _train(base, model, PLAIN, ranks))
    assert _in_two(base, make, PLAIN, lambda model, ranks: work(model, ranks, 7)) is None
    newest = kept(Ranks()).newest()
    assert newest is not None and newest.state.step == 6
    resumed = _in_two(base, make, PLAIN, lambda model, ranks: work(model, ranks, 0))
    assert torch.equal(resumed[1], undisturbed[1])
    ended = _train(
        base, make(), PLAIN, Ranks(), kept(Ranks()), lambda step: pytest.fail("a step was left")
    )
    assert torch.equal(ended[1], undisturbed[1]) and asdict(ended[0]) == asdict(resumed[0])


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--method", "qlora", "--processes", "2"), "qlora has no processes"),
        (("--method", "prefix", "--processes", "2"), "prefix has no processes"),
        (("--method", "dpo", "--processes", "2"), "dpo has no processes"),
        (("--processes", "2", "--batch-size", "1"), "a row of each step for each of them"),
        (("--processes", "-1"), "processes is -1"),
    ],
)
def test_processes_are_refused_before_anything_is_loaded(
    shell: Shell, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in shell.refused("train", "run", "no-such-file.jsonl", *arguments)


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("WHET_CHECKPOINT_INTERVAL_S", "0")
    return Shell(tmp_path / "home", base_folder)


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_device("auto", 1)
    with pytest.raises(
        ConfigurationError, match="asks for 2 processes, but this machine has 1 GPUs"
    ):
        require_device("auto", 2)


def test_a_search_tries_in_one_process() -> None:
    with pytest.raises(InputError, match="each trial in one process"):
        require_searchable(replace(load_recipe("lora"), processes=2), ("rank",))


# --- what happens to the processes ----------------------------------------------------------------------------------

_STEP = Step(1, 4, 2.0, 100.0, 3.0, 1.0, 0.1, ((1, 2.5),), ("a sign",))


def test_steps_and_the_first_error_come_through_whatever_else_is_printed() -> None:
    import json

    lines = [
        b"a library's own line\n",
        json.dumps({"step": asdict(_STEP)}).encode() + b"\n",
        b'{"error": ["One.", "Do."]}\n',
        b'{"error": ["Two.", ""]}\n',
    ]
    steps: list[Step] = []
    error = torchrun._follow(io.BytesIO(b"".join(lines)), steps.append)
    assert steps == [_STEP] and error is not None and (error.message, error.hint) == ("One.", "Do.")


def _with(
    base: BaseModel,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    on_step: Any = lambda step: None,
) -> None:
    """`in_processes` with another program in torchrun's place."""
    monkeypatch.setattr(
        torchrun, "_command", lambda processes, scratch: [sys.executable, "-c", program]
    )
    prepared: Any = SimpleNamespace(
        recipe=replace(PLAIN, processes=2),
        base=base,
        train=[],
        validation=[],
        variants=[],
        start_adapter=None,
    )
    torchrun.in_processes(
        SimpleNamespace(to=lambda device: None),
        prepared,
        pad_id=0,
        on_step=on_step,
        checkpoints=Checkpoints(folder),
    )


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (
            """print('{"error": ["Memory ran out.", "Use less."]}'); raise SystemExit(1)""",
            "Memory ran out. Use less.",
        ),
        (
            (
                "import sys; sys.exit('exitcode  : -15 (pid: 7) (SIGTERM)\\nexitcode  : -9 (pid: 8)"
                " (SIGKILL)')"
            ),
            "ended by SIGKILL",
        ),
        (
            "import sys; sys.exit('exitcode  : 1 (pid: 8)')",
            "A process of the run was ended, so the others were too",
        ),
        ("pass", "without a checkpoint"),
    ],
)
def test_a_process_that_fails_or_dies_ends_the_run_with_a_sentence(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, sentence: str
) -> None:
    with pytest.raises(TrainingError, match=sentence):
        _with(base, tmp_path, monkeypatch, program)
    assert [path.name for path in tmp_path.iterdir()] == [torchrun.LOG], (
        "what the processes were told holds rows, and goes with them"
    )


def test_whoever_stops_the_run_stops_the_processes(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    program = (
        f"import os, sys, time\nprint(r'''{json.dumps({'step': asdict(_STEP)})}''',"
        " flush=True)\nprint(os.getpid(), file=sys.stderr, flush=True)\ntime.sleep(600)"
    )

    def cancel(step: Step) -> None:
        until(lambda: (tmp_path / torchrun.LOG).read_text().strip(), "the program's number")
        raise Cancelled

    with pytest.raises(Cancelled):
        _with(base, tmp_path, monkeypatch, program, cancel)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / torchrun.LOG).read_text()), 0)


# --- torchrun itself ------------------------------------------------------------------------------------------------

_QUICK = ("--rank", "4", "--lr", "5e-3", "--threads", "1", "--seed", "3")


@pytest.fixture
def home(tmp_path: Path, shell: Shell) -> Iterator[Context]:
    """The shell's home, migrated before anybody else opens it."""
    opened = open_context(load_settings(home=tmp_path / "home"))
    yield opened
    opened.close()


def _processes_of(folder: Path) -> list[int]:
    """Process ids of torchrun and its processes that work below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"training.runs.rank" in words and str(folder).encode() in words:
            found.append(int(entry.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.timeout(900)  # starts a dozen processes that import torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_run_under_torchrun_that_loses_a_process_stores_nothing_and_can_be_resumed_to_the_weights_of_one(
    shell: Shell, home: Context, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('dtype = "float32"\n')
    quick = ("--recipe", str(recipe), *_QUICK)

    command = [
        sys.executable,
        "-m",
        "whet.cli",
        "train",
        "run",
        rows,
        "--processes",
        "2",
        "--epochs",
        "40",
        *quick,
        "--json",
    ]
    running = subprocess.Popen(
        command,
        env={**os.environ, **shell._environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(
            lambda: (row := _row(home)) and row["progress"].get("step", 0) >= 3,
            "the third step",
            running,
        )
        _launcher, *ranks = _processes_of(tmp_path)
        os.kill(ranks[-1], signal.SIGKILL)
        _, said = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 1 and "ended by SIGKILL" in said and "Traceback" not in said
    row = _row(home)
    assert (
        row is not None
        and row["state"] == "failed"
        and "ended by SIGKILL" in row["error"]
        and _versions(home) == 0
    )
    until(lambda: not _processes_of(tmp_path), "the end of the other processes")

    resumed = shell.json("train", "resume", row["id"])
    alone = Shell(tmp_path / "other", Path(shell._environment["WHET_BASE_MODEL"])).json(
        "train", "run", rows, "--epochs", "40", *quick
    )
    weights = [
        load_file(folder / "store" / made["path"] / "adapter_model.safetensors")
        for folder, made in ((tmp_path / "home", resumed), (tmp_path / "other", alone))
    ]
    for name, tensor in weights[1].items():
        torch.testing.assert_close(weights[0][name], tensor, rtol=0, atol=1e-3)
    assert not (tmp_path / "home" / "runs" / row["id"] / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)  # starts a dozen processes that import torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_cancelled_run_ends_its_processes_and_so_does_the_end_of_the_one_that_began_it(
    shell: Shell, home: Context, tmp_path: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    command = [
        sys.executable,
        "-m",
        "whet.cli",
        "train",
        "run",
        rows,
        "--processes",
        "2",
        "--epochs",
        "900",
        *_QUICK,
        "--json",
    ]
    for end in ("cancel", "kill"):
        running = subprocess.Popen(
            command,
            env={**os.environ, **shell._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(
                lambda: (
                    (row := _row(home))
                    and row["state"] == "running"
                    and row["progress"].get("step", 0) >= 3
                ),
                "the third step",
                running,
            )
            if end == "cancel":
                shell("train", "cancel", _row(home)["id"])
                _, said = running.communicate(timeout=120)
                assert (
                    running.returncode == 1
                    and "was cancelled" in said
                    and _row(home)["state"] == "cancelled"
                )
            else:
                running.kill()
                running.communicate()
        finally:
            running.kill()
        until(lambda: not _processes_of(tmp_path), f"the end of the processes after {end}")
    assert _versions(home) == 0


def _row(context: Context) -> Any:
    """The newest run."""
    with reading(context.database) as connection:
        row = connection.execute(
            select(training_runs).order_by(training_runs.c.started_at.desc()).limit(1)
        ).first()
    return dict(row._mapping) if row else None


def _versions(context: Context) -> int:
    with reading(context.database) as connection:
        return len(connection.execute(select(adapters)).all())
