"""What a search over traffic asks for, as people write it: words, "phrases", -word, user:ada."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

FIELDS = ("user", "version", "alias", "status", "rating")
_MOST_WORDS = 12  # each is looked for in every row that is searched
_PART = re.compile(
    rf'(?P<minus>-?)(?:(?P<field>{"|".join(FIELDS)}):)?(?:"(?P<phrase>[^"]*)"|(?P<word>\S+))'
)
_LEAD = 40  # characters of a text before the first word that was found

Piece = tuple[str, bool]  # (text, whether it was searched for)


@dataclass(frozen=True, slots=True)
class SearchWords:
    """Texts that a conversation has to say, texts that it must not, and values of filters."""

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    filters: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The search without its filters, written as it is read."""
        parts = [*self.wanted, *(f"-{each}" for each in self.unwanted)]
        return " ".join(f'"{part}"' if " " in part else part for part in parts)


def parse_search(text: str) -> SearchWords:
    """Read what somebody typed; a quote that is not closed is a letter."""
    wanted: list[str] = []
    unwanted: list[str] = []
    filters: dict[str, str] = {}
    for found in _PART.finditer(text):
        value = found["phrase"] if found["phrase"] is not None else found["word"]
        if not value.strip():
            continue
        if found["field"] and not found["minus"]:
            filters[found["field"]] = value
        elif found["minus"] and not found["field"]:
            unwanted.append(value)
        else:
            wanted.append(value if not found["field"] else found[0])
    return SearchWords(tuple(wanted[:_MOST_WORDS]), tuple(unwanted[:_MOST_WORDS]), filters)


def snippet(text: str, wanted: Sequence[str], length: int) -> list[Piece]:
    """Return a piece of the text, from shortly before the first word that was searched for."""
    flat = " ".join(text.split())
    words = sorted((re.escape(word) for word in wanted if word.strip()), key=len, reverse=True)
    finder = re.compile("|".join(words), re.IGNORECASE) if words else None
    first = finder.search(flat) if finder else None
    start = max(0, first.start() - _LEAD) if first and first.end() > length else 0
    shown = flat[start : start + length]
    shown = ("…" if start else "") + shown + ("…" if start + length < len(flat) else "")
    if finder is None:
        return [(shown, False)]
    pieces: list[Piece] = []
    end = 0
    for found in finder.finditer(shown):
        pieces += [(shown[end : found.start()], False), (found[0], True)]
        end = found.end()
    return [piece for piece in [*pieces, (shown[end:], False)] if piece[0]]
