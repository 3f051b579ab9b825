"""Training rows: objects in, checked rows and a list of every rejected one out. `training/data/formats.py` reads them from files.

The formats are those of `docs/training.md`. Nothing is guessed and nothing is dropped in silence: a line becomes a
`Row`, a `BadLine` that says what was found and what is expected, or is counted as blank.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from training.data.shapes import conversation, require_question, unknown_message_fields
from training.data.wrong import Wrong, kind_of, shown
from whet.errors import InputError
from whet.store import digest_json

ORIGINS = ("seed", "review", "synthetic")
KNOWN_FIELDS = frozenset(
    {"messages", "prompt", "completion", "chosen", "rejected", "conversations", "instruction", "input", "output", "system"}
    | {"weight", "task", "id", "user", "group", "context", "train", "checks", "origin", "parent", "made_by", "scrubbed", "rating"}
)
# What a row may weigh. Its part of the loss is multiplied by it: beside rows of weight 1, one beyond these is all of a batch's mean, or nothing of it.
LEAST_WEIGHT, MOST_WEIGHT = 1e-4, 1e4
BLANK = object()  # in `read_objects`: a line without content, to be counted


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a training row."""

    line: int  # counted from 1, as editors do
    found: str
    expected: str
    unit: str = "line"  # what is counted: lines of text, or rows where a format has no lines

    def __str__(self) -> str:
        return f"{self.unit} {self.line}: found {self.found}; expected {self.expected}"

    def as_json(self) -> dict[str, Any]:
        return {"line": self.line, "unit": self.unit, "found": self.found, "expected": self.expected}


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted row. `messages` ends with the assistant turn to learn."""

    line: int
    id: str
    digest: str  # of what is learned from: messages, context and mode; the rejected answer and the rating where there are any
    prompt_digest: str  # of everything before the last answer, without case and surplus space: equal questions are one group
    messages: tuple[dict[str, Any], ...]
    kind: str  # messages | prompt | instruction | preference
    mode: str  # last | all: which assistant turns are learned
    weight: float
    task: str
    user: str | None
    group: str | None
    context: tuple[str, ...]
    checks: tuple[str, ...]
    origin: str  # seed (from a file) | review (from people) | synthetic (made from another row)
    raw: dict[str, Any]  # the object as read, with `id` and `origin` filled in
    parent: str | None = None  # id of the row that a synthetic one was made from
    scrubbed: tuple[str, ...] = ()  # placeholders of removed personal data: seen, never learned
    rejected: str = ""  # the worse answer of a preference
    rating: int = 0  # 1 | -1: what people thought of the answer; 0 where nobody said

    @property
    def answer(self) -> str:
        """The reference answer."""
        return str(self.messages[-1]["content"])


@dataclass(frozen=True)
class Reading:
    """What a file held."""

    rows: list[Row] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)  # numbers of empty lines; the one after the last line break is not counted
    unknown_fields: dict[str, int] = field(default_factory=dict)  # field name -> rows that carry it
    unit: str = "line"  # what the numbers count

    def refuse_bad(self, source: str, *, skip_bad: bool) -> None:
        """Raises InputError when lines were rejected (unless they are to be skipped) or when no row is left."""
        if self.bad and not skip_bad:
            shown = "\n".join(f"  {bad}" for bad in self.bad[:20])
            more = f"\n  … and {len(self.bad) - 20} more; `whet data check {source} --json` lists all" if len(self.bad) > 20 else ""
            raise InputError(
                f"{source}: {len(self.bad)} of {len(self.bad) + len(self.rows)} lines are not training rows:\n{shown}{more}",
                hint="Correct them, or leave them out with --skip-bad.",
            )
        if not self.rows:
            raise InputError(
                f"{source} holds no training row.",
                hint='Write one JSON object per line, such as {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}.',
            )


def read_lines(lines: Iterable[bytes], *, origin: str = "seed", asked: bool = False) -> Reading:
    """Read rows from lines of bytes; `origin` is that of rows which do not name their own.

    `asked`: refuse rows in which nobody asks what the answer is to, as in files that somebody brings. What is stored, or was reviewed, is people's
    requests as they were, and must stay readable.
    """
    reading = Reading()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            _add(reading, number, origin, line, asked)
        else:
            reading.blank.append(number)
    return reading


def read_objects(objects: Iterable[tuple[int, Any]], *, unit: str, origin: str = "seed", asked: bool = False) -> Reading:
    """`read_lines` for (number, object) pairs of a format that is not JSON lines; an object may be a BadLine already, or BLANK."""
    reading = Reading(unit=unit)
    for number, value in objects:
        if value is BLANK:
            reading.blank.append(number)
        elif isinstance(value, BadLine):
            reading.bad.append(value)
        else:
            _add(reading, number, origin, value, asked)
    return reading


def _add(reading: Reading, number: int, origin: str, value: Any, asked: bool) -> None:
    try:
        row = _row(number, _checked(_parse(value) if isinstance(value, bytes) else value), origin)
        if asked and row.origin != "review":
            require_question(row.messages)
            if row.rejected:
                require_question([*row.messages[:-1], {"role": "assistant", "content": row.rejected}])
    except Wrong as wrong:
        reading.bad.append(BadLine(number, wrong.found, wrong.expected, reading.unit))
        return
    reading.rows.append(row)
    for name in (row.raw.keys() - KNOWN_FIELDS) | unknown_message_fields(row.raw):
        reading.unknown_fields[name] = reading.unknown_fields.get(name, 0) + 1


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=one_of_each)
    except UnicodeDecodeError as error:
        raise Wrong(f"byte 0x{line[error.start]:02x} at position {error.start + 1}, which is not UTF-8", "UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise Wrong(
            f"{shown(line.decode('utf-8', 'replace').strip())} ({error.msg.removesuffix(' at')} at column {error.colno})", "one JSON object per line"
        ) from error
    except (RecursionError, ValueError) as error:
        raise Wrong("JSON that cannot be read (nested too deep, or a number too long)", "one JSON object per line") from error


def one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no name stands twice: which of the two was meant nobody can know. Raises Wrong."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise Wrong(f"the name {shown(next(name for name in names if names.count(name) > 1))} twice in one object", "each name once")
    return found


def _checked(value: Any) -> dict[str, Any]:
    """The object, when it is one that can be written as JSON again."""
    if not isinstance(value, dict):
        raise Wrong(kind_of(value), "a JSON object")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Wrong("half of a surrogate pair (\\ud800 to \\udfff) in a text", "whole Unicode characters") from error
    except TypeError as error:
        raise Wrong(f"a value that is neither text, number, list nor object{_in_field(value)} ({error})", "values that JSON knows") from error
    except ValueError as error:
        raise Wrong(f"NaN or Infinity{_in_field(value)}", "finite numbers") from error
    return value


def _in_field(value: dict[str, Any]) -> str:
    """ " in 'NAME'": the first field that cannot be written as JSON."""
    for name, item in value.items():
        try:
            json.dumps(item, allow_nan=False)
        except (TypeError, ValueError):
            return f" in {shown(name)}"
    return ""


def _row(number: int, raw: dict[str, Any], origin: str) -> Row:
    said = conversation(raw)
    messages, kind = said.messages, said.kind
    mode = _one_of(raw, "train", ("last", "all"), "last")
    context, checks, scrubbed = _context(raw), _texts(raw, "checks"), _texts(raw, "scrubbed")
    origin, rating = _one_of(raw, "origin", ORIGINS, origin), _rating(raw)
    further = {"scrubbed": scrubbed, "rejected": said.rejected, "rating": rating}
    digest = digest_json({"messages": messages, "context": context, "train": mode} | {name: value for name, value in further.items() if value})
    question = digest_json([[message["role"], _normal(str(message.get("content") or ""))] for message in messages[:-1]] + [_normal(" ".join(context))])
    row_id = _optional_text(raw, "id") or f"row-{digest[:16]}"
    return Row(
        line=number,
        id=row_id,
        digest=digest,
        prompt_digest=question,
        messages=tuple(messages),
        kind=kind,
        mode=mode,
        weight=_weight(raw),
        task=_optional_text(raw, "task") or "",
        user=_optional_text(raw, "user"),
        group=_optional_text(raw, "group"),
        context=tuple(context),
        checks=tuple(checks),
        origin=origin,
        raw={**raw, "id": row_id, "origin": origin},
        parent=_optional_text(raw, "parent"),
        scrubbed=tuple(scrubbed),
        rejected=said.rejected,
        rating=rating,
    )


def _context(raw: dict[str, Any]) -> list[str]:
    """Retrieved passages: a text, a list of texts, or a list of objects with a "text"."""
    value = raw.get("context")
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, list):
        passages = [item.get("text") if isinstance(item, dict) else item for item in value]
        if all(isinstance(passage, str) for passage in passages):
            return [str(passage) for passage in passages]
    raise Wrong(f"'context' is {kind_of(value)}", "a text, a list of texts, or a list of objects with a 'text'")


def _texts(raw: dict[str, Any], name: str) -> list[str]:
    value = raw.get(name)
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value):
        return list(value)
    raise Wrong(f"{name!r} is {kind_of(value)}", "a list of texts that are not empty")


def _optional_text(raw: dict[str, Any], name: str) -> str | None:
    value = raw.get(name)
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if name in ("id", "user", "group") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Wrong(f"{name!r} is {kind_of(value)}", "a text, or nothing")


def _one_of(raw: dict[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = raw.get(name, default)
    if value not in allowed:
        raise Wrong(f"{name!r} is {shown(value)}", f"one of {', '.join(allowed)}")
    return str(value)


def _weight(raw: dict[str, Any]) -> float:
    value = raw.get("weight", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST_WEIGHT <= value <= MOST_WEIGHT:
        raise Wrong(f"'weight' is {shown(value)}", f"a number above 0, from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}")
    return float(value)


def _rating(raw: dict[str, Any]) -> int:
    value = raw.get("rating")
    if value is None:
        return 0
    if isinstance(value, bool) or value not in (1, -1):
        raise Wrong("the rating is " + shown(value).strip("'"), "1 for a good answer, or -1 for a bad one")
    return int(value)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
