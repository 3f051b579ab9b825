"""Brings files into a collection: reads, parses and divides what changed, and writes it.

Every document is a transaction of its own, so that a run that is killed has lost nothing and the
next one goes on. A file that cannot be parsed becomes a failed document with its reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Engine

from serving.retrieval import chunking
from serving.retrieval.documents_store import (
    FAILED,
    documents_of,
    remove_documents,
    replace_document,
)
from serving.retrieval.parsing.blocks import ParsedDocument, ParseError
from serving.retrieval.parsing.process import ParserProcess
from serving.retrieval.passages import document_id, passage_id, text_digest
from serving.retrieval.records import Collection, Document, Notice, Passage
from serving.retrieval.sources import FoundFile, Scan
from serving.retrieval.splitting import CountTokens
from whet.database import reading, writing
from whet.errors import ConflictError
from whet.json_types import JsonObject

PARSER_VERSION = 2  # raise it when a parser reads the same file otherwise
REMOVED_AT_ONCE = 0.2  # share of a source's documents; a scan that loses more asks first
_MEDIA_TYPE_UNKNOWN = "application/octet-stream"


@dataclass
class IngestReport:
    """What a run did."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0  # of added and changed documents
    failed: list[tuple[str, str]] = field(default_factory=list)  # (address, reason)
    notices: list[tuple[str, Notice]] = field(default_factory=list)  # (address, what)
    kept: str = ""  # why documents that are gone were kept

    def counts(self) -> dict[str, int]:
        """Return how many of each, as printed and recorded."""
        return {
            "added": self.added,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "failed": len(self.failed),
            "passages": self.passages,
        }


@dataclass(frozen=True)
class Divider:
    """How documents are divided: the embedder's counter, and which embedder it is."""

    count: CountTokens
    identity: str

    def pipeline(self, chunk_tokens: int) -> str:
        """Return what `documents.pipeline` says of documents that are divided now."""
        counter = hashlib.sha256(self.identity.encode()).hexdigest()[:16]
        return f"p{PARSER_VERSION}-c{chunking.VERSION}-{chunk_tokens}-{counter}"


OnDocument = Callable[[int, int, str], None]  # (files done, files in all, address)


class Ingest:
    """One run over scanned files into one collection."""

    def __init__(
        self,
        database: Engine,
        collection: Collection,
        divider: Divider,
        *,
        metadata: JsonObject | None = None,
        now: int,
    ) -> None:
        """`metadata` replaces that of every document; None keeps what documents have."""
        self._database = database
        self._collection = collection
        self._divider = divider
        self._metadata = metadata
        self._now = now
        self._pipeline = divider.pipeline(collection.chunk_tokens)
        self.report = IngestReport()  # filled while `run` goes on

    def run(self, scan: Scan, on_document: OnDocument | None = None) -> IngestReport:
        """Add every file of the scan that is new or changed."""
        known = self._known()
        with ParserProcess() as parser:
            for number, file in enumerate(scan.files, start=1):
                self._take(file, known.get(file.address), parser)
                if on_document:
                    on_document(number, len(scan.files), file.address)
        return self.report

    def remove_missing(self, scan: Scan, *, is_sure: bool = False) -> IngestReport:
        """Remove documents of the scanned folders whose files are gone.

        Nothing is removed after a scan that failed in part or found nothing. Raises ConflictError
        when more than `REMOVED_AT_ONCE` of them would go, unless `is_sure`.
        """
        if scan.errors or not scan.files:
            self.report.kept = scan.errors[0] if scan.errors else "No file was found."
            return self.report
        addresses = {file.address for file in scan.files}
        listed = [doc for doc in self._known().values() if doc.source in scan.folders]
        gone = [document for document in listed if document.address not in addresses]
        if len(gone) > len(listed) * REMOVED_AT_ONCE and not is_sure:
            raise ConflictError(
                f"{len(gone)} of {len(listed)} documents are gone from {', '.join(scan.folders)}, "
                f"such as {gone[0].address!r}; nothing was removed.",
                hint="Repeat it with --yes to remove them.",
            )
        with writing(self._database) as connection:
            ids = [document.id for document in gone]
            self.report.removed = remove_documents(
                connection, self._collection.name, ids, self._now
            )
        return self.report

    def _known(self) -> dict[str, Document]:
        with reading(self._database) as connection:
            found = documents_of(connection, self._collection.name)
        return {document.address: document for document in found}

    def _take(self, file: FoundFile, before: Document | None, parser: ParserProcess) -> None:
        if before is not None and before.source != file.source:
            self._fail(
                file.address,
                f"Its address belongs to a document from {before.source!r}. "
                "Give this one a --prefix, or the same --source.",
            )
            return
        try:
            content = file.read()
        except OSError as error:  # what was known of it stays: it may be readable again
            self._fail(file.address, f"It cannot be read: {error.strerror or error}.")
            return
        document = self._document(file, content, before)
        if before is not None and _is_same(before, document):
            self.report.unchanged += 1
            return
        try:
            parsed = parser.parse(file.name, content)
        except ParseError as error:
            self._write(msgspec.structs.replace(document, state=FAILED, error=str(error)), [])
            self._fail(file.address, str(error))
            return
        self._add(document, parsed, before)

    def _document(self, file: FoundFile, content: bytes, before: Document | None) -> Document:
        kept = before.metadata if before is not None else {}
        given = self._metadata if file.metadata is None else file.metadata
        return Document(
            id=document_id(self._collection.name, file.address),
            collection=self._collection.name,
            address=file.address,
            title=file.name,
            media_type=_MEDIA_TYPE_UNKNOWN,
            language="",
            source=file.source,
            content_sha256=hashlib.sha256(content).hexdigest(),
            pipeline=self._pipeline,
            metadata=kept if given is None else given,
            updated_at=file.updated_at,
            added_at=before.added_at if before is not None else self._now,
        )

    def _add(self, document: Document, parsed: ParsedDocument, before: Document | None) -> None:
        limit, count = self._collection.chunk_tokens, self._divider.count
        title = chunking.shorten_title(parsed.title or document.title, limit, count)
        notices = list(parsed.notices)
        chunks = chunking.chunk(title, parsed.blocks, limit, count)
        if not chunks:
            notices.append(Notice("no_text"))
        document = msgspec.structs.replace(
            document,
            title=title,
            media_type=parsed.media_type,
            language=parsed.language,
            notices=notices,
        )
        self._write(document, _passages(document, chunks))
        self.report.passages += len(chunks)
        self.report.notices += [(document.address, notice) for notice in notices]
        if before is None or before.state == FAILED:
            self.report.added += 1
        else:
            self.report.changed += 1

    def _write(self, document: Document, new: Sequence[Passage]) -> None:
        with writing(self._database) as connection:
            replace_document(connection, document, new, self._now)

    def _fail(self, address: str, reason: str) -> None:
        self.report.failed.append((address, reason))


def _is_same(before: Document, now: Document) -> bool:
    """Tell whether nothing is to do. What failed is tried again: the machine may have been busy."""
    if before.state == FAILED:
        return False
    fields = ("content_sha256", "pipeline", "metadata")
    return all(getattr(before, name) == getattr(now, name) for name in fields)


def _passages(document: Document, chunks: Sequence[chunking.Chunk]) -> list[Passage]:
    return [
        Passage(
            id=passage_id(
                document.id, position, text_digest(document.title, chunk.section, chunk.text)
            ),
            collection=document.collection,
            document_id=document.id,
            position=position,
            section=chunk.section,
            text=chunk.text,
            tokens=chunk.tokens,
            page=chunk.page,
        )
        for position, chunk in enumerate(chunks)
    ]
