"""Training rows: objects in, checked rows and a list of every rejected one out. `training/data/formats.py` reads them from files.

The formats are those of `docs/training.md`. Nothing is guessed and nothing is dropped in silence: a line becomes a
`Row`, a `BadLine` that says what was found and what is expected, or is counted as blank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from whet.errors import InputError
from whet.store import digest_json

ROLES = ("system", "developer", "user", "assistant", "tool")
ORIGINS = ("seed", "review", "synthetic")
KNOWN_FIELDS = frozenset(
    {"messages", "prompt", "completion", "chosen", "rejected", "conversations", "instruction", "input", "output", "system"}
    | {"weight", "task", "id", "user", "group", "context", "train", "checks", "origin", "parent", "made_by", "scrubbed", "rating"}
)
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "system": "system", "tool": "tool"}
_SHOWN = 60  # characters of a wrong value that a message repeats


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


class _Wrong(Exception):
    """Raised while one line is read; becomes a BadLine."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found)
        self.found, self.expected = found, expected


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted row. `messages` ends with the assistant turn to learn."""

    line: int
    id: str
    digest: str  # of what is learned from: messages, context and mode
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


def read_lines(lines: Iterable[bytes], *, origin: str = "seed") -> Reading:
    """Read rows from lines of bytes; `origin` is that of rows which do not name their own."""
    reading = Reading()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            _add(reading, number, origin, line)
        else:
            reading.blank.append(number)
    return reading


def read_objects(objects: Iterable[tuple[int, Any]], *, unit: str, origin: str = "seed") -> Reading:
    """Read rows from (number, object) pairs of a format that is not JSON lines; an object may be a BadLine already."""
    reading = Reading(unit=unit)
    for number, value in objects:
        if isinstance(value, BadLine):
            reading.bad.append(value)
        else:
            _add(reading, number, origin, value)
    return reading


def _add(reading: Reading, number: int, origin: str, value: Any) -> None:
    try:
        row = _row(number, _checked(_parse(value) if isinstance(value, bytes) else value), origin)
    except _Wrong as wrong:
        reading.bad.append(BadLine(number, wrong.found, wrong.expected, reading.unit))
        return
    reading.rows.append(row)
    for name in row.raw.keys() - KNOWN_FIELDS:
        reading.unknown_fields[name] = reading.unknown_fields.get(name, 0) + 1


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _Wrong(f"byte 0x{line[error.start]:02x} at position {error.start + 1}, which is not UTF-8", "UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise _Wrong(f"{_shown(line.decode('utf-8', 'replace').strip())} ({error.msg} at column {error.colno})", "one JSON object per line") from error
    except (RecursionError, ValueError) as error:
        raise _Wrong("JSON that cannot be read (nested too deep, or a number too long)", "one JSON object per line") from error


def _checked(value: Any) -> dict[str, Any]:
    """The object, when it is one that can be written as JSON again."""
    if not isinstance(value, dict):
        raise _Wrong(_kind(value), "a JSON object")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise _Wrong("half of a surrogate pair (\\ud800 to \\udfff) in a text", "whole Unicode characters") from error
    except TypeError as error:
        raise _Wrong(f"a value that is neither text, number, list nor object ({error})", "values that JSON knows") from error
    except ValueError as error:
        raise _Wrong("NaN or Infinity", "finite numbers") from error
    return value


def _row(number: int, raw: dict[str, Any], origin: str) -> Row:
    messages, kind = _conversation(raw)
    mode = _one_of(raw, "train", ("last", "all"), "last")
    context, checks, scrubbed = _context(raw), _texts(raw, "checks"), _texts(raw, "scrubbed")
    origin = _one_of(raw, "origin", ORIGINS, origin)
    learned = {"messages": messages, "context": context, "train": mode}
    digest = digest_json({**learned, "scrubbed": scrubbed} if scrubbed else learned)
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
    )


def _conversation(raw: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Messages that end with the answer, and which of the formats they came in."""
    if "chosen" in raw or "rejected" in raw:
        chosen, before = _preferred(raw, "chosen")
        _preferred(raw, "rejected")
        if not before:
            before = _messages(raw["messages"], last_is_answer=False) if "messages" in raw else _prompt(raw)
        return [*before, {"role": "assistant", "content": chosen}], "preference"
    if "messages" in raw:
        return _messages(raw["messages"], last_is_answer=True), "messages"
    if "conversations" in raw:
        return _messages(_from_sharegpt(raw["conversations"]), last_is_answer=True), "messages"
    if "instruction" in raw or "output" in raw:
        question = "\n\n".join([_text(raw, "instruction"), *([_text(raw, "input")] if raw.get("input") else [])])
        return [*_system(raw), {"role": "user", "content": question}, {"role": "assistant", "content": _text(raw, "output")}], "instruction"
    if "prompt" in raw or "completion" in raw:
        answer, before = _preferred(raw, "completion")
        return [*_system(raw), *(before or _prompt(raw)), {"role": "assistant", "content": answer}], "prompt"
    names = ", ".join(sorted(map(str, raw))[:6]) or "none"
    raise _Wrong(f"the fields {names}", "'messages', or 'prompt' and 'completion', or 'instruction' and 'output', or 'messages', 'chosen' and 'rejected'")


def _system(raw: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": _text(raw, "system")}] if raw.get("system") else []


def _prompt(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The question: a text, or a list of messages."""
    value = raw.get("prompt")
    return _messages(value, last_is_answer=False) if isinstance(value, list) else [{"role": "user", "content": _text(raw, "prompt")}]


def _preferred(raw: dict[str, Any], name: str) -> tuple[str, list[dict[str, Any]]]:
    """(the answer, the messages before it): an answer may be a text, or a list of messages that ends with it."""
    value = raw.get(name)
    if not isinstance(value, list):
        return _text(raw, name), []
    if len(value) == 1 and ("messages" in raw or "prompt" in raw):
        return str(_messages([{"role": "user", "content": "-"}, *value], last_is_answer=True)[-1]["content"]), []
    *before, answer = _messages(value, last_is_answer=True)
    return str(answer["content"]), before


def _from_sharegpt(value: Any) -> Any:
    """ShareGPT's {"from", "value"} as {"role", "content"}; what is not of that form is left for the check of messages to name."""
    if not isinstance(value, list):
        return value
    return [
        {"role": _SHAREGPT_ROLES.get(str(turn["from"]), turn["from"]), "content": turn.get("value")} if isinstance(turn, dict) and "from" in turn else turn
        for turn in value
    ]


def _messages(value: Any, *, last_is_answer: bool) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _Wrong(f"'messages' is {_kind(value)}", "a list of at least one message")
    messages = [_message(position, message) for position, message in enumerate(value, start=1)]
    last = messages[-1]
    if last_is_answer and last["role"] != "assistant":
        raise _Wrong(f"the last message has the role {last['role']!r}", "'assistant': the answer to learn")
    if last_is_answer and not str(last.get("content") or "").strip():
        raise _Wrong("the last assistant message has no text", "the answer to learn")
    if last_is_answer and len(messages) == 1:
        raise _Wrong("an answer without a question", "at least one message before the last")
    if not last_is_answer and last["role"] == "assistant":
        raise _Wrong("'messages' ends with an assistant message beside 'chosen' and 'rejected'", "the conversation up to the question")
    return messages


def _message(position: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(f"message {position} is {_kind(value)}", 'an object with "role" and "content"')
    role = value.get("role")
    if role not in ROLES:
        raise _Wrong(f"message {position} has the role {_shown(role)}", f"one of {', '.join(ROLES)}")
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(position, part) for part in content)
    if content is None and role == "assistant" and value.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise _Wrong(f"the content of message {position} is {_kind(content)}", "a text")
    return {**value, "content": content}


def _part(position: int, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise _Wrong(f"message {position} has a part that is not text", 'parts of the form {"type": "text", "text": "…"}')


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
    raise _Wrong(f"'context' is {_kind(value)}", "a text, a list of texts, or a list of objects with a 'text'")


def _texts(raw: dict[str, Any], name: str) -> list[str]:
    value = raw.get(name)
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value):
        return list(value)
    raise _Wrong(f"{name!r} is {_kind(value)}", "a list of texts that are not empty")


def _text(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name)
    if isinstance(value, str) and value.strip():
        return value
    found = f"no field {name!r}" if name not in raw else f"an empty {name!r}" if isinstance(value, str) else f"{name!r} is {_kind(value)}"
    raise _Wrong(found, f"a text in {name!r}")


def _optional_text(raw: dict[str, Any], name: str) -> str | None:
    value = raw.get(name)
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if name in ("id", "user", "group") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _Wrong(f"{name!r} is {_kind(value)}", "a text, or nothing")


def _one_of(raw: dict[str, Any], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = raw.get(name, default)
    if value not in allowed:
        raise _Wrong(f"{name!r} is {_shown(value)}", f"one of {', '.join(allowed)}")
    return str(value)


def _weight(raw: dict[str, Any]) -> float:
    value = raw.get("weight", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise _Wrong(f"'weight' is {_shown(value)}", "a number above 0")
    return float(value)


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    if value == [] or value == "":
        return f"empty {names[type(value)].split()[-1]}"
    return names[type(value)]


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
