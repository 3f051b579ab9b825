"""`make docs`: writes the reference pages in docs/ from the code itself, so that the two cannot
differ.

`--check` writes nothing and ends with exit code 1 when a page is not what the code says.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from serving.gateway.request_fields import IGNORED, SUBSTITUTES
from whet.cli import app
from whet.context import open_context
from whet.firststart import toml_value
from whet.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the tables that tests hold
PACKAGES = ("whet", "serving", "training", "monitoring", "feedback")

SETTINGS = """\
# Settings

Every setting can stand in `whet.toml` in the home folder, as written in the first column, and in
the environment as `WHET_` and its name in capitals; the environment wins. `whet init` writes a
`whet.toml` in which all of them stand with their defaults, commented out. A name that is not in
this list, or a value that does not fit, is refused with a sentence.

Names end in their unit: `_s` seconds, `_hours`, `_days`, `_gib`, `_bytes`. Settings are read once,
when a command or a process starts: `whet up` has to be started again for a change.

`WHET_LOG_LEVEL` (environment only, default `WARNING`) is the level of the commands' own log lines.
`WHET_SETUP` and `WHET_TORCH_INDEX` are read by `make setup` alone; [operating.md](operating.md)
says how.

Written by `make docs` from `whet/settings.py`.

| setting | environment | default | what it is, and why this default |
|---|---|---|---|
"""

COMMANDS = """\
# Commands

`whet` lies in `.venv/bin`. `--help` works everywhere; whatever prints data takes `--json`. Exit
codes: 0 done, 1 it could not be done (or `whet doctor` found something), 2 the call or what it was
given is wrong. Written by `make docs` from the commands themselves.

| command | what it does |
|---|---|
"""

ROUTES = """\
# Routes of the console

What the console answers on, and the least role that may ask; each role may do what the ones before
it may: viewer, reviewer, operator, admin. A route that names no role is refused, so this list is
complete. Written by `make docs` from the routes themselves.

| route | role | what it does |
|---|---|---|
"""

METRICS = """\
# Metrics

What Prometheus finds: the gateway's at `/metrics` of the gateway, those of the loop at
`metrics_host:metrics_port` of the scheduler. Counters carry the suffix `_total`, histograms
`_bucket`, `_sum` and `_count`. Written by `make docs` from the source.

| metric | kind | what it is | where |
|---|---|---|---|
"""


def settings() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        shown = f"`{name}`" if name != "home" else "– (it says where `whet.toml` is)"
        default = toml_value(field.default)
        rows.append(
            (
                shown,
                f"`WHET_{name.upper()}`",
                "empty" if default == '""' else f"`{default}`",
                field.description or "",
            )
        )
    return SETTINGS + _table(rows)


def commands() -> str:
    rows = [
        (f"`{_usage(name, command)}`", _first_paragraph(command.help))
        for name, command in command_tree(typer.main.get_command(app))
    ]
    return COMMANDS + _table(rows)


def command_tree(group: Any, path: str = "whet") -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command that can be called."""
    context = typer.Context(group)
    # Sorted: which module of commands was imported first must not decide.
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from command_tree(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _usage(name: str, command: Any) -> str:
    """`whet keys create NAME [--json]`."""
    parts = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            shown = (parameter.metavar or parameter.name.upper()).strip("[]{}.").replace("=", "")
            parts.append(shown if parameter.required else f"[{shown}]")
        elif parameter.name != "help":
            shown = max(parameter.opts, key=len)
            if not parameter.is_flag:
                shown += f" {parameter.metavar or parameter.name.upper()}"
            parts.append(shown if parameter.required else f"[{shown}]")
    return " ".join([name, *parts])


def routes() -> str:
    from whet.web.console import create_console
    from whet.web.shell import declared_role

    with tempfile.TemporaryDirectory() as folder:
        context = open_context(load_settings(home=folder))
        console = create_console(context)
        found = {}
        for route in console.routes:
            methods = sorted(set(getattr(route, "methods", None) or ()) - {"HEAD", "OPTIONS"})
            path, endpoint = str(getattr(route, "path", "")), getattr(route, "endpoint", None)
            text = (
                _first_paragraph(endpoint.__doc__) or endpoint.__name__.replace("_", " ")
                if endpoint
                else ""
            )
            for method in methods:
                found[(path, method)] = (
                    f"`{method} {path}`",
                    declared_role(route) or "refused",
                    text,
                )
        context.close()
    return ROUTES + _table([found[key] for key in sorted(found)])


def metrics() -> str:
    kinds = {
        "Counter": "counter",
        "Gauge": "gauge",
        "Histogram": "histogram",
        "GaugeMetricFamily": "gauge",
        "CounterMetricFamily": "counter",
    }
    rows = {}
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for call in (
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ):
            kind = kinds.get(getattr(call.func, "id", getattr(call.func, "attr", "")))
            texts = [
                part.value
                for part in call.args
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if kind and len(texts) >= 2 and texts[0].startswith("whet_"):
                rows[texts[0]] = (
                    f"`{texts[0]}`",
                    kind,
                    texts[1],
                    f"`{path.relative_to(ROOT).parts[0]}`",
                )
    return METRICS + _table([rows[name] for name in sorted(rows)])


def _first_paragraph(text: str | None) -> str:
    return " ".join(re.split(r"\n\s*\n", (text or "").strip())[0].split())


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows
    )


PAGES = {
    "settings.md": settings,
    "commands.md": commands,
    "routes.md": routes,
    "metrics.md": metrics,
}


def engine_differences() -> str:
    """What the table of tests/serving/engine_differences.py allows."""
    from tests.serving.engine_differences import table

    return table()


def _fields(head: str, rows: Mapping[str, str]) -> str:
    lines = [head, "|---|---|", *(f"| `{name}` | {why} |" for name, why in rows.items())]
    return "\n".join(lines) + "\n"


def ignored_fields() -> str:
    """Fields that the gateway drops."""
    return _fields("| field | why |", IGNORED)


def refused_fields() -> str:
    """Fields that the gateway refuses, with what does the same."""
    return _fields("| field | instead |", SUBSTITUTES)


# Generated parts of pages that people write: page, name of the markers, maker.
SECTIONS = (
    ("gateway.md", "engine-differences", engine_differences),
    ("gateway.md", "ignored-fields", ignored_fields),
    ("gateway.md", "refused-fields", refused_fields),
)


def with_sections(page: str) -> str:
    """The text of a page with its generated parts as the code has them now."""
    text = (ROOT / "docs" / page).read_text()
    for name, marker, make in SECTIONS:
        if name != page:
            continue
        begin, end = f"<!-- {marker}: written by `make docs` -->\n", f"<!-- {marker}: end -->"
        head, _, rest = text.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise SystemExit(f"docs/{page} lacks the markers of {marker!r}: {begin}{end}")
        text = f"{head}{begin}{make()}{end}{tail}"
    return text


def outdated() -> list[str]:
    """Names of the pages that are not what the code says."""
    docs = ROOT / "docs"
    pages = [
        name
        for name, make in PAGES.items()
        if not (docs / name).exists() or (docs / name).read_text() != make()
    ]
    return pages + [
        name
        for name in {name for name, _, _ in SECTIONS}
        if (docs / name).read_text() != with_sections(name)
    ]


def main() -> int:
    if "--check" in sys.argv[1:]:
        found = outdated()
        if found:
            print(
                f"Not what the code says: {', '.join('docs/' + name for name in found)}. Run `make"
                " docs`.",
                file=sys.stderr,
            )
        return 1 if found else 0
    for name, make in PAGES.items():
        (ROOT / "docs" / name).write_text(make())
    for name in {name for name, _, _ in SECTIONS}:
        (ROOT / "docs" / name).write_text(with_sections(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
