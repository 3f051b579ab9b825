"""Pages of dataset versions: what is in, what changed, what was left out and why; build and train."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import Response

from feedback import datasets, retraining
from feedback.assembly import SPLITS
from feedback.conversations import row_answer, row_question
from feedback.dataset_text import files_of, left_out_by_reason, superseded_by_reason
from whet.access import User
from whet.database import reading
from whet.errors import NotFoundError
from whet.web.filters import plural
from whet.web.shell import Shell

PAGE = 50  # rows of a version at a time
_SHOWN_CHANGES = 100  # rows of a difference; the counts say how many there are


def add(routes: APIRouter, shell: Shell) -> None:
    """Add the pages."""
    _add_reading(routes, shell)
    _add_deeds(routes, shell)


def _policies(shell: Shell) -> list[dict[str, Any]]:
    """Return for every alias that could learn something what the policy says now."""
    context, now = shell.context, shell.now()
    with reading(context.database) as connection:
        names = retraining.aliases(connection)
    looked = {alias: retraining.look(context, alias, now)[1] for alias in names}
    return [{"alias": alias, "decision": decision} for alias, decision in looked.items()]


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row.get("id", ""),
        "origin": row.get("origin", "seed"),
        "weight": row.get("weight", 1),
        "question": row_question(row),
        "answer": row_answer(row),
    }


def _add_reading(routes: APIRouter, shell: Shell) -> None:
    context = shell.context
    viewer = Depends(shell.require("viewer"))

    @routes.get("/datasets", dependencies=[viewer])
    def overview(request: Request, name: str = "") -> Response:
        """Dataset versions, and what the retraining policy says of every alias."""
        with reading(context.database) as connection:
            versions = datasets.list_versions(connection, name or None)
        return shell.render(
            request,
            "feedback/datasets.html",
            versions=versions,
            policies=_policies(shell),
            name=name,
            default_alias=context.settings.default_alias,
        )

    @routes.get("/datasets/diff", dependencies=[viewer])
    def difference(request: Request, a: str = "", b: str = "") -> Response:
        """What changed between two versions, row by row."""
        with reading(context.database) as connection:
            first, second = datasets.find(connection, a), datasets.find(connection, b)
        found = datasets.diff(context, first, second)
        changes = [
            {"change": change, "split": split, **_brief(row)}
            for change, by_split in (("added", found.added), ("removed", found.removed))
            for split, rows in by_split.items()
            for row in rows
        ]
        return shell.render(
            request,
            "feedback/diff.html",
            a=first,
            b=second,
            changes=changes[:_SHOWN_CHANGES],
            total=len(changes),
            found=found,
        )

    @routes.get("/datasets/{reference}", dependencies=[viewer])
    def version(request: Request, reference: str, split: str = "train", start: int = 0) -> Response:
        """One version: its rows, what replaced what, what was left out and why."""
        with reading(context.database) as connection:
            found = datasets.find(connection, reference)
            parent = next(
                (
                    p
                    for digest in found.parents
                    for p in datasets.list_versions(connection, found.name)
                    if p.digest == digest
                ),
                None,
            )
        split = split if split in SPLITS else "train"
        rows = datasets.read_rows(context.store, found.path)
        start = max(0, min(start, len(rows[split])))
        page = [_brief(row) for row in rows[split][start : start + PAGE]]
        origins = {
            name: sum(row.get("origin") == "review" for row in rows[name]) for name in SPLITS
        }
        here = f"/datasets/{quote(found.digest)}"
        about = datasets.manifest(context.store, found.path)
        return shell.render(
            request, "feedback/dataset.html", version=found, parent=parent, about=about,
            files=files_of(found),
            superseded=superseded_by_reason(about).most_common(),
            left_out=left_out_by_reason(about).most_common(), split=split, splits=SPLITS,
            rows=page, reviewed=origins, start=start, total=len(rows[split]), page_size=PAGE,
            previous=f"{here}?{urlencode({'split': split, 'start': max(0, start - PAGE)})}" if start else "",
            next=f"{here}?{urlencode({'split': split, 'start': start + PAGE})}" if start + PAGE < len(rows[split]) else "",
        )  # fmt: skip

    @routes.get("/datasets/{reference}/{split}.jsonl", dependencies=[viewer])
    def download(reference: str, split: str) -> Response:
        """The rows of one split as JSONL."""
        with reading(context.database) as connection:
            found = datasets.find(connection, reference)
        if split not in SPLITS:
            raise NotFoundError(f"A version has {', '.join(SPLITS)}; not {split[:40]!r}.")
        name = f"{found.name}-{found.version}-{split}.jsonl"
        content = context.store.read_bytes(f"{found.path}/{split}.jsonl")
        return Response(
            content,
            media_type="application/jsonl",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )


def _add_deeds(routes: APIRouter, shell: Shell) -> None:
    context = shell.context

    @routes.post("/datasets/build")
    def build(
        alias: Annotated[str, Form()] = "",
        note: Annotated[str, Form()] = "",
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """Build a version from all standing examples; nothing is trained by that."""
        now = shell.now()
        built = datasets.build_reported(
            context, alias or context.settings.default_alias, actor=user.name, now=now,
            note=note[:500],
        )  # fmt: skip
        version = built.version
        is_new = version.created_at == now
        made = "was built" if is_new else "holds exactly these rows already"
        sentence = f"{version.label} {made}."
        if built.control_token_rows:
            sentence += f" {plural(built.control_token_rows, 'row')} with control tokens left out."
        return shell.redirect(f"/datasets/{version.digest}", sentence)

    @routes.post("/datasets/train")
    def train(
        digest: Annotated[str, Form()] = "", user: User = Depends(shell.require("operator"))
    ) -> Response:
        """Ask for training on a version."""
        with reading(context.database) as connection:
            version = datasets.find(connection, digest)
        request_id = retraining.request_by_hand(
            context, version.name, actor=user.name, now=shell.now(), digest=version.digest
        )
        return shell.redirect(
            f"/datasets/{version.digest}",
            f"Training on {version.label} is asked for ({request_id}); a worker takes it up.",
        )
