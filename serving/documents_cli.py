"""`whet documents …`: collections of documents that answers are drawn from."""

from __future__ import annotations

import typer

from serving.commands.document_search import add_search_commands
from serving.commands.documents import add_document_commands
from serving.commands.retrieval_defaults import attach_command, detach_command

documents = typer.Typer(
    no_args_is_help=True,
    help="Documents that answers are drawn from: add, list, search, attach to an alias.",
)
add_document_commands(documents)
add_search_commands(documents)
documents.command("attach")(attach_command)
documents.command("detach")(detach_command)
