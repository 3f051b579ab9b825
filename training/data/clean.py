"""Rows made clean: texts normalised, personal data replaced, duplicates left out.

Every change is counted and named by its line.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from training.data.pii import Found, Scrubber
from training.data.pii import find as find_pii
from training.data.rows import BadLine, Row, read_objects
from training.data.similar import clusters
from whet.json_types import Json, JsonObject

_JOINERS = "\u200c\u200d"  # zero-width, and part of how Persian, Hindi and emoji are written
_LINE_BREAKS = str.maketrans("\x85\u2028\u2029", "\n\n\n")  # that are no line feed
_SPACES_AT_ENDS = re.compile(r"[ \t]+$", re.MULTILINE)


@dataclass
class Cleaned:
    """What cleaning made of some rows."""

    rows: list[JsonObject]
    # {"step", "rows", "lines", …} in the order in which they were done
    steps: list[JsonObject] = field(default_factory=list)
    # Rows that could not be made clean: in no output
    refused: list[BadLine] = field(default_factory=list)
    # Id that a row had -> id that it has, or of the row that stays in its place
    renamed: dict[str, str] = field(default_factory=dict)


def normalise_text(text: str) -> str:
    """Unicode NFC; line breaks as \\n; no control, byte-order or direction characters; plain
    spaces, none at the ends of lines or of the text.

    Spaces inside a line stay: they may be code or a table.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_LINE_BREAKS)
    text = unicodedata.normalize("NFC", text)
    kept = (
        " " if unicodedata.category(character) == "Zs" else character
        for character in text
        if character in "\n\t"
        or character in _JOINERS
        or unicodedata.category(character) not in ("Cc", "Cf")
    )
    return _SPACES_AT_ENDS.sub("", "".join(kept)).strip()


def _normalised(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _normalised(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_normalised(item) for item in value]
    return normalise_text(value) if isinstance(value, str) else value


def _normalised_row(raw: JsonObject) -> tuple[JsonObject, Counter[str]]:
    return {name: _normalised(item) for name, item in raw.items()}, Counter()


def clean(
    rows: Iterable[Row],
    *,
    normalise: bool = True,
    deduplicate: bool = True,
    near: bool = False,
    pii: bool = True,
    region: str | None = None,
    find: Callable[[str, str | None], list[Found]] = find_pii,
) -> Cleaned:
    """Normalise, scrub, deduplicate, in this order, so that rows which differ in an address alone
    are duplicates.

    A row on which the scrubber fails is refused and named, never passed on. Of duplicates the first
    stays.
    """
    result = Cleaned([])
    current = list(rows)
    if normalise:
        current = _each(current, result, "normalise", _normalised_row)
    if pii:

        def scrub(raw: JsonObject) -> tuple[JsonObject, Counter[str]]:
            scrubber = Scrubber(region, find)
            return scrubber.row(raw), scrubber.counts

        current = _each(current, result, "scrub", scrub)
    if deduplicate or near:
        current = _without(current, result, "duplicates", _repeats([row.digest for row in current]))
    if near:
        current = _without(
            current,
            result,
            "near duplicates",
            dict(pair for pair in enumerate(clusters(current)) if pair[0] != pair[1]),
        )
    result.rows = [_related(row.raw, result.renamed) for row in current]
    return result


def _each(
    rows: list[Row],
    result: Cleaned,
    step: str,
    change: Callable[[JsonObject], tuple[JsonObject, Counter[str]]],
) -> list[Row]:
    """Rows after a change of each; a row that the change breaks is refused."""
    kept, changed, counts = [], [], Counter[str]()
    for row in rows:
        try:
            raw, found = change(row.raw)
        except Exception as error:  # noqa: BLE001
            # Whatever a library raises on a strange text: the row must not pass unclean
            result.refused.append(
                BadLine(
                    row.line,
                    f"a text on which {step} failed ({type(error).__name__})",
                    "a text that can be made clean",
                )
            )
            continue
        if raw == row.raw:
            kept.append(row)
            continue
        made = read_objects([(row.line, {**raw, "id": _new_id(row, raw)})], unit="row")
        result.refused += made.bad
        kept += made.rows
        _rename(result, row, made.rows)
        changed.append(row.line)
        counts += found
    result.steps.append(
        {
            "step": step,
            "rows": len(changed),
            "lines": [*changed],
            **({"found": dict(sorted(counts.items()))} if step == "scrub" else {}),
        }
    )
    return kept


def _new_id(row: Row, raw: JsonObject) -> Json:
    """An id that was made of the old text must not stay with the new one."""
    return None if row.id == f"row-{row.digest[:16]}" else raw["id"]


def _rename(result: Cleaned, row: Row, now: list[Row]) -> None:
    """Note under which id a row is found from here on."""
    if now and now[0].id != row.id:
        result.renamed[row.id] = now[0].id


def _related(raw: JsonObject, renamed: dict[str, str]) -> JsonObject:
    """The row with the id that its parent has now."""
    parent, seen = raw.get("parent"), set[str]()
    while parent in renamed and parent not in seen:  # renamed by one step after the other
        seen.add(parent)
        parent = renamed[parent]
    return {**raw, "parent": parent} if seen else raw


def _repeats(keys: list[str]) -> dict[int, int]:
    """Position -> position of the first with the same key."""
    first: dict[str, int] = {}
    return {
        position: first[key]
        for position, key in enumerate(keys)
        if first.setdefault(key, position) != position
    }


def _without(rows: list[Row], result: Cleaned, step: str, copies: dict[int, int]) -> list[Row]:
    result.steps.append(
        {
            "step": step,
            "rows": len(copies),
            "lines": [
                {"line": rows[at].line, "stays": rows[first].line} for at, first in copies.items()
            ],
        }
    )
    for at, first in copies.items():
        _rename(result, rows[at], [rows[first]])
    return [row for position, row in enumerate(rows) if position not in copies]
