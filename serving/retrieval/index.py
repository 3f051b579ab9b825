"""A collection's index: both legs and what filters ask, built from its rows and opened whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.retrieval.embedders import EmbedderSource, FloatArray
from serving.retrieval.filters import IndexedDocument, document_mask
from serving.retrieval.fusion import Fusion, fuse
from serving.retrieval.index_files import Generation, IndexFilesError
from serving.retrieval.lexical_index import LexicalBuilder, LexicalIndex
from serving.retrieval.passages import SECTION_SEPARATOR
from serving.retrieval.records import Document, Mode, Passage
from serving.retrieval.vector_index import GRAPH_FROM, VectorIndex, best, write_vectors
from whet.json_types import JsonObject

CANDIDATES = 200  # of each leg
_LANGUAGES = 4  # the most frequent of a collection, by which a question's words are stemmed
_SCORED = 32  # candidates whose cosines are computed at once
_ID_BYTES = 40  # the column's length
FORMAT = 2  # of a generation's files; one of another number is built anew


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation was built from."""

    collection_digest: str
    embedder: str  # its identity
    source: EmbedderSource = EmbedderSource()
    passages: int
    dimension: int
    languages: list[str]
    built_at: int
    format: int = 1


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that the index proposes; search resolves it against its row."""

    passage_id: str
    score: float
    lexical_rank: int | None
    vector_rank: int | None


class IndexBuilder:
    """Collects passages with their vectors, and writes a generation."""

    def __init__(self, dimension: int, *, graph_from: int = GRAPH_FROM) -> None:
        self._dimension = dimension
        self._graph_from = graph_from
        self._lexical = LexicalBuilder()
        self._ids: list[str] = []
        self._vectors: list[NDArray[np.float16]] = []
        self._documents: dict[str, int] = {}
        self._indexed: list[IndexedDocument] = []
        self._document_of: list[int] = []
        self._languages: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, passage: Passage, document: Document, vector: NDArray[np.float16]) -> None:
        """Add the next passage."""
        if document.id not in self._documents:
            self._documents[document.id] = len(self._indexed)
            self._indexed.append(_indexed(document))
        self._languages[document.language] = self._languages.get(document.language, 0) + 1
        self._lexical.add(_heading(document, passage), passage.text, document.language)
        self._ids.append(passage.id)
        self._vectors.append(vector)
        self._document_of.append(self._documents[document.id])

    def write(
        self, folder: Path, *, digest: str, embedder: str, source: EmbedderSource, now: int
    ) -> None:
        """Write all files of the generation into `folder`."""
        by_frequency = sorted(self._languages, key=lambda name: (-self._languages[name], name))
        manifest = Manifest(
            collection_digest=digest,
            embedder=embedder,
            source=source,
            passages=len(self._ids),
            dimension=self._dimension,
            languages=[name for name in by_frequency if name][:_LANGUAGES],
            built_at=now,
            format=FORMAT,
        )
        vectors = np.zeros((len(self._vectors), self._dimension), np.float16)
        for row, vector in enumerate(self._vectors):
            vectors[row] = vector
        write_vectors(folder, vectors, graph_from=self._graph_from)
        self._lexical.write(folder)
        np.save(folder / "ids.npy", np.array(self._ids, f"S{_ID_BYTES}"))
        np.save(folder / "document_of.npy", np.array(self._document_of, np.int32))
        (folder / "documents.json").write_bytes(msgspec.json.encode(self._indexed))
        (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def _indexed(document: Document) -> IndexedDocument:
    return IndexedDocument(
        id=document.id,
        address=document.address,
        language=document.language,
        title=document.title,
        metadata=document.metadata,
    )


def _heading(document: Document, passage: Passage) -> str:
    """Return title and headings, in which words count more than in the text."""
    parts = dict.fromkeys([document.title, *passage.section.split(SECTION_SEPARATOR)])
    return "\n".join(filter(None, parts))


class Index:
    """An open generation."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        folder = generation.folder
        self.name = folder.name
        self.manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        if self.manifest.format != FORMAT:
            generation.close()
            raise IndexFilesError(
                f"The index in {folder} has format {self.manifest.format}; expected {FORMAT}.",
                hint="The retrieval process builds it anew; `whet documents reindex` does so now.",
            )
        self._documents = msgspec.json.decode(
            (folder / "documents.json").read_bytes(), type=list[IndexedDocument]
        )
        self._ids = np.load(folder / "ids.npy", mmap_mode="r")
        self._document_of = np.load(folder / "document_of.npy", mmap_mode="r")
        self._lexical = LexicalIndex(folder, self.manifest.passages)
        self._vectors = VectorIndex(folder)

    def close(self) -> None:
        """Let the generation be removed. The index is not used afterwards."""
        self._generation.close()

    def passage_ids(self) -> Iterable[str]:
        return (value.decode() for value in self._ids)

    def search(
        self,
        query: str,
        vector: FloatArray | None,
        *,
        mode: Mode,
        given_filter: JsonObject,
        count: int = CANDIDATES,
        fusion: Fusion,
    ) -> Iterator[Candidate]:
        """Yield candidates, best first; what is not asked for is not computed.

        Without a vector the lexical leg answers alone, and scores are its estimate.
        """
        mask = None
        if given_filter:
            mask = document_mask(self._documents, given_filter)[self._document_of]
        count = max(count, CANDIDATES)
        lexical = vectors = np.zeros(0, np.int64)
        shares = None
        if mode is not Mode.VECTOR or vector is None:
            shares = self._lexical.score(query, self.manifest.languages)
            lexical = best(shares, count, mask, above=0.0)
        if mode is not Mode.LEXICAL and vector is not None:
            vectors, _ = self._vectors.nearest(vector, count, mask)
        rows = self._rank(lexical, vectors, fusion)
        lexical_ranks = {row: rank for rank, row in enumerate(lexical.tolist(), start=1)}
        vector_ranks = {row: rank for rank, row in enumerate(vectors.tolist(), start=1)}
        for at in range(0, len(rows), _SCORED):
            some = rows[at : at + _SCORED]
            for row, score in zip(some.tolist(), self._scores(some, vector, shares), strict=True):
                yield Candidate(
                    passage_id=self._ids[row].decode(),
                    score=score,
                    lexical_rank=lexical_ranks.get(row),
                    vector_rank=vector_ranks.get(row),
                )

    def _scores(
        self, rows: NDArray[np.int64], vector: FloatArray | None, shares: FloatArray | None
    ) -> list[float]:
        if vector is not None:
            found: list[float] = np.clip(self._vectors.cosines(vector, rows), 0.0, 1.0).tolist()
            return found
        assert shares is not None
        return [float(share) for share in shares[rows]]

    def _rank(
        self, lexical: NDArray[np.int64], vectors: NDArray[np.int64], fusion: Fusion
    ) -> NDArray[np.int64]:
        if len(lexical) and len(vectors):
            return fuse(lexical, vectors, self._document_of, fusion)[0]
        return lexical if len(lexical) else vectors
