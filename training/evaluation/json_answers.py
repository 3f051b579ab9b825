"""JSON in answers: read strictly, and compared field by field."""

from __future__ import annotations

import json
from typing import NoReturn

from training.data.scoring import normal
from whet.json_types import Json, JsonObject

# Levels of JSON in an answer; what is deeper is no data, and a recursive reader may fail on it
_DEEPEST = 100


def parsed(text: str) -> Json:
    """The value of a text that is strict JSON as a whole; None for anything else (and for `null`,
    which says nothing).

    A name that an object has twice is no JSON here: readers disagree on which one counts. Neither
    is what is nested too deeply.
    """
    try:
        value: Json = json.loads(text, parse_constant=_no_number, object_pairs_hook=_named_once)
    except (ValueError, RecursionError):
        return None
    return None if _too_deep(value) else value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _named_once(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
    return any(isinstance(one, dict | list) for one in level)


def fields_right(reference: str, answer: str) -> float:
    """Share of the reference's fields, nested ones by their path, that the answer has with the same
    value; texts without case and surplus space.
    """
    expected, found = leaves(parsed(reference)), leaves(parsed(answer))
    return (
        sum(found.get(path, _MISSING) == value for path, value in expected.items()) / len(expected)
        if expected
        else float(found == expected)
    )


_MISSING = object()


def leaves(
    value: object, path: tuple[str | int, ...] = ()
) -> dict[tuple[str | int, ...], tuple[bool, object]]:
    """Path → scalar, `{"a": [1, {"b": 2}]}` → `{("a", 0): 1, ("a", 1, "b"): 2}`.

    True and 1 stay different.
    """
    if isinstance(value, dict):
        return {
            at: leaf
            for name, item in value.items()
            for at, leaf in leaves(item, (*path, name)).items()
        }
    if isinstance(value, list):
        return {
            at: leaf
            for number, item in enumerate(value)
            for at, leaf in leaves(item, (*path, number)).items()
        }
    return {path: (type(value) is bool, normal(value) if isinstance(value, str) else value)}
