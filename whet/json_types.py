"""Types of JSON whose shape is not known, or is somebody else's to define."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import JsonValue

Json: TypeAlias = JsonValue  # what `json.loads` can return, at any depth
JsonObject: TypeAlias = dict[str, JsonValue]
