"""The commands of the core: init, up, status, doctor, keys, users, trace.

Each is imported when it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_COMMANDS = {
    "init": "whet.commands.home:init",
    "up": "whet.commands.start:up",
    "status": "whet.commands.look:status",
    "doctor": "whet.commands.look:doctor",
    "keys": "whet.commands.people:keys",
    "users": "whet.commands.people:users",
    "trace": "whet.commands.tracing:trace",
}


def __getattr__(name: str) -> Any:
    if name not in _COMMANDS:
        raise AttributeError(name)
    module, attribute = _COMMANDS[name].split(":")
    return getattr(import_module(module), attribute)
