"""Files that the console or the gateway received and that are not in a collection yet, on disk.

`WHET_HOME/uploads/<collection>/` holds for each file `<id>.json` (an `Upload`) and, until it was
read, `<id>.file`. Whatever is killed when: what waits is there; `upload_worker` goes on with it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from serving.retrieval.parsing.suffixes import KNOWN_SUFFIXES
from serving.retrieval.sources import printable
from whet.errors import ConflictError, InputError
from whet.ids import new_id
from whet.json_types import JsonObject

SOURCE = "console"  # `documents.source` of what was uploaded there
API_SOURCE = "api"  # of what came by /v1/vector_stores
WAITING, READ, FAILED = "waiting", "read", "failed"  # states of an upload
MOST_WAITING = 2000  # files of one collection: a larger folder is one for the command line
KEPT_MS = 3_600_000  # results are news for an hour; the documents' own page has them for good
_LONGEST_ADDRESS = 1000  # characters; longer ones fit no table
_PAUSED, _REINDEX, _LOCK, _PROBLEM = "paused", "reindex", "worker.lock", "problem"


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """One file, from its arrival to its result."""

    id: str
    address: str
    bytes: int
    actor: str
    modified_at: int | None = None  # of the file, milliseconds since 1970
    state: str = WAITING
    message: str = ""  # why it failed, or what was left out of it
    passages: int = 0
    created_at: int = 0
    source: str = SOURCE
    metadata: dict[str, Any] | None = None  # of the document; None: what it had before
    is_indexed: bool = False  # an index was built since it was read


class UploadFolder:
    """The uploads of one collection."""

    def __init__(self, home: Path, collection: str) -> None:
        self.folder = home / "uploads" / collection

    def begin(self, address: str, now: int) -> Path:
        """Return the path that the content of a new file goes to. Raises InputError, ConflictError.

        `address`: the file's name, or its path in the folder that was dropped.
        """
        check_address(address)
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(list(self.folder.glob("*.file"))) >= MOST_WAITING:
            raise ConflictError(
                f"{MOST_WAITING:,} files wait to be read.",
                hint="`whet documents add NAME FOLDER` reads a large folder.",
            )
        return self.folder / f"{new_id('upl', at=now)}.part"

    def complete(
        self,
        part: Path,
        address: str,
        *,
        actor: str,
        modified_at: int | None,
        now: int,
        source: str = SOURCE,
        metadata: JsonObject | None = None,
    ) -> Upload:
        """Let the content at `part` wait to be read."""
        size = part.stat().st_size
        upload = Upload(
            id=part.stem, address=printable(address), bytes=size, actor=actor,
            modified_at=modified_at, created_at=now, source=source, metadata=metadata,
        )  # fmt: skip
        part.rename(part.with_suffix(".file"))
        self.write(upload)
        return upload

    def load(self) -> list[Upload]:
        """Return all uploads in the order of their arrival."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Upload))
            except FileNotFoundError:  # removed just now
                continue
        return found

    def waiting(self) -> list[Upload]:
        """Return what is to be read."""
        return [upload for upload in self.load() if upload.state == WAITING]

    def write(self, upload: Upload) -> None:
        """Write an upload as it is now; what was read needs its file no more."""
        path = self.folder / f"{upload.id}.json"
        scratch = path.with_suffix(".tmp")
        scratch.write_bytes(msgspec.json.encode(upload))
        os.replace(scratch, path)
        if upload.state != WAITING:
            self.content(upload).unlink(missing_ok=True)

    def is_listed(self, upload: Upload) -> bool:
        """Tell whether nobody has discarded an upload meanwhile."""
        return (self.folder / f"{upload.id}.json").exists()

    def discard(self, upload: Upload) -> None:
        """Forget an upload, read or not."""
        (self.folder / f"{upload.id}.json").unlink(missing_ok=True)
        self.content(upload).unlink(missing_ok=True)

    def mark_indexed(self) -> None:
        """Note that an index has what was read so far."""
        for upload in self.load():
            if upload.state == READ and not upload.is_indexed:
                self.write(msgspec.structs.replace(upload, is_indexed=True))

    def content(self, upload: Upload) -> Path:
        """Return the path of an upload's content."""
        return self.folder / f"{upload.id}.file"

    def clear(self) -> int:
        """Forget what was read, and throw away what waits where it is paused; return how many."""
        gone = [one for one in self.load() if self.is_paused or one.state != WAITING]
        for upload in gone:
            self.discard(upload)
        self.note_problem("")
        return len(gone)

    def forget_old(self, now: int) -> None:
        """Forget results that are no news any more."""
        for upload in self.load():
            if upload.state != WAITING and upload.created_at < now - KEPT_MS:
                (self.folder / f"{upload.id}.json").unlink(missing_ok=True)

    def remove_remains(self) -> None:
        """Remove what a killed console left: content that never arrived whole."""
        for part in self.folder.glob("*.part"):
            part.unlink(missing_ok=True)
        for content in self.folder.glob("*.file"):
            if not content.with_suffix(".json").exists():
                content.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything, with the collection."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- what the console asks of the worker ------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """Whether a person stopped it."""
        return (self.folder / _PAUSED).exists()

    def set_paused(self, paused: bool) -> None:
        """Stop reading, or go on."""
        self._mark(_PAUSED, paused)

    @property
    def is_index_wanted(self) -> bool:
        """Whether the index is to be built although no file waits."""
        return (self.folder / _REINDEX).exists()

    def want_index(self, wanted: bool) -> None:
        """Ask for the index to be built, or take that back."""
        self._mark(_REINDEX, wanted)

    @property
    def problem(self) -> str:
        """Why the worker ended before its time; empty: it did not."""
        path = self.folder / _PROBLEM
        return path.read_text() if path.exists() else ""

    def note_problem(self, problem: str) -> None:
        """Keep why the worker ended, for the page; an empty one forgets it."""
        if not self.folder.is_dir():  # the collection is removed
            return
        if problem:
            (self.folder / _PROBLEM).write_text(problem)
        else:
            (self.folder / _PROBLEM).unlink(missing_ok=True)

    def has_work(self) -> bool:
        """Tell whether a worker has something to do."""
        return not self.is_paused and (self.is_index_wanted or bool(self.waiting()))

    @contextmanager
    def worker_lock(self) -> Iterator[None]:
        """Let one worker at a time read; others wait."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def is_being_read(self) -> bool:
        """Whether a worker of any process is at work."""
        try:
            with (self.folder / _LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _mark(self, name: str, is_set: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if is_set:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink(missing_ok=True)


def check_address(address: str) -> None:
    """Raise InputError for a name that no document can have."""
    path = PurePosixPath(address)
    if not address.strip() or len(address) > _LONGEST_ADDRESS:
        raise InputError(
            f"The file's name has {len(address)} characters; expected 1 to {_LONGEST_ADDRESS:,}."
        )
    if path.is_absolute() or ".." in path.parts or "\\" in address:
        raise InputError(
            f"{address[:80]!r} is no path inside a folder.", hint="Upload the file by its name."
        )
    if path.suffix.lower() not in KNOWN_SUFFIXES:
        raise InputError(
            f"Files that end in {path.suffix.lower() or 'nothing'!r} are not read.",
            hint=f"These are: {', '.join(sorted(KNOWN_SUFFIXES))}.",
        )


def all_uploads(home: Path) -> dict[str, UploadFolder]:
    """Return the uploads of each collection that ever had any."""
    root = home / "uploads"
    names = sorted(one.name for one in root.iterdir() if one.is_dir()) if root.is_dir() else []
    return {name: UploadFolder(home, name) for name in names}
