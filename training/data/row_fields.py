"""The fields of a row beside its conversation: what they may hold, and as what they are read."""

from __future__ import annotations

from training.data.wrong import Wrong, kind_of, shown
from whet.json_types import JsonObject
from whet.rag_prompt import format_passage

# What a row may weigh. Its part of the loss is multiplied by it: beside rows of weight 1, one
# beyond these is all of a batch's mean, or nothing of it.
LEAST_WEIGHT, MOST_WEIGHT = 1e-4, 1e4
_TWO_NUMBERS = 2**53  # from here on several whole numbers are one floating-point number


def context_of(raw: JsonObject) -> list[str]:
    """Return retrieved passages as the gateway writes them (`whet.rag_prompt`).

    Raises Wrong for other things than texts, objects with a `text`, and lists of them.
    """
    value = raw.get("context")
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, list):
        texts = [item.get("text") if isinstance(item, dict) else item for item in value]
        if all(isinstance(text, str) for text in texts):
            return [format_passage(item) if isinstance(item, dict) else str(item) for item in value]
    expected = "a text, a list of texts, or a list of objects with a 'text'"
    raise Wrong(f"'context' is {kind_of(value)}", expected)


def texts_of(raw: JsonObject, name: str) -> list[str]:
    """Return a list of texts, [] where there is none. Raises Wrong for other things."""
    value = raw.get(name)
    if value is None:
        return []
    texts = (
        [item for item in value if isinstance(item, str) and item.strip()]
        if isinstance(value, list)
        else []
    )
    if isinstance(value, list) and len(texts) == len(value):
        return texts
    raise Wrong(f"{name!r} is {kind_of(value)}", "a list of texts that are not empty")


def optional_text(raw: JsonObject, name: str) -> str | None:
    """Return a text, None for nothing and for an empty one; of an id as a number its digits.

    Raises Wrong.
    """
    value = raw.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        return value
    if name in ("id", "user", "group") and isinstance(value, int | float):
        return _number_as_text(name, value)
    raise Wrong(f"{name!r} is {kind_of(value)}", "a text, or nothing")


def _number_as_text(name: str, value: int | float) -> str:
    """Return 7 and 7.0 as `7`: tables write whole numbers either way. Raises Wrong."""
    if isinstance(value, bool):
        raise Wrong(f"{name!r} is {kind_of(value)}", "a text, or nothing")
    if isinstance(value, int):
        return str(value)
    if not value.is_integer():
        raise Wrong(f"{name!r} is {shown(value)}", "a text or a whole number, or nothing")
    if abs(value) >= _TWO_NUMBERS:
        found = f"{name!r} is {value:.0f} as a number with a decimal point, which is rounded"
        raise Wrong(found, "a whole number or a text: write the column as text again")
    return str(int(value))


def one_of(raw: JsonObject, name: str, allowed: tuple[str, ...], default: str) -> str:
    """Return a field that has one of the allowed values. Raises Wrong."""
    value = raw.get(name, default)
    if value not in allowed:
        raise Wrong(f"{name!r} is {shown(value)}", f"one of {', '.join(allowed)}")
    return str(value)


def weight_of(raw: JsonObject) -> float:
    """Return how much the row counts, 1 where it does not say. Raises Wrong."""
    value = raw.get("weight", 1.0)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not LEAST_WEIGHT <= value <= MOST_WEIGHT
    ):
        raise Wrong(
            f"'weight' is {shown(value)}",
            f"a number above 0, from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}",
        )
    return float(value)


def rating_of(raw: JsonObject) -> int:
    """Return 1 or -1, or 0 where nobody rated the answer. Raises Wrong."""
    value = raw.get("rating")
    if value is None:
        return 0
    if isinstance(value, bool) or value not in (1, -1):
        raise Wrong(
            "the rating is " + shown(value).strip("'"), "1 for a good answer, or -1 for a bad one"
        )
    return int(value)
