"""The file store: datasets, adapters, reports and the pinned base model, content-addressed and
immutable.

Writing is all or nothing: a folder is filled under a temporary name, flushed, made read-only and
renamed into place, so a killed process leaves at most a temporary folder that nobody reads.

The engine reads adapters from a local folder. With an S3-compatible `store_url`, `local_copy` keeps
a local cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fsspec

from whet.errors import ConfigurationError, StoreError
from whet.urls import mask_secrets, mask_url

_READ_BLOCK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """The one byte form of plain data that digests are taken of: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest_bytes(content: bytes) -> str:
    """SHA-256, 64 hexadecimal characters."""
    return hashlib.sha256(content).hexdigest()


def digest_json(value: Any) -> str:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digest_files(folder: Path, names: Iterable[str]) -> str:
    """One digest for several files of a folder: of the sorted list of names and their digests."""
    return digest_json([[name, digest_file(folder / name)] for name in sorted(names)])


def base_model_digest(folder: Path) -> str:
    """Identity of a base model: its weights, configuration, tokenizer and template; nothing else in
    the folder counts.

    Raises StoreError when the folder is not a model that can be pinned.
    """
    wanted = (
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "chat_template.jinja",
    )
    names = [name for name in wanted if (folder / name).is_file()]
    weights = [path.name for path in folder.glob("*.safetensors")]
    if not weights or "config.json" not in names:
        raise StoreError(
            f"{folder} is not a usable base model: expected config.json and *.safetensors, found"
            f" {sorted(p.name for p in folder.glob('*'))[:8] if folder.is_dir() else 'no such folder'}.",
            hint="Set WHET_BASE_MODEL to a folder in Hugging Face format with safetensors weights.",
        )
    return digest_files(folder, [*names, *weights])


# Parts of a base model that are cheap to hash; what is left are the weights.
_BASE_PARTS = {
    "configuration": ("config.json",),
    "tokenizer": ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
    "chat template": ("chat_template.jinja",),
}


def base_model_parts(folder: Path) -> dict[str, str]:
    """Part → digest of its files, so that two bases with different digests can be told apart by
    their cause. A template that lies in `tokenizer_config.json` counts as tokenizer.
    """
    return {
        part: digest_files(folder, [name for name in names if (folder / name).is_file()])
        for part, names in _BASE_PARTS.items()
    }


class Store:
    """Content under a root that fsspec understands (a local folder, `s3://bucket/prefix`, …)."""

    def __init__(self, url: str, cache: Path | None = None) -> None:
        """Raises ConfigurationError for a URL that no file system here understands."""
        try:
            self.filesystem, self.root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"The store URL {mask_url(url)!r} cannot be used: {mask_secrets(str(error), url)}.",
                hint="Correct WHET_STORE_URL, or install the package that its scheme needs.",
            ) from None
        self.is_local = isinstance(self.filesystem, fsspec.implementations.local.LocalFileSystem)
        self._cache = cache or Path(tempfile.gettempdir()) / "whet-store-cache"

    def _full(self, path: str) -> str:
        parts = Path(path).parts
        if not path or path.startswith("/") or ".." in parts:
            raise StoreError(f"{path!r} is not a path inside the store.")
        return f"{self.root}/{path}"

    def put_folder(self, path: str, fill: Callable[[Path], None]) -> str:
        """Create the folder `path` with what `fill(temporary_folder)` writes; returns `path`.

        If `path` exists already, its content is what the same digest means, and nothing is written.
        Raises StoreError (disk full, no permission) and leaves no half folder behind.
        """
        if self.exists(path):
            return path
        scratch_parent = Path(self.root) / ".tmp" if self.is_local else self._cache
        try:
            scratch_parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=scratch_parent))
        except OSError as error:
            raise StoreError(
                f"Nothing can be written to the store at {self.root}: {error.strerror}.",
                hint="Free disk space or check the folder's permissions.",
            ) from error
        try:
            fill(scratch)
            for file in scratch.rglob("*"):
                if file.is_file():
                    _flush(file)
                    file.chmod(0o444)
            self._publish(scratch, path)
        except OSError as error:
            raise StoreError(
                f"Writing {path} to the store failed: {error.strerror or error}.",
                hint="Free disk space and run the command again; nothing half-written is left.",
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return path

    def _publish(self, scratch: Path, path: str) -> None:
        target = self._full(path)
        if not self.is_local:
            self.filesystem.put(str(scratch), target, recursive=True)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        scratch.chmod(0o755)
        try:
            os.rename(scratch, target)
        except OSError:
            # Somebody else published the same content first: that is success
            if not Path(target).is_dir():
                raise
        _flush(Path(target).parent)

    def exists(self, path: str) -> bool:
        return bool(self.filesystem.exists(self._full(path)))

    def read_bytes(self, path: str) -> bytes:
        """Content of one file. Raises StoreError when it is missing."""
        try:
            return bytes(self.filesystem.cat_file(self._full(path)))
        except FileNotFoundError as error:
            raise StoreError(
                f"The store has no file {path}.",
                hint="Run `whet doctor` to compare the store with the database.",
            ) from error

    def read_json(self, path: str) -> Any:
        return json.loads(self.read_bytes(path))

    def put_json(self, path: str, value: Any) -> str:
        """Write one JSON document in one step; an existing one is replaced.

        Raises StoreError (disk full, no permission), and an existing one stays.
        """
        full = self._full(path)
        body = json.dumps(value, ensure_ascii=False).encode()
        try:
            self.filesystem.makedirs(str(Path(full).parent), exist_ok=True)
            if self.is_local:
                scratch = Path(full).with_suffix(f".{os.getpid()}.tmp")
                scratch.write_bytes(body)
                os.replace(scratch, full)
            else:
                self.filesystem.pipe_file(full, body)
        except OSError as error:
            raise StoreError(
                f"Writing {path} to the store failed: {error.strerror or error}.",
                hint="Free disk space or check the permissions of the store's folder.",
            ) from error
        return path

    def local_folder(self, path: str) -> Path:
        """A folder on this machine with the content of `path`; fetched into the cache when the
        store is remote.

        Raises StoreError when it is missing.
        """
        if not self.exists(path):
            raise StoreError(
                f"The store has no folder {path}.",
                hint="Run `whet doctor` to compare the store with the database.",
            )
        if self.is_local:
            return Path(self._full(path))
        target = self._cache / path
        if not target.is_dir():
            scratch = Path(tempfile.mkdtemp(dir=self._cache))
            self.filesystem.get(self._full(path), str(scratch / "content"), recursive=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / "content", target)
            shutil.rmtree(scratch, ignore_errors=True)
        return target

    def remove_folder(self, path: str) -> None:
        full = self._full(path)
        if self.filesystem.exists(full):
            self.filesystem.rm(full, recursive=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
