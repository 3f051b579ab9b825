"""What a run's evaluation kept: its answers beside those it was compared with, and its report."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import select
from starlette.responses import Response

from training.evaluation.opinion import read_samples
from training.evaluation.report import opening, read_report, tables, with_people
from training.store.evaluation_types import EvaluationRow, Sample
from training.store.table_rows import evaluation_row
from whet.conversation import history
from whet.database import reading
from whet.errors import NotFoundError
from whet.tables import adapters, evaluations, training_runs
from whet.web.filters import clip, plural
from whet.web.shell import Shell

_SHOWN = 60  # answers of a kind on a page; whoever wants all of them has samples.jsonl
_LONG = 600  # characters: a longer text is folded, or one of them would hide all the others
# Of a comparison by words, which is quadratic work; longer texts are shown without marks
_MOST_PIECES = 800
# Of pieces, of which half are spaces and alike anyway; below it nearly every word would be marked
_LEAST_IN_COMMON = 0.7
_PIECE = re.compile(r"\s+|\w+|[^\w\s]")


def add(routes: APIRouter, shell: Shell) -> None:
    """The pages of `training.pages` that are about answers."""

    @routes.get("/runs/{run_id}/samples")
    def run_samples(request: Request, run_id: str, show: str = "") -> Response:
        """Answers of a run and of what it was compared with: `show=broken`, `fixed` or `same`."""
        return shell.render(request, "training/samples.html", **_sample_values(shell, run_id, show))

    @routes.get("/runs/{run_id}/report")
    def run_report(request: Request, run_id: str) -> Response:
        """The evaluation report of a run's version: every measure, forgetting, bias, refusals,
        people's votes, another model's opinion.
        """
        return shell.render(request, "training/report.html", **_report_values(shell, run_id))


def _judged(shell: Shell, run_id: str) -> tuple[EvaluationRow, str, str]:
    """(the newest evaluation of a run's version that kept its answers, the version, what it was
    compared with). Raises NotFoundError.
    """
    with reading(shell.context.database) as connection:
        if (
            connection.execute(
                select(training_runs.c.id).where(training_runs.c.id == run_id)
            ).first()
            is None
        ):
            raise NotFoundError(
                f"There is no run {clip(run_id, 60)!r}.", hint="`whet train list` prints them."
            )
        query = (
            select(evaluations)
            .where(evaluations.c.run_id == run_id)
            .order_by(evaluations.c.created_at.desc())
        )
        row = connection.execute(query.limit(1)).first()
        if row is None or not row.samples_path:
            raise NotFoundError(
                "This run kept no answers to compare.",
                hint="Answers are kept when rows were held out to judge by.",
            )
        known = connection.execute(
            select(adapters).where(
                adapters.c.digest.in_([row.adapter_digest, row.against_digest or ""])
            )
        )
        labels = {adapter.digest: f"{adapter.name}@v{adapter.version}" for adapter in known}
    return (
        evaluation_row(row),
        labels.get(row.adapter_digest, "the candidate"),
        labels.get(row.against_digest, "the base"),
    )


def _report_values(shell: Shell, run_id: str) -> dict[str, Any]:
    evaluation, made, _ = _judged(shell, run_id)
    judge = f"whet eval run {made} --dataset NAME@vN"
    found = read_report(shell.context, evaluation["samples_path"])
    if found is None:
        raise NotFoundError(
            "This run has no report.",
            hint=f"It was judged before there were reports; `{judge}` makes one.",
        )
    found = with_people(shell.context, evaluation["id"], found)
    headline, worse = opening(found, made)
    return {
        "run_id": run_id,
        "evaluation_id": evaluation["id"],
        "report": found,
        "tables": tables(found),
        "worse": worse,
        "headline": headline,
    }


def _sample_values(shell: Shell, run_id: str, show: str) -> dict[str, Any]:
    evaluation, made, against = _judged(shell, run_id)
    rows = read_samples(shell.context, str(evaluation["samples_path"]))
    kinds: dict[str, list[Sample]] = {"broken": [], "fixed": [], "same": []}
    for row in rows:
        ours, theirs = row["candidate"]["score"]["correct"], row["against"]["score"]["correct"]
        kinds["broken" if ours < theirs else "fixed" if ours > theirs else "same"].append(row)
    chosen = (
        show if show in kinds else next((kind for kind, some in kinds.items() if some), "broken")
    )
    return {
        "run_id": run_id,
        "made": made,
        "against": against,
        "shown": [_shown(row) for row in kinds[chosen][:_SHOWN]],
        "long": _LONG,
        "counts": {name: len(items) for name, items in kinds.items()},
        "chosen": chosen,
        "headline": (
            f"{plural(len(kinds['fixed']), 'answer').capitalize()} became right,"
            f" {plural(len(kinds['broken']), 'answer')} became wrong"
        ),
    }


def _shown(row: Sample) -> dict[str, object]:
    """One row with the words marked that an answer does not share with the right one."""
    sides = {
        side: {
            "right": answer["score"]["correct"] >= 1,
            "pieces": marked(answer["text"], row["reference"]),
        }
        for side, answer in (("candidate", row["candidate"]), ("against", row["against"]))
    }
    turns = history({"messages": row["prompt"]})
    return {"id": row["id"], "turns": turns, "reference": row["reference"], **sides}


def marked(text: str, reference: str) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether the reference lacks it there.

    Unmarked where the two have next to nothing in common: then every word would be.
    """
    ours, theirs = _PIECE.findall(text), _PIECE.findall(reference)
    if not ours or len(ours) + len(theirs) > _MOST_PIECES:
        return [(text, False)] if text else []
    matcher = SequenceMatcher(None, theirs, ours, autojunk=False)
    if matcher.ratio() < _LEAST_IN_COMMON:
        return [(text, False)]
    return [
        ("".join(ours[start:end]), kind != "equal")
        for kind, _, _, start, end in matcher.get_opcodes()
        if end > start
    ]
