"""Files that API keys uploaded through /v1/files, each key's in a folder of its own.

`WHET_HOME/files/<key id>/` holds for each file `<id>.json` (an `ApiFile`) and `<id>.content`, and
for each batch `<id>.batch`. They stay until the key deletes them or is revoked; what was made of them in a
collection is rows of its own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from serving.retrieval.sources import printable
from serving.retrieval.uploads import check_address
from whet.errors import ConflictError, NotFoundError, WhetError
from whet.ids import ALPHABET, new_id

MOST_FILES = 2000  # of one key
MOST_BYTES = 2 << 30  # of one key's files
# On the disk besides: the interaction log stands on it, and without it nothing is answered.
KEPT_FREE = 1 << 30
_ID = re.compile(rf"(file|vsfb)_[{ALPHABET}]{{22}}")


class DiskFullError(WhetError):
    """There is no room for an upload."""

    code = "disk_full"
    status = 507


class ApiFile(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file."""

    id: str
    name: str
    bytes: int
    purpose: str
    created_at: int  # milliseconds since 1970


class FileBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Files that were put into a vector store at once."""

    id: str
    store: str
    file_ids: list[str]
    created_at: int


class ApiFiles:
    """The files of one key."""

    def __init__(self, home: Path, key_id: str) -> None:
        self.folder = home / "files" / key_id

    def begin(self, now: int) -> Path:
        """Return the path that the content of a new file goes to.

        Raises ConflictError when the key has too many, DiskFullError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        files = self.load()
        if len(files) >= MOST_FILES or sum(file.bytes for file in files) >= MOST_BYTES:
            raise ConflictError(
                f"This key has {len(files):,} files; at most {MOST_FILES:,} files and "
                f"{MOST_BYTES >> 30} GiB are kept.",
                hint="Delete files that are in their stores: the stores keep what was read.",
            )
        if shutil.disk_usage(self.folder).free < KEPT_FREE:
            raise DiskFullError("The disk has too little room for uploads.")
        return self.folder / f"{new_id('file', at=now)}.part"

    def complete(self, part: Path, name: str, purpose: str, now: int) -> ApiFile:
        """Keep the content at `part` as a file. Raises InputError for a name that is not read."""
        check_address(name)
        size = part.stat().st_size
        name = printable(name)
        file = ApiFile(id=part.stem, name=name, bytes=size, purpose=purpose, created_at=now)
        part.rename(self.content(file.id))
        self._write(self.folder / f"{file.id}.json", file)
        return file

    def load(self) -> list[ApiFile]:
        """Return all files, oldest first."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=ApiFile))
            except FileNotFoundError:  # deleted just now
                continue
        return found

    def get(self, file_id: str) -> ApiFile:
        """Return a file. Raises NotFoundError."""
        return msgspec.json.decode(self._read(file_id, ".json", "file"), type=ApiFile)

    def content(self, file_id: str) -> Path:
        """Return the path of a file's content."""
        return self.folder / f"{file_id}.content"

    def remove(self, file_id: str) -> None:
        """Delete a file. Raises NotFoundError."""
        self.get(file_id)
        (self.folder / f"{file_id}.json").unlink(missing_ok=True)
        self.content(file_id).unlink(missing_ok=True)

    def add_batch(self, store: str, file_ids: list[str], now: int) -> FileBatch:
        """Note which files were put into a store at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        batch = FileBatch(id=new_id("vsfb", at=now), store=store, file_ids=file_ids, created_at=now)
        self._write(self.folder / f"{batch.id}.batch", batch)
        return batch

    def get_batch(self, batch_id: str) -> FileBatch:
        """Return a batch. Raises NotFoundError."""
        return msgspec.json.decode(self._read(batch_id, ".batch", "file batch"), type=FileBatch)

    def remove_batches(self, store: str) -> None:
        """Forget the batches of a store."""
        for path in self.folder.glob("*.batch"):
            if msgspec.json.decode(path.read_bytes(), type=FileBatch).store == store:
                path.unlink(missing_ok=True)

    def _read(self, given: str, suffix: str, what: str) -> bytes:
        if _ID.fullmatch(given):
            try:
                return (self.folder / f"{given}{suffix}").read_bytes()
            except FileNotFoundError:
                pass
        raise NotFoundError(f"There is no {what} {given[:80]!r} of this key.")

    def _write(self, path: Path, value: msgspec.Struct) -> None:
        scratch = path.with_name(path.name + ".tmp")
        scratch.write_bytes(msgspec.json.encode(value))
        os.replace(scratch, path)


def remove_files_of_others(home: Path, key_ids: Collection[str]) -> int:
    """Remove the folders of keys that are not among `key_ids`; return how many."""
    root = home / "files"
    gone = [one for one in root.iterdir() if one.name not in key_ids] if root.is_dir() else []
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return len(gone)
