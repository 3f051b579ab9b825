"""Units of numbers in their normal form, and numbers written as words."""

from __future__ import annotations

from collections.abc import Mapping


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_TO_TWENTY = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)
NUMBER_WORDS: Mapping[str, float] = {
    **{word: float(value) for value, word in enumerate(_TO_TWENTY)},
    **{"thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "ninety": 90.0},
}

# Written → (base unit, factor): what is the same amount becomes the same number.
_UNITS: Mapping[str, tuple[str, float]] = {
    "year": ("month", 12), "yr": ("month", 12), "month": ("month", 1),
    "week": ("day", 7), "day": ("day", 1),
    "hour": ("minute", 60), "hr": ("minute", 60), "h": ("minute", 60),
    "minute": ("minute", 1), "min": ("minute", 1),
    "second": ("second", 1), "sec": ("second", 1), "ms": ("second", 0.001),
    "g": ("gram", 1), "gram": ("gram", 1), "kg": ("gram", 1000), "kilogram": ("gram", 1000),
    "mm": ("metre", 0.001), "cm": ("metre", 0.01), "m": ("metre", 1), "metre": ("metre", 1),
    "meter": ("metre", 1), "km": ("metre", 1000), "kilometre": ("metre", 1000),
    "l": ("litre", 1), "litre": ("litre", 1), "liter": ("litre", 1), "ml": ("litre", 0.001),
    "%": ("percent", 1), "percent": ("percent", 1),
    "€": ("euro", 1), "euro": ("euro", 1), "eur": ("euro", 1),
    "$": ("dollar", 1), "dollar": ("dollar", 1), "usd": ("dollar", 1),
    "£": ("pound", 1), "pound": ("pound", 1), "gbp": ("pound", 1),
    "°": ("degree", 1), "degree": ("degree", 1),
}  # fmt: skip
# Normal forms that are said in the plural.
COUNTED_UNITS = frozenset(unit for unit, _ in _UNITS.values()) - {"percent"}
# Words after a number that are no unit of it.
_NO_UNITS = frozenset(
    _words(
        """a about after against also am an and are as at be before but by can do for from has have
        he if in is it its may no not of off on or our out per she so than that the their then they
        this to up was we which will with within without you your"""
    )
)


def unit_of(written: str) -> tuple[str, float] | None:
    """Return (base unit, factor) of a word after a number; None when it is no unit.

    A noun that is not in the table (`24 pieces`) is a unit of its own, in the singular.
    """
    word = written.lower()
    for form in (word, word.removesuffix("s")):
        if form in _UNITS:
            return _UNITS[form]
    if not word or word in _NO_UNITS:
        return None
    return word.removesuffix("s") if len(word) > 3 else word, 1.0
