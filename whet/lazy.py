"""Load what a command or a process needs by its name, when it is needed.

Definitions of commands import nothing heavy; each names what does its work as "module:function".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., None])


def load(target: str) -> Any:
    """Import "module:attribute" and return the attribute, or the module where none is named."""
    module, _, attribute = target.partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def runs(
    target: str, loader: Callable[[str], Callable[..., None]] = load
) -> Callable[[Command], Command]:
    """Give a command's definition its work: the function `target`, which takes the same arguments.

    The definition has the options, their help and no body, so that `--help` imports no more than it.
    """

    def attach(definition: Command) -> Command:
        @wraps(definition)
        def command(**options: Any) -> None:
            loader(target)(**options)

        vars(command)["target"] = target
        return command  # type: ignore[return-value]

    return attach
