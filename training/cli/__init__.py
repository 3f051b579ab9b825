"""The commands of this package, as `pyproject.toml` names them: their options and their help.

Each names the function of `training.commands` that does its work, which is imported when it runs.
"""

from __future__ import annotations

from training.cli.adapters import adapters, export
from training.cli.base import base
from training.cli.data import data
from training.cli.evaluate import evaluate
from training.cli.train_more import train

__all__ = ["adapters", "base", "data", "evaluate", "export", "train"]
