"""Pages for reviewers: one conversation at a time, the list, and (in `dataset_pages`) dataset
versions. Programs use `api`.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from feedback import (
    api,
    assignment,
    bulk_pages,
    claims,
    dataset_pages,
    flagging,
    guideline_pages,
    inbox,
    opinion_pages,
    queue,
    retraining,
    team_pages,
)
from feedback.acceptance import (
    ERROR_LABELS,
    CutAnswerError,
    LabelledApprovalError,
    question_control_token,
)
from feedback.alert_queue import alert_title, describe_batch
from feedback.calls import read_calls
from feedback.claims import QueueFilter
from feedback.comments import list_comments
from feedback.conversations import retrieved_texts
from feedback.guidelines import load_guideline
from feedback.opinion_store import is_gold
from feedback.pace import ASK_AFTER
from feedback.passage_verdicts import PASSAGE_VERDICTS
from feedback.selection import SHARES
from whet.access import User
from whet.control_tokens import load_control_tokens
from whet.database import reading
from whet.errors import NotFoundError, WhetError
from whet.json_types import JsonObject
from whet.text_overlap import find_overlap
from whet.web.shell import Shell
from whet.word_diff import word_diff

BATCH = 50  # conversations that one press brings in from an alert: about ten minutes of reviewing
# Keys of the Review page that a reviewer can change, by the letter they have until then
REMAPPABLE = (
    ("a", "approve"), ("e", "edit"), ("r", "reject"), ("s", "skip"), ("u", "undo"),
    ("c", "take the proposed answer"), ("o", "put the original back"), ("n", "note"),
    ("j", "next, undecided"), ("k", "previous, undecided"), ("h", "guideline"), ("l", "similar conversations"),
    ("m", "passage missing"), ("w", "passage wrong"), ("i", "passage ignored"),
)  # fmt: skip
STATES = ("waiting", "done", "skipped", "all")


def router(shell: Shell) -> APIRouter:
    """Entry point `whet.pages`."""
    shell.add_page("Review", "/review", "review", 20)
    shell.add_page("Datasets", "/datasets", "datasets", 25)
    shell.count_new_examples = partial(retraining.count_new_examples, shell.context)
    routes = APIRouter()
    _add_review(routes, shell)
    _add_deeds(routes, shell)
    guideline_pages.add(routes, shell)
    opinion_pages.add(routes, shell)
    bulk_pages.add(routes, shell)
    team_pages.add(routes, shell)
    dataset_pages.add(routes, shell)
    api.add(routes, shell)
    return routes


def read_filter(
    alias: str = "",
    reason: str = "",
    state: str = "waiting",
    order: str = "priority",
    batch: str = "",
) -> QueueFilter:
    """The filter of an address of the Review page."""
    return QueueFilter(alias, reason, state, order, batch)


def claim_ms(shell: Shell) -> int:
    return int(shell.context.settings.review_claim_s * 1000)


def plain_newlines(text: str) -> str:
    """A browser sends the line breaks of a form as CR LF; the answer had, and keeps, LF."""
    return text.replace("\r\n", "\n")


def _item_values(shell: Shell, user: User, item_id: str, **more: Any) -> dict[str, object]:
    """What `item.html` shows.

    `typed`: text that a refused form brought along and that must not be lost.
    """
    now = shell.now()
    with reading(shell.context.database) as connection:
        view = inbox.load(connection, item_id)
        guideline = load_guideline(connection, view.item["alias"])
        gold = is_gold(connection, item_id)
        said = list_comments(connection, item_id)
    item = view.item
    held_by = (
        item["claimed_by"]
        if item["claimed_by"] != user.name and (item["claimed_until"] or 0) > now
        else None
    )
    return {
        "view": view,
        "item": item,
        "held_by": held_by,
        "is_held": item["claimed_by"] == user.name and (item["claimed_until"] or 0) > now,
        "may_decide": item["state"] == "waiting" and held_by is None and user.may("reviewer"),
        "may_undo": (
            view.review is not None
            and (view.review["reviewer"] == user.name or user.may("operator"))
        ),
        "typed": view.answer,
        "typed_calls": view.editable_calls,
        "problem": None,
        "ask_cut": False,
        "unlearnable": question_control_token(
            load_control_tokens(shell.context), view.turns, retrieved_texts(view.retrieved)
        ),
        "typed_note": "",
        "typed_labels": (),
        "typed_checks": "",
        "overlap": find_overlap(
            view.answer, [str(hit.get("text") or "") for hit in view.retrieved]
        ),
        "diff": (
            word_diff(view.answer_as_text, view.review["answer"])
            if view.review
            and view.review["decision"] == "edit"
            and view.review["answer"] is not None
            else []
        ),
        "typed_verdict": "",
        "typed_passages": (),
        "passage_verdicts": PASSAGE_VERDICTS,
        "labels": ERROR_LABELS,
        "ask_labels": False,
        "shares": SHARES,
        "guideline": guideline,
        "is_gold": gold,
        "comments": said,
        **more,
    }


def _stats(shell: Shell, user: User, wanted: QueueFilter) -> JsonObject:
    with reading(shell.context.database) as connection:
        return inbox.stats(
            connection, reviewer=user.name, now=shell.now(), alias=wanted.alias or None,
            wanted=wanted,
        )  # fmt: skip


def _page(
    shell: Shell,
    request: Request,
    user: User,
    item_id: str | None,
    wanted: QueueFilter,
    *,
    status: int = 200,
    **more: Any,
) -> Response:
    values = _item_values(shell, user, item_id, **more) if item_id else {"view": None, "item": None}
    with reading(shell.context.database) as connection:
        choices = inbox.choices(connection)
    return shell.render(
        request, "feedback/review.html", status, stats=_stats(shell, user, wanted),
        wanted=wanted, choices=choices, orders=claims.ORDERS,
        last_review=queue.last_decision(shell.context.database, user.name),
        claim_s=shell.context.settings.review_claim_s, settings=shell.context.settings,
        hasty_limit=ASK_AFTER, remappable=REMAPPABLE, **values,
    )  # fmt: skip


def _add_review(routes: APIRouter, shell: Shell) -> None:
    database = shell.context.database

    @routes.get("/review")
    def review(
        request: Request,
        wanted: QueueFilter = Depends(read_filter),
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """The next conversation, claimed for this reviewer."""
        item_id = claims.next_item(
            database, user.name, claim_ms=claim_ms(shell), now=shell.now(), wanted=wanted
        )
        return _page(shell, request, user, item_id, wanted)

    @routes.get("/review/list")
    def review_list(
        request: Request, state: str = "waiting", reason: str = "", alias: str = "", alert: str = "",
        passages: str = "", reviewer: str = "", pace: str = "", assignee: str = "", batch: str = "",
        after: str = "",
        user: User = Depends(shell.require("viewer")),
    ) -> Response:  # fmt: skip
        """The queue and what was decided; every selection has its address.

        By state, reason, alias, alert, reviewer, pace, and what was said of the passages.
        """
        state = state if state in STATES else "waiting"
        with reading(database) as connection:
            rows, more = inbox.listing(
                connection,
                state=state,
                reason=reason,
                alias=alias,
                alert=alert,
                passages=passages,
                reviewer=reviewer,
                is_hasty=pace == "hasty",
                assignee=assignee,
                batch=batch,
                after=after,
            )
            choices = inbox.choices(connection)
            people = assignment.list_reviewers(connection)
            about = alert_title(connection, alert) if alert else ""
        filters = {
            "state": state,
            "reason": reason,
            "alias": alias,
            "alert": alert,
            "passages": passages,
            "reviewer": reviewer,
            "pace": pace,
            "assignee": assignee,
            "batch": batch,
        }
        wanted = QueueFilter(alias, reason, batch=batch)
        query = {name: value for name, value in filters.items() if value}
        return shell.render(
            request, "feedback/list.html", rows=rows, choices=choices, filters=filters, states=STATES, passage_verdicts=PASSAGE_VERDICTS, stats=_stats(shell, user, wanted), review_query=wanted.query,
            people=people, about=about, next_href=f"/review/list?{urlencode({**query, 'after': more})}" if more else "", first=not after,
        )  # fmt: skip

    @routes.get("/review/part")
    def part(
        request: Request,
        wanted: QueueFilter = Depends(read_filter),
        exclude: str = Query(""),
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """The next conversation as a part of the page, fetched while the one before is still being
        judged; 204: nothing waits.
        """
        shown = [item for item in exclude.split(",") if item]
        item_id = claims.next_item(
            database, user.name, claim_ms=claim_ms(shell), now=shell.now(), wanted=wanted,
            exclude=shown,
        )  # fmt: skip
        if item_id is None:
            return Response(status_code=204)
        return shell.render(request, "feedback/item.html", **_item_values(shell, user, item_id))

    @routes.get("/review/part/{item_id}")
    def part_of(
        request: Request, item_id: str, user: User = Depends(shell.require("reviewer"))
    ) -> Response:
        """One conversation as a part of the page, such as the one whose decision was undone."""
        return shell.render(request, "feedback/item.html", **_item_values(shell, user, item_id))

    @routes.get("/review/item/{item_id}")
    def item(
        request: Request, item_id: str, user: User = Depends(shell.require("viewer"))
    ) -> Response:
        """One conversation under an address that can be shared. Opening it claims nothing; who
        begins to write holds it.
        """
        return _page(shell, request, user, item_id, QueueFilter())

    @routes.post("/review/item/{item_id}")
    def decide(
        request: Request,
        item_id: str,
        decision: Annotated[str, Form()] = "",
        answer: Annotated[str, Form()] = "",
        note: Annotated[str, Form()] = "",
        checks: Annotated[str, Form()] = "",
        tool_calls: Annotated[str | None, Form()] = None,
        label: Annotated[list[str] | None, Form()] = None,
        passage_verdict: Annotated[str, Form()] = "",
        passage: Annotated[list[str] | None, Form()] = None,
        accept_cut: Annotated[bool, Form()] = False,
        accept_labels: Annotated[bool, Form()] = False,
        alias: Annotated[str, Form()] = "",
        reason: Annotated[str, Form()] = "",
        state: Annotated[str, Form()] = "",
        order: Annotated[str, Form()] = "",
        batch: Annotated[str, Form()] = "",
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """The form without JavaScript: decide, then on to the next."""
        wanted = QueueFilter(alias, reason, state, order, batch)
        text = plain_newlines(answer)
        contains = tuple(
            line.strip() for line in plain_newlines(checks).split("\n") if line.strip()
        )
        decision = decision or ("approve" if accept_cut or accept_labels else "")
        control = load_control_tokens(shell.context)
        learns = decision in ("edit", "approve")
        try:
            said = queue.Decision(
                decision, text if learns else None, tuple(label or ()), plain_newlines(note), None,
                contains, read_calls(tool_calls) if learns and tool_calls is not None else None,
                accept_cut, accept_labels, passage_verdict, tuple(passage or ()) if passage_verdict else (),
            )  # fmt: skip
            queue.decide(database, item_id, user.name, said, now=shell.now(), control=control)
        except NotFoundError:
            raise
        except WhetError as error:
            typed = {
                "typed": text,
                "typed_calls": tool_calls or "",
                "typed_note": note,
                "typed_labels": tuple(label or ()),
                "typed_checks": checks,
                "problem": error,
            }
            typed |= {"typed_verdict": passage_verdict, "typed_passages": tuple(passage or ())}
            typed["ask_cut"] = isinstance(error, CutAnswerError)
            typed["ask_labels"] = isinstance(error, LabelledApprovalError)
            return _page(shell, request, user, item_id, wanted, status=error.status, **typed)
        query = wanted.query
        return shell.redirect(f"/review?{query}" if query else "/review", f"Recorded: {decision}.")

    @routes.post("/review/release")
    def release(
        item: Annotated[list[str] | None, Form()] = None,
        user: User = Depends(shell.require("reviewer")),
    ) -> Response:
        """Give back what a page holds that is being closed, as `navigator.sendBeacon` sends it.

        `item`: an id, a colon, and until when the page's claim holds.
        """
        held = (one.rpartition(":") for one in item or ())
        found = {item_id: int(until) for item_id, _, until in held if until.isdigit()}
        claims.release(database, found, user.name)
        return Response(status_code=204)


def _add_deeds(routes: APIRouter, shell: Shell) -> None:
    database = shell.context.database

    @routes.post("/review/undo/{review_id}")
    def undo(review_id: str, user: User = Depends(shell.require("reviewer"))) -> Response:
        """Take a decision back: one's own, or as an operator anybody's."""
        now = shell.now()
        sentence = queue.undo(
            database,
            review_id,
            user.name,
            claim_ms=claim_ms(shell),
            now=now,
            may_undo_others=user.may("operator"),
        )
        with reading(database) as connection:
            item_id = inbox.item_of_review(connection, review_id)
        return shell.redirect(f"/review/item/{item_id}", sentence)

    @routes.post("/review/batch")
    def batch(
        alert: Annotated[str, Form()] = "", user: User = Depends(shell.require("reviewer"))
    ) -> RedirectResponse:
        """The conversations behind an alert, into the queue."""
        added = flagging.batch_from_alert(
            database, alert, limit=BATCH, actor=user.name, now=shell.now()
        )
        with reading(database) as connection:
            said = describe_batch(connection, alert, len(added))
        return shell.redirect(f"/review/list?{urlencode({'alert': alert, 'state': 'all'})}", said)

    @routes.post("/review/request")
    def ask(
        interaction: Annotated[str, Form()] = "", user: User = Depends(shell.require("reviewer"))
    ) -> RedirectResponse:
        """One conversation that somebody wants judged."""
        return shell.redirect(
            f"/review/item/{flagging.request_review(database, interaction, actor=user.name, now=shell.now())}"
        )
