"""`whet trace`: an answer back to the reviewed conversations behind it, and a conversation forward
to what learned from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete, insert

from whet import tables as t
from whet.context import Context
from whet.database import reading, writing
from whet.errors import NotFoundError
from whet.lineage import identify, trace
from whet.lineage_kinds import Bounds, Ref

DATA, OLD_DATA, ADAPTER = "d" * 64, "e" * 64, "a" * 64


def interaction(key: str, **more: Any) -> dict[str, Any]:
    fixed = {
        "request_id": f"ask-{key}",
        "created_at": 1,
        "api_key_id": "key_1",
        "route": "chat",
        "model": "support",
        "alias": "support",
        "stream": False,
    }
    return {
        "id": key,
        **fixed,
        "status": "complete",
        "http_status": 200,
        "request": {},
        "response_text": f"text of {key}",
        **more,
    }


def dataset(
    digest: str, version: int, parents: list[str], example_ids: list[str]
) -> dict[str, Any]:
    fixed = {
        "name": "support",
        "rows": {"train": 10},
        "created_by": "policy",
        "created_at": version,
    }
    return {
        "digest": digest,
        "version": version,
        "path": f"datasets/{digest}",
        "parents": parents,
        "example_ids": example_ids,
        **fixed,
    }


@pytest.fixture
def story(context: Context) -> Iterator[Context]:
    """int_old was rated, reviewed and learned from; the adapter that came of it answered int_new."""
    rows = {
        t.interactions: [
            interaction("int_old"),
            interaction(
                "int_new",
                adapter="support",
                version=2,
                adapter_digest=ADAPTER,
                rollout_generation=3,
            ),
        ],
        t.ratings: [
            {
                "id": "rat_1",
                "interaction_id": "int_old",
                "api_key_id": "key_1",
                "rating": -1,
                "comment": "wrong term",
                "created_at": 2,
            }
        ],
        t.review_items: [
            {
                "id": "itm_1",
                "interaction_id": "int_old",
                "alias": "support",
                "reason": "rating",
                "why": "Rated down.",
                "priority": 1,
                "state": "done",
                "created_at": 3,
            }
        ],
        t.reviews: [
            {
                "id": "rev_1",
                "item_id": "itm_1",
                "interaction_id": "int_old",
                "reviewer": "ann",
                "decision": "edit",
                "answer": "24 months",
                "created_at": 4,
            }
        ],
        t.examples: [
            {
                "id": "exa_1",
                "digest": "f" * 64,
                "alias": "support",
                "interaction_id": "int_old",
                "review_id": "rev_1",
                "row": {},
                "source": "edited",
                "created_at": 4,
            }
        ],
        t.datasets: [dataset(OLD_DATA, 1, [], []), dataset(DATA, 2, [OLD_DATA], ["exa_1"])],
        t.training_requests: [
            {
                "id": "req_1",
                "alias": "support",
                "dataset_digest": DATA,
                "recipe": {},
                "reason": "100 new examples",
                "requested_by": "policy",
                "created_at": 6,
            }
        ],
        t.training_runs: [
            {
                "id": "run_1",
                "request_id": "req_1",
                "alias": "support",
                "dataset_digest": DATA,
                "base_digest": "b" * 64,
                "recipe": {},
                "state": "succeeded",
                "progress": {},
                "curve": [],
                "estimate": {},
                "adapter_digest": ADAPTER,
                "attempt": 1,
                "worker": "w",
                "started_at": 7,
                "heartbeat_at": 8,
            }
        ],
        t.adapters: [
            {
                "digest": ADAPTER,
                "name": "support",
                "version": 2,
                "path": "adapters/support/v2--aaaaaaaa",
                "base_digest": "b" * 64,
                "template_digest": "c" * 64,
                "dataset_digest": DATA,
                "run_id": "run_1",
                "rank": 32,
                "gate": "pass",
                "card": {},
                "created_at": 8,
            }
        ],
        t.rollouts: [
            {
                "id": "rol_1",
                "alias": "support",
                "generation": 3,
                "stable_digest": ADAPTER,
                "candidate_share": 0,
                "pinned": False,
                "state": "live",
                "reason": "gate passed",
                "actor": "controller",
                "created_at": 9,
            }
        ],
    }
    with writing(context.database) as connection:
        for table, values in rows.items():
            for value in values:
                connection.execute(insert(table).values(**value))
    yield context


def path(nodes: list[dict[str, Any]], name: str) -> list[str]:
    """Ids along the first branch of each node."""
    found = []
    while nodes:
        found.append(nodes[0]["id"])
        nodes = nodes[0].get(name) or []
    return found


def every(nodes: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [each for node in nodes for each in (node, *every(node.get(name) or [], name))]


def test_an_answer_is_traced_back_to_the_conversation_it_was_learned_from(story: Context) -> None:
    with reading(story.database) as connection:
        found = trace(connection, Ref("interaction", "int_new"))
    assert path(found["came_from"], "came_from") == [
        ADAPTER,
        "run_1",
        "req_1",
        DATA,
        "exa_1",
        "rev_1",
        "itm_1",
        "int_old",
    ]


def test_a_conversation_is_traced_forward_to_the_answers_that_it_changed(story: Context) -> None:
    with reading(story.database) as connection:
        found = trace(connection, Ref("interaction", "int_old"))
    seen = {node["id"] for node in every(found["came_of_it"], "came_of_it")}
    assert {
        "rat_1",
        "itm_1",
        "rev_1",
        "exa_1",
        DATA,
        "req_1",
        "run_1",
        ADAPTER,
        "rol_1",
        "int_new",
    } <= seen
    assert found["came_from"] == []


def test_every_name_that_the_product_prints_is_understood(story: Context) -> None:
    names = {
        "int_new": Ref("interaction", "int_new"),
        "ask-int_new": Ref("interaction", "int_new"),
        "rat_1": Ref("rating", "rat_1"),
        "itm_1": Ref("review item", "itm_1"),
        "rev_1": Ref("review", "rev_1"),
        "exa_1": Ref("example", "exa_1"),
        "req_1": Ref("training request", "req_1"),
        "run_1": Ref("run", "run_1"),
        "rol_1": Ref("rollout", "rol_1"),
        "support@v2": Ref("adapter", ADAPTER),
        "support@2": Ref("dataset", DATA),
        "support@v1": Ref("dataset", OLD_DATA),
        ADAPTER: Ref("adapter", ADAPTER),
        ADAPTER[:12]: Ref("adapter", ADAPTER),
        DATA[:8]: Ref("dataset", DATA),
    }
    with reading(story.database) as connection:
        assert {name: identify(connection, name) for name in names} == {
            name: [ref] for name, ref in names.items()
        }


def test_what_names_nothing_is_said_so(story: Context) -> None:
    with reading(story.database) as connection:
        for reference in (
            "",
            "int_",
            "aaaa",
            "support@v9",
            "support",
            "x" * 500,
            "100%",
            "'; DROP TABLE users",
        ):
            with pytest.raises(NotFoundError, match="Nothing goes by"):
                identify(connection, reference)


def test_an_erased_conversation_leaves_the_trace_standing_and_is_named_as_gone(
    story: Context,
) -> None:
    with writing(story.database) as connection:
        connection.execute(delete(t.interactions).where(t.interactions.c.id == "int_old"))
    with reading(story.database) as connection:
        found = trace(connection, Ref("adapter", ADAPTER))
    gone = [node for node in every(found["came_from"], "came_from") if node.get("missing")]
    assert [node["id"] for node in gone] == ["int_old"]


def test_what_the_bounds_leave_out_is_counted(story: Context) -> None:
    with writing(story.database) as connection:
        for number in range(25):
            connection.execute(
                insert(t.interactions).values(
                    **interaction(
                        f"int_{number:03}", adapter="support", version=2, adapter_digest=ADAPTER
                    )
                )
            )
    with reading(story.database) as connection:
        found = trace(connection, Ref("adapter", ADAPTER), Bounds(per_step=4))
        shallow = trace(connection, Ref("interaction", "int_new"), Bounds(depth=2))
        few = trace(connection, Ref("adapter", ADAPTER), Bounds(nodes=3))
    asked = [node for node in found["came_of_it"] if node["kind"] == "interaction"]
    assert len([node for node in asked if "id" in node]) == 4
    assert asked[-1]["more"] == 26 - 4
    assert path(shallow["came_from"], "came_from") == [ADAPTER, "run_1"]
    assert every(shallow["came_from"], "came_from")[1]["deeper"] is True
    assert len([node for node in every(few["came_of_it"], "came_of_it") if "id" in node]) <= 3


def test_a_loop_in_the_records_ends(story: Context) -> None:
    with writing(story.database) as connection:
        connection.execute(insert(t.datasets).values(**dataset("1" * 64, 7, ["2" * 64], [])))
        connection.execute(insert(t.datasets).values(**dataset("2" * 64, 8, ["1" * 64], [])))
    with reading(story.database) as connection:
        found = trace(connection, Ref("dataset", "1" * 64))
    assert every(found["came_from"], "came_from")[-1]["again"] is True


def add_merged(context: Context, digest: str, source: str, version: int) -> None:
    """An adapter version that was merged from another one."""
    card = {"merged": {"from": [{"adapter": "x", "digest": source, "weight": 1.0}]}}
    values = {
        "digest": digest,
        "name": "merged",
        "version": version,
        "path": f"adapters/merged/v{version}",
        "base_digest": "b" * 64,
        "template_digest": "c" * 64,
        "rank": 32,
        "gate": "none",
        "card": card,
        "created_at": 10 + version,
    }
    with writing(context.database) as connection:
        connection.execute(insert(t.adapters).values(**values))


def test_merged_version_leads_to_its_sources_and_they_to_it(story: Context) -> None:
    add_merged(story, "e" * 64, ADAPTER, 1)
    add_merged(story, "f" * 64, "e" * 64, 2)
    with reading(story.database) as connection:
        merged = trace(connection, Ref("adapter", "f" * 64))
        source = trace(connection, Ref("adapter", ADAPTER))
    ids = [node.get("id") for node in every(merged["came_from"], "came_from")]
    assert ids[:2] == ["e" * 64, ADAPTER] and "int_old" in ids
    after = {node.get("id") for node in every(source["came_of_it"], "came_of_it")}
    assert {"e" * 64, "f" * 64} <= after
