"""Define `whet drift` and `whet alerts`: their options and their help.

Each names the function of `monitoring.commands` that does its work, which is imported when it runs.
"""

from __future__ import annotations

from pathlib import Path

import typer

from whet.lazy import runs

drift = typer.Typer(
    no_args_is_help=True,
    help="Compare the newest traffic of an alias with the traffic its version started with.",
)
alerts = typer.Typer(no_args_is_help=True, help="What monitoring wants a person to know.")

_JSON = typer.Option(False, "--json", help="Print JSON.")
_ALIAS = typer.Option(None, "--alias", help="Only this alias.")
_ALERT = typer.Argument(..., metavar="ID")
_REASON = typer.Option("", "--reason", help="Kept on the incident and in the audit log.")
_LIMIT = typer.Option(50, "--limit", min=1, max=1000, help="Rows printed at most.")


@drift.command("run")
@runs("monitoring.commands.run:run")
def drift_run(
    alias: str | None = typer.Option(
        None, "--alias", help="The alias to look at; default: the setting default_alias."
    ),
    report: bool = typer.Option(
        True, help="Store Evidently's report for the page; importing it takes some seconds."
    ),
    as_json: bool = _JSON,
) -> None:
    """Judge the newest traffic now, store the report and bring the alerts up to date."""


@drift.command("list")
@runs("monitoring.commands.reports:list_all")
def drift_list(alias: str | None = _ALIAS, limit: int = _LIMIT, as_json: bool = _JSON) -> None:
    """Stored drift reports, newest first."""


@drift.command("show")
@runs("monitoring.commands.reports:show")
def drift_show(report_id: str = typer.Argument(..., metavar="ID"), as_json: bool = _JSON) -> None:
    """One report with every signal."""


@drift.command("days")
@runs("monitoring.commands.history:show_days")
def drift_days(
    alias: str | None = typer.Option(
        None, "--alias", help="The alias to look at; default: the setting default_alias."
    ),
    as_json: bool = _JSON,
) -> None:
    """Take in the days that are over, and print what an alias's own history has shown and how often
    it alarmed.
    """


@drift.command("audit")
@runs("monitoring.commands.audit:show_weeks")
def drift_audit(
    alias: str | None = typer.Option(
        None, "--alias", help="The alias to look at; default: the setting default_alias."
    ),
    as_json: bool = _JSON,
) -> None:
    """Error rates by week, with 95 % intervals, from the answers that were drawn at random and
    judged.
    """


@drift.command("gaps")
@runs("monitoring.commands.gaps:show_gaps")
def drift_gaps(
    alias: str | None = _ALIAS,
    dismiss: str = typer.Option("", "--dismiss", metavar="ID", help="Take a gap off the list."),
    restore: str = typer.Option("", "--restore", metavar="ID", help="Undo a dismissal."),
    every: bool = typer.Option(False, "--all", help="Dismissed gaps too."),
    as_json: bool = _JSON,
) -> None:
    """Subjects of questions that find nothing: what somebody should write a document about."""


@drift.command("replay")
@runs("monitoring.commands.replay:replay_table")
def drift_replay(
    table: Path = typer.Argument(
        ...,
        metavar="TABLE",
        help="Interactions as .csv, .jsonl or .parquet; docs/monitoring.md lists the columns.",
    ),
    target: float = typer.Option(
        0.5,
        "--target",
        help="False incidents per 100 days that are bearable, over all signals of an alias.",
    ),
    declared: list[str] = typer.Option(
        [],
        "--declared",
        metavar="DAY[:SIGNALS]",
        help="A change that was announced: its day, and what it concerns (all).",
    ),
    column: list[str] = typer.Option(
        [],
        "--column",
        metavar="GIVEN=NAME",
        help="Read a column of the table under another name, such as prompt_text=prompt.",
    ),
    timezone: str = typer.Option(
        "UTC",
        "--timezone",
        help="Zone whose midnight ends a day, and of moments without one, such as Europe/Berlin.",
    ),
    as_json: bool = _JSON,
) -> None:
    """Go through a table of interactions day by day, as if it had been watched, and print the
    incidents.
    """


@alerts.command("list")
@runs("monitoring.commands.alerts:list_all")
def alerts_list(
    alias: str | None = _ALIAS,
    only_open: bool = typer.Option(False, "--open", help="Only those that still ask for somebody."),
    limit: int = _LIMIT,
    as_json: bool = _JSON,
) -> None:
    """Alerts, open ones first."""


@alerts.command("show")
@runs("monitoring.commands.alert_text:show")
def alerts_show(alert_id: str = typer.Argument(..., metavar="ID"), as_json: bool = _JSON) -> None:
    """One alert: what, what quality did, since when, how bad, where, and what to do."""


@alerts.command("test")
@runs("monitoring.commands.alert_test:send_test")
def alerts_test(as_json: bool = _JSON) -> None:
    """Send a test message to every address of WHET_NOTIFY_URLS, and say which accepted it."""


@alerts.command("ack")
@runs("monitoring.commands.alert_changes:acknowledge")
def alerts_ack(alert_id: str = _ALERT, reason: str = _REASON, as_json: bool = _JSON) -> None:
    """Say that somebody looks after it. It stays open."""


@alerts.command("resolve")
@runs("monitoring.commands.alert_changes:resolve")
def alerts_resolve(alert_id: str = _ALERT, reason: str = _REASON, as_json: bool = _JSON) -> None:
    """Close it. If the change is still there, the next drift run opens a new one."""


@alerts.command("expected")
@runs("monitoring.commands.alert_changes:mark_expected")
def alerts_expected(alert_id: str = _ALERT, reason: str = _REASON, as_json: bool = _JSON) -> None:
    """Close it as wanted: the traffic from now on is the new normal of the alias."""


@alerts.command("assign")
@runs("monitoring.commands.alert_changes:assign")
def alerts_assign(
    alert_id: str = _ALERT,
    owner: str = typer.Argument("", metavar="[NAME]", help="A console user; nothing: nobody."),
    reason: str = _REASON,
    as_json: bool = _JSON,
) -> None:
    """Say who looks after it."""


@alerts.command("snooze")
@runs("monitoring.commands.alert_changes:snooze")
def alerts_snooze(
    alert_id: str = _ALERT,
    hours: float = typer.Option(1.0, "--hours", min=0, max=720, help="0 ends the snooze."),
    reason: str = _REASON,
    as_json: bool = _JSON,
) -> None:
    """Remind nobody of it for some hours; after that it is back by itself."""


@alerts.command("note")
@runs("monitoring.commands.alert_changes:note")
def alerts_note(
    alert_id: str = _ALERT,
    text: str = typer.Argument(..., metavar="TEXT"),
    as_json: bool = _JSON,
) -> None:
    """Keep a note on it, open or closed."""


@alerts.command("undo")
@runs("monitoring.commands.alert_changes:undo")
def alerts_undo(alert_id: str = _ALERT, as_json: bool = _JSON) -> None:
    """Take the newest action on it back."""
