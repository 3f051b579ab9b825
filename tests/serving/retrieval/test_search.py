"""Search: hits are alive, stale indexes say so, filters are exact, failures are no emptiness."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from serving.retrieval.index_check import compare, repair_indexes
from serving.retrieval.index_files import collection_folder, current_generation
from serving.retrieval.records import Mode, Outcome, SearchRequest, SearchResult
from serving.retrieval.reindex import reindex
from serving.retrieval.search import IndexSearcher
from tests.serving.retrieval.worlds import (
    WordEmbedder,
    add_collection,
    add_document,
    open_words,
    remove_document,
)
from whet.context import Context


@pytest.fixture
def searcher(context: Context) -> Iterator[IndexSearcher]:
    add_collection(context)
    found = IndexSearcher(context, open_words)
    yield found
    found.close()


def _ask(searcher: IndexSearcher, query: str, **over: object) -> SearchResult:
    request = {"collection": "manual", "query": query} | over
    return searcher.search_now(SearchRequest(**request))


def _addresses(found: SearchResult) -> list[str]:
    return [hit.address for hit in found.hits]


def _build(context: Context) -> WordEmbedder:
    embedder = WordEmbedder()
    reindex(context, "manual", embedder)
    return embedder


@pytest.mark.parametrize("mode", list(Mode))
def test_the_passage_with_the_words_comes_first(
    context: Context, searcher: IndexSearcher, mode: Mode
) -> None:
    add_document(context, "a", "The warranty lasts two years.", title="Warranty", section="Time")
    add_document(context, "b", "Shipping takes three days.", title="Shipping")
    _build(context)
    found = _ask(searcher, "how long is the warranty", mode=mode)
    assert found.outcome is Outcome.FOUND and _addresses(found)[0] == "a"
    hit = found.hits[0]
    assert (hit.title, hit.section, hit.collection) == ("Warranty", "Time", "manual")
    assert 0 < hit.score <= 1 and not found.is_stale and found.dropped == 0
    assert (hit.vector_rank is None) == (mode is Mode.LEXICAL)


def test_a_removed_document_never_comes_back_from_a_stale_index(
    context: Context, searcher: IndexSearcher
) -> None:
    add_document(context, "a", "The warranty lasts two years.")
    add_document(context, "b", "The warranty of tablets is longer.")
    _build(context)
    remove_document(context, "a")
    found = _ask(searcher, "warranty years")
    assert _addresses(found) == ["b"] and found.is_stale and found.dropped == 1
    remove_document(context, "b")
    assert _ask(searcher, "warranty years").outcome is Outcome.EMPTY


def test_a_failed_document_is_not_found(context: Context, searcher: IndexSearcher) -> None:
    add_document(context, "a", "The warranty lasts two years.")
    _build(context)
    add_document(context, "a", state="failed", error="cannot be read")
    assert _ask(searcher, "warranty").outcome is Outcome.EMPTY


def test_empty_failed_and_forbidden_are_three_outcomes(
    context: Context, searcher: IndexSearcher
) -> None:
    assert _ask(searcher, "warranty").outcome is Outcome.EMPTY
    assert _ask(searcher, "warranty", collection="other").outcome is Outcome.FORBIDDEN
    add_document(context, "a", "The warranty lasts two years.")
    not_indexed = _ask(searcher, "warranty")
    assert not_indexed.outcome is Outcome.FAILED and "reindex" in not_indexed.message
    _build(context)
    assert _ask(searcher, "warranty", min_score=0.999).outcome is Outcome.EMPTY
    assert _ask(searcher, "  ").outcome is Outcome.FAILED
    assert _ask(searcher, "x", top_k=0).outcome is Outcome.FAILED
    assert _ask(searcher, "x", filter={"a": {"b": 1}}).outcome is Outcome.FAILED


def test_a_broken_index_is_a_failure(context: Context, searcher: IndexSearcher) -> None:
    add_document(context, "a", "The warranty lasts two years.")
    _build(context)
    folder = collection_folder(context.settings.home, "manual")
    for path in folder.glob("*/ids.npy"):
        path.write_bytes(b"no array")
    assert _ask(searcher, "warranty").outcome is Outcome.FAILED


def test_filters_keep_top_k_exact(context: Context, searcher: IndexSearcher) -> None:
    for number in range(300):
        team = "blue" if number % 30 == 0 else "red"
        add_document(
            context, f"d{number:03}", f"The word{number} warranty", metadata={"team": team}
        )
    _build(context)
    for mode in Mode:
        found = _ask(searcher, "the warranty", top_k=10, filter={"team": "blue"}, mode=mode)
        assert len(found.hits) == 10 and all(h.metadata == {"team": "blue"} for h in found.hits)
    chosen = _ask(searcher, "warranty", top_k=5, filter={"address": ["d001", "d002"]})
    assert sorted(_addresses(chosen)) == ["d001", "d002"]
    assert _ask(searcher, "warranty", filter={"team": "green"}).outcome is Outcome.EMPTY


def test_neighbours_come_with_the_text_of_a_hit(context: Context, searcher: IndexSearcher) -> None:
    add_document(context, "a", "First alpha.", "Second beta.", "Third gamma.", "Fourth delta.")
    _build(context)
    found = _ask(searcher, "beta", top_k=1, neighbours=1)
    assert found.hits[0].text == "First alpha.\nSecond beta.\nThird gamma."


def test_an_unchanged_text_is_not_embedded_again(context: Context, searcher: IndexSearcher) -> None:
    add_document(context, "a", "One text.", "Another text.")
    assert len(_build(context).embedded) == 2
    assert _build(context).embedded == []
    add_document(context, "a", "One text.", "A third text.")
    assert _build(context).embedded == ["A third text."]


def test_another_embedder_takes_over_while_the_old_index_answers(
    context: Context, searcher: IndexSearcher
) -> None:
    add_document(context, "a", "The warranty lasts two years.")
    _build(context)
    other = WordEmbedder("words-2")
    assert _addresses(_ask(searcher, "warranty")) == ["a"]
    assert repair_indexes(context, lambda: other) == ["manual"]
    assert repair_indexes(context, lambda: other) == []
    found = _ask(searcher, "warranty")  # asked with the first embedder: words alone answer
    assert _addresses(found) == ["a"] and "words-2" in found.message
    assert _ask(searcher, "warranty", mode=Mode.VECTOR).outcome is Outcome.FAILED


def test_random_changes_keep_index_and_rows_equal(
    context: Context, searcher: IndexSearcher
) -> None:
    draw = random.Random(7)
    present: dict[str, str] = {}
    for step in range(60):
        address = f"d{draw.randrange(8)}"
        if address in present and draw.random() < 0.4:
            remove_document(context, address)
            del present[address]
        else:
            present[address] = f"unique{step} text about {address}"
            add_document(context, address, present[address])
        if draw.random() < 0.5:
            _build(context)
            assert compare(context, "manual").is_equal
        if present:
            wanted, text = draw.choice(sorted(present.items()))
            found = _ask(searcher, text.split()[0], top_k=8)
            assert {h.address: h.text for h in found.hits}.items() <= present.items()
            if not found.is_stale and found.outcome is not Outcome.FAILED:
                assert wanted in _addresses(found)


def test_index_and_rows_are_compared(context: Context, searcher: IndexSearcher) -> None:
    add_document(context, "a", "One text.")
    assert (compare(context, "manual").missing, compare(context, "manual").is_stale) == (1, True)
    _build(context)
    add_document(context, "b", "Two texts.", "Three texts.")
    remove_document(context, "a")
    found = compare(context, "manual")
    assert (found.missing, found.surplus, found.is_stale) == (2, 1, True)
    assert repair_indexes(context, WordEmbedder) == ["manual"]
    assert compare(context, "manual").is_equal


def test_files_of_a_collection_that_is_gone_are_removed(context: Context) -> None:
    folder = collection_folder(context.settings.home, "gone")
    folder.mkdir(parents=True)
    repair_indexes(context, WordEmbedder)
    assert not folder.exists()


def test_an_index_of_another_format_fails_by_name_and_is_built_anew(
    context: Context, searcher: IndexSearcher
) -> None:
    add_document(context, "a", "The warranty lasts two years.")
    embedder = _build(context)
    folder = collection_folder(context.settings.home, "manual")
    path = folder / current_generation(folder) / "manifest.json"
    path.write_text(path.read_text().replace('"format":2', '"format":1'))
    found = _ask(searcher, "warranty")
    assert found.outcome is Outcome.FAILED and "format 1; expected 2" in found.message
    assert repair_indexes(context, lambda: embedder) == ["manual"]
    assert _ask(searcher, "warranty").outcome is Outcome.FOUND
