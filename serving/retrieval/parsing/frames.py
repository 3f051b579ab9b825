"""What the parsing process and its parent send each other."""

from __future__ import annotations

import struct
from typing import BinaryIO

import msgspec

from serving.retrieval.parsing.blocks import ParsedDocument

LENGTH = struct.Struct(">I")  # in front of every frame


class Answer(msgspec.Struct):
    """What became of one document: one of the two is set."""

    document: ParsedDocument | None = None
    error: str = ""


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the next frame, or None at the end of the stream."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None
