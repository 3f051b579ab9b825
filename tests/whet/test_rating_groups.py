"""A rating counts only where its key and the key that asked are of one group, whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from feedback import flagging, inbox
from monitoring import auditjob, incident_pages
from monitoring.windows import Key, fetch_rows
from serving.pages import search
from serving.search_index.indexing import index_all
from tests import builders
from whet import access
from whet.context import Context
from whet.database import reading, writing
from whet.health.version_summary import summarise_versions
from whet.lineage_kinds import KINDS
from whet.tables import interactions

ROOT = Path(__file__).parents[2]
NOW = 1_763_000_000_000


@dataclass(frozen=True)
class Rated:
    """One answer with one bad rating."""

    interaction_id: str
    item_id: str


def _flagged(connection: Connection, rated: Rated) -> bool:
    return bool(flagging._from_ratings(connection, NOW))


def _inbox(connection: Connection, rated: Rated) -> bool:
    return bool(inbox.load(connection, rated.item_id).feedback)


def _window(connection: Connection, rated: Rated) -> bool:
    [row] = fetch_rows(connection, [Key(NOW, rated.interaction_id, None)])
    return row.rating is not None


def _incident(connection: Connection, rated: Rated) -> bool:
    [example] = incident_pages._examples(connection, [rated.interaction_id], [])
    return example["rating"] is not None


def _audit_population(connection: Connection, rated: Rated) -> bool:
    day = NOW // auditjob.DAY_MS
    cells = auditjob._population(connection, "support", day, None, NOW)[day]
    return "down" in cells


def _audit_judged(connection: Connection, rated: Rated) -> bool:
    [judged] = auditjob._judged(connection, "support", 0)
    return judged.cell == "down"


def _search_filter(connection: Connection, rated: Rated) -> bool:
    return bool(search.search(connection, search.Filters(rating="down", since="all"), NOW).rows)


def _search_flags(connection: Connection, rated: Rated) -> bool:
    return bool(search.flags(connection, [rated.interaction_id])[rated.interaction_id]["down"])


def _overview(connection: Connection, rated: Rated) -> bool:
    [figures] = summarise_versions(connection, "support", {}, NOW + 1).values()
    return bool(figures.rated)


def _lineage(connection: Connection, rated: Rated) -> bool:
    row = connection.execute(interactions.select()).mappings().one()
    links = KINDS["interaction"].after(connection, row, 10)
    return any(ref.kind == "rating" for link in links for ref in link.refs)


READERS: list[Callable[[Connection, Rated], bool]] = [
    _flagged, _inbox, _window, _incident, _audit_population, _audit_judged, _search_filter, _search_flags, _overview, _lineage,
]  # fmt: skip


@pytest.mark.parametrize("reads", READERS, ids=lambda reader: reader.__name__.strip("_"))
def test_every_reader_of_ratings_leaves_out_those_of_other_groups(
    context: Context, reads: Callable[[Connection, Rated], bool]
) -> None:
    found: dict[str, bool] = {}
    for name in ("the key that asked", "its group, revoked", "another group", "no key of ours"):
        with writing(context.database) as connection:
            for table in ("ratings", "interactions", "review_items", "reviews", "api_keys"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        index_all(context, sleep=lambda _: None)
        with writing(context.database) as connection:
            how: dict[str, Any] = {"secret": context.secret, "actor": "t", "now": 1}
            asked = access.create_key(connection, "web", group="shop", **how)[0]
            mate = access.create_key(connection, "batch", group="shop", **how)[0]
            other = access.create_key(connection, "other", **how)[0]
            access.revoke_key(connection, "batch", actor="t", now=2)
            rated_by = {
                "the key that asked": asked,
                "its group, revoked": mate,
                "another group": other,
                "no key of ours": "key_gone",
            }[name]
            rated = _add(connection, asked, rated_by, queued=reads is not _flagged)
        index_all(context, sleep=lambda _: None)
        with reading(context.database) as connection:
            found[name] = reads(connection, rated)
    assert found == {
        "the key that asked": True,
        "its group, revoked": True,
        "another group": False,
        "no key of ours": False,
    }


def _add(connection: Connection, asked: str, rated_by: str, *, queued: bool) -> Rated:
    interaction = builders.add_interaction(connection, NOW, api_key_id=asked)
    builders.add_rating(connection, interaction, NOW, rating=-1, api_key_id=rated_by)
    item = ""
    if queued:
        item = builders.add_review_item(connection, interaction, NOW, state="done", reason="audit")
        builders.add_review(connection, interaction, item, NOW, decision="reject")
    return Rated(interaction, item)


# They delete ratings, whoever gave them.
_DELETING = ("serving/jobs.py", "whet/retention.py")


@pytest.mark.parametrize("room", ["feedback", "monitoring", "serving", "training", "whet"])
def test_no_reader_of_ratings_forgets_the_group(room: str) -> None:
    """A new reader belongs into READERS above, too."""
    forgetful = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / room).rglob("*.py"))
        if "ratings.c." in (text := path.read_text())
        and "same_group(" not in text
        and str(path.relative_to(ROOT)) not in _DELETING
    ]
    assert not forgetful, "ratings of another group than the interaction's would count there"
