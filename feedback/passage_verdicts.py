"""What a reviewer says of the passages that an answer was given with, beside the answer itself.

`missing`: the passage that answers the question is not among them. `wrong`: what a passage says is
wrong. `ignored`: a passage has the answer, and the model did not use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, func, select

from whet.errors import InputError
from whet.json_types import Json
from whet.tables import review_items, reviews

MISSING, WRONG, IGNORED = "missing", "wrong", "ignored"
PASSAGE_VERDICTS = (MISSING, WRONG, IGNORED)


def settle_passage_ids(
    verdict: str,
    passage_ids: Sequence[str],
    retrieved: Sequence[Mapping[str, Json]] | None,
    retrieval: Mapping[str, Json] | None,
) -> list[str]:
    """Return the ids of the passages that the verdict is about, in the order of the prompt.

    Of an answer with one passage, a verdict that names none means that one. Raises InputError for
    a verdict that does not fit what was retrieved.
    """
    if not verdict:
        if passage_ids:
            raise InputError(
                "Passages are named without a verdict.",
                hint=f"`passage_verdict` is one of {', '.join(PASSAGE_VERDICTS)}.",
            )
        return []
    if verdict not in PASSAGE_VERDICTS:
        raise InputError(
            f"The verdict on passages is {verdict[:40]!r}; "
            f"expected one of {', '.join(PASSAGE_VERDICTS)}."
        )
    if not retrieved and not retrieval:
        raise InputError(
            "Nothing was searched for this answer, so there is nothing to say of its passages.",
            hint="Leave the verdict on passages out.",
        )
    known = [str(hit.get("passage_id", "")) for hit in retrieved or []]
    strange = [one for one in passage_ids if one not in known]
    if strange:
        raise InputError(f"The passage {strange[0][:60]!r} was not in this answer's prompt.")
    if verdict == MISSING:
        if passage_ids:
            raise InputError("A missing passage is none of those in the prompt.", hint="Name none.")
        return []
    if not passage_ids and len(known) != 1:
        raise InputError(
            f"Which of the {len(known)} passages is {verdict}?", hint="Choose at least one."
        )
    return [one for one in known if one in passage_ids] if passage_ids else known


def without_wrong(
    retrieved: Sequence[Mapping[str, Json]] | None, verdict: str, passage_ids: Sequence[str]
) -> list[Mapping[str, Json]]:
    """Return the passages that an example keeps: a wrong one teaches to answer against passages."""
    left_out = set(passage_ids) if verdict == WRONG else set()
    return [hit for hit in retrieved or [] if hit.get("passage_id") not in left_out]


def count_passage_verdicts(connection: Connection, alias: str | None) -> dict[str, int]:
    """Return how many standing decisions have each verdict."""
    chosen = select(reviews.c.passage_verdict, func.count().label("number")).where(
        reviews.c.standing.is_not(None), reviews.c.passage_verdict.is_not(None)
    )
    if alias:
        items = chosen.join(review_items, review_items.c.id == reviews.c.item_id)
        chosen = items.where(review_items.c.alias == alias)
    rows = connection.execute(chosen.group_by(reviews.c.passage_verdict))
    counts = {row.passage_verdict: row.number for row in rows}
    return {verdict: counts.get(verdict, 0) for verdict in PASSAGE_VERDICTS}
