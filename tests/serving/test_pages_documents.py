"""The Documents pages: what is listed, searched, uploaded, changed, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from serving.pages import documents as pages
from serving.pages.document_values import describe_index
from serving.retrieval import documents_listing_store as listing
from serving.retrieval.embedder_source import EmbedderSource
from serving.retrieval.highlight import mark_words
from serving.retrieval.index_files import build_lock, collection_folder
from serving.retrieval.index_state import (
    IndexState,
    State,
    load_index_state,
    noted_progress,
)
from serving.retrieval.records import Collection, Hit, Outcome, SearchRequest, SearchResult
from serving.retrieval.reindex import reindex
from serving.retrieval.upload_runner import UploadRunner
from serving.retrieval.upload_worker import read_uploads
from serving.retrieval.uploads import FAILED, READ, UploadFolder, check_address
from tests import builders
from tests.serving.retrieval.worlds import WordEmbedder, add_collection, add_document
from tests.web import NOW, console_client, headline
from whet.context import Context
from whet.database import reading, writing
from whet.errors import InputError
from whet.retrieval_tables import collections, documents, retrieval_defaults
from whet.tables import audit


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is uploaded is read when a test says so."""
    monkeypatch.setattr(UploadRunner, "wake", lambda self, name: None)


def upload(client: Any, name: str, address: str, content: bytes, code: int = 202) -> Any:
    answer = client.post(
        f"/documents/{name}/upload", params={"address": address, "modified": NOW}, content=content,
        headers={"accept": "application/json"},
    )  # fmt: skip
    assert answer.status_code == code, answer.text
    return answer.json()


def actions(context: Context) -> list[tuple[str, str, str]]:
    with reading(context.database) as connection:
        rows = connection.execute(select(audit).order_by(audit.c.sequence))
        return [(row.action, row.subject, row.actor) for row in rows]


def hit_of(document_id: str, passage_id: str, **more: Any) -> dict[str, Any]:
    return {"passage_id": passage_id, "document_id": document_id, "collection": "manual",
            "title": "A", "address": "a.md", "section": "", "text": "x", "score": 0.5, **more}  # fmt: skip


# --- from upload to index -------------------------------------------------------------------------


def test_upload_is_read_and_indexed_and_its_failures_have_reasons(context: Context) -> None:
    client = console_client(context, "operator", clock=lambda: NOW)
    assert client.post("/documents", data={"name": "manual"}).status_code == 303
    upload(client, "manual", "a.md", b"# Days off\n\nYou have 30 days.")
    upload(client, "manual", "sub/b.pdf", b"%PDF-1.4 broken")
    refused = upload(client, "manual", "c.png", b"x", 400)
    assert "'.png' are not read" in refused["error"]["message"]
    page = client.get("/documents/manual").text
    assert "Reading: 0 of 2 files" in page and "There is nothing to search yet." in page

    read_uploads(context, "manual", WordEmbedder(), NOW)

    uploads = UploadFolder(context.settings.home, "manual")
    # Files of one millisecond come in any order.
    assert sorted((one.address, one.state, one.passages) for one in uploads.load()) == [
        ("a.md", READ, 1),
        ("sub/b.pdf", FAILED, 0),
    ]
    assert list(uploads.folder.glob("*.file")) == [], "what was read is kept nowhere else"
    page = client.get("/documents/manual").text
    assert headline(page) == "manual: 1 document, 1 could not be read"
    assert "1 file read, 1 failed" in page and "It is damaged" in page
    assert "index up to date" in page and "Searches find all of its 1 passage." in page
    assert actions(context) == [
        ("documents.create", "manual", "operator"),
        ("documents.add", "manual", "operator"),
    ]
    with reading(context.database) as connection:
        found = connection.execute(select(collections)).one()
        (updated,) = connection.execute(
            select(documents.c.updated_at).where(documents.c.address == "a.md")
        ).one()
    assert (found.embedder, found.chunk_tokens) == ("words-1", 64), "as the embedder reads"
    assert updated == NOW


def test_stopped_uploads_wait_and_go_on(context: Context) -> None:
    client = console_client(context, "operator")
    add_collection(context)
    upload(client, "manual", "a.md", b"# One\n\nFirst words.")
    client.post("/documents/manual/uploads/stop")
    read_uploads(context, "manual", WordEmbedder(), NOW)
    assert "Stopped: 0 of 1 file" in client.get("/documents/manual").text
    assert len(UploadFolder(context.settings.home, "manual").waiting()) == 1
    client.post("/documents/manual/uploads/continue")
    read_uploads(context, "manual", WordEmbedder(), NOW)
    assert headline(client.get("/documents/manual").text) == "manual: 1 document"
    client.post("/documents/manual/uploads/clear")
    assert UploadFolder(context.settings.home, "manual").load() == []


def test_upload_that_is_too_large_or_broken_off_leaves_nothing(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.pages.document_changes.LARGEST_FILE", 1000)
    client = console_client(sqlite_context, "operator")
    add_collection(sqlite_context)
    assert (
        "more than 1,000 bytes"
        in upload(client, "manual", "a.md", b"x" * 1001, 413)["error"]["message"]
    )
    streamed = (b"x" * 400 for _ in range(3))  # its size is not declared
    answer = client.post("/documents/manual/upload?address=a.md", content=streamed)
    assert answer.status_code == 413
    folder = UploadFolder(sqlite_context.settings.home, "manual").folder
    assert list(folder.glob("*")) == []


def test_upload_needs_the_session_token_in_a_header(sqlite_context: Context) -> None:
    client = console_client(sqlite_context, "operator")
    add_collection(sqlite_context)
    token, client.csrf = client.csrf, ""
    answer = client.post(
        "/documents/manual/upload?address=a.md",
        content=f"csrf={token}".encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "address", ["", "/etc/a.md", "../a.md", "a\\b.md", "a", "a.exe", "x" * 1001]
)
def test_address_that_no_document_can_have_is_refused(address: str) -> None:
    with pytest.raises(InputError):
        check_address(address)


# --- pages ----------------------------------------------------------------------------------------


def test_ten_thousand_documents_are_paged_and_filtered(context: Context) -> None:
    add_collection(context)
    row = {"collection": "manual", "media_type": "text/plain", "language": "en", "source": "x",
           "content_sha256": "0", "pipeline": "", "metadata": {}, "state": "indexed", "error": None,
           "notices": [], "passages": 1, "added_at": 1}  # fmt: skip
    rows = [
        row | {"id": f"d{number}", "address": f"pages/{number:05}.md", "title": f"Page {number}"}
        for number in range(10_000)
    ]
    rows[7] |= {"state": "failed", "error": "It is damaged.", "passages": 0}
    rows[9] |= {"notices": [{"code": "hidden_text", "count": 2}]}
    with writing(context.database) as connection:
        connection.execute(insert(documents), rows)
    client = console_client(context, "viewer")
    page = client.get("/documents/manual").text
    assert page.count("data-row") == listing.PAGE_ROWS
    assert "after=pages%2F00049.md" in page and "10,000 documents" in page
    page = client.get("/documents/manual?after=pages/00049.md").text
    assert "pages/00050.md" in page and "pages/00049.md<" not in page
    assert client.get("/documents/manual?find=09999").text.count("data-row") == 1
    failed = client.get("/documents/manual?state=failed").text
    assert failed.count("data-row") == 1 and "It is damaged." in failed
    warned = client.get("/documents/manual?state=warnings").text
    assert warned.count("data-row") == 1 and "2 texts that no reader sees" in warned
    assert "data-upload" not in page, "a viewer uploads nothing"


def test_document_shows_passages_as_text_and_who_asked(context: Context) -> None:
    add_collection(context)
    hostile = "<script>alert(1)</script>"
    found = add_document(context, "a.md", f"First {hostile}", "Second", title="A")
    with reading(context.database) as connection:
        first, second = listing.list_passages(connection, found, 0)
    with writing(context.database) as connection:
        asked = builders.add_interaction(
            connection, NOW, question=f"Who? {hostile}",
            retrieved=[hit_of("other", "p0"), hit_of(found, first.id)], retrieval={"cited": [2]},
        )  # fmt: skip
        builders.add_interaction(
            connection, NOW, question="elsewhere", retrieved=[hit_of("other", "p0")]
        )
        builders.add_interaction(connection, NOW, question="nothing searched")
    client = console_client(context, "viewer")
    page = client.get(f"/documents/manual/documents/{found}").text
    assert hostile not in page and "First &lt;script&gt;" in page
    assert f"/traffic/{asked}" in page and "[2] in the prompt" in page and "cited" in page
    assert "in 1 answer<" in page and "elsewhere" not in page
    page = client.get(f"/documents/manual/documents/{found}?passage={second.id}").text
    assert f"/traffic/{asked}" not in page and 'passage-card chosen" id="' + second.id in page
    gone = client.get(f"/documents/manual/documents/{found}?passage=psg_gone").text
    assert "is not in this document any more" in gone
    assert client.get(f"/documents/other/documents/{found}").status_code == 404


def test_search_marks_words_and_shows_scores(
    sqlite_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_collection(sqlite_context)
    found = add_document(sqlite_context, "a.md", "Lamps last.", title="A")
    hit = Hit(**hit_of(found, "p1", text="A lamp <b>lasts</b>.", lexical_rank=3, vector_rank=None))
    asked: list[SearchRequest] = []
    answers = [
        SearchResult(outcome=Outcome.FOUND, hits=[hit], took_ms=2.0),
        SearchResult(outcome=Outcome.EMPTY),
    ]

    class Client:
        def __init__(self, settings: object) -> None: ...
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *_: object) -> None: ...
        async def search(self, request: SearchRequest) -> SearchResult:
            asked.append(request)
            return answers.pop(0)

    monkeypatch.setattr(pages, "RetrievalClient", Client)
    client = console_client(sqlite_context, "viewer")
    page = client.get("/documents/manual?q=how+do+lamps+last&filter=language=en&mode=vector").text
    assert "A <mark>lamp</mark> &lt;b&gt;<mark>lasts</mark>&lt;/b&gt;." in page
    assert "<strong>0.50</strong> · words #3 · vectors –" in page
    assert (asked[0].filter, asked[0].mode.value) == ({"language": "en"}, "vector")
    assert "Nothing fits." in client.get("/documents/manual?q=x").text
    assert "expected KEY=VALUE" in client.get("/documents/manual?q=x&filter=team").text


def test_search_without_the_retrieval_process_says_what_to_do(sqlite_context: Context) -> None:
    add_collection(sqlite_context)
    object.__setattr__(sqlite_context.settings, "retrieval_url", "http://127.0.0.1:9")
    page = console_client(sqlite_context, "viewer").get("/documents/manual?q=lamps").text
    assert "The retrieval process does not answer" in page and "<code>whet up</code>" in page


def test_words_are_marked_by_their_stems_and_stop_words_are_not() -> None:
    text = "How a lamp_shade is kept: lamps, keeping."
    pieces = mark_words(text, "How are lamps kept?", ["en"])
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, is_marked in pieces if is_marked] == ["lamp_shade", "kept", "lamps"]


# --- changes --------------------------------------------------------------------------------------


def test_document_and_collection_are_removed_with_an_audit_entry(context: Context) -> None:
    add_collection(context)
    found = add_document(context, "a.md", "Words")
    client = console_client(context, "operator")
    assert client.post(f"/documents/manual/documents/{found}/remove").status_code == 303
    assert UploadFolder(context.settings.home, "manual").is_index_wanted
    assert client.get(f"/documents/manual/documents/{found}").status_code == 404
    client.post(
        "/documents/manual/attach", data={"alias": "base", "top_k": "2", "min_score": "0.3"}
    )
    with reading(context.database) as connection:
        row = connection.execute(select(retrieval_defaults)).one()
    assert (row.alias, row.top_k, row.min_score, row.actor) == ("base", 2, 0.3, "operator")
    refused = client.post("/documents/manual/remove", headers={"accept": "application/json"})
    assert refused.status_code == 409, "an alias retrieves from it"
    client.post("/documents/manual/detach", data={"alias": "base"})
    assert client.post("/documents/manual/remove").status_code == 303
    assert client.get("/documents/manual").status_code == 404
    assert [action for action, _, _ in actions(context)] == [
        "documents.remove", "retrieval.attach", "retrieval.detach", "documents.remove",
    ]  # fmt: skip


def test_readers_are_an_admins_to_choose(sqlite_context: Context) -> None:
    add_collection(sqlite_context)
    operator = console_client(sqlite_context, "operator")
    assert operator.post("/documents/manual/readers", data={"keys": "all"}).status_code == 403
    admin = console_client(sqlite_context, "admin")
    assert admin.post("/documents/manual/readers", data={"keys": "nobody"}).status_code == 404
    assert admin.post("/documents/manual/readers", data={"keys": "all"}).status_code == 303


# --- states of an index ---------------------------------------------------------------------------


def test_state_of_an_index_follows_documents_and_embedder(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_collection(context)

    def state() -> IndexState:
        with reading(context.database) as connection:
            row = connection.execute(select(collections)).one()
        found = Collection(**{str(key): value for key, value in row._mapping.items()})
        return load_index_state(context.settings, found)

    assert state().state is State.EMPTY
    add_document(context, "a.md", "One")
    assert state().state is State.MISSING
    reindex(context, "manual", WordEmbedder())
    assert (state().state, state().passages) == (State.CURRENT, 1)
    add_document(context, "b.md", "Two")
    assert state().state is State.STALE and not state().is_other_embedder
    reindex(context, "manual", WordEmbedder())
    monkeypatch.setattr(
        "serving.retrieval.index_state.source_of", lambda _: EmbedderSource(embedder="other")
    )
    assert state().state is State.STALE and state().is_other_embedder
    folder = collection_folder(context.settings.home, "manual")
    with build_lock(folder), noted_progress(folder, None) as note:
        note(3, 9)
        assert (state().state, state().done, state().total) == (State.BUILDING, 3, 9)
    assert not (folder / "progress.json").exists()


def test_a_first_index_promises_no_answer_of_an_older_one() -> None:
    building = IndexState(state=State.BUILDING, done=1, total=2)
    assert (
        describe_index(building)
        == "It is being built: 1 of 2 texts embedded; no search finds it yet."
    )


def test_remains_of_a_killed_console_are_removed(tmp_path: Path) -> None:
    uploads = UploadFolder(tmp_path, "manual")
    part = uploads.begin("a.md", NOW)
    part.write_bytes(b"half")
    other = uploads.begin("b.md", NOW + 1)
    other.write_bytes(b"whole")
    uploads.complete(other, "b.md", actor="ada", modified_at=None, now=NOW)
    uploads.remove_remains()
    assert not part.exists() and [one.address for one in uploads.waiting()] == ["b.md"]
