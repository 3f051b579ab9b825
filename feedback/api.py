"""The JSON interface for programs that review, and for the review page itself.

Documented in docs/reviewing.md.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from feedback import claims, datasets, flagging, inbox, queue, retraining
from whet.access import User
from whet.control_tokens import load_control_tokens
from whet.database import reading
from whet.registry import alias_filter, known_aliases
from whet.web.shell import Shell


class DecisionBody(BaseModel):
    """`POST /api/review/{item_id}`."""

    model_config = ConfigDict(extra="forbid")
    decision: str
    answer: str | None = None
    labels: list[str] = Field(default_factory=list)
    note: str = ""
    seconds: float | None = None
    checks: list[str] = Field(default_factory=list)
    tool_calls: list[dict[str, Any]] | None = None
    accept_cut: bool = False
    accept_labels: bool = False
    passage_verdict: str = ""
    passage_ids: list[str] = Field(default_factory=list)


class BuildBody(BaseModel):
    """`POST /api/datasets`."""

    model_config = ConfigDict(extra="forbid")
    alias: str = ""
    note: str = ""


class BatchBody(BaseModel):
    """`POST /api/review/batch`."""

    model_config = ConfigDict(extra="forbid")
    alert: str
    limit: int = Field(50, ge=1, le=1000)


def add(routes: APIRouter, shell: Shell) -> None:
    """Add the JSON routes."""
    _add_review(routes, shell)
    _add_datasets(routes, shell)


def _add_review(routes: APIRouter, shell: Shell) -> None:
    context = shell.context
    database = context.database
    claim_ms = int(context.settings.review_claim_s * 1000)

    def stats_of(user: User, alias: str = "") -> dict[str, object]:
        with reading(database) as connection:
            chosen = alias_filter(connection, alias)
            return {**inbox.stats(connection, reviewer=user.name, now=shell.now(), alias=chosen)}

    @routes.get("/api/review/next")
    def review_next(
        alias: str = "", reason: str = "", user: User = Depends(shell.require("reviewer"))
    ) -> dict[str, object]:
        """Claims the next item; `{"item": null}` when nothing waits."""
        with reading(database) as connection:
            chosen = alias_filter(connection, alias)
        wanted = claims.QueueFilter(chosen or "", reason)
        item_id = claims.next_item(
            database, user.name, claim_ms=claim_ms, now=shell.now(), wanted=wanted
        )
        if item_id is None:
            return {"item": None}
        with reading(database) as connection:
            return {"item": inbox.load(connection, item_id).as_json()}

    @routes.get("/api/review/stats")
    def review_stats(
        alias: str = "", user: User = Depends(shell.require("viewer"))
    ) -> dict[str, object]:
        """What waits, what was decided today and by whom, usual seconds per decision, examples that
        stand.
        """
        return stats_of(user, alias)

    @routes.post("/api/review/batch")
    def review_batch(
        body: BatchBody, user: User = Depends(shell.require("reviewer"))
    ) -> dict[str, object]:
        """An alert's conversations, first in the queue."""
        return {
            "items": flagging.batch_from_alert(
                database, body.alert, limit=body.limit, actor=user.name, now=shell.now()
            )
        }

    @routes.post("/api/review/{item_id}")
    def decide(
        item_id: str, body: DecisionBody, user: User = Depends(shell.require("reviewer"))
    ) -> dict[str, object]:
        """Decide; 409 when somebody else holds or decided it.

        The body is `{"decision", "answer"?, "tool_calls"?, "labels"?, "note"?, "seconds"?,
        "checks"?, "accept_cut"?, "accept_labels"?, "passage_verdict"?,
        "passage_ids"?}`.
        """
        said = queue.Decision(**body.model_dump())
        outcome = queue.decide(
            database, item_id, user.name, said, now=shell.now(),
            control=load_control_tokens(context),
        )  # fmt: skip
        return {**asdict(outcome), "stats": stats_of(user)}

    @routes.post("/api/review/{item_id}/claim")
    def claim(item_id: str, user: User = Depends(shell.require("reviewer"))) -> dict[str, object]:
        """Renews the claim while somebody is still reading; `held` is false when it is lost."""
        until = claims.claim(database, item_id, user.name, claim_ms=claim_ms, now=shell.now())
        return {"held": until is not None, "until": until}

    @routes.post("/api/review/{item_id}/release")
    def release(item_id: str, user: User = Depends(shell.require("reviewer"))) -> dict[str, object]:
        """Gives a claim back, so that others need not wait for it to run out."""
        claims.release(database, {item_id: None}, user.name)
        return {"released": True}

    @routes.post("/api/review/{review_id}/undo")
    def undo(review_id: str, user: User = Depends(shell.require("reviewer"))) -> dict[str, object]:
        """Take a decision back: the item waits again for the caller, and its example is withdrawn."""
        sentence = queue.undo(
            database,
            review_id,
            user.name,
            claim_ms=claim_ms,
            now=shell.now(),
            may_undo_others=user.may("operator"),
        )
        with reading(database) as connection:
            return {
                "item_id": inbox.item_of_review(connection, review_id),
                "message": sentence,
                "stats": stats_of(user),
            }


def _add_datasets(routes: APIRouter, shell: Shell) -> None:
    context = shell.context

    @routes.get("/api/datasets")
    def listed(alias: str = "", user: User = Depends(shell.require("viewer"))) -> dict[str, object]:
        """Dataset versions, newest first."""
        with reading(context.database) as connection:
            versions = datasets.list_versions(connection, alias_filter(connection, alias))
        return {"datasets": [asdict(version) for version in versions]}

    @routes.post("/api/datasets")
    def build(
        body: BuildBody, user: User = Depends(shell.require("reviewer"))
    ) -> dict[str, object]:
        """Builds a version from all standing examples; the same rows give the same version."""
        alias = body.alias or context.settings.default_alias
        built = datasets.build_reported(
            context, alias, actor=user.name, now=shell.now(), note=body.note
        )
        about = datasets.manifest(context.store, built.version.path)
        found = {key: about.get(key) for key in ("reviewed_weight", "superseded")}
        left_out = {"left_out": built.left_out, "control_token_rows": built.control_token_rows}
        return {**asdict(built.version), "label": built.version.label, **found, **left_out}

    @routes.post("/api/datasets/{reference}/train")
    def train(reference: str, user: User = Depends(shell.require("operator"))) -> dict[str, object]:
        """Ask for training on a version now, whatever the policy says."""
        with reading(context.database) as connection:
            version = datasets.find(connection, reference)
        request_id = retraining.request_by_hand(
            context, version.name, actor=user.name, now=shell.now(), digest=version.digest
        )
        return {"request_id": request_id, "dataset": version.label}

    @routes.get("/api/retraining", response_model=None)
    def policy(
        alias: str = "", user: User = Depends(shell.require("viewer"))
    ) -> dict[str, object] | list[dict[str, object]]:
        """What the policy sees of an alias now, and what it would decide; a list without one."""
        with reading(context.database) as connection:
            chosen = alias_filter(connection, alias)
            names = [chosen] if chosen else known_aliases(connection)
        found = [retraining.as_json(context, name, shell.now()) for name in names]
        return found[0] if chosen else found
