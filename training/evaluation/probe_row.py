"""Rows that probes are made of."""

from __future__ import annotations

from typing import TypedDict

from training.data.message import Messages
from whet.json_types import JsonObject


class ProbeRow(TypedDict, total=False):
    """A row as a file would hold it, before it has an id."""

    prompt: str
    completion: str
    messages: Messages
    context: list[str]
    checks: list[str]
    tools: list[JsonObject]
