"""`whet drift` and `whet alerts`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from whet.cli import actor, emit, opened
from whet.clock import iso, now_ms
from whet.database import reading
from whet.registry import alias_filter

drift = typer.Typer(
    no_args_is_help=True,
    help="Compare the newest traffic of an alias with the traffic its version started with.",
)
alerts = typer.Typer(no_args_is_help=True, help="What monitoring wants a person to know.")

_JSON = typer.Option(False, "--json", help="Print JSON.")
_ALIAS = typer.Option(None, "--alias", help="Only this alias.")
_EXAMPLES = 5  # ids printed below an incident; `--json` has more
_LIMIT = typer.Option(50, "--limit", min=1, max=1000, help="Rows printed at most.")


@drift.command("run")
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
    from monitoring.evidently_report import snapshot
    from monitoring.run import run_drift

    with opened() as context:
        row = run_drift(
            context,
            alias or context.settings.default_alias,
            now_ms(),
            reporter=snapshot if report else None,
        )
    _print_report(row, as_json)


@drift.command("list")
def drift_list(alias: str | None = _ALIAS, limit: int = _LIMIT, as_json: bool = _JSON) -> None:
    """Stored drift reports, newest first."""
    from monitoring.queries import list_reports

    with opened() as context, reading(context.database) as connection:
        rows = list_reports(connection, alias_filter(connection, alias), limit=limit)
    for row in rows:
        row["created"] = iso(row["created_at"])
    emit(
        rows,
        as_json,
        columns=["id", "created", "alias", "verdict", "n_reference", "n_window", "summary"],
        title="drift reports",
    )


@drift.command("show")
def drift_show(report_id: str = typer.Argument(..., metavar="ID"), as_json: bool = _JSON) -> None:
    """One report with every signal."""
    from monitoring.queries import find_report

    with opened() as context, reading(context.database) as connection:
        row = find_report(connection, report_id)
    _print_report(row, as_json)


@drift.command("days")
def drift_days(
    alias: str | None = typer.Option(
        None, "--alias", help="The alias to look at; default: the setting default_alias."
    ),
    as_json: bool = _JSON,
) -> None:
    """Take in the days that are over, and print what an alias's own history has shown and how often
    it alarmed.
    """
    from monitoring.dayjob import run_alias, standing

    with opened() as context:
        name = alias or context.settings.default_alias
        run_alias(context, name, now_ms())
        found = standing(context, name)
    if as_json:
        emit(found, True)
        return
    shown = [_row(one) for one in found.pop("incidents")]
    covered = found.pop("coverage", None)
    emit(
        {
            key: value
            for key, value in found.items()
            if key not in ("thresholds", "declared", "spread", "changes")
        },
        False,
    )
    for note in covered["notes"] if covered else ():
        typer.echo(f"- {note}")
    _print_changes(found.get("changes", []))
    emit(
        shown,
        False,
        columns=["detected_on", "first_day", "closed_on", "state", "signals", "where", "summary"],
        title="incidents",
    )


@drift.command("audit")
def drift_audit(
    alias: str | None = typer.Option(
        None, "--alias", help="The alias to look at; default: the setting default_alias."
    ),
    as_json: bool = _JSON,
) -> None:
    """Error rates by week, with 95 % intervals, from the answers that were drawn at random and
    judged.
    """
    from monitoring.auditjob import run_alias
    from monitoring.detector.table import date_of
    from monitoring.queries import newest_weeks
    from monitoring.windows import require_alias

    with opened() as context:
        name = alias or context.settings.default_alias
        with reading(context.database) as connection:
            require_alias(connection, name)
        run_alias(context, name, now_ms())
        with reading(context.database) as connection:
            rows = newest_weeks(connection, name, 26)
    for row in rows:
        row["week_of"] = date_of(row["week"]).isoformat()
    emit(
        rows,
        as_json,
        columns=[
            "week_of",
            "drawn",
            "judged",
            "wrong",
            "rate",
            "low",
            "high",
            "usual",
            "verdict",
            "sentence",
        ],
        title="error rates by week",
    )


@drift.command("gaps")
def drift_gaps(
    alias: str | None = _ALIAS,
    dismiss: str = typer.Option("", "--dismiss", metavar="ID", help="Take a gap off the list."),
    restore: str = typer.Option("", "--restore", metavar="ID", help="Undo a dismissal."),
    every: bool = typer.Option(False, "--all", help="Dismissed gaps too."),
    as_json: bool = _JSON,
) -> None:
    """Subjects of questions that find nothing: what somebody should write a document about."""
    from monitoring.gap_queries import gap_json, list_gaps
    from monitoring.gapjob import change_gap

    with opened() as context:
        for gap_id, state in ((dismiss, "dismissed"), (restore, "open")):
            if gap_id:
                change_gap(context, gap_id, state, actor=actor(), now=now_ms())
        with reading(context.database) as connection:
            found = list_gaps(connection, alias_filter(connection, alias))
    rows = [gap_json(row) for row in found if every or row["state"] == "open"]
    if as_json:
        emit(rows, True)
        return
    if not rows:
        typer.echo("No gaps: questions that find nothing have no subject in common, or none do.")
        return
    for row in rows:
        row["words"], row["share"] = ", ".join(row["words"]), f"{100 * row['share']:.1f} %"
    columns = [
        "id",
        "alias",
        "collection",
        "words",
        "questions",
        "share",
        "recent",
        "first_seen",
        "last_seen",
    ]
    emit(rows, False, columns=[*columns, *(["state"] if every else [])], title="gaps")


@drift.command("replay")
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
    from monitoring.detector.reading import declared_changes
    from monitoring.detector.replay import replay
    from monitoring.detector.settings import DetectorSettings
    from monitoring.incident_text import describe_incident
    from monitoring.intake import read_interactions, renamed_columns
    from monitoring.table_quality import quality_in_table

    settings = DetectorSettings(target=target)
    changes = declared_changes(declared)
    intake = read_interactions(table, renamed_columns(column), timezone, settings)
    found = replay(intake.table, settings, changes).as_json() | {"input": intake.as_json()}
    for incident in found["incidents"]:
        incident["quality"] = quality_in_table(intake.table, incident).as_json()
        incident["text"] = describe_incident(incident, incident["quality"]).as_json()
    if as_json:
        emit(found, True)
        return
    _print_replay(found)


def _print_replay(found: dict[str, Any]) -> None:
    """Print what was judged, what is not watched, the incidents, and what the first weeks tell."""
    from monitoring.incident_text import describe_incident

    low, high = found["incidents_per_100_days_95"]
    achieved = f"{found['incidents_per_100_days']} (95 % interval {low} to {high})"
    first = min(one["first_judged_day"] for one in found["input"]["aliases"])
    facts = {
        "rows": f"{found['input']['rows']:,}",
        "days": found["days"],
        "judged days": found["judged_days"],
        "first judged day": first,
        "target per 100 days": found["target_per_100_days"],
        "incidents per 100 days": achieved
        if found["judged_days"]
        else "no day could be judged: six weeks of history come first",
    }
    emit(facts, False)
    for note in _notes(found["input"]):
        typer.echo(f"- {note}")
    _print_changes([change for one in found["aliases"] for change in one["changes"]])
    emit(
        [_row(one) for one in found["incidents"]],
        False,
        columns=[
            "detected_on",
            "first_day",
            "closed_on",
            "alias",
            "state",
            "signals",
            "where",
            "summary",
        ],
        title="incidents",
    )
    for one in found["incidents"]:
        typer.echo(f"\n{one['id']}")
        for name, text in describe_incident(one, one["quality"]).rows():
            typer.echo(f"  {name + ':':9}{text}")
        _print_examples(one.get("examples", []))
    early = [
        {"day": one["day"], "alias": one["alias"], "finding": item["sentence"]}
        for one in found["information"]
        for item in one["findings"]
    ]
    if early:
        emit(early, False, title="information from the first six weeks")


def _print_changes(changes: list[dict[str, Any]]) -> None:
    """Print what moved with each new version, prompt template or document set."""
    for change in changes:
        head, *comparisons = change["sentences"]
        typer.echo(f"\n{head}")
        for sentence in comparisons:
            typer.echo(f"  {sentence}")


def _print_examples(ids: list[str]) -> None:
    """Print the ids of the most telling conversations."""
    if ids:
        typer.echo(f"  {'Examples:':9} {', '.join(ids[:_EXAMPLES])}")


def _notes(given: dict[str, Any]) -> list[str]:
    """What is said about a table; the alias's name stands before it where there are several."""
    aliases = given["aliases"]
    own = [
        f"{one['alias']}: {note}" if len(aliases) > 1 else note
        for one in aliases
        for note in one["notes"]
    ]
    return [*given["notes"], *own]


def _row(incident: dict[str, Any]) -> dict[str, Any]:
    """A row of the table of incidents: its signals, and the slices that carry the change."""
    slices = ", ".join(
        f"{one['column']}={one['value']} ({100 * one['share_of_change']:.0f} % of the change)"
        for one in incident.get("slices", [])
    )
    where = slices or ("everywhere" if "slices" in incident else "")
    summary = f"{incident['summary']} {incident['hint']}".strip()
    return {
        **incident, "signals": ", ".join(incident["signals"]), "where": where, "summary": summary
    }  # fmt: skip


def _print_report(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        emit(row, True)
        return
    emit(
        {
            "id": row["id"],
            "alias": row["alias"],
            "verdict": row["verdict"],
            "at": iso(row["created_at"]),
            "summary": row["summary"],
        },
        False,
    )
    if row["signals"]:
        emit(
            [
                {
                    "signal": s["name"],
                    "state": s["state"],
                    "p": _small(s["adjusted_p_value"]),
                    "finding": s["sentence"],
                }
                for s in row["signals"]
            ],
            False,
        )


def _small(p_value: float | None) -> str:
    return "" if p_value is None else "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"


@alerts.command("list")
def alerts_list(
    alias: str | None = _ALIAS,
    only_open: bool = typer.Option(False, "--open", help="Only those that still ask for somebody."),
    limit: int = _LIMIT,
    as_json: bool = _JSON,
) -> None:
    """Alerts, open ones first."""
    from monitoring.queries import list_alerts

    with opened() as context, reading(context.database) as connection:
        chosen = alias_filter(connection, alias)
        rows = list_alerts(connection, chosen, only_open=only_open, limit=limit)
    for row in rows:
        row["opened"] = iso(row["opened_at"])
    emit(
        rows,
        as_json,
        columns=["id", "opened", "alias", "kind", "severity", "state", "title"],
        title="alerts",
    )


@alerts.command("show")
def alerts_show(alert_id: str = typer.Argument(..., metavar="ID"), as_json: bool = _JSON) -> None:
    """One alert: what, what quality did, since when, how bad, where, and what to do."""
    from monitoring.incident_text import text_of_alert
    from monitoring.quality_store import refresh_quality
    from monitoring.queries import find_alert

    with opened() as context:
        refresh_quality(context, now_ms(), [alert_id])
        with reading(context.database) as connection:
            row = find_alert(connection, alert_id)
    text = text_of_alert(row)
    if as_json:
        emit({**row, "text": text.as_json()}, True)
        return
    typer.echo(f"{row['id']}  {row['state']}, severity {row['severity']}")
    typer.echo(row["title"])
    for name, part in text.rows():
        typer.echo(f"  {name + ':':9}{part}")
    _print_examples((row["detail"] or {}).get("interaction_ids", []))


@alerts.command("test")
def alerts_test(as_json: bool = _JSON) -> None:
    """Send a test message to every address of WHET_NOTIFY_URLS, and say which accepted it."""
    from monitoring.notify import try_out

    with opened() as context:
        found = try_out(context)
    if not found and not as_json:
        typer.echo("WHET_NOTIFY_URLS is empty: alerts stand in the console and in Prometheus only.")
        return
    emit(found, as_json, columns=["address", "accepted"], title="test messages")
    if not all(one["accepted"] for one in found):
        raise typer.Exit(1)


@alerts.command("ack")
def alerts_ack(alert_id: str = typer.Argument(..., metavar="ID"), as_json: bool = _JSON) -> None:
    """Say that somebody looks after it. It stays open."""
    _change(alert_id, "acknowledged", as_json)


@alerts.command("resolve")
def alerts_resolve(
    alert_id: str = typer.Argument(..., metavar="ID"), as_json: bool = _JSON
) -> None:
    """Close it. If the change is still there, the next drift run opens a new one."""
    _change(alert_id, "resolved", as_json)


@alerts.command("expected")
def alerts_expected(
    alert_id: str = typer.Argument(..., metavar="ID"), as_json: bool = _JSON
) -> None:
    """Close it as wanted: the traffic from now on is the new normal of the alias."""
    _change(alert_id, "expected", as_json)


def _change(alert_id: str, state: str, as_json: bool) -> None:
    from monitoring.run import change_alert

    with opened() as context:
        row = change_alert(context, alert_id, state, actor=actor(), now=now_ms())
    emit(
        row if as_json else {"id": row["id"], "state": row["state"], "title": row["title"]}, as_json
    )
