"""A recipe from the options of `whet train run`: one option each for the usual fields, `--set` for
all.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence

from training.recipes.methods import Method
from whet.errors import InputError

# Fields that have no option of their own name: what people would type instead.
_LISTS = frozenset({"target_modules"})


def overrides(options: Mapping[str, object], assignments: Sequence[str]) -> dict[str, object]:
    """Return the recipe fields that were given: options that are not None, and `key=value` texts.

    Raises InputError for an assignment without `=`, and for a field that is given twice.
    """
    found = {name: _value(name, given) for name, given in options.items() if given is not None}
    for text in assignments:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise InputError(
                f"--set {text!r} is no assignment; expected FIELD=VALUE.",
                hint="For example: --set dropout=0.05. docs/training.md lists every field.",
            )
        if name in found:
            raise InputError(
                f"{name} is given twice, as {found[name]!r} and by --set {text}.",
                hint="Leave one of them out.",
            )
        found[name] = _parsed(name, value.strip())
    return found


def with_alpha(given: Mapping[str, object], method: Method) -> dict[str, object]:
    """Return the fields with an alpha of twice the rank, where a rank is given and no alpha.

    The scale of rsLoRA is made not to follow the rank, so its recipe's alpha stays.
    """
    follows = "alpha" in method.reads and method.name != "rslora" and "alpha" not in given
    rank = given.get("rank")
    if not follows or not isinstance(rank, int):
        return dict(given)
    return {**given, "alpha": 2.0 * rank}


def _value(name: str, given: object) -> object:
    return _names(given) if name in _LISTS and isinstance(given, str) else given


def _parsed(name: str, text: str) -> object:
    """Read a value as a recipe file would hold it; what is no TOML value is a text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return _names(value) if name in _LISTS and isinstance(value, str) else value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
