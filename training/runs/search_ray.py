"""A search whose trials run on Ray, several at once.

The study stays in this process: it asks for a recipe, a task tries it, the study is told.

Losses come back through Ray's queue as the trials go on, and a hopeless trial's task is cancelled.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Protocol, TypedDict, Unpack

import torch
from optuna import Study, Trial
from optuna.trial import TrialState

from training.machine.allocator import keep_memory
from training.methods.families import family
from training.optional import RAY, RAY_QUEUE
from training.plan.prepare import Prepared
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe
from training.runs import ray_trial
from training.runs.places import LOCAL, SEND_A_TOKEN
from training.runs.search import Search, best_loss, best_of, ended
from whet.errors import ConfigurationError, TrainingError
from whet.lazy import load

_LOOK_S = 0.2  # between looks at the queue: an epoch of the smallest trial takes about as long
# Trials asked for beyond those that fit, so that no processor waits for the next proposal
_OVER = 1


@contextmanager
def cluster(address: str) -> Iterator[ModuleType]:
    """Ray, connected; one that was started here (`local`) is ended again.

    Raises ConfigurationError when there is none at the address.
    """
    own: dict[str, object] = {}
    if address == LOCAL:
        own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        # Some of Ray's processes listen on every interface all the same, and whoever reaches them
        # can run code; so they ask for a token that only we know. One for all searches of a
        # process, and set before the import: Ray reads both then, once.
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
        }
    ray = load(RAY)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
        # A cluster that refuses our token looks like one that does not answer: Ray writes the
        # reason to standard error, and raises something else.
        raise ConfigurationError(
            f"There is no Ray cluster at {address} that takes us in: {str(error).splitlines()[0]}",
            hint=(
                "Give --on ray for one on this machine, or --on ray=HOST:6379. If it asks for a"
                f" token: {SEND_A_TOKEN}"
            ),
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


class Follow(TypedDict):
    """How long a search goes on, and who is told of its trials."""

    trials: int | None
    seconds: float | None
    on_trial: Callable[[int, float | None], None]


class LossQueue(Protocol):
    """What is called of Ray's queue."""

    def put(self, item: tuple[int, int, float]) -> None: ...


def search_on_ray(
    search: Search,
    ray: ModuleType,
    *,
    clock: Callable[[], float] = time.monotonic,
    **follow: Unpack[Follow],
) -> None:
    """As `Search.run`, with as many trials at once as the cluster has room for."""
    trials, seconds, on_trial = follow["trials"], follow["seconds"], follow["on_trial"]
    study, recipe, until = (
        search.study(together=True),
        search.prepared.recipe,
        None if seconds is None else clock() + seconds,
    )
    held = {"num_cpus": max(1, recipe.threads), "num_gpus": int(recipe.device == "cuda")}
    trial_task = ray.remote(ray_trial.attempt).options(**held, max_retries=0)
    queue = load(RAY_QUEUE)(actor_options={"num_cpus": 0})
    rows, most = ray.put(without_texts(search.prepared)), room(ray.cluster_resources(), held)
    running: dict[object, _Running] = {}
    try:
        while True:
            left = most if trials is None else trials - len(ended(study)) - len(running)
            while left > 0 and len(running) < most and (until is None or clock() < until):
                trial = study.ask()
                running[trial_task.remote(rows, search.propose(trial), trial.number, queue)] = (
                    _Running(trial)
                )
                left -= 1
            if not running:
                return
            done, _ = ray.wait(list(running), timeout=_LOOK_S)
            for reference in _hopeless(running, queue.get_nowait_batch(queue.qsize())):
                ray.cancel(reference)
            for reference in done:
                _tell(ray, study, running.pop(reference), reference)
                on_trial(len(ended(study)), best_loss(study))
    finally:
        for reference in running:
            ray.cancel(reference)
        queue.shutdown(force=True)


@dataclass
class _Running:
    trial: Trial
    pruned: bool = False


def room(has: Mapping[str, float], held: Mapping[str, float]) -> int:
    """Trials to have under way at once: as many as the cluster can hold, and one that waits."""
    fitting = [
        int(has.get(name, 0) // held[key])
        for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus"))
        if held[key]
    ]
    if min(fitting) < 1:
        wanted = ", ".join(
            f"{held[key]:g} {name}"
            for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus"))
            if held[key]
        )
        raise ConfigurationError(
            f"A trial needs {wanted}, and the cluster has no room for one.",
            hint="Add a node to it, or lower --threads or device in the recipe.",
        )
    return min(fitting) + _OVER


def without_texts(prepared: Prepared) -> Prepared:
    """What a trial needs: tokens, recipe and base, and none of the conversations."""
    return replace(
        prepared, dataset=replace(prepared.dataset, train=[], validation=[], test=[]), left_out=[]
    )


def _hopeless(running: dict[object, _Running], told: list[tuple[int, int, float]]) -> list[object]:
    """Note the losses with their trials; the tasks of those that Optuna gives up now."""
    by_number = {each.trial.number: (reference, each) for reference, each in running.items()}
    found = []
    for number, check, loss in told:
        if number not in by_number:
            continue
        reference, each = by_number[number]
        each.trial.report(loss, check)
        if not each.pruned and each.trial.should_prune():
            each.pruned = True
            found.append(reference)
    return found


def _tell(ray: ModuleType, study: Study, ended_one: _Running, reference: object) -> None:
    """Tell the study how a trial ended.

    One that was given up stays so, also when its task came to its end before it heard of that.
    """
    trial = ended_one.trial
    try:
        loss, error = ray.get(reference)
    except ray.exceptions.RayError as failed:  # cancelled, or its process or node is gone
        loss, error = None, str(failed).splitlines()[0]
    if ended_one.pruned:
        study.tell(trial, state=TrialState.PRUNED)
    elif loss is None:
        trial.set_user_attr("error", error)
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, loss)


def attempt(
    prepared: Prepared, recipe: Recipe, number: int, queue: LossQueue
) -> tuple[float | None, str]:
    """In a task: (best validation loss, ""), or (None, why the run failed)."""
    keep_memory()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    prepared = replace(prepared, recipe=recipe)
    try:
        loss = best_of(
            lambda: family(METHODS[recipe.method]).build(prepared),
            prepared,
            on_step=lambda step, steps: None,
            on_check=lambda check, loss: queue.put((number, check, loss)),
        )
    except TrainingError as error:
        return None, str(error)
    return loss, ""
