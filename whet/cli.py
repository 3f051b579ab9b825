"""`whet …`: the root command.

Sub-commands come from the packages; this file owns how they start, print and fail.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from whet import __version__
from whet.context import Context, open_context
from whet.errors import ConfigurationError, WhetError
from whet.settings import load_settings
from whet.table import print_rows

# typer carries its own copy of click, so click's own class would catch nothing.
_UsageProblem: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class _LazyGroup(TyperGroup):
    """Imports a package's commands only when one of them is called, so that `whet status` never
    waits for torch.
    """

    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group="whet.commands")}

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return sorted({*super().list_commands(ctx), *self._entries()})

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        entry = self._entries().get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        try:
            loaded = entry.load()
        except (
            ModuleNotFoundError,
            AttributeError,
        ) as error:  # the package behind it, or something that it needs, is not in this installation
            loaded = _absent(cmd_name, error.name or entry.value)
        if isinstance(loaded, typer.Typer):
            command = typer.main.get_command(loaded)
        else:
            single = typer.Typer(add_completion=False)
            single.command(cmd_name)(loaded)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command


def _absent(name: str, module: str) -> Callable[[], None]:
    def refuse() -> None:
        raise ConfigurationError(
            f"`whet {name}` needs {module!r}, which is not installed here.",
            hint="Run `make setup`, or install the extra that brings it (pyproject.toml).",
        )

    refuse.__doc__ = f"(not installed: {module})"
    return refuse


app = typer.Typer(
    cls=_LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Whet keeps LoRA adapters sharp: serve, watch, review, retrain.",
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@contextmanager
def opened() -> Iterator[Context]:
    """The context of a command: settings read, database migrated; closed at the end."""
    context = open_context(load_settings())
    try:
        yield context
    finally:
        context.close()


def emit(value: Any, as_json: bool, *, columns: list[str] | None = None, title: str = "") -> None:
    """Print data: one JSON document for scripts, or a table (list of dicts) / key-value lines (a
    dict) for people.
    """
    if as_json:
        print(json.dumps(value, ensure_ascii=False, default=str))
        return
    if isinstance(value, dict):
        print_facts(value)
        return
    if not value:
        out.print(f"No {title or 'rows'}.")
        return
    print_rows(out, value, columns or list(value[0]), title)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names with their values, one a line; nothing is broken, the terminal wraps."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        out.print(f"[bold]{name:<{width}}[/bold]  ", end="")
        out.print(_as_text(value), markup=False, soft_wrap=True)


def _as_text(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


@contextmanager
def show_stages() -> Iterator[Callable[[str], None]]:
    """Say on standard error what is being done: in one changing line on a terminal, else in lines."""
    if not err.is_terminal:
        yield lambda stage: err.print(f"{stage} …", markup=False, soft_wrap=True)
        return
    with err.status("starting") as status:
        yield lambda stage: status.update(escape(stage))


def actor() -> str:
    """Whose name a deed on the command line is recorded under."""
    return f"cli:{os.environ.get('USER') or os.environ.get('LOGNAME') or 'local'}"[:64]


def main() -> None:
    """The command boundary: our own errors become a sentence and their exit code; a defect keeps
    its traceback in the log.
    """
    # At its end the interpreter would look through every object of torch and transformers: 1.5 s.
    atexit.register(gc.freeze)
    logging.basicConfig(
        level=os.environ.get("WHET_LOG_LEVEL", "WARNING"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    try:
        code = app(standalone_mode=False)
        if isinstance(code, int) and code:  # `raise typer.Exit(1)` arrives as a value
            sys.exit(code)
    except WhetError as error:
        err.print(f"whet: {error.message}", style="red", markup=False, soft_wrap=True)
        if error.hint:
            err.print(error.hint, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except _UsageProblem as error:
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
