"""What is wrong with one row, in words: the exception, and values as messages repeat them."""

from __future__ import annotations

import json

from whet.json_types import Json, JsonObject

_SHOWN = 60  # characters of a wrong value that a message repeats


class Wrong(Exception):
    """Raised while one row is read; becomes a BadLine."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


def one_of_each(pairs: list[tuple[str, Json]]) -> JsonObject:
    """Return a JSON object in which no name stands twice: which was meant nobody can know.

    Raises Wrong.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Wrong(f"the name {shown(twice)} twice in one object", "each name once")
    return found


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    names = {
        dict: "an object", list: "a list", str: "a text", bool: "true or false",
        int: "a number", float: "a number", type(None): "null",
    }  # fmt: skip
    if value == [] or value == "":
        return f"empty {names[type(value)].split()[-1]}"
    return names[type(value)]


def shown(value: object) -> str:
    """Return a wrong value as a message repeats it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
