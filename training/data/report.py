"""The report of `whet data check` as one HTML page: no script, nothing loaded from elsewhere, every
text escaped, light and dark.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.data.bad_lines import BadLine, sentences
from training.data.check_report import CheckReport
from whet.web.filters import code, plural

_MOST_BARS = 30


def render(found: CheckReport, name: str, now_ms: int) -> str:
    """The page for what `check` returned."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    counted = [
        ("Tasks", found["tasks"]),
        *((f"Labels of {task}", labels) for task, labels in found["labels"].items()),
        ("Languages of the answers", found["languages"]),
    ]
    environment.filters["code"] = code
    return environment.get_template("report.html").render(
        **found,
        headline=headline(found),
        faults=sentences(
            [BadLine(**line) for line in found["rejected"]],
            of=found["rows"] + found["rejected_lines"],
        ),
        name=name,
        at=datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        bins=[(f"{bin_['from']} to {bin_['to']}", bin_["rows"]) for bin_ in found["histogram"]],
        charts=[
            (title, Counter(items).most_common(_MOST_BARS), len(items))
            for title, items in counted
            if items
        ],
    )


def headline(found: CheckReport) -> str:
    """The sentence that whoever wants to train came for: does a run take these rows?"""
    if found["errors"]:
        return (
            f"A run refuses these rows: {plural(found['errors'], 'error')} and"
            f" {plural(found['warnings'], 'warning')}"
        )
    taken = (
        "A run takes this row" if found["rows"] == 1 else f"A run takes all {found['rows']:,} rows"
    )
    return (
        f"{taken}; {plural(found['warnings'], 'warning')} to look at"
        if found["warnings"]
        else f"{taken}: nothing was found"
    )
