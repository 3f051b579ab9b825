"""Training rows: objects in, checked rows and a list of every rejected one out.

`training/data/formats.py` reads them from files.

The formats are those of `docs/training.md`. Nothing is guessed and nothing is dropped in silence: a
line becomes a `Row`, a `BadLine` that says what was found and what is expected, or is counted as
blank.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from training.data.bad_lines import BadLine as BadLine
from training.data.bad_lines import sentences
from training.data.columns import NO_COLUMNS, Columns
from training.data.loss_weights import learned_turns
from training.data.message import Message, Messages
from training.data.native import Native
from training.data.row_fields import (
    context_of,
    one_of,
    optional_text,
    rating_of,
    texts_of,
    weight_of,
)
from training.data.shapes import (
    TEXT,
    conversation,
    require_question,
    text_of,
    unknown_message_fields,
)
from training.data.tools import Call, calls_of, require_learnable_calls, tools_of
from training.data.wrong import Wrong, kind_of, one_of_each, shown
from whet.errors import InputError
from whet.json_types import JsonObject
from whet.store import digest_json

ORIGINS = ("seed", "review", "synthetic")
KNOWN_FIELDS = frozenset(
    {
        "messages",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "conversations",
        "instruction",
        "input",
        "output",
        "system",
        "tools",
        "functions",
        TEXT,
    }
    | {
        "weight",
        "task",
        "id",
        "user",
        "group",
        "context",
        "train",
        "checks",
        "origin",
        "parent",
        "made_by",
        "scrubbed",
        "rating",
    }
)
BLANK = object()  # in `read_objects`: a line without content, to be counted


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted row. `messages` ends with the assistant turn to learn; a plain text is one."""

    line: int
    id: str
    # Of what is learned from: messages, context and mode; the rejected answer and the rating where
    # there are any
    digest: str
    # Of everything before the last answer, without case and surplus space: equal questions are one
    # group
    prompt_digest: str
    messages: tuple[Message, ...]
    kind: str  # messages | prompt | instruction | preference | text
    mode: str  # last | all: which assistant turns are learned
    weight: float
    task: str
    user: str | None
    group: str | None
    context: tuple[str, ...]
    checks: tuple[str, ...]
    origin: str  # seed (from a file) | review (from people) | synthetic (made from another row)
    raw: JsonObject  # the object as read, with `id` and `origin` filled in
    parent: str | None = None  # id of the row that a synthetic one was made from
    scrubbed: tuple[str, ...] = ()  # placeholders of removed personal data: seen, never learned
    rejected: str = ""  # the worse answer of a preference
    rating: int = 0  # 1 | -1: what people thought of the answer; 0 where nobody said
    # Turns of the assistant, counted from 0, that `mode` learns and their "weight": 0 takes out.
    unlearned: tuple[int, ...] = ()
    tools: tuple[JsonObject, ...] = ()  # that the model may call, as the template gets them

    @property
    def answer(self) -> str:
        """The reference answer; calls of tools are written as people read them."""
        return text_of(self.messages[-1])

    @property
    def words(self) -> str:
        """The reference answer without its calls of tools."""
        return str(self.messages[-1]["content"])

    def weighted_messages(self) -> Messages:
        """Return the messages as a row is written: with a `weight` where `train` alone does not say
        which answers are learned."""
        if not self.unlearned and self.mode == self.raw.get("train", "last"):
            return [message.copy() for message in self.messages]
        found = [message.copy() for message in self.messages]
        answers = [message for message in found if message["role"] == "assistant"]
        for turn, message in enumerate(answers):
            is_last = message is answers[-1]
            learned = is_last if self.mode == "last" else turn not in self.unlearned
            message["weight"] = int(learned)
        return found

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of tools that the reference answer makes."""
        return calls_of(self.messages[-1])

    @property
    def is_text(self) -> bool:
        """Whether this is a plain text, learned as it is, without a question and an answer."""
        return self.kind == TEXT


@dataclass(frozen=True)
class Reading:
    """What a file held."""

    rows: list[Row] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    # Numbers of empty lines; the one after the last line break is not counted
    blank: list[int] = field(default_factory=list)
    unknown_fields: dict[str, int] = field(default_factory=dict)  # field name -> rows that carry it
    unit: str = "line"  # what the numbers count
    # What was done to rows → how many of them; 0 for what is said of the whole file.
    notices: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Rows and what is none of them; empty lines are not counted."""
        return len(self.rows) + len(self.bad)

    def refuse_bad(self, source: str, *, skip_bad: bool) -> None:
        """Raise InputError when lines are no rows (unless they are to be skipped), or none is one."""
        if self.bad and (not skip_bad or not self.rows):
            said = "".join(f"\n  {sentence}" for sentence in sentences(self.bad, of=self.total))
            some = "Correct them, or leave them out with --skip-bad."
            raise InputError(
                f"{source}: {len(self.bad):,} of {self.total:,} {self.unit}s are not training rows:"
                f"{said}",
                hint=some if self.rows else "docs/training-data.md lists the forms that are read.",
            )
        if not self.rows:
            raise InputError(
                f"{source} holds no training row.",
                hint=(
                    'Write one JSON object per line, such as {"messages": [{"role": "user",'
                    ' "content": "…"}, {"role": "assistant", "content": "…"}]}.'
                ),
            )


def read_lines(
    lines: Iterable[bytes],
    *,
    origin: str = "seed",
    asked: bool = False,
    columns: Columns = NO_COLUMNS,
    source: str = "The file",
) -> Reading:
    """Read rows from lines of bytes; arguments as for `read_objects`."""
    return read_objects(
        parsed_lines(lines), unit="line", origin=origin, asked=asked, columns=columns, source=source
    )


def read_objects(
    objects: Iterable[tuple[int, object]],
    *,
    unit: str,
    origin: str = "seed",
    asked: bool = False,
    columns: Columns = NO_COLUMNS,
    source: str = "The file",
) -> Reading:
    """Read rows from (number, object) pairs; an object may be a BadLine already, or BLANK.

    `origin` is that of rows which do not name their own. `asked`: the rows come from a file that
    somebody brings. Then other tools' forms are read too, `columns` names fields, and rows in which
    nobody asks what the answer is to are refused. What is stored, or was reviewed, is people's
    requests as they were, and must stay readable.
    Raises InputError when `columns` names what no row of `source` has.
    """
    reading = Reading(unit=unit)
    native = None
    if asked:
        objects = list(objects)
        found = [value for _, value in objects if isinstance(value, dict)]
        columns.require_found(found, source)
        native = Native(found, KNOWN_FIELDS, columns)
    for number, value in objects:
        if value is BLANK:
            reading.blank.append(number)
        elif isinstance(value, BadLine):
            reading.bad.append(value)
        else:
            _add(reading, number, origin, value, native)
    return reading


def parsed_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, object]]:
    """Yield (number, object) of JSONL; a BadLine for what is no JSON, BLANK for an empty line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            yield number, BLANK
            continue
        try:
            yield number, _parse(line)
        except Wrong as wrong:
            yield number, BadLine(number, wrong.found, wrong.expected)


def _add(reading: Reading, number: int, origin: str, value: object, native: Native | None) -> None:
    try:
        raw, notices = _checked(value), list[str]()
        if native is not None:
            raw, notices = native(raw)
        row = _row(number, raw, origin)
        if native is not None and row.origin != "review" and not row.is_text:
            require_question(row.messages)
            if row.rejected:
                answer: Message = {"role": "assistant", "content": row.rejected}
                require_question([*row.messages[:-1], answer])
    except Wrong as wrong:
        reading.bad.append(BadLine(number, wrong.found, wrong.expected, reading.unit))
        return
    reading.rows.append(row)
    for notice in notices:
        reading.notices[notice] = reading.notices.get(notice, 0) + 1
    unused = set() if row.is_text else {TEXT} & row.raw.keys()
    for name in (row.raw.keys() - KNOWN_FIELDS) | unknown_message_fields(row.raw) | unused:
        reading.unknown_fields[name] = reading.unknown_fields.get(name, 0) + 1


def _parse(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=one_of_each)
    except UnicodeDecodeError as error:
        raise Wrong(
            f"byte 0x{line[error.start]:02x} at position {error.start + 1}, which is not UTF-8",
            "UTF-8 text",
        ) from error
    except json.JSONDecodeError as error:
        raise Wrong(
            f"{shown(line.decode('utf-8', 'replace').strip())} ({error.msg.removesuffix(' at')} at"
            f" column {error.colno})",
            "one JSON object per line",
        ) from error
    except (RecursionError, ValueError) as error:
        raise Wrong(
            "JSON that cannot be read (nested too deep, or a number too long)",
            "one JSON object per line",
        ) from error


def _checked(value: object) -> JsonObject:
    """The object, when it is one that can be written as JSON again."""
    if not isinstance(value, dict):
        raise Wrong(kind_of(value), "a JSON object")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise Wrong(
            "half of a surrogate pair (\\ud800 to \\udfff) in a text", "whole Unicode characters"
        ) from error
    except TypeError as error:
        raise Wrong(
            f"a value that is neither text, number, list nor object{_in_field(value)} ({error})",
            "values that JSON knows",
        ) from error
    except ValueError as error:
        raise Wrong(f"NaN or Infinity{_in_field(value)}", "finite numbers") from error
    return value


def _in_field(value: JsonObject) -> str:
    """ " in 'NAME'": the first field that cannot be written as JSON."""
    for name, item in value.items():
        try:
            json.dumps(item, allow_nan=False)
        except (TypeError, ValueError):
            return f" in {shown(name)}"
    return ""


def _row(number: int, raw: JsonObject, origin: str) -> Row:
    said = conversation(raw)
    kind = said.kind
    stated = one_of(raw, "train", ("last", "all"), "last")
    messages, mode, unlearned = learned_turns(said.messages, stated)
    context, checks, scrubbed = context_of(raw), texts_of(raw, "checks"), texts_of(raw, "scrubbed")
    origin, rating = one_of(raw, "origin", ORIGINS, origin), rating_of(raw)
    tools = tools_of(raw)
    _require_learnable(messages, mode, unlearned)
    further = {
        "scrubbed": scrubbed,
        "rejected": said.rejected,
        "rating": rating,
        "unlearned": list(unlearned),
        "tools": tools,
        "kind": TEXT if kind == TEXT else "",
    }
    digest = digest_json(
        {"messages": messages, "context": context, "train": mode}
        | {name: value for name, value in further.items() if value}
    )
    question = (
        _question_digest(messages, context, tools)
        if kind != TEXT
        else digest_json([TEXT, _normal(messages[0]["content"])])
    )
    row_id = optional_text(raw, "id") or f"row-{digest[:16]}"
    return Row(
        line=number,
        id=row_id,
        digest=digest,
        prompt_digest=question,
        messages=tuple(messages),
        kind=kind,
        mode=mode,
        weight=weight_of(raw),
        task=optional_text(raw, "task") or "",
        user=optional_text(raw, "user"),
        group=optional_text(raw, "group"),
        context=tuple(context),
        checks=tuple(checks),
        origin=origin,
        raw={**raw, "id": row_id, "origin": origin},
        parent=optional_text(raw, "parent"),
        scrubbed=tuple(scrubbed),
        rejected=said.rejected,
        rating=rating,
        unlearned=unlearned,
        tools=tuple(tools),
    )


def _require_learnable(messages: Messages, mode: str, unlearned: tuple[int, ...]) -> None:
    turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    learned = [at for number, at in enumerate(turns) if number not in unlearned]
    for at in learned if mode == "all" else learned[-1:]:
        require_learnable_calls(at + 1, messages[at])


def _question_digest(messages: Messages, context: list[str], tools: list[JsonObject]) -> str:
    """Digest of all that the answer is given to. Tools and calls count only where there are any,
    so that other rows keep the digest, and the part of a split, that they had before."""
    turns = [[message["role"], _normal(text_of(message))] for message in messages[:-1]]
    return digest_json([*turns, _normal(" ".join(context)), *([tools] if tools else [])])


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
