"""Define `whet documents …`: collections of documents that answers are drawn from.

Each command names the function of `serving.commands` that does its work, imported when it runs.
"""

from __future__ import annotations

import typer

from serving.retrieval.records import Mode
from whet.lazy import runs

documents = typer.Typer(
    no_args_is_help=True,
    help="Documents that answers are drawn from: add, list, search, attach to an alias.",
)
_AS_JSON = typer.Option(False, "--json", help="Print JSON.")


@documents.command("add")
@runs("serving.commands.documents_add:add")
def add(
    name: str = typer.Argument(..., help="The collection; it is created when it is new."),
    paths: list[str] = typer.Argument(..., help="Files, folders, or URLs that fsspec opens."),
    sync: bool = typer.Option(
        False, "--sync", help="Remove documents whose files are gone from these folders."
    ),
    yes: bool = typer.Option(False, "--yes", help="Also when that is more than a fifth of them."),
    metadata: list[str] = typer.Option(
        [], "--metadata", help="KEY=VALUE for these documents; searches filter by it."
    ),
    keys: str = typer.Option(
        "", "--keys", help="Names or ids of the API keys that may read the collection, or `all`."
    ),
    prefix: str = typer.Option(
        "", "--prefix", help="Goes in front of each address, such as https://example.com/docs/."
    ),
    source: str = typer.Option(
        "", "--source", help="Where they come from, instead of the path: same source, same files."
    ),
    description: str = typer.Option("", "--description", help="Of a new collection."),
    chunk_tokens: int = typer.Option(
        0, "--chunk-tokens", help="Longest passage of a new collection, in tokens."
    ),
    index: bool = typer.Option(True, "--index/--no-index", help="Index them afterwards."),
    as_json: bool = _AS_JSON,
) -> None:
    """Add what is new or changed to a collection; exit code 1 when a file could not be read."""


@documents.command("list")
@runs("serving.commands.documents:list_all")
def list_all(
    name: str = typer.Argument("", help="Print the documents of one; without it, all collections."),
    as_json: bool = _AS_JSON,
) -> None:
    """List collections, or the documents of one."""


@documents.command("show")
@runs("serving.commands.documents:show")
def show(
    name: str = typer.Argument(..., help="The collection."),
    document: str = typer.Argument(..., help="The document's address or id."),
    as_json: bool = _AS_JSON,
) -> None:
    """Print a document and the passages that searches find."""


@documents.command("remove")
@runs("serving.commands.documents:remove")
def remove(
    name: str = typer.Argument(..., help="The collection."),
    documents: list[str] = typer.Argument(
        None, help="Addresses or ids; without any, the whole collection."
    ),
    yes: bool = typer.Option(False, "--yes", help="Do not ask before a collection is removed."),
    as_json: bool = _AS_JSON,
) -> None:
    """Remove documents, or a collection with all of them: no later answer has their text."""


@documents.command("search")
@runs("serving.commands.document_search:search")
def search(
    name: str = typer.Argument(..., help="The collection."),
    question: str = typer.Argument(..., help="What to look for."),
    top_k: int = typer.Option(4, "--top-k", help="Most passages to print."),
    mode: Mode = typer.Option(Mode.HYBRID, "--mode", help="Which ranking answers."),
    given_filter: str = typer.Option(
        "", "--filter", help='JSON over metadata, address, language, title: {"team": "billing"}.'
    ),
    min_score: float = typer.Option(0.0, "--min-score", help="Leave out passages below, 0 to 1."),
    neighbours: int = typer.Option(
        0, "--neighbours", help="Passages before and after each hit that come with its text."
    ),
    as_json: bool = _AS_JSON,
) -> None:
    """Print the passages that answer a question, best first."""


@documents.command("reindex")
@runs("serving.commands.document_index:build")
def reindex(
    name: str = typer.Argument(..., help="The collection."),
    force: bool = typer.Option(False, "--force", help="Also when the index is current."),
    as_json: bool = _AS_JSON,
) -> None:
    """Build the index of a collection anew from its rows; the old one answers meanwhile."""


@documents.command("attach")
@runs("serving.commands.retrieval_defaults:attach_default")
def attach(
    alias: str = typer.Argument(..., help="An alias, a version, or the base, as requests name it."),
    collection: str = typer.Argument(..., help="What its requests retrieve from."),
    top_k: int = typer.Option(4, "--top-k", min=1, max=50, help="Passages in a prompt, at most."),
    min_score: float = typer.Option(
        0.0, "--min-score", min=0, max=1, help="Leave out passages below, 0 to 1."
    ),
    given_filter: list[str] = typer.Option(
        [], "--filter", help="KEY=VALUE of the documents' metadata; several all have to hold."
    ),
    as_json: bool = _AS_JSON,
) -> None:
    """Let every request for a model name retrieve, unless it says otherwise."""


@documents.command("detach")
@runs("serving.commands.retrieval_defaults:detach_default")
def detach(
    alias: str = typer.Argument(..., help="The model name, as it was attached."),
    as_json: bool = _AS_JSON,
) -> None:
    """Let requests for a model name retrieve nothing any more, unless they say so."""
