"""Finds the files of folders, single files and URLs, and says under which address each goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from serving.retrieval.parsing.suffixes import KNOWN_SUFFIXES
from whet.errors import InputError, NotFoundError
from whet.json_types import JsonObject

_LEFT_OUT_FOLDERS = frozenset(("node_modules", "__pycache__"))  # besides hidden ones
_REMOTE = "://"
_WEB = ("http://", "https://")


@dataclass(frozen=True)
class FoundFile:
    """A file that can be read as a document."""

    address: str
    source: str
    name: str
    read: Callable[[], bytes]  # raises OSError
    updated_at: int | None  # milliseconds since 1970
    metadata: dict[str, Any] | None = None  # in place of the run's; None: the run's


@dataclass
class Scan:
    """What was found, and whether all of it was seen."""

    files: list[FoundFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # sources that were listed
    unknown: Counter[str] = field(default_factory=Counter)  # files left out, by their ending
    errors: list[str] = field(default_factory=list)  # why a part was not seen

    def sentence_on_unknown(self) -> str:
        """Say which files were left out for their type; empty when there were none."""
        if not self.unknown:
            return ""
        told = ", ".join(f"{suffix} ({count})" for suffix, count in self.unknown.most_common())
        return f"Left out, because their type is not read: {told}."


def scan(
    paths: Iterable[str],
    *,
    source: str = "",
    prefix: str = "",
    known_sources: Sequence[str] = (),
) -> Scan:
    """List the files of `paths`: files, folders, or URLs that fsspec opens.

    `source` names where they come from, instead of the path itself; `prefix` goes in front of
    every address. A single file under one of `known_sources` gets the address it has there.
    Hidden files, and links that lead out of their folder, are left out. Raises NotFoundError for
    a path that is not there.
    """
    found = Scan()
    for path in paths:
        if _REMOTE in path:
            _scan_remote(path, source, prefix, found)
        else:
            _scan_local(Path(path).expanduser(), source, prefix, known_sources, found)
    _check_addresses(found.files)
    return found


def _check_addresses(files: list[FoundFile]) -> None:
    counts = Counter(file.address for file in files)
    twice = [address for address, count in counts.items() if count > 1]
    if twice:
        raise InputError(
            f"{len(twice)} addresses come from two of these paths, such as {twice[0]!r}.",
            hint="Add the paths one by one, with a --prefix for each.",
        )


def _scan_local(
    path: Path, source: str, prefix: str, known_sources: Sequence[str], found: Scan
) -> None:
    path = Path(os.path.abspath(path))
    if path.is_dir():
        root = source or str(path)
        found.folders.append(root)
        for file in _walk(path, found):
            _take_local(file, path, root, prefix, found)
    elif path.is_file():
        over = [Path(known) for known in known_sources if path.is_relative_to(known)]
        base = max(over, key=lambda one: len(one.parts)) if over else path.parent
        _take_local(path, base, source or (str(base) if over else str(path)), prefix, found)
    else:
        raise NotFoundError(f"There is no file or folder {str(path)!r}.")


def _walk(folder: Path, found: Scan) -> Iterator[Path]:
    def note(error: OSError) -> None:
        found.errors.append(f"{error.filename}: {error.strerror}")

    real = folder.resolve()
    for place, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if _is_seen(name))
        for name in sorted(names):
            file = Path(place, name)
            is_inside = not file.is_symlink() or file.resolve().is_relative_to(real)
            if _is_seen(name) and is_inside and file.is_file():
                yield file


def _is_seen(name: str) -> bool:
    return not name.startswith(".") and name not in _LEFT_OUT_FOLDERS


def _take_local(file: Path, base: Path, source: str, prefix: str, found: Scan) -> None:
    suffix = file.suffix.lower()
    if suffix not in KNOWN_SUFFIXES:
        found.unknown[suffix or "without an ending"] += 1
        return
    address = prefix + printable(file.relative_to(base).as_posix())
    try:
        updated_at = file.stat().st_mtime_ns // 1_000_000
    except OSError:
        updated_at = None
    found.files.append(
        FoundFile(address, printable(source), file.name, file.read_bytes, updated_at)
    )


def _scan_remote(url: str, source: str, prefix: str, found: Scan) -> None:
    try:
        system, path = url_to_fs(url)
        listing: dict[str, Any] = system.find(path, detail=True)
    except (ImportError, OSError, ValueError) as error:
        raise NotFoundError(
            f"{url!r} cannot be listed: {error}.",
            hint="Its protocol may need a package of fsspec's, such as s3fs.",
        ) from None
    if not listing:
        raise NotFoundError(f"There is nothing at {url!r}.")
    is_folder = set(listing) != {path}
    if is_folder:
        found.folders.append(source or url)
    for name, detail in sorted(listing.items()):
        inside = PurePosixPath(name).relative_to(path) if is_folder else PurePosixPath(name).name
        _take_remote(system, name, str(inside), source or url, url, prefix, detail, found)


def _take_remote(
    system: fsspec.AbstractFileSystem,
    name: str,
    inside: str,
    source: str,
    url: str,
    prefix: str,
    detail: JsonObject,
    found: Scan,
) -> None:
    if not all(map(_is_seen, PurePosixPath(inside).parts)):
        return
    suffix = PurePosixPath(inside).suffix.lower()
    if suffix not in KNOWN_SUFFIXES:
        found.unknown[suffix or "without an ending"] += 1
        return
    address = url if url.startswith(_WEB) and not prefix else prefix + printable(inside)
    modified = detail.get("mtime")
    updated_at = int(modified * 1000) if isinstance(modified, int | float) else None
    found.files.append(
        FoundFile(address, printable(source), inside, lambda: system.cat_file(name), updated_at)
    )


def printable(name: str) -> str:
    """Return a file's name with what cannot be stored or shown written as an escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )
