"""Adds citations to a stream: all passages in its first and last event, annotations after the text.

Only requests that retrieve come here. Their events are read one by one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serving.gateway.citations import Marks, chat_annotations, find_marks, responses_annotations
from serving.gateway.retrieval import Retrieval
from serving.gateway.stream_editor import BOUNDARY, DONE, Rewriter, StreamEditor

_DATA = b"data: "
_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ChatCitationEditor(StreamEditor):
    """Edits a stream of chat chunks."""

    def __init__(self, rewrite: Rewriter, retrieval: Retrieval, *, without_usage: bool) -> None:
        super().__init__(rewrite, without_usage=without_usage, has_done=True)
        self._retrieval = retrieval
        self._texts: dict[int, str] = {}  # of each choice
        self._cited: set[int] = set()
        self._is_first = True
        self._last = b""  # from the first finish on: the latest event, which may be the last

    def feed(self, data: bytes) -> bytes:
        out = super().feed(data)
        if not self.ended:
            return self._edit(out)
        body = self.held.removesuffix(DONE)
        is_done = len(body) < len(self.held)
        edited = self._edit(body)
        if self.error is None and self._last:
            self._last = _with_whet(self._last, self._retrieval.whet_field(sorted(self._cited)))
        self.held = edited + self._last + (DONE if is_done else b"")
        self._last = b""
        return b""

    def _edit(self, data: bytes) -> bytes:
        return b"".join(map(self._edit_event, _events(data)))

    def _edit_event(self, event: bytes) -> bytes:
        chunk = _chunk_of(event)
        if chunk is None:
            return event
        if self._is_first:
            self._is_first = False
            event = _with_whet(event, self._retrieval.whet_field(None))
        is_finish = False
        for choice in chunk["choices"]:
            index, delta = choice.get("index", 0), choice.get("delta") or {}
            text = self._texts.get(index, "") + (delta.get("content") or "")
            self._texts[index] = text
            is_finish = is_finish or choice.get("finish_reason") is not None
        if not (is_finish or self._last):
            return event
        before = self._last
        if is_finish:
            first, event = self._annotate(chunk, event)
            before += first
        self._last = event
        return before

    def _annotate(self, chunk: dict[str, Any], event: bytes) -> tuple[bytes, bytes]:
        """Return what goes before the finish, and the finish."""
        found: list[dict[str, Any]] = []
        for choice in chunk["choices"]:
            if choice.get("finish_reason") is None:
                continue
            marks = find_marks(self._texts[choice.get("index", 0)], len(self._retrieval.hits))
            self._cited.update(marks.cited)
            if annotations := chat_annotations(marks, self._retrieval.hits):
                found.append(_silent(choice, {"annotations": annotations}))
        if not found:
            return b"", event
        chunk = msgspec.json.decode(event[len(_DATA) :])  # with what was added to the event
        finish = {**chunk, "choices": [_silent(c, {}, ends=True) for c in chunk["choices"]]}
        finish.pop("whet", None)
        annotated = {**finish, "choices": found}
        annotated.pop("usage", None)
        before = b""
        if any(_has_content(choice) for choice in chunk["choices"]) or "whet" in chunk:
            choices = [{**choice, "finish_reason": None} for choice in chunk["choices"]]
            before = _event({**chunk, "choices": choices})
        return before + _event(annotated), _event(finish)


class ResponsesCitationEditor(StreamEditor):
    """Edits a stream of the Responses API, whose events are numbered."""

    def __init__(self, rewrite: Rewriter, retrieval: Retrieval) -> None:
        super().__init__(rewrite, without_usage=False, has_done=False)
        self._retrieval = retrieval
        self._annotated: dict[tuple[int, int], list[dict[str, Any]]] = {}  # by output and part
        self._texts: dict[tuple[int, int], tuple[str, Any]] = {}  # text so far and item id
        self._added = 0  # events

    def feed(self, data: bytes) -> bytes:
        known = len(self.held)
        out = super().feed(data)
        if not self.ended:
            return self._edit(out)
        self.held = self.held[:known] + self._edit(self.held[known:])
        return b""

    def _edit(self, data: bytes) -> bytes:
        return b"".join(map(self._edit_event, _events(data)))

    def _edit_event(self, raw: bytes) -> bytes:
        line = next((line for line in raw.split(b"\n") if line.startswith(b"data:")), b"")
        try:
            event = msgspec.json.decode(line[5:].strip())
        except msgspec.DecodeError:
            return raw
        if not isinstance(event, dict):
            return raw
        kind = event.get("type")
        place = (event.get("output_index", 0), event.get("content_index", 0))
        before = b""
        if kind == "response.output_text.delta":
            text = self._texts.get(place, ("", None))[0] + str(event.get("delta") or "")
            self._texts[place] = text, event.get("item_id")
        elif kind == "response.output_text.done":
            before = self._add(place, event)
        elif kind == "response.content_part.done":
            self._annotate_part(event.get("part"), place)
        elif kind == "response.output_item.done":
            self._annotate_item(event.get("item"), place[0])
        elif kind in ("response.created", "response.in_progress"):
            event["response"]["whet"] = self._retrieval.whet_field(None)
        elif kind in _RESPONSE_ENDS:
            for open_place in list(self._texts):
                before += self._add(open_place, event)
            annotate_response(event["response"], self._retrieval)
        return before + self._numbered(event)

    def _add(self, place: tuple[int, int], event: dict[str, Any]) -> bytes:
        """Return the events that announce the annotations of a text that is complete."""
        if place in self._annotated or place not in self._texts:
            return b""
        text, item_id = self._texts[place]
        marks = find_marks(text, len(self._retrieval.hits))
        annotations = responses_annotations(marks, self._retrieval.hits)
        self._annotated[place] = annotations
        found = b""
        for number, annotation in enumerate(annotations):
            found += self._numbered({
                "type": "response.output_text.annotation.added",
                "sequence_number": event.get("sequence_number", 0),
                "item_id": item_id,
                "output_index": place[0],
                "content_index": place[1],
                "annotation_index": number,
                "annotation": annotation,
            })  # fmt: skip
            self._added += 1
        return found

    def _annotate_part(self, part: Any, place: tuple[int, int]) -> None:
        if isinstance(part, dict) and part.get("type") == "output_text":
            part["annotations"] = self._annotated.get(place, [])

    def _annotate_item(self, item: Any, output: int) -> None:
        content = item.get("content") if isinstance(item, dict) else None
        for number, part in enumerate(content if isinstance(content, list) else ()):
            self._annotate_part(part, (output, number))

    def _numbered(self, event: dict[str, Any]) -> bytes:
        if isinstance(event.get("sequence_number"), int):
            event = {**event, "sequence_number": event["sequence_number"] + self._added}
        return b"event: %s\n%s" % (str(event.get("type")).encode(), _event(event))


def annotate_response(response: dict[str, Any], retrieval: Retrieval) -> None:
    """Add annotations and `whet` to a body of the Responses API."""
    cited: set[int] = set()
    for item in response.get("output") or ():
        for part in item.get("content") or () if item.get("type") == "message" else ():
            if part.get("type") == "output_text":
                marks = find_marks(part.get("text") or "", len(retrieval.hits))
                cited.update(marks.cited)
                part["annotations"] = responses_annotations(marks, retrieval.hits)
    response["whet"] = retrieval.whet_field(sorted(cited))


def annotate_chat(body: dict[str, Any], retrieval: Retrieval) -> None:
    """Add annotations and `whet` to a chat completion."""
    cited: set[int] = set()
    for choice in body.get("choices") or ():
        message = choice.get("message") or {}
        marks: Marks = find_marks(message.get("content") or "", len(retrieval.hits))
        cited.update(marks.cited)
        message["annotations"] = chat_annotations(marks, retrieval.hits)
    body["whet"] = retrieval.whet_field(sorted(cited))


def _events(data: bytes) -> list[bytes]:
    return [part + BOUNDARY for part in data.split(BOUNDARY)[:-1]]


def _chunk_of(event: bytes) -> dict[str, Any] | None:
    try:
        chunk = msgspec.json.decode(event[len(_DATA) :]) if event.startswith(_DATA) else None
    except msgspec.DecodeError:
        return None
    is_chunk = isinstance(chunk, dict) and isinstance(chunk.get("choices"), list)
    return chunk if is_chunk else None


def _event(value: dict[str, Any]) -> bytes:
    return _DATA + msgspec.json.encode(value) + BOUNDARY


def _with_whet(event: bytes, whet: dict[str, Any]) -> bytes:
    return _event({**(_chunk_of(event) or {}), "whet": whet})


def _silent(choice: dict[str, Any], delta: dict[str, Any], *, ends: bool = False) -> dict[str, Any]:
    """Return a choice of a chunk without its text."""
    names = ("index", "finish_reason", "stop_reason") if ends else ("index",)
    kept = {name: choice[name] for name in names if name in choice}
    return {"finish_reason": None, "logprobs": None, **kept, "delta": delta}


def _has_content(choice: dict[str, Any]) -> bool:
    return any(value for name, value in (choice.get("delta") or {}).items() if name != "role")
