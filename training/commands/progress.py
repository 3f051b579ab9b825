"""How far a run is, on standard error: a bar on a terminal, one line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from training.store.table_rows import Progress as RunProgress
from whet.cli import err
from whet.web.filters import duration

Watch = Callable[[RunProgress], None]  # called with the progress as `Reporter` has it

_LINE_EVERY_S = 10.0  # a log that is looked at now and then needs no more
_LINES_A_RUN = 10  # of a run that is over sooner; but none within a second of the last one
_LEAST_S = 1.0


@contextmanager
def run_progress() -> Iterator[Watch]:
    """Show the progress of a run while the block runs."""
    if err.is_terminal:
        with _bar() as watch:
            yield watch
    else:
        yield LineProgress(lambda line: err.print(line, markup=False, soft_wrap=True))


@contextmanager
def _bar() -> Iterator[Watch]:
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("loading", total=None, detail="")

        def watch(state: RunProgress) -> None:
            stage = state["stage"]
            if stage == "training" and "step" in state:
                progress.update(
                    task,
                    description=stage,
                    completed=state["step"],
                    total=state["steps"],
                    detail=f"loss {state['loss']:.3f} · {state['tokens_per_s']:,} tokens/s",
                )
            elif stage in ("evaluating", "reporting") and "answered" in state:
                progress.update(
                    task,
                    description=stage,
                    completed=state["answered"],
                    total=state["to_answer"],
                    detail="answers",
                )
            elif "done" in state:
                progress.update(
                    task, description=stage, completed=state["done"], total=state["total"]
                )
            else:
                progress.update(task, description=stage)

        yield watch


class LineProgress:
    """Writes whole lines where no bar can be drawn: a log file, a pipe, CI.

    A line comes with each new stage, with the first and the last step, and between them every ten
    seconds or every tenth of the steps.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._stage, self._step, self._at = "", 0, clock()

    def __call__(self, state: RunProgress) -> None:
        stage, step = state["stage"], state.get("step", 0)
        if stage == "training" and step:
            if self._is_due(step, state["steps"]):
                self._note(stage, step)
                self._write(_step_line(state))
        elif stage != self._stage and stage != "done":
            self._note(stage, step)
            self._write(f"{stage} …")
        elif "answered" in state and self._clock() - self._at >= _LINE_EVERY_S:
            self._note(stage, step)
            self._write(f"{stage}  {state['answered']} of {state['to_answer']} answers")
        elif "done" in state and self._clock() - self._at >= _LINE_EVERY_S:
            self._note(stage, step)
            self._write(f"{stage}  {state['done']} of {state['total']}")

    def _is_due(self, step: int, steps: int) -> bool:
        if step <= self._step:
            return False  # told already
        passed = self._clock() - self._at
        return (
            self._step == 0
            or step == steps
            or passed >= _LINE_EVERY_S
            or (passed >= _LEAST_S and step - self._step >= steps / _LINES_A_RUN)
        )

    def _note(self, stage: str, step: int) -> None:
        self._stage, self._step, self._at = stage, step, self._clock()


def _step_line(state: RunProgress) -> str:
    validation = state.get("validation") or []
    checked = f"  validation loss {validation[-1][1]:.3f}" if validation else ""
    left = f"  {duration(1000 * state['eta_s'])} left" if state["eta_s"] else ""
    return (
        f"training  step {state['step']} of {state['steps']}  loss {state['loss']:.4f}"
        f"{checked}  {state['tokens_per_s']:,} tokens/s{left}"
    )
