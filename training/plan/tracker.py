"""What every tracker offers, and the refusal of one that cannot follow."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Protocol

from whet.errors import ConfigurationError
from whet.urls import mask_secrets


class Tracker(Protocol):
    """One place that shows curves.

    `errors` are the exceptions of a place that cannot be reached or written, `seen` is the last
    step that it has of earlier attempts.
    """

    name: str
    errors: tuple[type[Exception], ...]
    seen: int

    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self, *, failed: bool) -> None: ...


def tracker_refused(name: str, error: Exception, hint: str, url: str = "") -> ConfigurationError:
    """`url`: whose password the error's text may hold."""
    problem = mask_secrets(str(error), url).splitlines()[0] if str(error) else type(error).__name__
    return ConfigurationError(
        f"{name} cannot follow the run: {problem}.", hint=f"{hint}, or turn it off."
    )


def require_installed(wandb_project: str, mlflow_tracking_uri: str) -> None:
    """Raises ConfigurationError for a tracker that the settings name and that is not installed."""
    for wanted, module, setting in (
        (wandb_project, "wandb", "WHET_WANDB_PROJECT"),
        (mlflow_tracking_uri, "mlflow", "WHET_MLFLOW_TRACKING_URI"),
    ):
        if wanted and find_spec(module) is None:
            raise ConfigurationError(
                f"{setting} is set, but the package {module!r} is not installed.",
                hint=(
                    "`make setup-trackers` installs it, or pip install 'whet[trackers]'; or leave"
                    f" {setting} empty."
                ),
            )
