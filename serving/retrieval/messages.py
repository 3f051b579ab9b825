"""What the retrieval process and its clients send each other besides searches."""

from __future__ import annotations

import msgspec


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to embed: as passages, or as questions where the embedder tells them apart."""

    texts: list[str]
    as_queries: bool = False


class EmbedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per text, in order."""

    vectors: list[bytes]  # float32, little-endian, of length one
    tokens: int  # of all texts, special tokens included
    embedder: str  # its identity
    dimension: int


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not answered."""

    code: str
    message: str
