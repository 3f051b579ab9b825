"""Which passages an answer cites: its `[1]` as annotations, and the list of all passages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from serving.retrieval.records import Hit
from whet.json_types import JsonObject

_MARK = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_NUMBER = re.compile(r"\d+")
# In code `a[1]` is an index.
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mark:
    """A number in brackets. `start` and `end` are code points of the text."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks of one answer: those of a passage, and how many others there are."""

    valid: list[Mark] = field(default_factory=list)
    invalid: int = 0

    @property
    def cited(self) -> list[int]:
        """Numbers of the passages that are cited, ascending."""
        return sorted({mark.number for mark in self.valid})


def find_marks(text: str, passages: int) -> Marks:
    """Find the marks in an answer that was given with so many passages; code has none."""
    if not passages:
        return Marks()
    code = [match.span() for match in _CODE.finditer(text)] if "`" in text else []
    valid: list[Mark] = []
    invalid = 0
    for match in _MARK.finditer(text):
        if any(start <= match.start() < end for start, end in code):
            continue
        for number in map(int, _NUMBER.findall(match[1])):
            if 1 <= number <= passages:
                valid.append(Mark(number, *match.span()))
            else:
                invalid += 1
    return Marks(valid, invalid)


def chat_annotations(marks: Marks, hits: Sequence[Hit]) -> list[JsonObject]:
    """Return the annotations of a chat message: `url_citation`, the only kind that there is."""
    return [
        {"type": "url_citation", "url_citation": _url_citation(mark, hits[mark.number - 1])}
        for mark in marks.valid
    ]


def responses_annotations(marks: Marks, hits: Sequence[Hit]) -> list[JsonObject]:
    """Return the annotations of a Responses text: `url_citation` for a document with a web
    address, `file_citation` for another."""
    found: list[dict[str, Any]] = []
    for mark in marks.valid:
        hit = hits[mark.number - 1]
        if is_web_address(hit.address):
            found.append({"type": "url_citation", **_url_citation(mark, hit)})
        else:
            file = {"file_id": hit.file_id, "filename": hit.address, "index": mark.start}
            found.append({"type": "file_citation", **file})
    return found


def _url_citation(mark: Mark, hit: Hit) -> JsonObject:
    address = hit.address
    return {
        # Pages make links of it: other schemes than the web's (`javascript:`) stay no schemes.
        "url": address if is_web_address(address) else quote(address, safe="/"),
        "title": hit.title or address,
        "start_index": mark.start,
        "end_index": mark.end,
    }


def is_web_address(address: str) -> bool:
    """Tell whether `address` is one that a browser opens."""
    return address.lower().startswith(("http://", "https://"))


def describe_citations(hits: Sequence[Hit], cited: Iterable[int] | None) -> list[JsonObject]:
    """Return `whet.citations`: the passages of the prompt in its order.

    `cited`: numbers that the answer cites; None while there is no answer yet (`used` is null).
    """
    used = None if cited is None else set(cited)
    return [
        {
            "number": number,
            "passage_id": hit.passage_id,
            "document_id": hit.document_id,
            "collection": hit.collection,
            "title": hit.title,
            "address": hit.address,
            "section": hit.section,
            "text": hit.text,
            "score": hit.score,
            "lexical_rank": hit.lexical_rank,
            "vector_rank": hit.vector_rank,
            "used": None if used is None else number in used,
        }
        for number, hit in enumerate(hits, start=1)
    ]
