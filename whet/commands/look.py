"""`whet status` and `whet doctor`: how the product is, and whether anything is wrong with it."""

from __future__ import annotations

import typer
from rich.markup import escape

from whet.cli import emit, opened, out
from whet.clock import now_ms
from whet.doctor import examine
from whet.overview import AliasFacts, RunFacts, overview
from whet.settings import load_settings
from whet.up.state import SupervisorStatus

_JSON = typer.Option(False, "--json", help="Print one JSON document.")
_COLOURS = {
    "ready": "green",
    "live": "green",
    "succeeded": "green",
    "ok": "green",
    "note": "yellow",
    "fail": "red",
    "given_up": "red",
    "failed": "red",
    "hung": "red",
    "gone": "red",
}


def status(as_json: bool = _JSON) -> None:
    """What needs a person, processes, engines, aliases, traffic, review queue, alerts and training, as they are now."""
    now = now_ms()
    with opened() as context:
        found = overview(context, now=now)
    if as_json:
        emit(found, True)
        return
    _lines(
        "What needs a person",
        [
            (
                each["kind"],
                "",
                each["sentence"]
                + (f" Since {_ago(each['since'], now)}." if each["since"] else "")
                + (f" {each['todo']}" if each["todo"] else ""),
            )
            for each in found["health"]
        ],
    )
    _show_processes(found["supervisor"], now)
    _lines(
        "Engines",
        [
            (
                each["url"],
                each["state"],
                f"{each['adapters_ready']} adapters ready, seen {_ago(each['seen_at'], now)}"
                + _also(each["detail"]),
            )
            for each in found["replicas"]
        ],
    )
    _lines(
        "Aliases",
        [
            (each["alias"], each["state"], _pointer(each) + f", since {_ago(each['since'], now)}")
            for each in found["aliases"]
        ],
    )
    traffic, training = found["traffic"], found["training"]
    _lines(
        "Traffic",
        [
            (
                "last hour",
                "",
                (
                    f"{traffic['last_hour']} asked, {traffic['complete']} answered in full,"
                    f" {traffic['failed']} failed"
                ),
            )
        ],
    )
    reasons = ", ".join(
        f"{count} for {reason}" for reason, count in found["review"]["by_reason"].items()
    )
    _lines(
        "Review",
        [("waiting", "", f"{found['review']['waiting']}" + (f" ({reasons})" if reasons else ""))],
    )
    _lines(
        "Alerts",
        [
            (
                each["alias"],
                each["severity"],
                f"{each['title']} ({each['state']}, {_ago(each['opened_at'], now)})",
            )
            for each in found["alerts"]
        ],
    )
    _lines(
        "Training",
        [("waiting", "", f"{training['requests_waiting']} requests")]
        + [(run["id"], run["state"], _progress(run, now)) for run in training["runs"]],
    )


def doctor(
    deep: bool = typer.Option(False, "--deep", help="Re-hash every adapter in the store."),
    as_json: bool = _JSON,
) -> None:
    """Look for what is wrong and say what to do. Exit code 1 if anything is."""
    settings = load_settings()
    checks = []
    for check in examine(settings, deep=deep, now=now_ms()):
        checks.append(check)
        if not as_json:
            colour = _COLOURS[check.verdict]
            out.print(
                f"[{colour}]{check.verdict:<5}[/{colour}] [bold]{escape(check.name)}[/bold] "
                f" {escape(check.found)}",
                soft_wrap=True,
            )
            if check.todo:
                out.print(f"      {escape(check.todo)}", soft_wrap=True)
    failed = [check for check in checks if check.verdict == "fail"]
    if as_json:
        emit({"ok": not failed, "checks": [check.as_json() for check in checks]}, True)
    else:
        out.print(
            f"{len(failed)} of {len(checks)} checks failed." if failed else "Nothing is wrong."
        )
    if failed:
        raise typer.Exit(1)


def _show_processes(supervisor: SupervisorStatus | None, now: int) -> None:
    if supervisor is None or not supervisor.get("running"):
        out.print("[bold]Processes[/bold]\n  `whet up` does not run for this home.")
        return
    rows = []
    for row in supervisor["processes"]:
        text = f"for {_length(now - row['since_at'])}" + (
            f", pid {row['pid']}" if row["pid"] else ""
        )
        text += (
            f", started again {row['restarts']} time{'s' if row['restarts'] > 1 else ''}"
            if row["restarts"]
            else ""
        )
        text += _also(row.get("reason"))
        rows.append((row["name"], row["phase"], text))
    _lines("Processes", rows)


def _lines(title: str, rows: list[tuple[str, str, str]]) -> None:
    out.print(f"[bold]{title}[/bold]" + ("" if rows else "\n  none"))
    for name, state, text in rows:
        colour = _COLOURS.get(state, "")
        shown = (
            f"[{colour}]{escape(state)}[/{colour}]  "
            if colour
            else (f"{escape(state)}  " if state else "")
        )
        out.print(f"  {escape(name):<12} {shown}{escape(text)}", soft_wrap=True)


def _pointer(each: AliasFacts) -> str:
    return str(each["stable"]) + (
        f", candidate {each['candidate']} with {each['candidate_share']:.0%}"
        if each["candidate"]
        else ""
    )


def _progress(run: RunFacts, now: int) -> str:
    progress = run["progress"] or {}
    steps = (
        f"{progress.get('stage', '')} step {progress['step']} of {progress['steps']}, "
        if progress.get("steps") and run["state"] == "running"
        else ""
    )
    return f"{run['alias']}, {steps}started {_ago(run['started_at'], now)}" + _also(run["error"])


def _also(text: str | None) -> str:
    return f": {text}" if text else ""


def _ago(at: int, now: int) -> str:
    return f"{_length(now - at)} ago"


def _length(milliseconds: int) -> str:
    """`12 s`, `5 min`, `3 h`, `2 d`."""
    seconds = max(0, milliseconds // 1000)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
