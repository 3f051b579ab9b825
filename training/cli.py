"""The commands of this package, as `pyproject.toml` names them.

Nothing heavy is imported until a command runs.
"""

from training.commands.adapters import adapters, export
from training.commands.base import base
from training.commands.data_more import data
from training.commands.evaluate import evaluate
from training.commands.lr_find import lr_find as _lr_find  # noqa: F401
from training.commands.resume import resume as _resume  # noqa: F401
from training.commands.search import search as _search  # noqa: F401
from training.commands.train import train

__all__ = ["adapters", "base", "data", "evaluate", "export", "train"]
