"""Records of annotation and tracing tools as rows: Argilla, Label Studio, Langfuse.

A row is learned, so only what a person submitted counts as an answer, never a suggestion or a
prediction. Where several texts may be meant, the row is refused with the `--columns` that names
one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from training.data.columns import ANSWERS, QUESTIONS, plain_name
from training.data.turns import decoded, is_messages
from training.data.wrong import Wrong, shown
from whet.json_types import Json, JsonObject

ARGILLA, LABEL_STUDIO, LANGFUSE = "Argilla", "Label Studio", "Langfuse"
_LANGFUSE_NAMES = {
    "traceid", "sourcetraceid", "sourceobservationid", "parentobservationid", "datasetid",
    "datasetitemid", "expectedoutput", "sessionid", "htmlpath", "bookmarked",
}  # fmt: skip
_FLAT = ".responses"  # the end of a column of Argilla's flattened records
_TASK_TEXTS = ("text", "dialogue", "conversation", "messages")  # of a task, beside QUESTIONS
# What Label Studio writes beside a task's texts in its short exports (JSON-MIN, CSV).
_MIN_NAMES = frozenset(
    ("annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement")
)


def from_export(raw: JsonObject) -> tuple[JsonObject, str]:
    """Return (the row in an export's record, the tool's name), or (raw, "") for any other object.

    Raises Wrong for a record without an answer of a person, and for one with several.
    """
    fields, data = raw.get("fields"), raw.get("data")
    if isinstance(fields, dict) and raw.keys() & {"responses", "suggestions", "status"}:
        return _argilla(raw, fields, _nested_answers(raw)), ARGILLA
    if flat := [name.removesuffix(_FLAT) for name in raw if name.endswith(_FLAT)]:
        return _argilla_flat(raw, flat), ARGILLA
    if isinstance(data, dict) and raw.keys() & {"annotations", "completions"}:
        return _label_studio(raw, data), LABEL_STUDIO
    if {"annotation_id", "annotator"} <= raw.keys():
        return _label_studio_short(raw), LABEL_STUDIO
    names = {plain_name(name).replace("_", "") for name in raw}
    if "input" in names and names & _LANGFUSE_NAMES:
        return _langfuse(raw), LANGFUSE
    return raw, ""


def _argilla_flat(raw: JsonObject, questions: list[str]) -> JsonObject:
    prefixes = tuple(f"{name}." for name in questions)
    fields = {
        name: value
        for name, value in raw.items()
        if not name.startswith(prefixes) and name not in ("id", "status", "_server_id", "metadata")
    }
    answers = {}
    for name in questions:
        values, states = decoded(raw[name + _FLAT]), decoded(raw.get(f"{name}{_FLAT}.status"))
        values = values if isinstance(values, list) else [values]
        states = states if isinstance(states, list) else [None] * len(values)
        pairs = zip(values, states, strict=False)
        answers[name] = [value for value, state in pairs if state in (None, "submitted")]
    return _argilla(raw, fields, answers)


def _nested_answers(raw: JsonObject) -> dict[str, list[Json]]:
    """Return question → submitted values, of Argilla 2 (by question) and 1 (by person)."""
    responses = raw.get("responses") or {}
    answers: dict[str, list[Json]] = {}
    if isinstance(responses, dict):
        for name, given in responses.items():
            for one in given if isinstance(given, list) else [given]:
                if not isinstance(one, dict):
                    answers.setdefault(name, []).append(one)
                elif one.get("status") in (None, "submitted"):
                    answers.setdefault(name, []).append(one.get("value"))
        return answers
    for person in responses if isinstance(responses, list) else []:
        if isinstance(person, dict) and person.get("status") in (None, "submitted"):
            values = person.get("values")
            for name, value in values.items() if isinstance(values, dict) else ():
                said = value.get("value") if isinstance(value, dict) else value
                answers.setdefault(name, []).append(said)
    return answers


def _argilla(
    raw: JsonObject, fields: JsonObject, answers: Mapping[str, Sequence[Json]]
) -> JsonObject:
    if raw.get("status") == "discarded":
        raise Wrong("a record of Argilla that was discarded", "records with a submitted response")
    texts = {name: _texts(values) for name, values in answers.items()}
    texts = {name: values for name, values in texts.items() if values}
    place = "responses" if "responses" in raw else "the columns of responses"
    if not texts:
        raise Wrong(
            "a record of Argilla without a submitted response in words",
            "one that a person answered, or, to learn the texts of its fields, "
            f"{_columns('fields' if 'fields' in raw else '', fields)}",
        )
    name = _the_one(texts, ANSWERS, place, f"completion={'responses.' if 'fields' in raw else ''}")
    answer = _agreed(texts[name], f"responses to {shown(name)}")
    asked = {one: value for one, value in fields.items() if _is_text(value) or is_messages(value)}
    if any(plain_name(one) in QUESTIONS for one in asked):
        asked = {one: value for one, value in asked.items() if plain_name(one) not in ANSWERS}
    question = asked[_the_one(asked, (*QUESTIONS, "text", "chat"), "fields", "prompt=fields.")]
    row = _row(question, answer, raw.get("id") or raw.get("external_id") or raw.get("_server_id"))
    context = fields.get("context")
    return {**row, "context": context} if _is_text(context) and context != question else row


def _columns(place: str, names: Mapping[str, Json]) -> str:
    """Return a `--columns` of two of the names, for the end of a sentence."""
    known = list(names)
    question = next((name for name in known if plain_name(name) in QUESTIONS), "QUESTION")
    answer = next((name for name in known if plain_name(name) in ANSWERS), "ANSWER")
    dot = f"{place}." if place else ""
    return f"--columns prompt={dot}{question},completion={dot}{answer}"


def _label_studio(raw: JsonObject, data: JsonObject) -> JsonObject:
    listed = raw.get("annotations") or raw.get("completions") or []
    listed = listed if isinstance(listed, list) else [listed]
    given = [one for one in listed if isinstance(one, dict) and not one.get("was_cancelled")]
    given = [one for one in given if one.get("ground_truth")] or given
    texts: dict[str, list[str]] = {}
    for annotation in given:
        results = annotation.get("result")
        for result in results if isinstance(results, list) else []:
            if isinstance(result, dict) and (text := _result(result)):
                texts.setdefault(str(result.get("from_name")), []).append(text)
    if not texts:
        raise Wrong("a task of Label Studio without an annotation in words", "an annotated task")
    name = _the_one(texts, ANSWERS, "annotations", "completion=annotations.result.value.")
    answer = _agreed(texts[name], f"annotations {shown(name)}")
    return _row(_task_question(data), answer, raw.get("id"))


def _result(result: JsonObject) -> str:
    """Return the text or the choice of an annotation's result; "" for marks, stars and the like."""
    value = result.get("value")
    if not isinstance(value, dict) or "start" in value:
        return ""
    said = value.get("text", value.get("choices"))
    said = said if isinstance(said, list) else [said]
    return "\n".join(item for item in said if isinstance(item, str) and item.strip())


def _task_question(data: JsonObject) -> Json:
    asked = {name: value for name, value in data.items() if _is_text(value) or is_messages(value)}
    return asked[_the_one(asked, (*QUESTIONS, *_TASK_TEXTS), "data", "prompt=data.")]


def _label_studio_short(raw: JsonObject) -> JsonObject:
    """Return the row of JSON-MIN and CSV exports: texts and annotations are fields side by side."""
    row = {name: value for name, value in raw.items() if name not in _MIN_NAMES}
    for name, value in row.items():
        value = decoded(value)
        value = value.get("choices") if isinstance(value, dict) and "choices" in value else value
        row[name] = value[0] if isinstance(value, list) and _texts(value) == value[:1] else value
    texts = [name for name, value in row.items() if _is_text(value) and name != "id"]
    asked = [name for name in texts if plain_name(name) in (*QUESTIONS, "text")]
    if len(texts) == 2 and len(asked) == 1:
        answer = next(name for name in texts if name not in asked)
        return _row(row[asked[0]], str(row[answer]), row.get("id"))
    return row


def _langfuse(raw: JsonObject) -> JsonObject:
    """Return the row of a dataset item, a trace or a generation."""
    value = {plain_name(name).replace("_", ""): item for name, item in raw.items()}
    kind = value.get("type")
    if isinstance(kind, str) and kind.upper() not in ("GENERATION", "TRACE", "AGENT", "CHAIN"):
        raise Wrong(f"an observation of Langfuse of the type {kind}", "traces or generations")
    if str(value.get("status")).upper() == "ARCHIVED":
        raise Wrong("an archived item of Langfuse", "active ones")
    if str(value.get("level")).upper() == "ERROR":
        raise Wrong("a generation of Langfuse that failed", "one with an output")
    said = next((value[name] for name in ("expectedoutput", "output") if value.get(name)), None)
    if said is None:
        raise Wrong(
            "a record of Langfuse without an output", "one with 'output' or 'expectedOutput'"
        )
    row = {"input": _unquoted(value.get("input")), "output": _unquoted(said), "id": value.get("id")}
    row |= {"user": value.get("userid"), "group": value.get("sessionid")}
    if (rating := _rating(decoded(value.get("scores")))) is not None:
        row["rating"] = rating
    return {name: item for name, item in row.items() if item is not None}


def _unquoted(value: Json) -> Json:
    """Return the text in a JSON text: a CSV of Langfuse writes every value as JSON."""
    if isinstance(value, str) and value.startswith('"') and value.endswith('"'):
        try:
            read: Json = json.loads(value)
            return read
        except ValueError:
            return value
    return value


def _rating(scores: Json) -> int | None:
    """Return -1 if any score that is true or false is false, 1 if all are true, else None."""
    found = [
        bool(score.get("value"))
        for score in (scores if isinstance(scores, list) else [])
        if isinstance(score, dict) and score.get("dataType", score.get("data_type")) == "BOOLEAN"
    ]
    return (1 if all(found) else -1) if found else None


def _row(question: Json, answer: str, row_id: Json) -> JsonObject:
    named = {} if row_id is None else {"id": row_id}
    if is_messages(question):
        return {"messages": [*question, {"role": "assistant", "content": answer}], **named}
    return {"prompt": question, "completion": answer, **named}


def _is_text(value: Json) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip())


def _texts(values: Sequence[Json]) -> list[str]:
    return [value for value in values if _is_text(value)]


def _the_one(named: Mapping[str, object], usual: Sequence[str], place: str, columns: str) -> str:
    """Return the only name, or the only usual one. Raises Wrong for none and for several."""
    names = list(named)
    if len(names) > 1:
        names = [name for name in names if plain_name(name) in usual] or names
    if len(names) == 1:
        return names[0]
    found = ", ".join(map(shown, names)) or "no text"
    raise Wrong(
        f"{found} in {place} of an export" + (": any may be meant" if names else ""),
        f"one, or --columns with the one to take, such as {columns}{(names or ['NAME'])[0]}",
    )


def _agreed(texts: Sequence[str], what: str) -> str:
    distinct = list(dict.fromkeys(text.strip() for text in texts))
    if len(distinct) > 1:
        raise Wrong(
            f"{len(distinct)} {what} that differ", "one answer: settle it in the tool first"
        )
    return texts[0]
