"""A person answers for reviewed conversations that a version breaks: recorded with name, reason and
conversations, and read by rollouts.
"""

from __future__ import annotations

from training.data.datasets import REGRESSION
from training.store import adapter_store
from training.store.evaluation_types import GroupMetrics, NewEvaluation, Signature, Signing
from training.store.requests import evaluations_of
from whet.context import Context
from whet.database import reading
from whet.errors import ConflictError, InputError
from whet.registry import find_adapter

SIGNED = "signed"
_LONGEST_REASON = 1000  # characters: a few sentences


def sign(context: Context, reference: str, reason: str, *, actor: str, now: int) -> Signing:
    """Sign for what the newest evaluation of a version found broken.

    Raises InputError without a reason, ConflictError where a signature would not cover it.
    """
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= _LONGEST_REASON:
        raise InputError(
            f"The reason has {len(reason)} characters; expected 1 to {_LONGEST_REASON}.",
            hint="Say why the broken answers are acceptable.",
        )
    with reading(context.database) as connection:
        adapter = find_adapter(connection, reference)
        row = next(iter(evaluations_of(connection, adapter.digest)), None)
    if row is None:
        raise ConflictError(
            f"{adapter.label} was never judged, so there is nothing to sign for.",
            hint=f"`whet eval run {adapter.label} --dataset NAME@vN` judges it.",
        )
    if row["verdict"] == SIGNED:
        raise ConflictError(f"{adapter.label} is signed for already: {row['reason']}")
    broken = row["metrics"].get(REGRESSION, GroupMetrics()).get("broken_ids", [])
    others = [group for group in row["thresholds"].get("failed", []) if group != REGRESSION]
    if not broken:
        raise ConflictError(
            f"{adapter.label} breaks no reviewed conversation, so there is nothing to sign for."
            f" {row['reason']}"
        )
    if others:
        raise ConflictError(
            f"{adapter.label} failed on more than reviewed conversations: {row['reason']}",
            hint=(
                "A signature covers broken conversations only. Train again, or promote it with"
                " --force."
            ),
        )
    signed: Signature = {
        "by": actor,
        "reason": reason,
        "evaluation": row["id"],
        "conversations": broken,
    }
    evaluation: NewEvaluation = {
        "run_id": row["run_id"],
        "against_digest": row["against_digest"],
        "dataset_digest": row["dataset_digest"],
        "metrics": row["metrics"],
        "samples_path": row["samples_path"],
        "people": row.get("people"),
        "verdict": SIGNED,
        "reason": f"Signed by {actor} for {len(broken)} broken reviewed conversations: {reason}",
        "thresholds": {**row["thresholds"], "signed": signed},
    }
    detail = {"evaluation": row["id"], "conversations": broken, "reason": reason}
    evaluation_id = adapter_store.add_evaluation(
        context, adapter, evaluation, actor=actor, now=now, action="adapter.sign", detail=detail
    )
    return {"id": evaluation_id, "adapter": adapter.label, **signed}
