"""Reads what the console or the gateway received into its collection, then builds the index.

`python -m serving.retrieval.upload_worker COLLECTION`: a process of its own, so that neither the
parsers' nor the embedder's work is done in those. It gives way to answers, and ends when nothing waits. A run that is
stopped or killed has lost nothing: what was not read still waits (`serving.retrieval.uploads`).
"""

from __future__ import annotations

import logging
import os
import sys
from itertools import groupby

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from serving.retrieval import documents_store as store
from serving.retrieval.administration import record_change
from serving.retrieval.embedders import Embedder, open_embedder
from serving.retrieval.ingest import Divider, Ingest
from serving.retrieval.notices import notice_text
from serving.retrieval.passages import document_id
from serving.retrieval.records import Collection
from serving.retrieval.reindex import reindex
from serving.retrieval.sources import FoundFile, Scan
from serving.retrieval.uploads import API_SOURCE, FAILED, READ, Upload, UploadFolder
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import error_text, reading, writing
from whet.errors import WhetError
from whet.settings import load_settings

_NICENESS = 10  # answers come first


def read_uploads(context: Context, name: str, embedder: Embedder, now: int) -> None:
    """Read everything that waits, and index it. Raises WhetError when that cannot be done."""
    uploads = UploadFolder(context.settings.home, name)
    with uploads.worker_lock():
        uploads.forget_old(now)
        while uploads.has_work():
            collection = _settled_collection(context, name, embedder, now)
            for actor, group in groupby(uploads.waiting(), key=lambda one: one.actor):
                batch = list(group)
                _read_batch(context, uploads, collection, embedder, batch, actor, now)
            uploads.want_index(False)  # asked for again meanwhile: the loop comes back
            if not uploads.is_paused:
                reindex(context, name, embedder)
                uploads.mark_indexed()


def _settled_collection(context: Context, name: str, embedder: Embedder, now: int) -> Collection:
    """Return the collection; a new one's passages become as short as the embedder needs."""
    with writing(context.database) as connection:
        found = store.require_collection(connection, name)
        if found.embedder:
            return found
        size = min(found.chunk_tokens, embedder.max_tokens)
        return store.update_collection(
            connection, name, embedder=embedder.identity, chunk_tokens=size, now=now
        )


def _read_batch(
    context: Context,
    uploads: UploadFolder,
    collection: Collection,
    embedder: Embedder,
    batch: list[Upload],
    actor: str,
    now: int,
) -> None:
    """Read files of one person."""
    divider = Divider(embedder.count_tokens, embedder.identity)
    newest = {upload.address: upload for upload in batch}  # the same file twice: the last counts
    run = Ingest(context.database, collection, divider, now=now)
    by_address: dict[str, list[Upload]] = {}
    for upload in batch:
        by_address.setdefault(upload.address, []).append(upload)

    def note(done: int, total: int, address: str) -> None:
        reasons = [reason for failed, reason in run.report.failed if failed == address]
        listed = [upload for upload in by_address[address] if uploads.is_listed(upload)]
        if not listed and newest[address].source == API_SOURCE:  # deleted while it was read
            with writing(context.database) as connection:
                store.remove_documents(
                    connection, collection.name, [document_id(collection.name, address)], now
                )
        for upload in listed:
            uploads.write(_with_result(context, collection.name, upload, reasons))

    files = [_found_file(uploads, upload) for upload in newest.values()]
    run.run(Scan(files=files), note)
    with writing(context.database) as connection:
        counts = run.report.counts()
        record_change(connection, "documents.add", collection.name, counts, actor=actor, now=now)


def _found_file(uploads: UploadFolder, upload: Upload) -> FoundFile:
    return FoundFile(
        address=upload.address,
        source=upload.source,
        metadata=upload.metadata,
        name=upload.address.rsplit("/", 1)[-1],
        read=uploads.content(upload).read_bytes,
        updated_at=upload.modified_at,
    )


def _with_result(context: Context, collection: str, upload: Upload, reasons: list[str]) -> Upload:
    if reasons:
        return msgspec.structs.replace(upload, state=FAILED, message=reasons[-1])
    with reading(context.database) as connection:
        found = store.get_document(connection, document_id(collection, upload.address))
    if found is None:  # removed by somebody just now
        return msgspec.structs.replace(upload, state=FAILED, message="It was removed meanwhile.")
    left_out = "; ".join(map(notice_text, found.notices))
    return msgspec.structs.replace(upload, state=READ, passages=found.passages, message=left_out)


def main() -> int:
    """Read the uploads of the collection that the command line names."""
    logging.basicConfig(level=os.environ.get("WHET_LOG_LEVEL", "INFO"))
    name = sys.argv[1]
    os.nice(_NICENESS)
    settings = load_settings()
    uploads = UploadFolder(settings.home, name)
    try:
        context = open_context(settings)
        uploads.note_problem("")
        read_uploads(context, name, open_embedder(settings), now_ms())
    except WhetError as error:
        uploads.note_problem(str(error))
        return error.exit_code
    except SQLAlchemyError as error:
        uploads.note_problem(f"The database failed: {error_text(context.database, error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
