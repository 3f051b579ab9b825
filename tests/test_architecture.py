"""The rooms: who may import whom, what may be imported at the start, one writer per table, modules
of a readable size.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("training", "serving", "monitoring", "feedback")
PACKAGES = ("whet", *ROOMS)
# Heavy libraries, and the one package that may import each.
ROOM_OF = {
    **dict.fromkeys(
        (
            "torch",
            "transformers",
            "peft",
            "trl",
            "bitsandbytes",
            "datasets",
            "accelerate",
            "safetensors",
            "tokenizers",
            "ray",
        ),
        "training",
    ),
    **dict.fromkeys(("evidently", "pandas"), "monitoring"),
    "apscheduler": "whet",
    "aiohttp": "serving",
}
# Light parts that another room has a use for: embedders read weights and texts without torch.
ALSO_ALLOWED = {("aiohttp", "whet"), ("tokenizers", "serving"), ("safetensors", "serving")}
NOBODY_MAY = ("vllm",)
# A plugin that vLLM loads into its own processes; no process of ours imports it
IN_THE_ENGINE = "serving/engine_lora.py"
LONGEST_MODULE = 500  # lines
# Longer ones, which are to be divided; none may grow.
LONGER = {
    "whet/settings.py": 633,
}
_SOURCES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if "__pycache__" not in path.parts
]


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, at the top level) of every import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    guarded = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = []
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        found += [(name, node.lineno, id(node) not in inner | guarded) for name in names]
    return found


@pytest.mark.parametrize("path", _SOURCES, ids=_ids)
def test_rooms_do_not_import_each_other(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    forbidden = {other for other in ROOMS if other != room}
    wrong = [
        f"{_ids(path)}:{line} imports {name}"
        for name, line, _ in imports(path)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong, "packages meet in whet and in the database"


@pytest.mark.parametrize("path", _SOURCES, ids=_ids)
def test_heavy_libraries_stay_in_their_room(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name, line, _ in imports(path):
        assert name != IN_THE_ENGINE.removesuffix(".py").replace("/", "."), (
            f"{_ids(path)}:{line} imports what belongs into the engine"
        )
        if _ids(path) == IN_THE_ENGINE:
            continue
        top = name.split(".")[0]
        assert top not in NOBODY_MAY, (
            f"{_ids(path)}:{line} imports {name}; the engine is its own process"
        )
        assert ROOM_OF.get(top, room) == room or (top, room) in ALSO_ALLOWED, (
            f"{_ids(path)}:{line} imports {name}, which belongs to {ROOM_OF[top]}"
        )


@pytest.mark.parametrize("path", _SOURCES, ids=_ids)
def test_modules_stay_readable(path: Path) -> None:
    limit = LONGER.get(_ids(path), LONGEST_MODULE)
    assert path.read_text(encoding="utf-8").count("\n") <= limit, "divide it, or make it shorter"


def test_the_packages_are_those_of_this_repository() -> None:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert (
            spec is not None
            and spec.origin is not None
            and Path(spec.origin).resolve().is_relative_to(ROOT)
        ), f"{package} comes from {spec and spec.origin}"


@pytest.mark.seconds
def test_every_entry_point_exists_and_loads_nothing_heavy() -> None:
    """What the command line, the console and the scheduler import at their start, in a fresh
    process.
    """
    names = [
        entry.value
        for group in ("whet.commands", "whet.pages", "whet.processes", "whet.jobs")
        for entry in entry_points(group=group)
    ]
    assert len(names) > 20
    heavy = [name for name in (*ROOM_OF, *NOBODY_MAY) if name not in ("aiohttp", "apscheduler")]
    heavy += ["apprise", "sklearn", "statsmodels", "usearch"]
    code = (
        "import sys, importlib\n"
        f"for value in {names!r}:\n"
        "    module, attribute = value.split(':')\n"
        "    getattr(importlib.import_module(module), attribute)\n"
        f"found = sorted(set({heavy!r}) & {{name.split('.')[0] for name in sys.modules}})\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.seconds
def test_every_table_is_written_by_its_own_package_alone() -> None:
    """insert(), update(), delete() and insert_ignore() name their table; each names one of the
    writer's own.
    """
    from whet.tables import WRITERS

    wrong = []
    for path in _SOURCES:
        room = path.relative_to(ROOT).parts[0]
        for call in (
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        ):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            table = {"insert": 0, "update": 0, "delete": 0, "insert_ignore": 1}.get(name)
            if table is None or len(call.args) <= table:
                continue
            written = ast.unparse(call.args[table]).removeprefix("tables.")
            if WRITERS.get(written, room) != room:
                wrong.append(
                    f"{_ids(path)}:{call.lineno} writes {written}, which belongs to"
                    f" {WRITERS[written]}"
                )
    assert not wrong


@pytest.mark.parametrize("path", _SOURCES, ids=_ids)
def test_texts_are_split_at_line_feeds_alone(path: Path) -> None:
    """`splitlines()` also splits at U+2028, U+2029 and U+0085, which JSON leaves as they are.

    The first or last line of a message may be taken with it; what is iterated over may not.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    one_line = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice)
    }
    wrong = [
        f"{_ids(path)}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "splitlines"
        and id(node) not in one_line
    ]
    assert not wrong, f"use split_lines or read_jsonl of whet/lines.py in {', '.join(wrong)}"


# Imports inside functions, which hide what a module needs; none may be added. What is needed by few
# calls is named in a registry instead: `training/optional.py`, the definitions of commands.
LATE_IMPORTS = {"whet": 0, "training": 0, "serving": 7, "monitoring": 0, "feedback": 0}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_module(path): path for path in _SOURCES}


def _own_imports(path: Path) -> set[str]:
    """Modules of ours that a module imports, wherever it does and for whatever purpose."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & _MODULES.keys()) or {node.module}
    return (found & _MODULES.keys()) - {_module(path)}


def _circles(package: str) -> list[list[str]]:
    """Groups of a package's modules that need each other: all pairs that reach one another."""
    direct = {
        name: _own_imports(path)
        for name, path in _MODULES.items()
        if name.split(".")[0] == package and name != package
    }
    reached: dict[str, set[str]] = {}
    for start in direct:
        seen, todo = set[str](), [start]
        while todo:
            for other in direct.get(todo.pop(), set()) - seen:
                seen.add(other)
                todo.append(other)
        reached[start] = seen
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached.get(other, set())))
        for name in direct
    }
    return [list(group) for group in groups if group]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_stand_at_the_top(package: str) -> None:
    found = [
        f"{_ids(path)}:{node.lineno}"
        for path in _SOURCES
        if path.relative_to(ROOT).parts[0] == package
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    different = sorted(set(found))
    assert len(different) <= LATE_IMPORTS[package], different


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package: str) -> None:
    found = _circles(package)
    assert not found, found


_TARGET = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+:\w+")  # what `whet.lazy.load` imports


def test_what_is_loaded_by_name_exists() -> None:
    wrong = []
    for path in _SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if not isinstance(text, str) or not _TARGET.fullmatch(text):
                continue
            module, _, name = text.partition(":")
            found = _MODULES.get(module)
            if found is None or name not in _names_of(found):
                wrong.append(f"{_ids(path)}:{node.lineno} names {text}")
    assert not wrong


@cache
def _names_of(path: Path) -> set[str]:
    """Names that a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


# Whose definitions of commands hold options and help only.
DEFINITIONS = (
    "training.cli",
    "feedback.cli",
    "monitoring.cli",
    "serving.cli",
    "serving.documents_cli",
)


@pytest.mark.seconds
def test_definitions_of_commands_have_the_arguments_of_their_work() -> None:
    """A definition names its work as "module:function" and passes on every option by name."""
    commands = [
        entry.value for entry in entry_points(group="whet.commands") if entry.module in DEFINITIONS
    ]
    code = (
        "import inspect, typing, typer\n"
        "from training.imports import load\n"
        f"for command in map(load, {commands!r}):\n"
        "    single = not isinstance(command, typer.Typer)\n"
        "    parts = [command] if single else [c.callback for c in command.registered_commands]\n"
        "    for definition in parts:\n"
        "        work = load(definition.target)\n"
        "        asked = set(inspect.signature(definition).parameters)\n"
        "        taken = set(inspect.signature(work).parameters)\n"
        "        if taken == {'given'}:  # **given: Unpack[a TypedDict of the options]\n"
        "            options, = typing.get_args(typing.get_type_hints(work)['given'])\n"
        "            taken = set(typing.get_type_hints(options))\n"
        "        assert asked == taken, (definition.target, asked ^ taken)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.seconds
def test_help_and_the_worker_import_no_torch() -> None:
    """Nor do the pages and the commands that read what is stored."""
    light = [
        "training.worker", "training.child", "training.pages", "training.row_import",
        "training.commands.runs", "training.commands.adapters", "training.commands.judgements",
        "training.commands.data", "training.commands.train",
    ]  # fmt: skip
    code = (
        "import sys, importlib\n"
        "from typer.testing import CliRunner\n"
        "from whet.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers', 'peft', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


# The folders of training/: each imports only those before it, and the modules beside them.
LAYERS = (
    "machine", "recipes", "store", "data", "models", "loop", "plan", "evaluation", "methods",
    "adapters", "runs", "web", "commands", "cli",
)  # fmt: skip
# Beside the layers: processes and pages may import any; these leaves any layer may import.
LEAVES = ("training.ask_together", "training.endpoint", "training.imports", "training.optional")


def _layer(module: str) -> int | None:
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 2 and parts[1] in LAYERS else None


def test_layers_of_training_import_downwards() -> None:
    wrong = []
    for name, path in _MODULES.items():
        if not name.startswith("training.") or name.startswith("training.base."):
            continue
        here = _layer(name)
        for other in _own_imports(path):
            there = _layer(other)
            if here is None or not other.startswith("training."):
                continue
            if other in LEAVES or other.startswith("training.base."):  # the probes' generators
                continue
            if there is None or there > here:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "move what is shared downwards"


def test_every_folder_of_training_is_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / "training").glob("*/__init__.py")}
    assert folders == {*LAYERS, "base"}


def test_the_readme_of_training_names_every_module() -> None:
    text = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    missing = [
        name
        for name, path in _MODULES.items()
        if name.startswith("training.")
        and path.name != "__init__.py"
        and f"- `{path.name}`: " not in text
    ]
    assert not missing, "one line for each, in the folder's list"


# Functions whose signature says `dict[str, Any]`: a shape that only its code knows. None may be
# added; `JsonObject`, a TypedDict or a record says it instead.
UNTYPED = {"whet": 8, "serving": 64, "monitoring": 3, "feedback": 18}


@pytest.mark.parametrize("package", sorted(UNTYPED))
def test_signatures_name_what_they_take_and_return(package: str) -> None:
    found = [
        f"{_ids(path)}:{node.lineno}"
        for path in _SOURCES
        if path.relative_to(ROOT).parts[0] == package
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and "dict[str, Any]"
        in f"{ast.unparse(node.args)} {node.returns and ast.unparse(node.returns)}"
    ]
    assert len(found) <= UNTYPED[package], "\n".join(found)
