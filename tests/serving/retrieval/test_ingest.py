"""Folders become documents: only what changed is touched, nothing is half written or lost."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from serving.retrieval import documents_store as store
from serving.retrieval.ingest import Divider, Ingest, IngestReport
from serving.retrieval.parsing.formats import parse_file
from serving.retrieval.parsing.process import ParserProcess
from serving.retrieval.records import Document
from serving.retrieval.sources import scan
from tests.serving.conftest import wait_for
from tests.serving.retrieval.counting import count_tokens
from whet.context import Context, open_context
from whet.database import reading, writing
from whet.errors import ConflictError, InputError, NotFoundError
from whet.settings import load_settings
from whet.store import digest_bytes

DIVIDER = Divider(count_tokens, "words")


@pytest.fixture
def parsing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse in this process: starting one takes a second, and test_poisoned.py has it."""
    monkeypatch.setattr(ParserProcess, "parse", lambda self, name, body: parse_file(name, body))


@pytest.fixture
def folder(sqlite_context: Context, tmp_path: Path, parsing_here: None) -> Path:
    create(sqlite_context)
    place = tmp_path / "pages"
    place.mkdir()
    return place


def create(context: Context) -> None:
    with writing(context.database) as connection:
        store.create_collection(connection, "manual", embedder="words", chunk_tokens=64, now=1)


def add(
    context: Context,
    *paths: Path,
    sync: bool = False,
    yes: bool = False,
    now: int = 5,
    divider: Divider = DIVIDER,
    source: str = "",
    prefix: str = "",
    metadata: dict[str, str] | None = None,
) -> IngestReport:
    with reading(context.database) as connection:
        collection = store.require_collection(connection, "manual")
        known = sorted({document.source for document in store.documents_of(connection, "manual")})
    found = scan(map(str, paths), source=source, prefix=prefix, known_sources=known)
    run = Ingest(context.database, collection, divider, metadata=metadata, now=now)
    report = run.run(found)
    return run.remove_missing(found, is_sure=yes) if sync else report


def documents(context: Context) -> dict[str, Document]:
    with reading(context.database) as connection:
        told = store.require_collection(connection, "manual").digest
        assert told == store.compute_digest(connection, "manual")
        return {one.address: one for one in store.documents_of(connection, "manual")}


def texts(context: Context) -> dict[str, str]:
    """Return {address: all text of the document's passages}."""
    found: dict[str, str] = {}
    with reading(context.database) as connection:
        for passage, document, _ in store.passages_of(connection, "manual"):
            found[document.address] = f"{found.get(document.address, '')} {passage.text}".strip()
    return found


def test_folder_is_added_and_only_changes_are_touched(
    sqlite_context: Context, folder: Path
) -> None:
    (folder / "a.md").write_text("# A\n\nOne.")
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text("Two.")
    (folder / ".hidden.md").write_text("No.")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    first = add(sqlite_context, folder)
    assert (first.added, first.unchanged, first.passages) == (2, 0, 2)
    assert texts(sqlite_context) == {"a.md": "One.", "sub/b.txt": "Two."}
    (folder / "a.md").write_text("# A\n\nThree.")
    again = add(sqlite_context, folder, now=9)
    assert (again.added, again.changed, again.unchanged) == (0, 1, 1)
    found = documents(sqlite_context)["a.md"]
    assert (found.title, found.added_at, found.media_type) == ("A", 5, "text/markdown")
    assert texts(sqlite_context)["a.md"] == "Three."


def test_unknown_types_are_named(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"")
    (folder / "b.png").write_bytes(b"")
    (folder / "LICENSE").write_text("x")
    told = scan([str(folder)]).sentence_on_unknown()
    assert told == "Left out, because their type is not read: .png (2), without an ending (1)."


def test_bad_file_is_a_failed_document_and_stops_no_other(
    sqlite_context: Context, folder: Path
) -> None:
    (folder / "a.md").write_text("One.")
    (folder / "b.pdf").write_bytes(b"%PDF-1.4 broken")
    report = add(sqlite_context, folder)
    assert report.added == 1
    assert report.failed == [("b.pdf", "It is damaged: no PDF reader opens it.")]
    failed = documents(sqlite_context)["b.pdf"]
    assert (failed.state, failed.error, failed.passages) == ("failed", report.failed[0][1], 0)
    (folder / "b.pdf").write_text("Now a text.")  # its name still says PDF
    assert "something else" in add(sqlite_context, folder).failed[0][1]


def test_sync_removes_what_is_gone_and_asks_before_much(
    sqlite_context: Context, folder: Path
) -> None:
    for number in range(10):
        (folder / f"{number}.md").write_text(f"Text {number}.")
    add(sqlite_context, folder)
    (folder / "0.md").unlink()
    assert add(sqlite_context, folder).removed == 0
    assert add(sqlite_context, folder, sync=True).removed == 1
    for number in range(1, 5):
        (folder / f"{number}.md").unlink()
    with pytest.raises(ConflictError, match="4 of 9"):
        add(sqlite_context, folder, sync=True)
    assert len(documents(sqlite_context)) == 9
    assert add(sqlite_context, folder, sync=True, yes=True).removed == 4
    for file in folder.iterdir():
        file.unlink()
    report = add(sqlite_context, folder, sync=True, yes=True)
    assert (report.removed, report.kept) == (0, "No file was found.")
    assert len(documents(sqlite_context)) == 5


def test_sync_of_one_folder_leaves_another_alone(sqlite_context: Context, folder: Path) -> None:
    one, two = folder / "one", folder / "two"
    for place in (one, two):
        place.mkdir()
        (place / f"{place.name}.md").write_text(place.name)
        add(sqlite_context, place)
    (one / "new.md").write_text("new")
    assert add(sqlite_context, one, sync=True, yes=True).removed == 0
    assert set(documents(sqlite_context)) == {"one.md", "two.md", "new.md"}


def test_address_of_another_source_is_refused_until_it_has_a_prefix(
    sqlite_context: Context, folder: Path
) -> None:
    one, two = folder / "one", folder / "two"
    for place in (one, two):
        place.mkdir()
        (place / "index.md").write_text(place.name)
    add(sqlite_context, one)
    assert "belongs to a document from" in add(sqlite_context, two).failed[0][1]
    add(sqlite_context, two, prefix="https://example.com/two/")
    assert texts(sqlite_context) == {
        "index.md": "one",
        "https://example.com/two/index.md": "two",
    }
    with pytest.raises(InputError, match="two of these paths"):
        add(sqlite_context, one, two)


def test_single_file_has_the_address_of_its_folder(sqlite_context: Context, folder: Path) -> None:
    (folder / "sub").mkdir()
    file = folder / "sub" / "a.md"
    file.write_text("One.")
    add(sqlite_context, folder)
    file.write_text("Two.")
    assert add(sqlite_context, file).changed == 1
    assert texts(sqlite_context) == {"sub/a.md": "Two."}


def test_other_counter_or_metadata_makes_passages_anew(
    sqlite_context: Context, folder: Path
) -> None:
    (folder / "a.md").write_text("One.")
    add(sqlite_context, folder, metadata={"team": "x"})
    assert add(sqlite_context, folder).unchanged == 1
    assert add(sqlite_context, folder, divider=Divider(count_tokens, "other")).changed == 1
    assert documents(sqlite_context)["a.md"].metadata == {"team": "x"}
    assert add(sqlite_context, folder, metadata={"team": "y"}).changed == 1


def test_links_out_of_the_folder_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "loop").symlink_to(folder)
    assert scan([str(folder)]).files == []


def test_fsspec_urls_and_missing_paths(sqlite_context: Context, folder: Path) -> None:
    (folder / "a.md").write_text("One.")
    (folder / "b.png").write_bytes(b"")
    found = scan([f"file://{folder}"])
    assert [(file.address, file.read()) for file in found.files] == [("a.md", b"One.")]
    assert found.unknown == {".png": 1}
    with pytest.raises(NotFoundError):
        scan([str(folder / "none")])
    with pytest.raises(NotFoundError):
        scan([f"file://{folder}/none"])


def test_unreadable_folder_counts_as_a_failed_scan(sqlite_context: Context, folder: Path) -> None:
    for name in ("a.md", "b.md"):
        (folder / name).write_text(name)
    add(sqlite_context, folder)
    (folder / "a.md").unlink()
    found = scan([str(folder)])
    found.errors.append("sub: Permission denied")
    with reading(sqlite_context.database) as connection:
        collection = store.require_collection(connection, "manual")
    run = Ingest(sqlite_context.database, collection, DIVIDER, now=7)
    report = run.remove_missing(found, is_sure=True)
    assert (report.removed, report.kept) == (0, "sub: Permission denied")


# --- histories ------------------------------------------------------------------------------------


@pytest.mark.seconds
def test_random_histories_keep_files_and_rows_equal(
    context: Context, tmp_path: Path, parsing_here: None
) -> None:
    """Adds, changes, removals and repeated runs: after each, the rows are those of the files."""
    _live_through(context, tmp_path, steps=60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_long_random_history_keeps_files_and_rows_equal(
    sqlite_context: Context, tmp_path: Path, parsing_here: None
) -> None:
    _live_through(sqlite_context, tmp_path, steps=2000)


def _live_through(context: Context, tmp_path: Path, steps: int) -> None:
    create(context)
    folder = tmp_path / "pages"
    folder.mkdir()
    randomly = random.Random(19)
    for step in range(steps):
        _change_something(folder, randomly, step)
        if randomly.random() < 0.1:
            _remove_some(context, folder, randomly)
        add(context, folder, sync=True, yes=True, now=step)
        if step % 10 == 0 or randomly.random() < 0.05:
            _compare(context, folder)
    _compare(context, folder)


def _change_something(folder: Path, randomly: random.Random, step: int) -> None:
    file = folder / f"{randomly.randrange(12)}.txt"
    if file.exists() and randomly.random() < 0.4:
        file.unlink()
    elif randomly.random() < 0.1:
        file.write_bytes(b"\0broken")
    else:
        sentence = f"Text {step % 7} of {randomly.randrange(3)}. "
        file.write_text(sentence * randomly.randrange(1, 40))
    (folder / "always.txt").write_text("Here.")


def _remove_some(context: Context, folder: Path, randomly: random.Random) -> None:
    found = sorted(documents(context).values(), key=lambda one: one.id)
    chosen = randomly.sample(found, k=min(2, len(found)))
    with writing(context.database) as connection:
        store.remove_documents(connection, "manual", [one.id for one in chosen], now=1)


def _compare(context: Context, folder: Path) -> None:
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    found = documents(context)
    assert {name: digest_bytes(body) for name, body in files.items()} == {
        address: document.content_sha256 for address, document in found.items()
    }
    expected = {name: body.decode().split() for name, body in files.items() if b"\0" not in body}
    assert {name: text.split() for name, text in texts(context).items()} == expected
    counted = {address: document.passages for address, document in found.items()}
    with reading(context.database) as connection:
        for document in found.values():
            made = store.passages_of_document(connection, document.id)
            assert len(made) == counted[document.address]
            assert [passage.position for passage in made] == list(range(len(made)))


# --- killed ---------------------------------------------------------------------------------------

_FILES = 150
_CHILD = """
from pathlib import Path
import sys
from tests.serving.retrieval.test_ingest import add
from whet.context import open_context
from whet.settings import load_settings
add(open_context(load_settings(home=Path(sys.argv[1]))), Path(sys.argv[2]))
"""


@pytest.mark.seconds
def test_killed_run_loses_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "pages"
    folder.mkdir()
    for number in range(_FILES):
        (folder / f"{number:03}.md").write_text(f"# {number}\n\n" + f"Sentence {number}. " * 60)
    context = open_context(load_settings(home=home))
    create(context)
    kills = 0
    while len(documents(context)) < _FILES and kills < 2:
        before = len(documents(context))
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_CHILD), str(home), str(folder)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )
        wait_for(lambda seen=before: len(documents(context)) > seen + 20, "documents", timeout_s=60)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
        for document in documents(context).values():
            with reading(context.database) as connection:
                made = store.passages_of_document(connection, document.id)
            assert len(made) == document.passages > 1
    done = len(documents(context))
    assert kills >= 1 and done < _FILES
    report = add(context, folder)
    assert (report.added, report.unchanged) == (_FILES - done, done)
    found = texts(context)
    numbers = {name: set(re.findall(r"Sentence (\d+)", text)) for name, text in found.items()}
    assert numbers == {f"{number:03}.md": {str(number)} for number in range(_FILES)}
    context.close()
