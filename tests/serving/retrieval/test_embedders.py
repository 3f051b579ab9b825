"""The default embedder, folders and endpoints."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.retrieval.embedders import (
    Embedder,
    EmbedderError,
    TextTooLongError,
    open_embedder,
)
from serving.retrieval.embedders.folder import FolderEmbedder, default_model_folder
from whet.settings import load_settings

pytestmark = pytest.mark.seconds


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedders")


@pytest.fixture(scope="module")
def default(cache: Path) -> FolderEmbedder:
    return FolderEmbedder(default_model_folder(), cache, name="all-MiniLM-L6-v2", threads=2)


def test_meanings_are_near(default: FolderEmbedder) -> None:
    question = default.embed_query("How do I make a copy of my database?")
    texts = ["pg_dump writes a backup of a database.", "The weather is fine in Rome today."]
    near, far = default.embed_passages(texts) @ question
    assert near > 0.3 > far + 0.2
    assert default.dimension == 384 and default.max_tokens == 256


def test_vectors_have_length_one_and_do_not_depend_on_company(default: FolderEmbedder) -> None:
    texts = ["short", "a somewhat longer text about nothing", "x " * 100]
    together = default.embed_passages(texts)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert (together[1] == default.embed_passages(texts[1:2])[0]).all()


def test_the_last_word_counts_up_to_the_limit_and_more_is_refused(default: FolderEmbedder) -> None:
    words = "word " * 253
    left, right = default.embed_passages([words + "cat", words + "seven"])
    assert default.count_tokens(words + "cat") == 256
    assert not np.allclose(left, right, atol=1e-4)
    with pytest.raises(TextTooLongError, match="has 257 tokens; the embedder reads 256"):
        default.embed_passages([words + "two cats"])


def test_a_long_question_is_read_whole(default: FolderEmbedder) -> None:
    long = "word " * 600
    ending = default.embed_query(long + "postgres replication")
    assert not np.allclose(ending, default.embed_query(long), atol=1e-3)
    assert np.isclose(np.linalg.norm(ending), 1, atol=1e-5)


def test_the_identity_names_weights_and_prefixes(default: FolderEmbedder, cache: Path) -> None:
    prefixed = FolderEmbedder(default_model_folder(), cache, query_prefix="query: ")
    assert default.identity.startswith("all-MiniLM-L6-v2:53aa51172d14:")
    assert prefixed.identity != default.identity and len(prefixed.identity) <= 200
    assert not np.allclose(prefixed.embed_query("cats"), default.embed_query("cats"), atol=1e-3)


def test_a_folder_that_is_no_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"no tokenizer\.json"):
        FolderEmbedder(tmp_path, tmp_path)
    shutil.copy(default_model_folder() / "tokenizer.json", tmp_path)
    with pytest.raises(EmbedderError, match=r"neither model\.safetensors nor"):
        FolderEmbedder(tmp_path, tmp_path)
    shutil.copy(default_model_folder() / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mpnet"}')
    with pytest.raises(EmbedderError, match="model_type 'mpnet'; expected 'bert'"):
        FolderEmbedder(tmp_path, tmp_path / "cache")


class _Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        rows = [
            {"index": index, "embedding": [len(text), 1.0, 0.0]}
            for index, text in enumerate(asked["input"])
        ]
        body = {"data": list(reversed(rows)), "model": asked["model"]}
        if self.headers["authorization"] != "Bearer sesame":
            self.send_error(401)
            return
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


def _from_endpoint(home: Path, url: str, **over: object) -> Embedder:
    settings = {"embedder": url, "embedder_model": "m", "embedder_key": "sesame"} | over
    return open_embedder(load_settings(home=home, **settings))


def test_an_endpoint_embeds(tmp_path: Path, endpoint: str) -> None:
    embedder = _from_endpoint(tmp_path, endpoint)
    vectors = embedder.embed_passages(["a" * n for n in range(1, 101)])
    assert vectors.shape == (100, 3) and (np.diff(vectors[:, 0]) > 0).all()
    assert embedder.embed_query("x" * 5000).shape == (3,)
    with pytest.raises(TextTooLongError):
        embedder.embed_passages(["x" * 5000])


def test_an_endpoint_that_refuses_says_which_settings_to_look_at(
    tmp_path: Path, endpoint: str
) -> None:
    with pytest.raises(EmbedderError, match="WHET_EMBEDDER_KEY"):
        _from_endpoint(tmp_path, endpoint, embedder_key="wrong")
    with pytest.raises(EmbedderError, match="does not answer"):
        _from_endpoint(tmp_path, "http://127.0.0.1:1/v1")
