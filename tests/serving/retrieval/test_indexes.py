"""The two legs by themselves, and the words they are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.retrieval.embedders.protocol import normalise
from serving.retrieval.fusion import Fusion, fuse
from serving.retrieval.lexical_index import LexicalBuilder, LexicalIndex
from serving.retrieval.stop_words import without_stop_words
from serving.retrieval.text_analysis import terms_of
from serving.retrieval.vector_index import VectorIndex, write_vectors


@pytest.mark.parametrize(
    ("text", "languages", "expected"),
    [
        ("Running queries", ("en",), ["run", "queri"]),
        ("Häuser", ("de",), ["haus"]),
        ("max_connections = 100", ("en",), ["max_connect", "max", "connect", "100"]),
        ("データベース", (), ["デー", "ータ", "タベ", "ベー", "ース"]),
        ("PostgreSQLは速い", ("en",), ["postgresql", "は速", "速い"]),
        ("ﬁle", ("en",), ["file"]),
        ("", ("en",), []),
    ],
)
def test_terms(text: str, languages: tuple[str, ...], expected: list[str]) -> None:
    assert terms_of(text, languages) == expected


def _lexical(folder: Path, *passages: tuple[str, str]) -> LexicalIndex:
    builder = LexicalBuilder()
    for heading, text in passages:
        builder.add(heading, text, "en")
    builder.write(folder)
    return LexicalIndex(folder, len(passages))


def test_rare_words_count_more_and_headings_more_than_text(tmp_path: Path) -> None:
    index = _lexical(
        tmp_path, ("", "backup server"), ("", "server server"), ("backup", "other"), ("", "server")
    )
    scores = index.score("server backup", ("en",))
    assert scores[0] > scores[1] > scores[3] > 0 and scores.max() <= 1
    heading = index.score("backup", ("en",))
    assert heading.argmax() == 2 and heading[1] == heading[3] == 0
    assert not index.score("unknown words", ("en",)).any()


def test_no_passages_give_an_empty_index(tmp_path: Path) -> None:
    assert len(_lexical(tmp_path).score("anything", ("en",))) == 0
    write_vectors(tmp_path, np.zeros((0, 8), np.float16), graph_from=10)
    rows, _ = VectorIndex(tmp_path).nearest(np.ones(8, np.float32), 5)
    assert len(rows) == 0


def _vectors(count: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    return normalise(draw.standard_normal((count, 64)).astype(np.float32)).astype(np.float16)


@pytest.mark.parametrize("graph_from", [10**9, 1000])
def test_nearest_is_the_exact_ranking(tmp_path: Path, graph_from: int) -> None:
    vectors = _vectors(3000)
    write_vectors(tmp_path, vectors, graph_from=graph_from)
    index = VectorIndex(tmp_path)
    found = exact = 0
    for query in np.asarray(_vectors(20), np.float32):
        wanted = np.argsort(-(vectors.astype(np.float32) @ query), kind="stable")[:10]
        rows, cosines = index.nearest(query, 10)
        found += len(set(rows) & set(wanted))
        exact += len(wanted)
        assert (np.diff(cosines) <= 0).all()
    assert found >= 0.98 * exact
    assert found == exact or graph_from == 1000


def test_a_mask_is_exact(tmp_path: Path) -> None:
    vectors = _vectors(2000)
    write_vectors(tmp_path, vectors, graph_from=1000)
    mask = np.arange(2000) % 100 == 0
    query = vectors[5].astype(np.float32)
    rows, _ = VectorIndex(tmp_path).nearest(query, 30, mask)
    assert sorted(rows) == list(range(0, 2000, 100))


def test_fusion_weighs_the_legs_and_a_leg_without_hits_adds_nothing() -> None:
    left, right, none = np.array([1, 2, 3]), np.array([3, 4]), np.zeros(0, np.int64)
    own = np.arange(5)  # each passage is a document of its own
    assert fuse(left, right, own, Fusion())[0][0] == 3
    assert list(fuse(left, none, own, Fusion())[0]) == [1, 2, 3]
    only = fuse(left, right, own, Fusion(lexical_weight=1.0, vector_weight=0.0))[0]
    assert list(only[:3]) == [1, 2, 3]


def test_a_document_with_several_fitting_passages_gains() -> None:
    ranking, none, documents = np.array([0, 1, 2, 3]), np.zeros(0, np.int64), np.array([0, 1, 1, 1])
    assert fuse(ranking, none, documents, Fusion(document_weight=0.0))[0][0] == 0
    assert list(fuse(ranking, none, documents, Fusion())[0]) == [1, 2, 3, 0]


def test_stop_words_leave_a_question_that_has_nothing_else() -> None:
    assert without_stop_words("How do I stop the server?", ["en"]) == "stop server?"
    assert without_stop_words("Who is who", ["en"]) == "Who is who"
    assert without_stop_words("How do I", []) == "How do I"
