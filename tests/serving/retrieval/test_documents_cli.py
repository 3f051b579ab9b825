"""`whet documents`: from files to a list, a document, its passages, and nothing any more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.documents_cli import documents
from serving.retrieval import embedders
from serving.retrieval.parsing.formats import parse_file
from serving.retrieval.parsing.process import ParserProcess
from tests.serving.retrieval.counting import count_tokens
from whet.errors import InputError, NotFoundError


class WordCounter:
    """Stands in for an embedder where nothing is embedded."""

    identity = "words"
    max_tokens = 256
    count_tokens = staticmethod(count_tokens)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WHET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(embedders, "open_embedder", lambda settings: WordCounter())
    monkeypatch.setattr(ParserProcess, "parse", lambda self, name, body: parse_file(name, body))
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "a.md").write_text("# Days off\n\nYou have 30 days.")
    (pages / "b.pdf").write_bytes(b"%PDF-1.4 x")
    (pages / "c.png").write_bytes(b"x")
    return pages


def run(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(documents, [*words, "--json"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_documents_from_add_to_remove(home: Path) -> None:
    added = run("add", "hr", str(home), "--metadata", "team=hr", "--no-index", code=1)
    assert (added["added"], added["passages"], added["unknown_types"]) == (1, 1, {".png": 1})
    assert [one["address"] for one in added["failed"]] == ["b.pdf"]
    assert [(one["name"], one["documents"], one["failed"]) for one in run("list")] == [("hr", 1, 1)]
    assert [(one["address"], one["state"]) for one in run("list", "hr")] == [
        ("a.md", "indexed"),
        ("b.pdf", "failed"),
    ]
    shown = run("show", "hr", "a.md")
    assert (shown["title"], shown["metadata"]) == ("Days off", {"team": "hr"})
    assert [one["text"] for one in shown["passages"]] == ["You have 30 days."]
    assert run("remove", "hr", "b.pdf")["removed"] == 1
    assert run("remove", "hr", "--yes")["removed"] == 1
    assert run("list") == []


def test_what_does_not_exist_or_fit_is_said(home: Path) -> None:
    with pytest.raises(NotFoundError, match="no collection"):
        run("list", "none")
    with pytest.raises(InputError, match="32 to 256"):
        run("add", "hr", str(home), "--chunk-tokens", "10", "--no-index")
    with pytest.raises(InputError, match="KEY=VALUE"):
        run("add", "hr", str(home), "--metadata", "team", "--no-index")
    with pytest.raises(NotFoundError, match="API keys"):
        run("add", "hr", str(home), "--keys", "nobody", "--no-index")


def test_collection_is_attached_and_detached(home: Path) -> None:
    run("add", "hr", str(home), "--no-index", code=1)
    options = ("--top-k", "6", "--min-score", "0.3", "--filter", "team=hr")
    attached = run("attach", "base", "hr", *options)
    assert (attached["top_k"], attached["filter"]) == (6, {"team": "hr"})
    assert [one["attached"] for one in run("list")] == [["base"]]
    assert run("detach", "base") == {"detached": "base"}
    assert [one["attached"] for one in run("list")] == [[]]
    with pytest.raises(NotFoundError):
        run("attach", "nobody", "hr")
