"""/v1/files and /v1/vector_stores, by OpenAI's own client: from upload to cited answer and away."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import func, select

from serving.gateway import vector_store_routes as routes
from serving.retrieval.search import IndexSearcher
from serving.retrieval.upload_runner import UploadRunner
from serving.retrieval.upload_worker import read_uploads
from serving.retrieval.uploads import Upload, UploadFolder
from tests.serving.conftest import Running
from tests.serving.memory_searcher import CitingEngine, MemorySearcher, serve_with
from tests.serving.retrieval.worlds import WordEmbedder, open_words
from whet.access import create_key
from whet.clock import now_ms
from whet.context import Context
from whet.database import reading, writing
from whet.errors import NotFoundError
from whet.tables import audit, passages

LAMPS = b"# Lamps\n\nLamps are kept 24 months."
QUESTION: Any = [{"role": "user", "content": "How long are lamps kept?"}]


class InProcessRunner(UploadRunner):
    """Reads uploads in a thread of this process, with a small embedder."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.is_held = False  # what was uploaded waits
        self._reads = threading.Lock()

    def wake(self, name: str) -> None:
        if not self.is_held:
            threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def _read(self, name: str) -> None:
        with self._reads, contextlib.suppress(NotFoundError):  # the store is deleted meanwhile
            read_uploads(self._context, name, WordEmbedder(), now_ms())


@pytest.fixture(scope="module")
def engine() -> Iterator[CitingEngine]:
    citing = CitingEngine()
    with citing:
        yield citing


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, engine: CitingEngine) -> Iterator[Running]:
    """Serve with an index in this process."""
    home: Path = tmp_path_factory.mktemp("stores") / "home"
    for found in serve_with(MemorySearcher(), home, engine):
        found.app.state.upload_runner = InProcessRunner(found.context)
        found.app.core.searcher = IndexSearcher(found.context, open_words)
        yield found


def client_of(running: Running, name: str, *, writes: bool = True) -> openai.OpenAI:
    """Return a client with a new key."""
    with writing(running.context.database) as connection:
        _, key = create_key(
            connection, name, secret=running.context.secret, actor="tests", now=now_ms(),
            may_write_documents=writes,
        )  # fmt: skip
    return running.client(key)


def ask(client: openai.OpenAI, store: str) -> Any:
    tool: Any = {"type": "file_search", "vector_store_ids": [store]}
    return client.responses.create(model="support", input=QUESTION, tools=[tool])


def test_a_file_is_uploaded_cited_and_gone_once_it_is_deleted(running: Running) -> None:
    client = client_of(running, "writer")
    store = client.vector_stores.create(name="Help pages", metadata={"team": "care"})
    assert (store.name, store.metadata, store.status) == (
        "Help pages", {"team": "care"}, "completed",
    )  # fmt: skip
    file = client.files.create(file=("lamps.md", LAMPS), purpose="assistants")
    assert (file.filename, file.bytes) == ("lamps.md", len(LAMPS))
    assert client.files.content(file.id).read() == LAMPS
    put = client.vector_stores.files.create_and_poll(
        file.id, vector_store_id=store.id, attributes={"kind": "term"}, poll_interval_ms=50
    )
    assert (put.status, put.last_error, put.attributes) == ("completed", None, {"kind": "term"})
    counts = client.vector_stores.retrieve(store.id).file_counts
    assert (counts.completed, counts.total) == (1, 1)
    assert [one.id for one in client.vector_stores.files.list(store.id)] == [file.id]
    assert store.id in [one.id for one in client.vector_stores.list()]

    kind: Any = {"type": "eq", "key": "kind", "value": "term"}
    (found,) = client.vector_stores.search(store.id, query="lamps kept", filters=kind)
    assert (found.file_id, found.filename) == (file.id, "lamps.md")
    assert "24 months" in found.content[0].text
    kind["value"] = "other"
    assert not list(client.vector_stores.search(store.id, query="lamps kept", filters=kind))

    answer: Any = ask(client, store.id)
    (note,) = answer.output[0].content[0].annotations
    assert (note.type, note.file_id, note.filename) == ("file_citation", file.id, "lamps.md")

    assert client.files.delete(file.id).deleted
    assert not list(client.vector_stores.search(store.id, query="lamps kept"))
    assert ask(client, store.id).whet["retrieval"]["outcome"] == "empty"
    assert not list(client.vector_stores.files.list(store.id)) and not list(client.files.list())
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        ask(client, store.id)
    with reading(running.context.database) as connection:
        assert connection.execute(select(func.count()).select_from(passages)).scalar() == 0
        rows = connection.execute(select(audit.c.action).where(audit.c.subject == store.id))
        assert set(rows.scalars()) == {"documents.create", "documents.add", "documents.remove"}


def test_no_key_touches_what_is_anothers(running: Running) -> None:
    owner, other = client_of(running, "owner"), client_of(running, "other")
    reader = client_of(running, "reader", writes=False)
    store = owner.vector_stores.create(name="own")
    file = owner.files.create(file=("a.md", LAMPS), purpose="assistants")
    owner.vector_stores.files.create_and_poll(
        file.id, vector_store_id=store.id, poll_interval_ms=50
    )
    mine = other.vector_stores.create(name="mine")
    for client in (other, reader):
        assert store.id not in [one.id for one in client.vector_stores.list()]
        calls: list[Any] = [
            lambda on: on.vector_stores.retrieve(store.id),
            lambda on: on.vector_stores.update(store.id, name="x"),
            lambda on: on.vector_stores.search(store.id, query="lamps"),
            lambda on: on.vector_stores.delete(store.id),
            lambda on: on.vector_stores.files.list(store.id),
            lambda on: on.vector_stores.files.retrieve(file.id, vector_store_id=store.id),
            lambda on: on.vector_stores.files.delete(file.id, vector_store_id=store.id),
            lambda on: on.vector_stores.files.create(store.id, file_id=file.id),
            lambda on: on.files.retrieve(file.id),
            lambda on: on.files.content(file.id),
            lambda on: on.files.delete(file.id),
            lambda on: ask(on, store.id),
        ]
        for call in calls:
            with pytest.raises(openai.NotFoundError):
                call(client)
        assert not list(client.files.list())
    with pytest.raises(openai.NotFoundError):
        other.vector_stores.files.create(mine.id, file_id=file.id)
    # What every key may read is nobody's to change, and a key without the right changes nothing.
    assert other.vector_stores.retrieve("manual").name == "manual"
    for client, call in (
        (other, lambda on: on.vector_stores.delete("manual")),
        (other, lambda on: on.vector_stores.files.create("manual", file_id=file.id)),
        (reader, lambda on: on.vector_stores.create(name="x")),
        (reader, lambda on: on.files.create(file=("a.md", LAMPS), purpose="assistants")),
    ):
        with pytest.raises(openai.PermissionDeniedError):
            call(client)
    assert len(list(owner.vector_stores.search(store.id, query="lamps"))) == 1


def test_states_of_files_in_a_batch(running: Running) -> None:
    client = client_of(running, "batches")
    runner: InProcessRunner = running.app.state.upload_runner
    store = client.vector_stores.create(name="b")
    contents = {"good.md": LAMPS, "broken.pdf": b"%PDF-1.4 broken"}
    ids = [
        client.files.create(file=(name, content), purpose="user_data").id
        for name, content in contents.items()
    ]
    runner.is_held = True
    batch = client.vector_stores.file_batches.create(store.id, file_ids=ids)
    assert (batch.status, batch.file_counts.in_progress) == ("in_progress", 2)
    assert client.vector_stores.retrieve(store.id).status == "in_progress"
    UploadFolder(running.context.settings.home, store.id).note_problem("No embedder.")
    stuck = client.vector_stores.files.retrieve(ids[0], vector_store_id=store.id)
    assert stuck.last_error is not None and stuck.last_error.code == "server_error"
    UploadFolder(running.context.settings.home, store.id).note_problem("")
    runner.is_held = False  # polling goes on with what was interrupted
    done = client.vector_stores.file_batches.poll(
        batch.id, vector_store_id=store.id, poll_interval_ms=50
    )
    assert (done.file_counts.completed, done.file_counts.failed) == (1, 1)
    listed: Any = client.vector_stores.file_batches.list_files(
        batch.id, vector_store_id=store.id, filter="failed"
    )
    (failed,) = listed
    assert failed.id == ids[1] and "damaged" in failed.last_error.message
    again = client.files.create(file=("good.md", b"# Other"), purpose="assistants")
    with pytest.raises(openai.ConflictError, match=r"another file named 'good\.md'"):
        client.vector_stores.files.create(store.id, file_id=again.id)
    client.vector_stores.files.delete(ids[0], vector_store_id=store.id)
    put = client.vector_stores.files.create_and_poll(
        again.id, vector_store_id=store.id, poll_interval_ms=50
    )
    assert put.status == "completed"


@pytest.mark.parametrize("is_being_read", [False, True])
def test_a_file_that_is_deleted_while_it_waits_never_arrives(
    running: Running, monkeypatch: pytest.MonkeyPatch, is_being_read: bool
) -> None:
    client = client_of(running, f"waits-{is_being_read}".lower())
    runner: InProcessRunner = running.app.state.upload_runner
    store = client.vector_stores.create(name="w")
    file = client.files.create(file=("a.md", LAMPS), purpose="assistants")
    runner.is_held = True
    client.vector_stores.files.create(store.id, file_id=file.id)
    listed = UploadFolder.is_listed

    def delete_first(uploads: UploadFolder, upload: Upload) -> bool:
        uploads.discard(upload)  # as the route does first of all
        return listed(uploads, upload)

    if is_being_read:
        monkeypatch.setattr(UploadFolder, "is_listed", delete_first)
    else:
        client.vector_stores.files.delete(file.id, vector_store_id=store.id)
    runner.is_held = False
    read_uploads(running.context, store.id, WordEmbedder(), now_ms())
    assert client.vector_stores.retrieve(store.id).file_counts.total == 0


def test_what_cannot_be_had_is_refused_with_a_sentence(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(running, "refused")
    store = client.vector_stores.create(name="r").id
    static: Any = {"type": "static", "static": {
        "max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}}  # fmt: skip
    calls: list[tuple[Any, str]] = [
        (lambda: client.files.create(file=("a.png", b"x"), purpose="assistants"), "not read"),
        (lambda: client.files.create(file=("../a.md", b"x"), purpose="assistants"), "no path"),
        (lambda: client.files.create(file=("a.md", b"x"), purpose="fine-tune"), "purpose"),
        (lambda: client.vector_stores.create(chunking_strategy=static), "along their headings"),
        (
            lambda: client.vector_stores.create(
                expires_after={"anchor": "last_active_at", "days": 1}
            ),
            "do not expire",
        ),
        (lambda: client.vector_stores.search(store, query=["a", "b"]), "one text"),
        (lambda: client.vector_stores.search(store, query="a", rewrite_query=True), "rewrite"),
        (lambda: client.vector_stores.search(store, query="a", max_num_results=51), "1 to 50"),
        (lambda: client.vector_stores.list(limit=0), "limit"),
        (lambda: client.post("/files", body={"a": 1}, cast_to=object), "multipart"),
    ]
    for call, message in calls:
        with pytest.raises(openai.APIStatusError, match=message):
            call()
    monkeypatch.setattr(routes, "LARGEST_FILE", 1000)
    for size in (1_001, 3_000_000):
        with pytest.raises(openai.APIStatusError, match="longer than 1,000 bytes") as caught:
            client.files.create(file=("a.md", b"x" * size), purpose="assistants")
        assert caught.value.status_code == 413
    with pytest.raises(openai.AuthenticationError):
        running.client("whet-nobody").files.create(file=("a.md", b"x"), purpose="assistants")
    assert not list(client.files.list())
    folder = running.context.settings.home / "files"
    assert not list(folder.rglob("*.part")), "what was refused is kept nowhere"
