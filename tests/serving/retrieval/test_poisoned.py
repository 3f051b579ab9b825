"""A hundred poisoned documents: nothing is fetched, limits hold, nothing hidden is told."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.retrieval import documents_store as store
from serving.retrieval.ingest import Divider, Ingest
from serving.retrieval.parsing.blocks import ParseError
from serving.retrieval.parsing.process import ParserProcess
from serving.retrieval.passages import embedded_text
from serving.retrieval.sources import scan
from tests.serving.retrieval.counting import count_tokens
from tests.serving.retrieval.poison import CONTROL_TOKENS, SECRET, SEEN, Poisoned, poisoned
from whet.context import Context
from whet.control_tokens import ControlTokens
from whet.database import reading, writing


@pytest.fixture
def visits() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a listener, and what came to it."""
    found: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    found.append(connection.recv(200))

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", found


@pytest.mark.seconds
def test_poisoned_documents_do_no_harm(
    sqlite_context: Context, tmp_path: Path, visits: tuple[str, list[bytes]]
) -> None:
    url, fetched = visits
    made = {one.name: one for one in poisoned(url)}
    assert len(made) >= 100
    folder = tmp_path / "poison"
    folder.mkdir()
    for one in made.values():
        (folder / one.name).write_bytes(one.content)
    with writing(sqlite_context.database) as connection:
        collection = store.create_collection(
            connection, "poison", embedder="words", chunk_tokens=200, now=1
        )
    run = Ingest(sqlite_context.database, collection, Divider(count_tokens, "words"), now=2)
    report = run.run(scan([str(folder)]))
    assert fetched == []
    _check_outcomes(sqlite_context, made)
    assert {address for address, _ in report.failed} == {
        name for name, one in made.items() if one.expected == "failed"
    }
    _check_texts(sqlite_context, made)


def _check_outcomes(context: Context, made: dict[str, Poisoned]) -> None:
    with reading(context.database) as connection:
        found = {one.address: one for one in store.documents_of(connection, "poison")}
        passages = list(store.passages_of(connection, "poison"))
    for name, one in made.items():
        expected = "indexed" if one.expected == "read" else "failed"
        assert found[name].state == expected, (name, found[name].error)
    assert {document.state for _, document, _ in passages} == {"indexed"}
    assert all(passage.tokens <= 200 for passage, _, _ in passages)


def _check_texts(context: Context, made: dict[str, Poisoned]) -> None:
    control = ControlTokens(CONTROL_TOKENS)
    texts: dict[str, str] = {}
    with reading(context.database) as connection:
        for passage, document, _ in store.passages_of(connection, "poison"):
            whole = embedded_text(document.title, passage.section, passage.text)
            assert control.find(control.neutralise(whole)) is None
            assert "root:x:0" not in whole
            texts[document.address] = f"{texts.get(document.address, '')}\n{whole}"
    for name, text in texts.items():
        assert SECRET not in text, name
        if SEEN.encode() in made[name].content:
            assert SEEN in text, name


@pytest.mark.seconds
def test_parser_that_dies_or_hangs_is_a_reason_and_the_next_document_is_read() -> None:
    with ParserProcess(wall_seconds=0.5) as parser:
        assert parser.parse("a.md", b"# One").title == "One"
        with pytest.raises(ParseError, match="longer than"):
            parser.parse("slow.html", b"<div>" * 100_000)
        assert parser._process is None
    with ParserProcess() as parser:
        assert parser.parse("a.md", b"# One").title == "One"
        assert parser._process is not None
        parser._process.kill()
        with pytest.raises(ParseError, match="SIGKILL"):
            parser.parse("b.md", b"# Two")
        assert parser.parse("b.md", b"# Two").title == "Two"


@pytest.mark.slow
def test_document_that_takes_too_much_processor_time_fails() -> None:
    with ParserProcess() as parser, pytest.raises(ParseError, match="processor time"):
        parser.parse("bomb.html", b"<div>" * 400_000)  # parsing takes the square of its depth


@pytest.mark.seconds
def test_sandbox_has_no_network_no_files_and_no_programs() -> None:
    code = """
import socket, subprocess, sys
from serving.retrieval.parsing.sandbox import ForbiddenError, enter_sandbox
enter_sandbox()
def refused(act):
    try:
        act()
    except (ForbiddenError, OSError):
        return True
print([refused(act) for act in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.socket(),
    lambda: subprocess.run(["true"]),
    lambda: open(sys.argv[1], "w"),
    lambda: __import__("os").remove(sys.argv[1]),
)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, __file__ + ".none"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.strip() == str([True] * 5), done.stderr
