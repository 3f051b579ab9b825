"""Rows as other tools write them, as Whet's own: everything after this step sees one form.

TRL's rated rows, OpenAI's conversations and preferences, Alpaca with earlier turns, ShareGPT with
tools, exports of annotation tools, other names of fields and roles. A row that is Whet's already
comes back as it is, so that what a step writes is read the same again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

from training.data.columns import (
    ANSWERS,
    DIALOGUES,
    NO_COLUMNS,
    QUESTIONS,
    RATED,
    READ_NAMES,
    SYSTEMS,
    Columns,
    listed,
    with_plain_names,
)
from training.data.exports import from_export
from training.data.turns import (
    decoded,
    is_messages,
    messages_from,
    text_of,
    texts_of,
    without_open_question,
)
from training.data.wrong import Wrong, shown
from whet.json_types import Json, JsonObject

OPEN_QUESTION = "a last message of the user, which has no answer, is cut off"
RATED_ROWS = "{} is read as a rating (TRL's rows for KTO): true is a good answer, false a bad one"
EXPORTED = "read as an export of {}: submitted answers are learned, suggestions are not"

# True and false in JSON, in tables, and as a spreadsheet of another country writes them.
_RATINGS = {
    True: 1, "true": 1, "1": 1, "1.0": 1, "wahr": 1, "vrai": 1, "verdadero": 1, "vero": 1,
    False: -1, "false": -1, "0": -1, "0.0": -1, "falsch": -1, "faux": -1, "falso": -1,
}  # fmt: skip
_ANSWER_LISTS = ("chosen", "rejected")
_EITHER = ("prompt", "completion", *_ANSWER_LISTS)  # texts, or lists of messages


class Native:
    """Makes rows of one file Whet's own. What was done to a row is returned beside it."""

    def __init__(
        self, rows: Iterable[object], known: frozenset[str], columns: Columns = NO_COLUMNS
    ) -> None:
        """`rows`: all objects of the file; `known`: names of fields that Whet has."""
        self._known = known | READ_NAMES
        self._columns = columns
        self._rated = self._rated_field([row for row in rows if isinstance(row, dict)])

    def _rated_field(self, rows: Sequence[JsonObject]) -> str:
        """Return the field that rates answers: `label`, where every row has one of 0 and 1, or of
        "true" and "false". A column of classes that holds 0 and 1 in some rows is none.
        """
        named = [with_plain_names(row, self._known) for row in rows]
        for name in RATED:
            values = [row[name] for row in named if row.get(name) is not None]
            if values and all(_rating(value) is not None for value in values):
                return name
        return ""

    def __call__(self, raw: JsonObject) -> tuple[JsonObject, list[str]]:
        """Return (the row, notices of what was done). Raises Wrong for what may mean several."""
        notices: list[str] = []
        row: JsonObject = {name: value for name, value in raw.items() if value is not None}
        row = self._columns.renamed(row) if self._columns else row
        if not (self._columns and _is_native(row)):
            row, tool = from_export(row)
            if tool:
                notices.append(EXPORTED.format(tool))
        row = with_plain_names(row, self._known)
        row = _input_and_output(_openai_preference(row))
        row = _with_history(_paired(_dialogue(row)))
        for name in ("messages", *_EITHER):
            if name in row and (name == "messages" or _holds_messages(row[name])):
                row[name] = messages_from(row[name])
        row = _answers_apart(row)
        rated = next((name for name in RATED if isinstance(row.get(name), bool)), self._rated)
        if rated and rated in row and "rejected" not in row:
            row = _with_rating(row, rated)
            notices.append(RATED_ROWS.format(repr(rated)))
        if isinstance(messages := row.get("messages"), list) and not _has_answer_apart(row):
            answered = without_open_question(messages)
            row["messages"] = answered
            notices += [OPEN_QUESTION] * (len(answered) < len(messages))
        return row, notices


def _is_native(row: Mapping[str, Json]) -> bool:
    asked = row.keys() & {"prompt", "instruction"}
    return "messages" in row or bool(asked and row.keys() & {"completion", "output", "chosen"})


def _holds_messages(value: Json) -> bool:
    value = decoded(value)
    return is_messages([value] if isinstance(value, dict) else value)


def _rating(value: Json) -> int | None:
    """Return 1 or -1 for true and false in any of the ways files write them; None for others."""
    if isinstance(value, str):
        value = value.strip().casefold()
    try:
        return _RATINGS.get(value)  # 0 and 1 are equal to False and True
    except TypeError:
        return None


def _with_rating(row: JsonObject, name: str) -> JsonObject:
    rating = _rating(row[name])
    if "rating" in row and row["rating"] != rating:
        found = f"{name!r} is {shown(row[name])} beside a rating of {shown(row['rating'])}"
        raise Wrong(found, "one of the two")
    return {**{key: value for key, value in row.items() if key != name}, "rating": rating}


def _openai_preference(row: JsonObject) -> JsonObject:
    """Return OpenAI's preference as `messages`, `chosen` and `rejected`."""
    names = ("input", "preferred_output", "non_preferred_output")
    if not row.keys() & set(names[1:]):
        return row
    if missing := [name for name in names if name not in row]:
        raise Wrong(f"no field {missing[0]!r}", f"{', '.join(names[:2])} and {names[2]} together")
    asked = decoded(row["input"])
    rest = {name: value for name, value in row.items() if name not in names}
    if isinstance(asked, dict) and "messages" in asked:
        rest = {"tools": asked["tools"], **rest} if asked.get("tools") else rest
        asked = asked["messages"]
    question = {"messages": asked} if isinstance(decoded(asked), list) else {"prompt": asked}
    return {**question, "chosen": row[names[1]], "rejected": row[names[2]], **rest}


def _input_and_output(row: JsonObject) -> JsonObject:
    """Return a trace, what a model was sent and what it sent back, as a conversation."""
    if "instruction" in row or not {"input", "output"} <= row.keys():
        return row
    asked, said = decoded(row["input"]), decoded(row["output"])
    if isinstance(asked, str) and isinstance(said, str):
        return row
    rest = {name: value for name, value in row.items() if name not in ("input", "output")}
    if isinstance(asked, dict) and "messages" in asked:
        rest = {"tools": asked["tools"], **rest} if asked.get("tools") else rest
        asked = asked["messages"]
    question = _only_text(asked, "input")
    answer = _reply(said)
    if is_messages(question):
        return {"messages": [*_messages(question), *answer], **rest}
    only = answer[0] if len(answer) == 1 else None
    if isinstance(only, dict) and not only.get("tool_calls"):
        return {"prompt": question, "completion": only.get("content"), **rest}
    return {"messages": [{"role": "user", "content": question}, *answer], **rest}


def _only_text(value: Json, name: str) -> Json:
    """Return messages or a text as they are, and of an object its only text. Raises Wrong."""
    value = decoded(value)
    if isinstance(value, str) or is_messages(value):
        return value
    texts = [item for item in value.values() if item] if isinstance(value, dict) else []
    if len(texts) == 1 and (isinstance(texts[0], str) or is_messages(texts[0])):
        return texts[0]
    columns = (
        f"--columns prompt={name}.NAME" if name == "input" else f"--columns completion={name}.NAME"
    )
    if isinstance(value, dict):
        raise Wrong(f"{name!r} is an object of {listed(value)}", f"one text in it, or {columns}")
    raise Wrong(f"{name!r} is {shown(value)}", "a text or a list of messages")


def _reply(value: Json) -> list[Json]:
    """Return the messages of an answer: a text, a message, a list of them, or OpenAI's response."""
    value = decoded(value)
    choices = value.get("choices") if isinstance(value, dict) else None
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        value = choices[0].get("message", choices[0].get("text"))
    if isinstance(value, dict) and ("content" in value or "tool_calls" in value):
        value = [{"role": "assistant", **value}]
    value = _only_text(value, "output")
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    return _messages(value)


def _messages(value: Json) -> list[Json]:
    """Return the messages in a value that `is_messages` knows."""
    found = messages_from(value)
    return found if isinstance(found, list) else [found]


def _dialogue(row: JsonObject) -> JsonObject:
    """Return the row with a list of messages under another name as `messages`."""
    named = [name for name in DIALOGUES if _holds_messages(row.get(name))]
    for name in DIALOGUES if "conversations" in row and not named else ():
        if name == "conversations":
            named = [name]  # whatever it holds: what is wrong with it is said of the messages
    for name in DIALOGUES:
        if _is_alternating(texts := row.get(name)):
            named = [name]
            roles = ("user", "assistant")
            row = {
                **row,
                name: [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)],
            }
    if "messages" in row or len(named) != 1:
        return row
    return {"messages" if name == named[0] else name: value for name, value in row.items()}


def _is_alternating(value: Json) -> TypeGuard[list[str]]:
    """Tell whether a value is a list of texts that a user and the assistant say in turn."""
    return (
        isinstance(value, list)
        and len(value) > 1
        and all(isinstance(one, str) and decoded(one) is one for one in value)
    )


def _paired(row: JsonObject) -> JsonObject:
    """Return the row with a question and an answer under other names as `prompt` and `completion`.

    Raises Wrong for several that may be meant.
    """
    for name in SYSTEMS:
        if name in row and "system" not in row:
            row = {**row, name: text_of(row[name])}
            row = {"system" if key == name else key: value for key, value in row.items()}
    if "messages" in row or {"prompt", "completion"} <= row.keys():
        return row
    asked = [name for name in QUESTIONS if _is_said(row.get(name))]
    if "instruction" in asked:  # Alpaca's: the input belongs to it
        asked = [name for name in asked if name != "input"]
    if "chosen" in row or "rejected" in row:
        return row if "prompt" in row or len(asked) != 1 else _alpaca_question(row, asked[0])
    said = [name for name in ANSWERS if _is_said(row.get(name))]
    if {"expected_output", "expectedoutput", "expected_answer"} & {*said} and "output" in said:
        said.remove("output")  # what a model said, beside what is right
    if said and not asked and _is_said(row.get("text")):  # not a plain text beside an ignored field
        raise Wrong(
            f"the fields text, {', '.join(said)}",
            f"a question and an answer: --columns prompt=text,completion={said[0]}",
        )
    if not asked or not said or ("instruction" in asked and "output" in said):
        return row
    asked = [name for at, name in enumerate(asked) if row[name] not in map(row.get, asked[:at])]
    if len(asked) > 1 or len(said) > 1:
        names = [name for name in row if name in asked or name in said]
        raise Wrong(
            f"the fields {', '.join(names)}, of which more than two may be question and answer",
            f"two, or --columns prompt={asked[-1]},completion={said[-1]}",
        )
    if asked[0] == "instruction":
        return {"output" if name == said[0] else name: value for name, value in row.items()}
    ours = {asked[0]: "prompt", said[0]: "completion"}
    return {ours.get(name, name): value for name, value in row.items()}


def _alpaca_question(row: JsonObject, name: str) -> JsonObject:
    """Return a preference with its question, which has another name, as `prompt`."""
    taken = {name, "input"} if name == "instruction" else {name}
    parts = [row[one] for one in (name, "input") if one in taken and _is_said(row.get(one))]
    question = "\n\n".join(map(str, parts)) if len(parts) > 1 else parts[0]
    return {"prompt": question, **{one: value for one, value in row.items() if one not in taken}}


def _is_said(value: Json) -> bool:
    return (
        bool(value.strip()) if isinstance(value, str) else isinstance(value, list) and bool(value)
    )


def _with_history(row: JsonObject) -> JsonObject:
    """Return the row with Alpaca's `history`, the turns before the question, as messages."""
    history = decoded(row.get("history"))
    if not isinstance(history, list) or "messages" in row:
        return row
    rest = {name: value for name, value in row.items() if name != "history"}
    if not history:
        return rest
    pair = ("instruction", "output") if "instruction" in row else ("prompt", "completion")
    if not all(isinstance(row.get(name), str) for name in pair):
        return row
    if is_messages(history):
        turns = _messages(history)
    elif len(pairs := [turn for turn in history if _is_pair(turn)]) == len(history):
        roles = ("user", "assistant")
        turns = [
            {"role": role, "content": text}
            for turn in pairs
            for role, text in zip(roles, turn, strict=True)
        ]
    else:
        raise Wrong("a 'history' of other things", 'pairs such as [["question", "answer"], …]')
    more = [row["input"]] if pair[0] == "instruction" and _is_said(row.get("input")) else []
    question = "\n\n".join(map(str, [row[pair[0]], *more]))
    taken = (*pair, *(["input"] if more else []))
    rest = {name: value for name, value in rest.items() if name not in taken}
    turns += [
        {"role": "user", "content": question},
        {"role": "assistant", "content": row[pair[1]]},
    ]
    return {"messages": turns, **rest}


def _is_pair(value: Json) -> TypeGuard[list[str]]:
    return isinstance(value, list) and [type(text) for text in value] == [str, str]


def _answers_apart(row: JsonObject) -> JsonObject:
    """Drop `messages` that repeat the chosen answer, as published preference sets do."""
    chosen, messages = row.get("chosen"), row.get("messages")
    if not isinstance(chosen, list) or "rejected" not in row or not messages:
        return row
    if list(texts_of(messages)) != list(texts_of(chosen)):
        return row
    return {name: value for name, value in row.items() if name != "messages"}


def _has_answer_apart(row: Mapping[str, Json]) -> bool:
    return bool(row.keys() & {"chosen", "rejected", "completion"})
