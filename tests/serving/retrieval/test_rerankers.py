"""Rerankers by setting: a cross-encoder's folder, an endpoint, and one that fails."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification

from serving.retrieval.embedders.folder import default_model_folder
from serving.retrieval.records import Hit, Mode, SearchRequest
from serving.retrieval.rerankers import RerankerError, open_reranker
from serving.retrieval.reranking import Reranking
from whet.settings import load_settings

PAIRS = ["pg_dump writes a backup of a database.", "word " * 600, "x"]
QUESTION = "How do I make a copy of my database?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier of random weights with the default embedder's tokenizer."""
    target = tmp_path_factory.mktemp("cross-encoder")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=128, num_labels=1, initializer_range=0.3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(target)
    shutil.copy(default_model_folder() / "tokenizer.json", target)
    return target


def test_a_cross_encoder_scores_as_torch_does(folder: Path, tmp_path: Path) -> None:
    reranker = open_reranker(load_settings(home=tmp_path, reranker=str(folder)))
    assert reranker is not None
    found = reranker.score(QUESTION, PAIRS)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    for passage, score in zip(PAIRS, found, strict=True):
        encoded = tokenizer.encode(QUESTION, passage)
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([encoded.ids]),
                token_type_ids=torch.tensor([encoded.type_ids]),
            ).logits
        assert np.isclose(float(logits[0, 0]), score, atol=2e-3)
    assert len(set(found)) == len(PAIRS)


def test_a_folder_that_is_no_cross_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RerankerError, match=r"no tokenizer\.json"):
        open_reranker(load_settings(home=tmp_path, reranker=str(tmp_path)))
    with pytest.raises(RerankerError, match=r"its weights lack"):
        open_reranker(load_settings(home=tmp_path, reranker=str(default_model_folder())))
    assert open_reranker(load_settings(home=tmp_path)) is None


class _Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != "Bearer sesame" or self.path != "/v1/rerank":
            self.send_error(401)
            return
        scores = [
            {"index": index, "relevance_score": len(text) / 100}
            for index, text in enumerate(asked["documents"])
        ]
        scores.sort(key=lambda row: -row["relevance_score"])
        body = {"results": scores[:-1] if asked["query"] == "one is missing" else scores}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def _reranking(home: Path, url: str, key: str = "sesame") -> Reranking:
    settings = load_settings(home=home, reranker=url, reranker_key=key, reranker_candidates=3)
    return Reranking(lambda: open_reranker(settings), settings.reranker_candidates)


def _hits(*texts: str) -> list[Hit]:
    return [
        Hit(
            passage_id=f"psg_{number}", document_id="doc", collection="c", title="", address="a",
            section="", text=text, score=0.5,
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip


def _asked(query: str = "q", mode: Mode = Mode.HYBRID) -> SearchRequest:
    return SearchRequest(collection="c", query=query, top_k=2, mode=mode)


def test_an_endpoint_orders_the_hits(tmp_path: Path, endpoint: str) -> None:
    reranking = _reranking(tmp_path, endpoint)
    assert reranking.candidates(_asked()) == 3
    found, problem = reranking.order(_asked(), _hits("a", "abc", "ab"))
    assert [hit.text for hit in found] == ["abc", "ab"] and not problem
    assert found[0].rerank_score == 0.03


@pytest.mark.parametrize("mode", [Mode.LEXICAL, Mode.VECTOR])
def test_one_ranking_alone_stays_as_it_is(tmp_path: Path, endpoint: str, mode: Mode) -> None:
    reranking = _reranking(tmp_path, endpoint)
    assert reranking.candidates(_asked(mode=mode)) == 0
    found, problem = reranking.order(_asked(mode=mode), _hits("a", "abc", "ab"))
    assert [hit.text for hit in found] == ["a", "abc"] and not problem


@pytest.mark.parametrize(
    ("key", "query", "told"),
    [("wrong", "q", "does not answer"), ("sesame", "one is missing", "2 scores; expected 3")],
)
def test_a_reranker_that_fails_leaves_the_order_and_says_so(
    tmp_path: Path, endpoint: str, key: str, query: str, told: str
) -> None:
    reranking = _reranking(tmp_path, endpoint, key)
    found, problem = reranking.order(_asked(query), _hits("a", "abc", "ab"))
    assert [hit.text for hit in found] == ["a", "abc"]
    assert problem.startswith("Not reranked: ") and told in problem


def test_a_folder_that_cannot_be_loaded_is_said_at_each_search(tmp_path: Path) -> None:
    reranking = _reranking(tmp_path, str(tmp_path / "nothing"))
    for _ in range(2):
        found, problem = reranking.order(_asked(), _hits("a", "abc", "ab"))
        assert len(found) == 2 and "no tokenizer.json" in problem
