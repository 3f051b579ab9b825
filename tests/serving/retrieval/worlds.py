"""A small embedder without a model, and collections of a few documents, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from serving.retrieval.documents_store import (
    create_collection,
    get_collection,
    remove_documents,
    replace_document,
)
from serving.retrieval.embedders import EmbedderSource, FloatArray
from serving.retrieval.embedders.protocol import normalise, require_fitting
from serving.retrieval.passages import document_id, passage_id, text_digest
from serving.retrieval.records import Document, Passage
from whet.context import Context
from whet.database import writing


class WordEmbedder:
    """Each word is a fixed random direction; a text is the sum of its words."""

    dimension = 32
    max_tokens = 64

    def __init__(self, identity: str = "words-1") -> None:
        self.identity = identity
        self.embedded: list[str] = []  # every passage it was asked for

    def embed_passages(self, texts: Sequence[str]) -> FloatArray:
        require_fitting([self.count_tokens(text) for text in texts], self.max_tokens)
        self.embedded += texts
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> FloatArray:
        words = text.lower().replace("?", " ").split()
        return normalise(np.sum([self._direction(word) for word in [*words, ""]], axis=0))

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def _direction(self, word: str) -> FloatArray:
        seed = hashlib.sha256(f"{self.identity}{word}".encode()).digest()[:8]
        return np.random.default_rng(list(seed)).standard_normal(self.dimension).astype(np.float32)


def open_words(_: EmbedderSource) -> WordEmbedder:
    return WordEmbedder()


def add_collection(context: Context, name: str = "manual") -> None:
    with writing(context.database) as connection:
        if get_collection(connection, name) is None:
            create_collection(connection, name, embedder="", chunk_tokens=64, now=1)


def add_document(
    context: Context,
    address: str,
    *texts: str,
    collection: str = "manual",
    title: str = "",
    section: str = "",
    **over: object,
) -> str:
    """Add or replace a document with these passages; returns its id."""
    found = document_id(collection, address)
    passages = []
    for position, text in enumerate(texts):
        digest = text_digest(title, section, text)
        passages.append(
            Passage(
                id=passage_id(found, position, digest), collection=collection, document_id=found,
                position=position, section=section, text=text, tokens=len(text.split()),
            )
        )  # fmt: skip
    document = Document(
        id=found, collection=collection, address=address, title=title, media_type="text/plain",
        language="en", content_sha256=hashlib.sha256(repr((title, texts)).encode()).hexdigest(),
        **over,
    )  # fmt: skip
    with writing(context.database) as connection:
        replace_document(connection, document, passages, 1)
    return found


def remove_document(context: Context, address: str, collection: str = "manual") -> None:
    with writing(context.database) as connection:
        remove_documents(connection, collection, [document_id(collection, address)], 2)
