"""Types at the seams of training/, and the size of its functions: ceilings that only fall."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Functions whose signature says `Any`, as counted on 2026-12-01. What is left is JSON of a library's
# own configuration, values of a page's template, and the generator of the built-in base.
ANY, DICT_OF_ANY = 29, 21
LONGEST_FUNCTION, LONGEST_FILE = 60, 400

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(source: str) -> Iterator[_Function]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _annotations(function: _Function) -> Iterator[ast.expr]:
    given = function.args
    for argument in (
        *given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg,
    ):  # fmt: skip
        if argument is not None and argument.annotation is not None:
            yield argument.annotation
    if function.returns is not None:
        yield function.returns


def _says_any(annotation: ast.expr) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id == "Any")
        or (isinstance(node, ast.Attribute) and node.attr == "Any")
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and "Any" in node.value)
        for node in ast.walk(annotation)
    )


def _with_any(source: str) -> list[str]:
    return [
        f"{function.name}:{function.lineno}"
        for function in _functions(source)
        if any(map(_says_any, _annotations(function)))
    ]


def _with_dict_of_any(source: str) -> list[str]:
    return [
        f"{function.name}:{function.lineno}"
        for function in _functions(source)
        if any("dict[str, Any]" in ast.unparse(each) for each in _annotations(function))
    ]


def _too_long(source: str) -> list[str]:
    return [
        f"{function.name}:{function.lineno}"
        for function in _functions(source)
        if (function.end_lineno or 0) - function.lineno + 1 > LONGEST_FUNCTION
    ]


def _sources() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in (ROOT / "training").rglob("*.py")}


def _named(found: dict[Path, list[str]]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{each}" for path, some in found.items() for each in some]


def test_signatures_of_training_say_what_they_take() -> None:
    found = _named({path: _with_any(source) for path, source in _sources().items()})
    assert len(found) <= ANY, f"give new ones a type: {found}"


def test_records_of_training_are_no_dicts_of_any() -> None:
    found = _named({path: _with_dict_of_any(source) for path, source in _sources().items()})
    assert len(found) <= DICT_OF_ANY, f"give new ones a record: {found}"


def test_functions_of_training_fit_on_a_page() -> None:
    found = _named({path: _too_long(source) for path, source in _sources().items()})
    assert not found, f"at most {LONGEST_FUNCTION} lines: divide them"


def test_files_of_training_stay_short() -> None:
    found = [str(path) for path, source in _sources().items() if source.count("\n") > LONGEST_FILE]
    assert not found, f"at most {LONGEST_FILE} lines: divide them"


def test_what_is_counted_is_found() -> None:
    planted = (
        "def one(a: int, *b: Any) -> None: ...\n"
        "async def two(*, a: 'list[Any]') -> int: ...\n"
        "def three(a: int) -> dict[str, Any]: ...\n"
        "def four(a: dict[str, object]) -> int: ...\n"
        "def five() -> None:\n" + "    pass\n" * LONGEST_FUNCTION
    )
    assert _with_any(planted) == ["one:1", "two:2", "three:3"]
    assert _with_dict_of_any(planted) == ["three:3"]
    assert _too_long(planted) == ["five:5"]
