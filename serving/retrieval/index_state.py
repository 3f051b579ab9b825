"""Says whether a collection's index is of its documents, without loading index or embedder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from serving.retrieval.embedder_source import EmbedderSource, source_of
from serving.retrieval.index_files import collection_folder, current_generation
from serving.retrieval.records import Collection
from whet.settings import Settings

_PROGRESS = "progress.json"
_NOTED_EVERY_S = 0.5  # who looks at the page sees no finer steps
Progress = Callable[[int, int], None]  # (texts embedded, texts to embed)


class State(StrEnum):
    """How an index stands to the documents of its collection."""

    EMPTY = "empty"  # there is nothing to index
    CURRENT = "up to date"
    STALE = "stale"  # documents or embedder have changed since; the old index answers
    MISSING = "no index yet"
    BUILDING = "building"  # the old index answers meanwhile, if there is one


class IndexState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one collection's index."""

    state: State
    passages: int = 0  # in the index that answers
    embedder: str = ""  # of the index that answers
    built_at: int | None = None  # milliseconds since 1970
    is_other_embedder: bool = False  # the settings name another one by now
    done: int = 0  # texts embedded so far, while it is built
    total: int = 0  # texts to embed; 0: none, or not known yet


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of `serving.retrieval.index.Manifest`."""

    collection_digest: str
    embedder: str
    passages: int
    built_at: int
    source: EmbedderSource = EmbedderSource()


class _Noted(msgspec.Struct, frozen=True):
    done: int
    total: int


def load_index_state(settings: Settings, collection: Collection) -> IndexState:
    """Return the state of the index of `collection`."""
    folder = collection_folder(settings.home, collection.name)
    manifest = _read_manifest(folder)
    noted = _read_progress(folder) if _is_being_built(folder) else None
    return judge_index(collection, manifest, source_of(settings), noted)


def judge_index(
    collection: Collection,
    manifest: _Manifest | None,
    source: EmbedderSource,
    noted: _Noted | None,
) -> IndexState:
    """Decide the state. `noted`: the progress of who builds it now; None: nobody does."""
    is_other = manifest is not None and manifest.source != source
    if noted is not None:
        state = State.BUILDING
    elif manifest is None:
        state = State.MISSING if int(collection.digest or "0", 16) else State.EMPTY
    elif is_other or manifest.collection_digest != collection.digest:
        state = State.STALE
    else:
        state = State.CURRENT if manifest.passages else State.EMPTY
    return IndexState(
        state=state,
        passages=manifest.passages if manifest else 0,
        embedder=manifest.embedder if manifest else "",
        built_at=manifest.built_at if manifest else None,
        is_other_embedder=is_other,
        done=noted.done if noted else 0,
        total=noted.total if noted else 0,
    )


@contextmanager
def noted_progress(folder: Path, on_progress: Progress | None) -> Iterator[Progress]:
    """Yield a progress function that also writes down how far it is, for other processes.

    `folder`: of the collection's index, whose `build_lock` the caller holds.
    """
    path, noted_at = folder / _PROGRESS, -_NOTED_EVERY_S

    def note(done: int, total: int) -> None:
        nonlocal noted_at
        if on_progress:
            on_progress(done, total)
        if time.monotonic() - noted_at >= _NOTED_EVERY_S:
            noted_at = time.monotonic()
            scratch = path.with_suffix(".tmp")
            scratch.write_bytes(msgspec.json.encode(_Noted(done, total)))
            scratch.replace(path)

    path.unlink(missing_ok=True)  # of a run that was killed
    try:
        yield note
    finally:
        path.unlink(missing_ok=True)


def _read_manifest(folder: Path) -> _Manifest | None:
    name = current_generation(folder)
    if not name:
        return None
    try:
        return msgspec.json.decode((folder / name / "manifest.json").read_bytes(), type=_Manifest)
    except (FileNotFoundError, msgspec.DecodeError):  # replaced just now, or damaged
        return None


def _is_being_built(folder: Path) -> bool:
    """Tell whether somebody holds the build lock (`index_files.build_lock`)."""
    try:
        with (folder / "build.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read_progress(folder: Path) -> _Noted:
    try:
        return msgspec.json.decode((folder / _PROGRESS).read_bytes(), type=_Noted)
    except (FileNotFoundError, msgspec.DecodeError):
        return _Noted(0, 0)
