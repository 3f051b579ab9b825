"""What the Documents pages show, read from rows and index files."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from serving.retrieval.defaults_store import RetrievalDefault, load_defaults
from serving.retrieval.documents_store import count_contents, list_collections, require_collection
from serving.retrieval.index_state import IndexState, State, load_index_state
from serving.retrieval.records import Collection
from serving.retrieval.uploads import FAILED, READ, WAITING, Upload, UploadFolder
from whet.registry import current_rollouts, list_adapters
from whet.settings import Settings
from whet.tables import api_keys
from whet.web.filters import number, plural

UPLOADS_SHOWN = 100  # of the last uploads; what failed comes first
BADGES = {
    State.CURRENT: "good",
    State.STALE: "attention",
    State.MISSING: "attention",
    State.BUILDING: "information",
    State.EMPTY: "plain",
}


@dataclass(frozen=True)
class CollectionView:
    """A collection with its counts, its index and who uses it."""

    collection: Collection
    documents: int
    failed: int
    passages: int
    index: IndexState
    defaults: list[RetrievalDefault]  # of the aliases that retrieve from it
    readers: list[str] | None  # names of API keys; None: every key
    uploads: UploadsView

    @property
    def name(self) -> str:
        return self.collection.name

    @property
    def badge(self) -> str:
        return BADGES[self.index.state]

    @property
    def index_sentence(self) -> str:
        return describe_index(self.index)


@dataclass(frozen=True)
class UploadsView:
    """The files that were uploaded lately, and what becomes of them."""

    shown: list[Upload] = field(default_factory=list)  # failed ones first, then the newest
    waiting: int = 0
    read: int = 0
    failed: int = 0
    is_paused: bool = False
    problem: str = ""  # why nobody reads them

    @property
    def is_open(self) -> bool:
        """Whether files wait to be read."""
        return self.waiting > 0

    @property
    def total(self) -> int:
        return self.waiting + self.read + self.failed


def load_collections(connection: Connection, settings: Settings) -> list[CollectionView]:
    """Return all collections by name."""
    counts = count_contents(connection)
    names = key_names(connection)
    defaults = list(load_defaults(connection).values())
    return [
        _view(one, settings, counts.get(one.name, {}), names, defaults)
        for one in list_collections(connection)
    ]


def load_collection(connection: Connection, settings: Settings, name: str) -> CollectionView:
    """Return one collection. Raises NotFoundError."""
    found = require_collection(connection, name)
    counts = count_contents(connection).get(name, {})
    defaults = list(load_defaults(connection).values())
    return _view(found, settings, counts, key_names(connection), defaults)


def key_names(connection: Connection) -> dict[str, str]:
    """Return {id: name} of the API keys."""
    return {row.id: row.name for row in connection.execute(select(api_keys))}


def model_names(connection: Connection, settings: Settings) -> list[str]:
    """Return the names that a request may ask: the base, the aliases, the versions."""
    labels = [adapter.label for adapter in list_adapters(connection)]
    return [settings.base_alias, *sorted(current_rollouts(connection)), *labels]


def load_uploads(settings: Settings, name: str) -> UploadsView:
    """Return what was uploaded to a collection lately."""
    folder = UploadFolder(settings.home, name)
    uploads = folder.load()
    newest = sorted(uploads, key=lambda one: (one.state != FAILED, -one.created_at, one.address))
    return UploadsView(
        shown=newest[:UPLOADS_SHOWN],
        waiting=sum(one.state == WAITING for one in uploads),
        read=sum(one.state == READ for one in uploads),
        failed=sum(one.state == FAILED for one in uploads),
        is_paused=folder.is_paused,
        problem=folder.problem,
    )


def describe_index(index: IndexState) -> str:
    """Say what the state of an index means."""
    if index.state is State.BUILDING:
        done = (
            f": {number(index.done)} of {plural(index.total, 'text')} embedded"
            if index.total
            else ""
        )
        before = "the one before answers meanwhile" if index.passages else "no search finds it yet"
        return f"It is being built{done}; {before}."
    if index.state is State.STALE:
        why = "the embedder has" if index.is_other_embedder else "the documents have"
        return (
            f"It answers, but {why} changed since it was built. "
            "The retrieval process builds it anew within five minutes."
        )
    return {
        State.EMPTY: "There is nothing to search yet.",
        State.CURRENT: f"Searches find all of its {plural(index.passages, 'passage')}.",
        State.MISSING: "No search finds its documents until the index is built.",
    }[index.state]


def describe_collections(found: list[CollectionView]) -> str:
    """Return the headline of the list."""
    if not found:
        return "No collection of documents yet"
    total = plural(sum(one.documents for one in found), "document")
    amount = f"{plural(len(found), 'collection')} with {total}"
    for state, words in (
        (State.MISSING, "cannot be searched yet"),
        (State.STALE, "answers with an older index"),
        (State.BUILDING, "is being indexed"),
    ):
        names = [one.name for one in found if one.index.state is state]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{amount}; {names[0]}{more} {words}"
    return f"{amount}; every index is up to date"


def _view(
    collection: Collection,
    settings: Settings,
    counts: dict[str, int],
    names: dict[str, str],
    defaults: list[RetrievalDefault],
) -> CollectionView:
    allowed = collection.allowed_keys
    return CollectionView(
        collection=collection,
        documents=counts.get("documents", 0),
        failed=counts.get("failed", 0),
        passages=counts.get("passages", 0),
        index=load_index_state(settings, collection),
        defaults=[one for one in defaults if one.collection == collection.name],
        readers=None if allowed is None else [names.get(one, one) for one in allowed],
        uploads=load_uploads(settings, collection.name),
    )
