"""Lines of text and of JSONL, split at line feeds alone.

`str.splitlines()` also splits at U+2028, U+2029, U+0085 and others, which JSON leaves as they are
inside its texts: a row that holds one would be torn. tests/test_architecture.py forbids it.
"""

from __future__ import annotations

import json
from typing import Any


def split_lines(text: str) -> list[str]:
    """Return the lines of a text without their ends (\\n or \\r\\n); [] for an empty text."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_jsonl(content: bytes) -> list[Any]:
    """Decode every line of JSONL that is not blank. Raises ValueError for a line that is no JSON."""
    return [json.loads(line) for line in content.split(b"\n") if line.strip()]
