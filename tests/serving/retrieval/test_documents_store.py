"""Collections, documents and passages in the database: what is written, removed and resolved."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, insert, select

from serving.retrieval import documents_store as store
from serving.retrieval.passages import document_id, embedded_text, passage_id, text_digest
from serving.retrieval.records import Document, Passage
from whet.context import Context
from whet.database import writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.tables import passage_vectors, passages


@pytest.fixture
def connection(context: Context) -> Iterator[Connection]:
    with writing(context.database) as opened:
        store.create_collection(opened, "manual", embedder="none", chunk_tokens=200, now=1)
        yield opened


def document(address: str = "a.md", content: str = "1", **over: object) -> Document:
    fields = {
        "id": document_id("manual", address),
        "collection": "manual",
        "address": address,
        "title": "A",
        "media_type": "text/markdown",
        "language": "en",
        "content_sha256": content,
    }
    return Document(**(fields | over))  # type: ignore[arg-type]


def passages_for(owner: Document, *texts: str) -> list[Passage]:
    return [
        Passage(
            id=passage_id(owner.id, position, text_digest(owner.title, "S", text)),
            collection=owner.collection,
            document_id=owner.id,
            position=position,
            section="S",
            text=text,
            tokens=len(text.split()),
        )
        for position, text in enumerate(texts)
    ]


def add(connection: Connection, owner: Document, *texts: str) -> list[Passage]:
    made = passages_for(owner, *texts)
    store.replace_document(connection, owner, made, now=2)
    return made


def digest(connection: Connection) -> str:
    told = store.require_collection(connection, "manual").digest
    assert told == store.compute_digest(connection, "manual")
    return told


def test_replaced_document_loses_its_old_passages(connection: Connection) -> None:
    old = add(connection, document(), "one", "two", "three")
    first = digest(connection)
    new = add(connection, document(content="2"), "one", "zwei")
    assert digest(connection) != first
    found = store.passages_by_id(connection, [passage.id for passage in old + new])
    assert set(found) == {passage.id for passage in new}
    assert found[new[1].id] == (new[1], store.get_document(connection, document().id))


def test_documents_of_some_addresses_are_read_alone(connection: Connection) -> None:
    for address in ("a.md", "b.md", "c.md"):
        add(connection, document(address), "one")
    found = store.documents_of(connection, "manual", ["c.md", "a.md", "none.md"])
    assert [one.address for one in found] == ["a.md", "c.md"]
    assert store.documents_of(connection, "manual", []) == []


def test_same_document_gives_same_ids_and_digest(connection: Connection) -> None:
    made = add(connection, document(), "one")
    before = digest(connection)
    assert add(connection, document(), "one") == made
    assert digest(connection) == before


def test_digest_follows_content_pipeline_title_metadata_and_not_the_order(
    connection: Connection,
) -> None:
    changes: list[dict[str, object]] = [
        {}, {"content": "2"}, {"pipeline": "p2"}, {"title": "B"}, {"metadata": {"team": "x"}},
    ]  # fmt: skip
    seen = set()
    for change in changes:
        store.replace_document(connection, document(**change), [], now=3)  # type: ignore[arg-type]
        seen.add(digest(connection))
    assert len(seen) == len(changes)
    store.replace_document(connection, document(), [], now=4)
    store.replace_document(connection, document("b.md"), [], now=4)
    both = digest(connection)
    store.remove_documents(connection, "manual", [document().id], now=5)
    store.replace_document(connection, document(), [], now=6)
    assert digest(connection) == both


def test_failed_document_is_in_no_search_and_no_digest(connection: Connection) -> None:
    made = add(connection, document(), "one")
    store.replace_document(connection, document(state="failed", error="broken"), [], now=3)
    assert digest(connection) == store.EMPTY_DIGEST
    assert store.passages_by_id(connection, [made[0].id]) == {}
    assert list(store.passages_of(connection, "manual")) == []
    counts = {"documents": 0, "failed": 1, "passages": 0}
    assert store.count_contents(connection) == {"manual": counts}


def test_removed_documents_take_passages_and_unshared_vectors_along(
    connection: Connection,
) -> None:
    add(connection, document("a.md"), "shared", "own")
    add(connection, document("b.md"), "shared")
    for text in ("shared", "own"):
        row = {"text_sha256": text_digest("A", "S", text), "embedder": "none", "vector": b"\0"}
        connection.execute(insert(passage_vectors).values(**row))
    assert store.remove_documents(connection, "manual", [document("a.md").id, "doc_x"], 3) == 1
    kept = connection.execute(select(passage_vectors.c.text_sha256)).scalars().all()
    assert kept == [text_digest("A", "S", "shared")]
    store.remove_collection(connection, "manual")
    assert connection.execute(select(passage_vectors)).all() == []
    assert connection.execute(select(passages)).all() == []
    assert store.get_collection(connection, "manual") is None


def test_passages_of_yields_every_passage_once_in_order(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BATCH", 3)
    for number in range(10):
        add(connection, document(f"{number}.md"), *(f"{number} {part}" for part in range(number)))
    rows = list(store.passages_of(connection, "manual"))
    assert len(rows) == 45
    keys = [(owner.id, passage.position) for passage, owner, _ in rows]
    assert keys == sorted(set(keys))
    assert all(text_digest(owner.title, p.section, p.text) == sha for p, owner, sha in rows)


def test_neighbours_of_a_passage(connection: Connection) -> None:
    add(connection, document(), "0", "1", "2", "3")
    near = store.passages_of_document(connection, document().id, first=1, last=2)
    assert [passage.text for passage in near] == ["1", "2"]


def test_collection_names_are_checked_and_unique(connection: Connection) -> None:
    with pytest.raises(ConflictError, match="already"):
        store.create_collection(connection, "manual", embedder="none", chunk_tokens=200, now=1)
    with pytest.raises(InputError):
        store.create_collection(connection, "../x", embedder="none", chunk_tokens=200, now=1)
    with pytest.raises(NotFoundError):
        store.replace_document(connection, document(collection="gone"), [], now=1)


def test_only_allowed_keys_may_read(connection: Connection) -> None:
    everybody = store.require_collection(connection, "manual")
    assert store.may_read(everybody, "key_a")
    some = store.update_collection(connection, "manual", allowed_keys=["key_a"], now=2)
    assert store.may_read(some, "key_a") and not store.may_read(some, "key_b")
    nobody = store.update_collection(connection, "manual", allowed_keys=[], now=2)
    assert store.require_collection(connection, "manual") == nobody
    assert not store.may_read(nobody, "key_a")


def test_embedded_text_has_the_heading_path_once() -> None:
    assert embedded_text("Guide", "Guide > Start", "Go.") == "Guide > Start\nGo."
    assert embedded_text("Guide", "Start", "Go.") == "Guide > Start\nGo."
    assert embedded_text("Guide", "", "Go.") == "Guide\nGo."
    assert embedded_text("", "", "Go.") == "Go."
