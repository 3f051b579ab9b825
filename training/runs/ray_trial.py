"""What a process of Ray imports first for a trial: it sets what torch reads when it is imported."""

from __future__ import annotations

from training.imports import load, quiet_environment

quiet_environment()  # before Ray unpickles the trial's rows, which imports torch


def attempt(*trial: object) -> tuple[float | None, str]:
    """Try one recipe, see `search_ray.attempt`."""
    found: tuple[float | None, str] = load("training.runs.search_ray:attempt")(*trial)
    return found
