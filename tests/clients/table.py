"""The tables of docs/clients.md, from results.json. `python -m tests.clients.table` writes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.document import put_between_markers
from tests.clients.matrix import CLIENTS, ClientResult, FieldUse, read_results

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clients.md"
_CHECKS = {  # check -> heading, in the order of the columns
    "turn": "one turn",
    "settings": "usual settings",
    "history_object": "answer as history",
    "history_dump": "its dump as history",
    "stream": "stream",
    "tool_turn": "tool turn",
    "tool_stream": "streamed tool turn",
    "structured": "structured output",
    "structured_tools": "the same by a tool",
}
_APIS = {
    "Chat": "chat",
    "Responses": "responses",
    "Compatible": "chat, `openai-compatible`",
    "HostedVllm": "chat, `hosted_vllm/`",
    "Tools": "chat, `TOOLS`",
    "JsonSchema": "chat, `JSON_SCHEMA`",
}
_ROUTES = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}


def clients_table(about: dict[str, Any], results: Sequence[ClientResult]) -> str:
    """One row for each client and API, one column for each check."""
    lines = [
        f"Made on {about['date']} at {about['commit']}, machine {about['machine']}, with "
        f"{about['engine']}, the model {about['model']} and Node {about['node']}.",
        "",
        "| client | version | API | " + " | ".join(_CHECKS.values()) + " |",
        "|---" * (3 + len(_CHECKS)) + "|",
    ]
    titles = {client.name: client.title for client in CLIENTS}
    for result in results:
        version = ", ".join(result.versions.values())
        for api in dict.fromkeys(check.api for check in result.checks):
            passed = {check.check: check.ok for check in result.checks if check.api == api}
            cells = [
                {True: "yes", False: "**no**", None: "–"}[passed.get(check)] for check in _CHECKS
            ]
            lines.append(
                f"| {titles[result.client]} | {version} | {_APIS[api]} | "
                + " | ".join(cells)
                + " |"
            )
    return "\n".join(lines)


def fields_table(results: Sequence[ClientResult]) -> str:
    """One row for each field that any of the clients sent."""
    uses: dict[tuple[str, str], list[tuple[str, FieldUse]]] = defaultdict(list)
    for result in results:
        for use in result.fields:
            if use.path in _ROUTES:
                uses[_ROUTES[use.path], use.field].append((result.client.removesuffix("-2"), use))
    lines = ["| route | field | sent by | what the gateway does |", "|---|---|---|---|"]
    everybody = {client.name.removesuffix("-2") for client in CLIENTS}
    for (route, name), found in sorted(uses.items()):
        senders = dict.fromkeys(client for client, _ in found)
        sent_by = "all" if set(senders) == everybody else ", ".join(senders)
        lines.append(
            f"| {route} | `{name}` | {sent_by} | {_what_happens(use for _, use in found)} |"
        )
    return "\n".join(lines)


def _what_happens(uses: Iterable[FieldUse]) -> str:
    uses = list(uses)
    if all(use.is_null for use in uses):
        return "null: absent"
    if any(use.is_named_as_ignored for use in uses):
        return "dropped, named in `x-whet-ignored`"
    if any(use.is_passed_on for use in uses):
        return "passed on"
    return "kept for the log" if uses[0].field in _LOGGED else "dropped"


_LOGGED = {"user", "metadata", "safety_identifier"}


def rendered() -> str:
    """The page as results.json makes it."""
    about, results = read_results()
    page = put_between_markers(
        PAGE.read_text(),
        clients_table(about, results),
        "<!-- begin clients -->",
        "<!-- end clients -->",
    )
    return put_between_markers(
        page, fields_table(results), "<!-- begin fields -->", "<!-- end fields -->"
    )


def write_page() -> None:
    """Put the tables into docs/clients.md."""
    PAGE.write_text(rendered())


if __name__ == "__main__":
    write_page()
