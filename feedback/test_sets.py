"""Conversations chosen in Traffic as rows of a test set: a dataset version with test rows alone.

The row's answer is the reviewer's where a decision stands, else the model's own, which nobody has
judged: the result says how many of each there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from feedback import conversations, dataset_store
from feedback.acceptance import row_control_token
from feedback.assembly import SPLITS
from feedback.bulk import require_chosen
from feedback.dataset_store import DatasetVersion
from feedback.datasets import register
from feedback.erasing import erased_subjects, is_erased
from whet.context import Context
from whet.control_tokens import load_control_tokens
from whet.conversation import answer_of, history, request_tools
from whet.database import reading
from whet.errors import ConflictError, InputError
from whet.ids import check_name
from whet.store import canonical_json, digest_json
from whet.tables import interactions, reviews
from whet.web.filters import plural


@dataclass(frozen=True, slots=True)
class TestSetResult:
    """The version, and what its new rows are."""

    version: DatasetVersion
    reviewed: int
    unjudged: int
    left_out: int

    @property
    def sentence(self) -> str:
        """What is said to who asked."""
        rows = plural(self.reviewed + self.unjudged, "row")
        unjudged = (
            f" {self.unjudged} of them hold the model's own answer, which nobody has judged."
            if self.unjudged
            else ""
        )
        left_out = (
            f" {self.left_out} left out: rejected, unfinished, or of a form no row can hold."
            if self.left_out
            else ""
        )
        return f"{rows} in {self.version.label}.{unjudged}{left_out}"


def add_to_test_set(
    context: Context, name: str, interaction_ids: Sequence[str], *, actor: str, now: int
) -> TestSetResult:
    """Make the next version of a test set: the rows that it has, and those conversations.

    Raises ConflictError where the name is that of a dataset with training rows, and InputError
    where no conversation can be a row.
    """
    check_name(name, "name of the test set")
    chosen = require_chosen(interaction_ids)
    with reading(context.database) as connection:
        before = dataset_store.newest(connection, name)
    if before is not None and before.rows.get("train"):
        raise ConflictError(
            f"{before.label} has training rows: a test set needs a name of its own.",
            hint=f"Choose another, such as {name}-cases.",
        )
    known = dataset_store.read_rows(context.store, before.path)["test"] if before else []
    rows, reviewed = _rows(context, chosen)
    if not rows:
        raise InputError(
            "None of these conversations can be a row of a test set.",
            hint="Choose answers that are whole and were not rejected.",
        )
    new = {row["id"] for row in rows}
    kept = [row for row in known if row.get("id") not in new]
    version = _publish(context, name, [*kept, *rows], before, actor=actor, now=now)
    return TestSetResult(version, reviewed, len(rows) - reviewed, len(chosen) - len(rows))


def _rows(context: Context, chosen: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """Return the rows, and how many of them have a reviewer's answer."""
    control = load_control_tokens(context)
    with reading(context.database) as connection:
        erased = erased_subjects(connection)
        query = select(interactions).where(interactions.c.id.in_(chosen))
        by_id = {row["id"]: dict(row) for row in connection.execute(query).mappings()}
        standing = select(reviews.c.interaction_id, reviews.c.decision, reviews.c.answer).where(
            reviews.c.interaction_id.in_(chosen), reviews.c.standing.is_not(None)
        )
        decisions = {row.interaction_id: row for row in connection.execute(standing)}
    rows: list[dict[str, Any]] = []
    reviewed = 0
    for interaction_id in chosen:
        item, decision = by_id.get(interaction_id), decisions.get(interaction_id)
        if item is None or (decision is not None and decision.decision == "reject"):
            continue
        if is_erased(erased, item["end_user"], item["created_at"], context.secret):
            continue
        is_judged = decision is not None and decision.decision in ("approve", "edit")
        row = _row(item, decision.answer if is_judged and decision is not None else None)
        if row is not None and row_control_token(control, row) is None:
            rows.append(row)
            reviewed += is_judged
    return rows, reviewed


def _row(item: Mapping[str, Any], right_answer: str | None) -> dict[str, Any] | None:
    messages = history(item["request"])
    answer = answer_of(item["request"], item["response"], item["response_text"])
    roles = {message.role for message in messages}
    text = answer.text if right_answer is None else right_answer
    if (
        item["status"] != "complete"
        or "user" not in roles
        or roles - set(conversations.TRAINABLE_ROLES)
        or not (text or answer.tool_calls)
    ):
        return None
    row = conversations.training_row(
        example_id=item["id"],
        messages=[message.as_chat() for message in messages],
        answer=text,
        calls=answer.tool_calls if right_answer is None else (),
        tools=request_tools(item["request"]),
        context=conversations.retrieved_texts(item["retrieved"]),
    )
    row["origin"] = "traffic" if right_answer is None else "review"
    if item["end_user"]:
        row["user"] = item["end_user"]  # so that an erasure finds the row
    return row


def _publish(
    context: Context, name: str, rows: list[dict[str, Any]], before: DatasetVersion | None, *,
    actor: str, now: int,
) -> DatasetVersion:  # fmt: skip
    digest = digest_json(["test set", name, rows])
    counts = {split: len(rows) if split == "test" else 0 for split in SPLITS}
    about = {"name": name, "rows": counts, "parents": [], "example_ids": [], "digest": digest}

    def fill(folder: Any) -> None:
        for split in SPLITS:
            content = rows if split == "test" else []
            lines = b"".join(canonical_json(row) + b"\n" for row in content)
            (folder / f"{split}.jsonl").write_bytes(lines)
        (folder / "manifest.json").write_bytes(canonical_json(about))

    path = context.store.put_folder(f"datasets/{digest}", fill)
    note = "A test set, of conversations chosen in Traffic."
    return register(context, digest, name, path, counts, [], [], actor=actor, note=note, now=now)
