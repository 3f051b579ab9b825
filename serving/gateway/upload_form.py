"""Receives a file that comes as a multipart form, straight to disk and within a limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.gateway.answers import ApiError, Headers, Receive
from serving.gateway.core import Caller

LONGEST_FIELD = 4096  # bytes of a field that is no file
_MOST_FIELDS = 16
_FORM_BYTES = 64 * 1024  # of a body besides its file
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]  # runs a function beside the event loop


@dataclass
class ReceivedForm:
    """The fields of a form, and the name of its file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str = ""


class _FormReader:
    """Reads one form as it comes; the content of its field `file` goes to `target`."""

    def __init__(self, boundary: bytes, target: BinaryIO, largest: int) -> None:
        self.form = ReceivedForm()
        self._left = self._largest = largest  # bytes of the file
        self.has_ended = False
        self._target = target
        self._header = [b"", b""]
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._add_to_header(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._add_to_header(1, data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_content,
                "on_part_data": lambda data, start, end: self._add_content(data[start:end]),
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Read on. Raises ApiError 400 for what is no form, or not one of ours."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise _wrong(f"The form is broken: {error}.") from None

    def _begin_part(self) -> None:
        self._disposition = b""
        self._value.clear()

    def _add_to_header(self, part: int, data: bytes) -> None:
        self._header[part] += data

    def _end_header(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _begin_content(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == "file"
        if not self._is_file:
            if len(self.form.fields) >= _MOST_FIELDS:
                raise _wrong(f"The form has more than {_MOST_FIELDS} fields.")
            return
        if self.form.filename:
            raise _wrong("The form has two files; send one after the other.")
        filename = options.get(b"filename", b"").decode("utf-8", "replace")
        if not filename:
            raise _wrong("The field 'file' has no filename, whose ending says how it is read.")
        self.form.filename = filename

    def _add_content(self, data: bytes) -> None:
        if self._is_file:
            self._left -= len(data)
            if self._left < 0:
                raise _too_large(self._largest)
            self._target.write(data)
            return
        self._value += data
        if len(self._value) > LONGEST_FIELD:
            raise _wrong(f"The field {self._name[:80]!r} is longer than {LONGEST_FIELD} bytes.")

    def _end_part(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self.has_ended = True


async def receive_form(
    receive: Receive, caller: Caller, target: Path, largest: int, in_thread: InThread
) -> ReceivedForm | None:
    """Write the form's file to `target`; None when the client went away.

    Parsing and writing are done by `in_thread`. Raises ApiError: 413 for a file of more than `largest`
    bytes, 400 or 415 for what is no whole form with one file. The caller removes `target`.
    """
    boundary = _boundary(caller.headers)
    announced = caller.content_length
    if announced is not None and announced > largest + _FORM_BYTES:
        raise _too_large(largest)
    file = await in_thread(partial(target.open, "wb"))
    try:
        reader = _FormReader(boundary, file, largest)
        size = 0
        is_more = True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            data = message.get("body", b"")
            size += len(data)
            if size > largest + _FORM_BYTES:
                raise _too_large(largest)
            await in_thread(partial(reader.feed, data))
            is_more = message.get("more_body", False)
    finally:
        await in_thread(file.close)
    if not reader.has_ended or not reader.form.filename:
        raise _wrong("The form ends early, or has no field 'file'.")
    return reader.form


def _boundary(headers: Headers) -> bytes:
    given = dict(headers)
    media_type, options = parse_options_header(given.get(b"content-type", b""))
    boundary = options.get(b"boundary", b"")
    if media_type != b"multipart/form-data" or not boundary or b"content-encoding" in given:
        raise ApiError(
            415,
            "Send the file as multipart/form-data, uncompressed, with the fields 'file' and "
            "'purpose'.",
            code="unsupported_media_type",
            headers=[(b"accept", b"multipart/form-data")],
        )
    return boundary


def _wrong(message: str) -> ApiError:
    return ApiError(400, message, param="file", code="invalid_value")


def _too_large(largest: int) -> ApiError:
    return ApiError(
        413,
        f"The file is longer than {largest:,} bytes, the most that is read. Divide it.",
        param="file",
        code="request_too_large",
    )
