"""What an alias retrieves by default: how it is set, and who is told."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select

from serving.retrieval.defaults_store import (
    RetrievalDefault,
    attach,
    detach,
    load_defaults,
    parse_filter,
)
from whet.context import Context
from whet.database import reading, writing
from whet.errors import InputError, NotFoundError
from whet.retrieval_tables import collections
from whet.tables import audit

DEFAULT = RetrievalDefault(
    alias="base", collection="manual", top_k=3, min_score=0.2, filter={"a": "b"}, actor="ada",
    updated_at=5,
)  # fmt: skip


@pytest.fixture
def filled(context: Context) -> Context:
    with writing(context.database) as connection:
        connection.execute(
            insert(collections).values(
                name="manual", description="", embedder="", chunk_tokens=256, allowed_keys=None,
                settings={}, digest="", created_at=1, updated_at=1,
            )
        )  # fmt: skip
    return context


def test_attach_again_replaces_and_detach_removes(filled: Context) -> None:
    with writing(filled.database) as connection:
        for top_k in (1, 3):
            changed = RetrievalDefault(alias="base", collection="manual", top_k=top_k, actor="ada")
            attach(connection, changed, base_alias="base")
        attach(connection, DEFAULT, base_alias="base")
        assert load_defaults(connection) == {"base": DEFAULT}
        detach(connection, "base", actor="ada", now=6)
        assert load_defaults(connection) == {}
    with reading(filled.database) as connection:
        actions = list(connection.scalars(select(audit.c.action).order_by(audit.c.sequence)))
    assert actions == ["retrieval.attach"] * 3 + ["retrieval.detach"]


def test_what_there_is_not_is_named(filled: Context) -> None:
    with writing(filled.database) as connection:
        with pytest.raises(NotFoundError, match="nobody"):
            other = RetrievalDefault(alias="nobody", collection="manual")
            attach(connection, other, base_alias="base")
        with pytest.raises(NotFoundError, match="unheard"):
            attach(connection, RetrievalDefault(alias="base", collection="unheard"))
        with pytest.raises(NotFoundError, match="base"):
            detach(connection, "base", actor="ada", now=1)


def test_filter_of_pairs() -> None:
    assert parse_filter(["a=1", "b=x=y", "a=2"]) == {"a": ["1", "2"], "b": "x=y"}
    for wrong in ("a", "=a"):
        with pytest.raises(InputError):
            parse_filter([wrong])
