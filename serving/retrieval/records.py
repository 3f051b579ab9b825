"""What the parts of retrieval hand each other: a search, its hits, and the rows behind them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

import msgspec

FILE_ID = "file_id"  # in a document's metadata: the uploaded file that it was made from


class Mode(StrEnum):
    """Which ranking answers a search."""

    HYBRID = "hybrid"  # both, fused
    LEXICAL = "lexical"  # BM25
    VECTOR = "vector"


class Outcome(StrEnum):
    """How a search ended. Nothing found, a failure and no permission are three things."""

    FOUND = "found"
    EMPTY = "empty"  # the search ran; nothing is above the threshold
    FAILED = "failed"  # nothing is known about what could have been found
    FORBIDDEN = "forbidden"  # there is no such collection for this key


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `collections`."""

    name: str
    description: str = ""
    embedder: str  # identity of whose vectors the index has
    chunk_tokens: int  # of the embedder, headings included
    allowed_keys: list[str] | None = None  # ids of API keys; None: every key may read it
    settings: dict[str, Any] = {}
    digest: str = ""  # of the indexed documents: equal digests have equal passages
    created_at: int = 0  # milliseconds since 1970
    updated_at: int = 0


class Notice(msgspec.Struct, frozen=True):
    """Something that a parser left out of a document's text, or could not read in it."""

    code: str  # such as `hidden_text`
    count: int = 1


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `documents`."""

    id: str
    collection: str
    address: str  # a path relative to the folder that was added, or a URL
    title: str
    media_type: str
    language: str  # ISO 639-1; empty: unknown
    source: str = ""  # what was added: a folder, a file, a URL, or a label
    content_sha256: str
    pipeline: str = ""  # of the parser, the chunker and the counter that made the passages
    metadata: dict[str, Any] = {}
    state: str = "indexed"  # indexed | failed
    error: str | None = None
    notices: list[Notice] = []
    passages: int = 0
    updated_at: int | None = None  # of the source, milliseconds since 1970; None: unknown
    added_at: int = 0

    @property
    def file_id(self) -> str:
        """The id of its file in /v1/vector_stores: its own for one that was not uploaded there."""
        return str(self.metadata.get(FILE_ID) or self.id)


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `passages`: what is searched, and what enters a prompt."""

    id: str
    collection: str
    document_id: str
    position: int  # within the document, from 0
    section: str  # headings from the outermost, joined by " > "
    text: str  # without the headings
    tokens: int  # of the embedder, headings included
    page: int | None = None  # where it begins, from 1, where the format has pages


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One search. `filter` is `{"field": value | [values]}` over a document's metadata, its
    `address`, `language` and `title`; all have to hold."""

    collection: str
    query: str
    top_k: int = 4
    min_score: float = 0.0  # hits below are left out
    filter: dict[str, Any] = {}
    mode: Mode = Mode.HYBRID
    neighbours: int = 0  # passages before and after each hit that come with its text


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that was found, resolved against its row."""

    passage_id: str
    document_id: str
    collection: str
    title: str
    address: str
    section: str
    text: str
    score: float  # 0 to 1, comparable within one embedder: the cosine, or its estimate without one
    lexical_rank: int | None = None  # from 1; None: not among the candidates of that ranking
    vector_rank: int | None = None
    rerank_score: float | None = None  # of the reranker, in its own scale; None: without one
    metadata: dict[str, Any] = {}

    @property
    def file_id(self) -> str:
        """The id of its document's file in /v1/vector_stores."""
        return str(self.metadata.get(FILE_ID) or self.document_id)


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The hits, best first, and the state of the collection they were found in."""

    outcome: Outcome
    hits: list[Hit] = []
    collection_digest: str = ""  # of the documents that the index was built from
    is_stale: bool = False  # the documents have changed since
    dropped: int = 0  # hits of the index without a living row
    took_ms: float = 0.0
    message: str = ""  # why it failed, for people


class Searcher(Protocol):
    """Whoever answers searches: the retrieval process, or an index in this process."""

    async def search(self, request: SearchRequest) -> SearchResult:
        """Return the best passages. Never raises for a search that failed: its outcome says so."""
        ...
