"""POST /v1/embeddings, by OpenAI's own client."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.retrieval.messages import EmbedResult
from tests.serving.conftest import Running, serve
from tests.serving.mock_engine import MockEngine
from tests.serving.retrieval.worlds import WordEmbedder
from whet.context import open_context
from whet.errors import WhetError
from whet.settings import load_settings


class InProcessEmbedder:
    """Embeds in the gateway's own process."""

    def __init__(self) -> None:
        self.failure: WhetError | None = None
        self.model = WordEmbedder()

    async def embed(self, texts: list[str], *, as_queries: bool = False) -> EmbedResult:
        if self.failure:
            raise self.failure
        vectors = self.model.embed_passages(texts)
        tokens = sum(map(self.model.count_tokens, texts))
        return EmbedResult(
            vectors=[vector.astype("<f4").tobytes() for vector in vectors],
            tokens=tokens, embedder=self.model.identity, dimension=self.model.dimension,
        )  # fmt: skip


@pytest.fixture(scope="module")
def embedder() -> InProcessEmbedder:
    return InProcessEmbedder()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, embedder: InProcessEmbedder
) -> Iterator[Running]:
    home: Path = tmp_path_factory.mktemp("home")
    context = open_context(load_settings(home=home))
    with MockEngine() as engine:
        yield from serve(context, engine, embedder=embedder)
    context.close()


def _create(running: Running, **over: Any) -> Any:
    return running.client().embeddings.create(**({"model": "m", "input": "hello there"} | over))


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}])
def test_vectors_come_in_order(
    running: Running, embedder: InProcessEmbedder, encoding: Any
) -> None:
    found = _create(running, input=["one", "two words"], **encoding)
    expected = embedder.model.embed_passages(["one", "two words"])
    assert [row.index for row in found.data] == [0, 1]
    assert found.data[1].embedding == pytest.approx(expected[1].tolist())
    assert math.isclose(sum(x * x for x in found.data[0].embedding), 1, abs_tol=1e-5)
    assert (found.model, found.usage.prompt_tokens, found.usage.total_tokens) == ("m", 3, 3)
    counted = running.app.core.metrics.exposition().decode()
    assert 'whet_gateway_embeddings_total{status="200"}' in counted
    assert "whet_gateway_embedded_tokens_total" in counted and not running.rows()


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"input": [1, 2, 3]}, "token ids are not taken"),
        ({"input": [[1, 2], [3]]}, "token ids are not taken"),
        ({"input": ""}, "not empty"),
        ({"input": []}, "0 texts"),
        ({"input": "word " * 100}, "the embedder reads 64"),
        ({"encoding_format": "int8"}, "float or base64"),
        ({"dimensions": 8}, "the vectors have 32"),
        ({"extra_body": {"truncate": True}}, "truncate"),
    ],
)
def test_what_cannot_be_embedded_is_400(running: Running, over: Any, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        _create(running, **over)


def test_an_embedder_that_is_away_is_503(running: Running, embedder: InProcessEmbedder) -> None:
    embedder.failure = WhetError("The retrieval process does not answer.")
    try:
        with pytest.raises(openai.InternalServerError, match="does not answer") as caught:
            _create(running)
        assert caught.value.status_code == 503
    finally:
        embedder.failure = None


def test_a_gateway_without_an_embedder_says_so(gateway: Running) -> None:
    with pytest.raises(openai.InternalServerError, match="no embedding model"):
        _create(gateway)
