"""The evaluation report: everything that was measured about a version, as JSON beside its answers,
and as one page without links to anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.evaluation import ballots
from training.evaluation.intervals import WORSE
from training.evaluation.opinion import stored_opinion
from training.evaluation.signing import SIGNED
from training.store.evaluation_types import Measure, Report, ReportTable, TableLine
from training.store.requests import evaluations_of
from whet.context import Context
from whet.database import reading
from whet.errors import NotFoundError
from whet.registry import Adapter, signature

CANDIDATE = "candidate"
FILE = "report.json"
_TEMPLATES = Path(__file__).parents[1] / "templates"
TEXTS = "text"
HELD_OUT = {
    "old": "Held-out rows from files",
    "new": "Held-out rows from reviews",
    TEXTS: "Held-out plain texts",
}
# Of a report's page, in its order
SECTIONS = (*HELD_OUT, "reliance", "forgetting", "bias", "safety")
# Width of an interval's picture in the SVG's own units, and what is left free for the point at an
# end of it
_PLOT, _EDGE = 160, 5
_LEAST_REACH = 0.1  # of its axis: below 10 points to each side, noise would look like news


def report_path(samples_path: str) -> str:
    """Where the report of an evaluation lies in the store: beside its answers."""
    return str(PurePosixPath(samples_path).with_name(FILE))


def stored_report(context: Context, adapter: Adapter) -> Report:
    """The newest report of a version, with `adapter`, `evaluation` (id) and `at` added, and what
    `with_people` adds. Raises NotFoundError.
    """
    with reading(context.database) as connection:
        rows = evaluations_of(connection, adapter.digest)
    for row in rows:
        found = read_report(context, row["samples_path"])
        if found is not None:
            return {
                "adapter": adapter.label,
                "evaluation": row["id"],
                "at": row["created_at"],
                **with_people(context, row["id"], found),
            }
    raise NotFoundError(
        f"{adapter.label} has no evaluation report.",
        hint=f"`whet eval run {adapter.label} --dataset NAME@vN` makes one.",
    )


@dataclass(frozen=True)
class Judged:
    """What is known of a version now: a version may be judged, and signed for, long after it was
    stored.
    """

    verdict: str
    reason: str
    at: int
    report: Report | None  # of this evaluation
    signature: Mapping[str, Any] | None  # as `whet.registry.signature` has it


def newest_judged(context: Context, adapter: Adapter) -> Judged | None:
    """The newest evaluation of a version; None where it was never judged.

    A signature is no evaluation here: it repeats the one that it signs for.
    """
    with reading(context.database) as connection:
        row = next(
            (row for row in evaluations_of(connection, adapter.digest) if row["verdict"] != SIGNED),
            None,
        )
        signed = signature(connection, adapter.digest)
    return (
        Judged(
            row["verdict"],
            row["reason"],
            row["created_at"],
            read_report(context, row["samples_path"]),
            signed,
        )
        if row
        else None
    )


def with_people(context: Context, evaluation_id: str, found: Report) -> Report:
    """The report of an evaluation with `opinion`, where another model was asked about its answers,
    and `votes`, where people voted on them.
    """
    case = ballots.case_of(context, evaluation_id)
    opinion, votes = (
        stored_opinion(context, case.samples_path, ballots.people_say(context, case)),
        ballots.result(context, case),
    )
    full = found.copy()
    if opinion:
        full["opinion"] = opinion
    if votes["votes"]:
        full["votes"] = votes
    return full


def read_report(context: Context, samples_path: str | None) -> Report | None:
    """The report beside the answers; None where there is none (an evaluation made before there were
    reports), or one of another format.
    """
    if samples_path is None or not context.store.exists(report_path(samples_path)):
        return None
    found = context.store.read_json(report_path(samples_path))
    is_known = isinstance(found, dict) and found.get("format") == FORMAT
    return cast(Report, found) if is_known else None


def opening(found: Report, made: str) -> tuple[str, list[str]]:
    """(the sentence that a report of the version `made` opens with, what got worse: one line each).

    The gate looks at held-out rows alone, the lines at everything.
    """
    said = {
        "pass": f"{made} passed its gate",
        "fail": f"{made} did not pass its gate",
        "inconclusive": f"The gate could not decide on {made}",
    }
    lines = [line for table in tables(found).values() for line in table["lines"]]
    worse = [
        f"{line['measure']}: {line['candidate']} instead of {line['value']}, {line['rows']}"
        for line in lines
        if line["verdict"] == WORSE
    ]
    sentence = said.get(found["gate"]["verdict"], f"Gate: {found['gate']['verdict']}")
    return (
        (
            f"{sentence}, and is worse in {len(worse)} of {len(lines)} comparisons"
            if worse
            else sentence
        ),
        worse,
    )


def tables(found: Report) -> dict[str, ReportTable]:
    """Every table of a report by its key in `SECTIONS`, as its template shows them: words, and the
    places of the intervals in the table's picture.
    """
    groups = sections(found)
    return {name: _table(groups[name]) for name in SECTIONS if groups.get(name)}


def sections(found: Report) -> dict[str, list[Measure]]:
    """Return the measures of a report by section."""
    reliance = {"reliance": found["reliance"]} if found.get("reliance") else {}
    probes = found["probes"]
    return {
        **found["measures"],
        **reliance,
        "forgetting": probes["forgetting"],
        "bias": probes["bias"],
        "safety": probes["safety"],
    }


def _table(measures: Sequence[Measure]) -> ReportTable:
    bounds = [
        abs(end)
        for measure in measures
        if _is_share(measure)
        for found in measure["against"].values()
        for end in (found["low"], found["high"])
    ]
    reach = max([*bounds, _LEAST_REACH])
    lines: list[TableLine] = []
    for measure in measures:
        for other, found in measure["against"].items():
            scale, unit = (
                (100, " points")
                if _is_share(measure)
                else (1, f" {measure['difference_in']}" if "difference_in" in measure else "")
            )
            digits = 1 if _is_share(measure) else 2
            difference, low, high = (
                f"{scale * value:+.{digits}f}"
                for value in (found["difference"], found["low"], found["high"])
            )
            ends = [
                _PLOT / 2 + (_PLOT / 2 - _EDGE) * value / reach
                for value in (found["low"], found["difference"], found["high"])
            ]
            lines.append(
                {
                    "measure": measure["name"],
                    "rows": f"{measure['n']} rows",
                    "candidate": _value(measure, CANDIDATE),
                    "value": f"{_value(measure, other)} ({other})",
                    "difference": f"{difference}{unit} ({low} to {high})",
                    "verdict": found["verdict"],
                    # Or one kind of many
                    "together": measure["name"].startswith("all: ") or ": " not in measure["name"],
                    "places": [round(end, 1) for end in ends] if _is_share(measure) else [],
                }
            )
    return {"reach": f"{100 * reach:.0f}", "lines": lines}


def _is_share(measure: Measure) -> bool:
    """From 0 to 1, as against perplexities and numbers of tokens, which have scales of their own."""
    return "perplexity" not in measure["name"] and measure["name"] != "tokens"


def _value(measure: Measure, side: str) -> str:
    value = measure["values"][side]
    return f"{100 * value:.1f} %" if _is_share(measure) else f"{value:.2f}"


def html(found: Report) -> str:
    """One self-contained page: no script, no link, every text escaped."""

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    headline, worse = opening(found, found["adapter"])
    return environment.get_template("training/report_page.html").render(
        report=found, headline=headline, worse=worse, tables=tables(found)
    )


FORMAT = 1  # of the JSON; a reader that knows only this one refuses others
