"""The commands of this package, as `pyproject.toml` names them. Nothing heavy is imported until a command runs."""

from training.commands.adapters import adapters, export
from training.commands.data import data
from training.commands.evaluate import evaluate
from training.commands.train import train

__all__ = ["adapters", "data", "evaluate", "export", "train"]
