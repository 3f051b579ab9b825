"""Tells the run's row, and whoever watches, how a run goes; brings back the wish to cancel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from training.loop.checkpoint import LoopState
from training.loop.trainer import Cancelled, Step, Trained
from training.store import runs
from training.store.table_rows import Progress
from whet.clock import now_ms
from whet.context import Context

# A page that follows a run gains nothing from more, and the database is shared with the traffic
_MIN_INTERVAL_S = 0.5
_HEARTBEAT_S = 5.0  # while a stage is long and silent, such as loading


Watch = Callable[[Progress], None]  # is told how far a run is


class Reporter:
    """Use as a context manager around the run; a thread keeps the heartbeat alive meanwhile.

    `watch` is called with the progress after every step and stage, for a progress bar.
    """

    def __init__(
        self,
        context: Context,
        run: runs.Run,
        watch: Watch = lambda progress: None,
    ) -> None:
        self._context, self._run, self._watch = context, run, watch
        self.curve: list[list[float]] = []
        self.questions: list[str] = []  # that are answered while the run trains
        self._progress: Progress = {"stage": "loading"}
        self._written_at = 0.0
        self._stopped = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(_HEARTBEAT_S):
            try:
                runs.beat(self._context, self._run, now_ms())
            except runs.Superseded:
                self._lost = True
                return

    def stage(self, name: str) -> None:
        """A new stage begins. Raises Cancelled, Superseded."""
        self._progress = {**self._progress, "stage": name}
        self._write(force=True)

    def continues(self, state: LoopState) -> None:
        """The run goes on from a checkpoint: the curve begins with what it holds."""
        self.curve = [_point(*point) for point in state.history]

    def working(self, stage: str, done: int, total: int) -> None:
        """Within a stage before the training itself. Raises Cancelled, Superseded."""
        self._progress = {"stage": stage, "done": done, "total": total}
        self._write(force=False)

    def step(self, step: Step) -> None:
        """After each training step. Raises Cancelled, Superseded."""
        self.curve.append(_point(step.step, step.loss, step.seconds, step.rate))
        self._progress = {
            "stage": "training",
            "step": step.step,
            "steps": step.steps,
            "loss": round(step.loss, 5),
            "tokens_per_s": round(step.tokens_per_s),
            "eta_s": round(step.eta_s, 1),
            "validation": _rounded(step.validation),
            "signs": list(step.signs),
        }
        self._add_samples(self._progress, step.samples)
        self._write(force=step.step in (1, step.steps))

    def evaluating(self, done: int, total: int) -> None:
        """After each batch of answers. Raises Cancelled, Superseded."""
        self._progress = {
            **self._progress,
            "stage": "evaluating",
            "answered": done,
            "to_answer": total,
        }
        self._write(force=False)

    def surveying(self, done: int, total: int) -> None:
        """After each batch of answers for the report.

        The run's row has ended by then, so only the watcher is told.
        """
        self._watch({**self._progress, "stage": "reporting", "answered": done, "to_answer": total})

    def final(self, trained: Trained) -> Progress:
        """The progress that stays with a finished run."""
        done: Progress = {
            "stage": "done",
            "step": trained.steps,
            "steps": trained.steps,
            "loss": round(trained.last_loss, 5),
            "tokens_per_s": round(trained.tokens_per_s),
            "eta_s": 0,
            "validation": _rounded(trained.validation),
            "signs": trained.signs,
        }
        self._add_samples(done, trained.samples)
        return done

    def _add_samples(self, progress: Progress, answers: Sequence[Sequence[object]]) -> None:
        """Add the answers so far beside their questions; nothing where nothing is sampled."""
        if answers:
            progress["samples"] = {"questions": self.questions, "answers": list(answers)}

    def _write(self, *, force: bool) -> None:
        self._watch(self._progress)
        if self._lost:
            raise runs.Superseded(self._run.id)
        if not force and time.monotonic() - self._written_at < _MIN_INTERVAL_S:
            return
        self._written_at = time.monotonic()
        if runs.report(
            self._context, self._run, progress=self._progress, curve=self.curve, now=now_ms()
        ):
            raise Cancelled


def _point(step: float, loss: float, seconds: float, rate: float) -> list[float]:
    return [int(step), round(loss, 5), round(seconds, 2), float(f"{rate:.4g}")]


def _rounded(validation: Iterable[tuple[int, float]]) -> list[list[float]]:
    return [[step, round(loss, 5)] for step, loss in validation]
