"""What the JSON column of the audit log holds."""

from __future__ import annotations

from whet.json_types import JsonObject
from whet.records.shape import JsonShape

AUDIT_DETAIL = JsonShape[JsonObject]("audit.detail", JsonObject)  # what the action was about
