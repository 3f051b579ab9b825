"""`whet up`."""

from __future__ import annotations

import os
import time
from importlib.metadata import entry_points

import typer

from whet.cli import actor, out
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading
from whet.errors import ConfigurationError, InputError
from whet.firststart import key_file, prepare_home
from whet.plugins import ProcessSpec
from whet.registry import current_rollouts
from whet.settings import Settings, load_settings
from whet.up import preflight, state
from whet.up.supervisor import Supervisor, Voice
from whet.up.terminal import Terminal


def up(
    without: str = typer.Option(
        "", help="Comma-separated processes to leave out, such as `engine`."
    ),
    only: str = typer.Option(
        "", help="Comma-separated processes to start; all others are left out."
    ),
) -> None:
    """Start the whole product on this machine and keep it up until Ctrl-C."""
    settings = load_settings()
    terminal = Terminal(out, time.monotonic)
    warning = preflight.check_disk(settings.home)
    with state.supervisor_lock(settings.home):
        ended = state.end_leftovers(settings.home)
        if ended:
            terminal.line(
                "whet", f"ended {ended} processes that an earlier `whet up` had left", "yellow"
            )
        context, made = prepare_home(settings, actor=actor(), now=now_ms())
        for item in made:
            if item.new:
                terminal.line("init", f"made {item.what}: {item.where}")
        if warning:
            terminal.line("disk", warning, "yellow")
        try:
            specs = choose(all_specs(context, terminal), without=_names(without), only=_names(only))
            model = first_model(context)
        finally:
            context.close()
        preflight.check_engine_package(specs)
        for doubt in preflight.check_base_model(specs, settings):
            terminal.line("engine", doubt, "yellow")
        preflight.check_ports(specs, settings)
        _run(specs, settings, terminal, model)


def first_model(context: Context) -> str:
    """The name to ask first: the usual alias once a version is live, the base until then."""
    settings = context.settings
    with reading(context.database) as connection:
        is_live = settings.default_alias in current_rollouts(connection)
    return settings.default_alias if is_live else settings.base_alias


def _run(specs: list[ProcessSpec], settings: Settings, terminal: Terminal, model: str) -> None:
    supervisor = Supervisor(specs, settings.home, terminal)
    with supervisor.signals():
        try:
            terminal.line(
                "whet",
                f"starting {', '.join(spec.name for spec in specs)} (logs in"
                f" {settings.home / 'logs'})",
            )
            for spec in specs:
                if spec.notice:
                    terminal.line(spec.name, spec.notice, "yellow")
            supervisor.start()
            if not supervisor.asked_to_stop:
                _summary(specs, settings, model)
            supervisor.watch()
            terminal.line("whet", "stopping")
        finally:
            supervisor.stop()
            terminal.line("whet", "stopped")


def all_specs(context: Context, voice: Voice) -> list[ProcessSpec]:
    """What the installed packages contribute, in the order of starting; a package that is not
    installed is named and left out.

    Raises ConfigurationError when two share a name.
    """
    specs: list[ProcessSpec] = []
    for entry in sorted(entry_points(group="whet.processes"), key=lambda entry: entry.name):
        try:
            specs += entry.load()(context)
        except ModuleNotFoundError as error:
            voice.line(entry.name, f"is left out: {error.name} is not installed here", "yellow")
    names = [spec.name for spec in specs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigurationError(
            f"Two processes are named {', '.join(sorted(twice))}.",
            hint="Give each ProcessSpec its own name.",
        )
    return sorted(specs, key=lambda spec: (spec.order, spec.name))


def choose(specs: list[ProcessSpec], *, without: set[str], only: set[str]) -> list[ProcessSpec]:
    """The processes to start. Raises InputError for a name that none of them has."""
    known = {spec.name for spec in specs}
    unknown = (without | only) - known
    if unknown:
        raise InputError(
            f"There is no process {', '.join(sorted(unknown))!r}.",
            hint=f"There are: {', '.join(sorted(known))}.",
        )
    chosen = [
        spec for spec in specs if spec.name not in without and (not only or spec.name in only)
    ]
    if not chosen:
        raise InputError("No process is left to start.", hint="Name fewer in --without.")
    return chosen


def _names(given: str) -> set[str]:
    return {name.strip() for name in given.split(",") if name.strip()}


def _summary(specs: list[ProcessSpec], settings: Settings, model: str) -> None:
    """Where everything is, and the first lines to try. `model`: whom the first question is for."""
    names = {spec.name for spec in specs}
    gateway = f"http://{_reachable(settings.gateway_host)}:{settings.gateway_port}"
    out.print()
    if "gateway" in names:
        out.print(f"Gateway   {gateway}/v1   (OpenAI-compatible)", markup=False)
    if "console" in names:
        out.print(
            f"Console   http://{_reachable(settings.console_host)}:{settings.console_port}",
            markup=False,
        )
    password = settings.home / "admin.password"
    out.print(
        (
            f"Log in    user admin, password in {password}"
            if password.exists()
            else "Log in    with a user of `whet users list`"
        ),
        markup=False,
    )
    key = key_file(settings.home)
    out.print(
        f"API key   in {key}" if key.exists() else "API key   `whet keys create NAME` makes one",
        markup=False,
    )
    out.print(f"Files     {settings.home}", markup=False)
    if "gateway" in names:
        shown = min(os.path.relpath(key), str(key), key=len)
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        out.print("\nFirst question:", markup=False)
        out.print(
            f"""  curl {gateway}/v1/chat/completions -H "Authorization: Bearer $(cat {shown})" \\""",
            markup=False,
            soft_wrap=True,
        )
        out.print(
            f"       -H 'Content-Type: application/json' -d '{body}'", markup=False, soft_wrap=True
        )
        out.print(
            f'  python: OpenAI(base_url="{gateway}/v1", api_key=open("{shown}").read().strip())',
            markup=False,
            soft_wrap=True,
        )
    out.print(
        "\nCtrl-C stops everything. `whet status` in another terminal tells how it is.\n",
        markup=False,
    )


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
