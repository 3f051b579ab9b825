"""Broken conversations: nothing is promoted over them unless a person answers for them by name."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select

from serving.rollout_store import RolloutStore
from tests.serving.conftest import add_version
from training.evaluation.signing import sign
from whet.auditlog import broken_at
from whet.context import Context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError
from whet.registry import signature
from whet.tables import audit, evaluations

WHO = {"actor": "cli:ola", "now": 2000}


def judged(
    context: Context,
    digest: str,
    *,
    at: int = 1000,
    verdict: str = "fail",
    broken: tuple[str, ...] = ("c-1", "c-2"),
    failed: tuple[str, ...] = ("regression",),
) -> str:
    """An evaluation as the gate stores it."""
    row: dict[str, Any] = {
        "id": f"evl_{at}", "run_id": None, "adapter_digest": digest, "against_digest": None, "dataset_digest": "d", "verdict": verdict, "reason": "Only 38 of 40.",
        "metrics": {"regression": {"n": 40, "broken_ids": list(broken)}}, "thresholds": {"failed": list(failed)}, "samples_path": "evaluations/x/samples.jsonl", "created_at": at,
    }  # fmt: skip
    with writing(context.database) as connection:
        connection.execute(insert(evaluations).values(**row))
    return str(row["id"])


def promote(context: Context) -> int:
    return (
        RolloutStore(context.database, context.settings)
        .promote("support", "support@v1", actor="t", reason="r", now=5000)
        .generation
    )


def test_a_signature_names_who_why_and_which_and_lets_the_version_be_promoted(
    context: Context,
) -> None:
    digest = add_version(context, "support", 1, gate="fail")
    evaluation = judged(context, digest)
    with pytest.raises(ConflictError, match="failed its gate"):
        promote(context)
    made = sign(context, "support@v1", "  The policy changed;\n both answers are outdated. ", **WHO)
    expected = {
        "by": "cli:ola",
        "reason": "The policy changed; both answers are outdated.",
        "evaluation": evaluation,
        "conversations": ["c-1", "c-2"],
    }
    assert made == {"id": made["id"], "adapter": "support@v1", **expected}
    with reading(context.database) as connection:
        assert signature(connection, digest) == expected
        entry = connection.execute(select(audit).where(audit.c.action == "adapter.sign")).one()
        kept = connection.execute(select(evaluations).where(evaluations.c.id == evaluation)).one()
        assert broken_at(connection) is None
    assert (entry.actor, entry.detail["conversations"], kept.verdict) == (
        "cli:ola",
        ["c-1", "c-2"],
        "fail",
    ), "what was signed for stays as it was"
    assert promote(context) == 1


def test_a_signature_does_not_cover_what_a_later_evaluation_finds(context: Context) -> None:
    digest = add_version(context, "support", 1, gate="fail")
    judged(context, digest)
    sign(context, "support@v1", "fine", **WHO)
    judged(context, digest, at=3000, broken=("c-1", "c-2", "c-3"))
    with pytest.raises(ConflictError, match="failed its gate"):
        promote(context)
    assert (
        len(sign(context, "support@v1", "fine too", actor="cli:ola", now=4000)["conversations"])
        == 3
    )
    assert promote(context) == 1


@pytest.mark.parametrize(
    ("judgement", "sentence"),
    [
        (None, "never judged"),
        ({"broken": ()}, "nothing to sign for"),
        ({"failed": ("old", "regression")}, "failed on more than"),
    ],
)
def test_a_signature_is_refused_where_it_would_not_cover_what_is_wrong(
    sqlite_context: Context, judgement: dict[str, Any] | None, sentence: str
) -> None:
    digest = add_version(sqlite_context, "support", 1, gate="fail")
    if judgement is not None:
        judged(sqlite_context, digest, **judgement)
    with pytest.raises(ConflictError, match=sentence):
        sign(sqlite_context, "support@v1", "because", **WHO)
    with pytest.raises(ConflictError, match="failed its gate"):
        promote(sqlite_context)


def test_a_signature_needs_a_reason_and_is_given_once(sqlite_context: Context) -> None:
    digest = add_version(sqlite_context, "support", 1, gate="inconclusive")
    judged(sqlite_context, digest, verdict="inconclusive", failed=())
    for reason in ("", "   ", "x" * 1001):
        with pytest.raises(InputError, match="expected 1 to 1000"):
            sign(sqlite_context, "support@v1", reason, **WHO)
    sign(sqlite_context, "support@v1", "looked at both", **WHO)
    with pytest.raises(ConflictError, match="signed for already"):
        sign(sqlite_context, "support@v1", "again", **WHO)
