"""What a search over traffic asks for, as people write it: words, "phrases", wor*, -word, user:ada,
tag:checkout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.search_index.query import Phrase
from serving.search_index.tokens import fold_in_place, is_unspaced

FILTERS = ("user", "version", "alias", "status", "rating")  # each has a field in the page's form
FIELDS = ("tag", "session")  # may stand in a search more than once
_MOST_WORDS = 12  # of each kind; a person writes fewer
_PART = re.compile(
    rf'(?P<minus>-?)(?:(?P<field>{"|".join((*FILTERS, *FIELDS))}):)?(?:"(?P<phrase>[^"]*)"|(?P<word>\S+))'
)
_LEAD = 40  # characters of a text before the first word that was found

Piece = tuple[str, bool]  # (text, whether it was searched for)


@dataclass(frozen=True, slots=True)
class SearchWords:
    """Texts that a conversation has to say, texts that it must not, and values of filters."""

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    filters: dict[str, str] = field(default_factory=dict)
    fields: tuple[tuple[str, str], ...] = ()  # ("tag", "checkout")

    @property
    def text(self) -> str:
        """The search without its filters, written as it is read."""
        said = [*map(_quoted, self.wanted), *(f"-{_quoted(each)}" for each in self.unwanted)]
        return " ".join([*said, *(f"{name}:{_quoted(value)}" for name, value in self.fields)])


def _quoted(part: str) -> str:
    return f'"{part}"' if " " in part else part


def parse_search(text: str) -> SearchWords:
    """Read what somebody typed; a quote that is not closed is a letter."""
    wanted: list[str] = []
    unwanted: list[str] = []
    filters: dict[str, str] = {}
    fields: list[tuple[str, str]] = []
    for found in _PART.finditer(text):
        value = found["phrase"] if found["phrase"] is not None else found["word"]
        if not value.strip():
            continue
        if found["field"] in FIELDS and not found["minus"]:
            fields.append((found["field"], value))
        elif found["field"] and not found["minus"]:
            filters[found["field"]] = value
        elif found["minus"] and not found["field"]:
            unwanted.append(value)
        else:
            wanted.append(value if not found["field"] else found[0])
    return SearchWords(
        tuple(wanted[:_MOST_WORDS]),
        tuple(unwanted[:_MOST_WORDS]),
        filters,
        tuple(fields[:_MOST_WORDS]),
    )


def snippet(text: str, wanted: Sequence[Phrase], length: int) -> list[Piece]:
    """Return a piece of the text, from shortly before the first phrase that was searched for."""
    flat = " ".join(text.split())
    finder = _finder(wanted)
    if finder is None:
        return [(flat[:length] + ("…" if length < len(flat) else ""), False)]
    first = finder.search(fold_in_place(flat))
    start = max(0, first.start() - _LEAD) if first and first.end() > length else 0
    shown = flat[start : start + length]
    shown = ("…" if start else "") + shown + ("…" if start + length < len(flat) else "")
    pieces: list[Piece] = []
    end = 0
    for found in finder.finditer(fold_in_place(shown)):
        pieces += [(shown[end : found.start()], False), (shown[found.start() : found.end()], True)]
        end = found.end()
    return [piece for piece in [*pieces, (shown[end:], False)] if piece[0]]


def _finder(phrases: Sequence[Phrase]) -> re.Pattern[str] | None:
    """Return what finds the phrases in a folded text, the longest first."""
    patterns = sorted(map(_pattern, phrases), key=len, reverse=True)
    return re.compile("|".join(patterns)) if patterns else None


def _pattern(phrase: Phrase) -> str:
    written = [re.escape(fold_in_place(token)) for token in phrase.tokens]
    gap = " *" if any(map(is_unspaced, phrase.tokens)) else " +"
    start = "" if is_unspaced(phrase.tokens[0]) else "(?:^|(?<= ))"
    end = "" if is_unspaced(phrase.tokens[-1]) else r"\S*" if phrase.is_prefix else "(?= |$)"
    return start + gap.join(written) + end
