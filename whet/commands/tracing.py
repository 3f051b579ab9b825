"""`whet trace ID`."""

from __future__ import annotations

from typing import Literal

import typer
from rich.markup import escape
from rich.tree import Tree

from whet.cli import emit, opened, out
from whet.clock import iso
from whet.database import reading
from whet.lineage import TraceNode, identify
from whet.lineage import trace as walk
from whet.lineage_kinds import Bounds

_DIGEST_CHARS = 12  # enough to find it again; the full one is in --json


def trace(
    reference: str = typer.Argument(
        metavar="ID",
        help="Any id, a digest or its start, an adapter (support@v7) or a dataset (support@3).",
    ),
    depth: int = typer.Option(
        Bounds().depth, min=1, max=100, help="Steps to walk in each direction."
    ),
    limit: int = typer.Option(
        Bounds().per_step, min=1, max=1000, help="Things of one kind beside each other."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Print what something came from and what came of it."""
    bounds = Bounds(depth=depth, per_step=limit, nodes=max(Bounds().nodes, limit))
    with opened() as context, reading(context.database) as connection:
        found = [walk(connection, ref, bounds) for ref in identify(connection, reference)]
    if as_json:
        emit(found[0] if len(found) == 1 else found, True)
        return
    for node in found:
        _show(node)


Direction = Literal["came_from", "came_of_it"]


def _show(node: TraceNode) -> None:
    tree = Tree(_label(node))
    directions: tuple[tuple[str, Direction], ...] = (
        ("came from", "came_from"), ("came of it", "came_of_it"),
    )  # fmt: skip
    for title, name in directions:
        branch = tree.add(f"[bold]{title}[/bold]" + ("" if node.get(name) else "  nothing"))
        _grow(branch, node.get(name) or [], name)
    if node["deeds"]:
        branch = tree.add("[bold]in the audit log[/bold]")
        for deed in node["deeds"]:
            branch.add(escape(f"{iso(deed['created_at'])}  {deed['action']} by {deed['actor']}"))
    out.print(tree)


def _grow(tree: Tree, nodes: list[TraceNode], name: Direction) -> None:
    for node in nodes:
        if "more" in node:
            tree.add(f"[dim]and {node['more']} more of kind {node['kind']} (--limit)[/dim]")
        else:
            _grow(tree.add(_label(node)), node.get(name) or [], name)


def _label(node: TraceNode) -> str:
    key = node["id"] if "_" in node["id"] or len(node["id"]) < 40 else node["id"][:_DIGEST_CHARS]
    text = f"[bold]{node['kind']}[/bold] {escape(key)}"
    if node.get("missing"):
        return text + "  [dim]no longer there (erased, or past its retention)[/dim]"
    text += f"  {escape(node['what'])}  [dim]{iso(node['at'])}[/dim]"
    if node.get("again"):
        text += "  [dim](shown above)[/dim]"
    return text + ("  [dim](goes on: --depth)[/dim]" if node.get("deeper") else "")
