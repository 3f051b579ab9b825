"""Parses documents in a process of its own: `python -m serving.retrieval.parsing.child`.

Each request is a length (4 bytes, big-endian) and msgpack `(name, content)`; each answer a length
and msgpack of `Answer`. The content comes with the request, so that no file is opened here.
"""

from __future__ import annotations

import os
import sys

import msgspec

from serving.retrieval.parsing.blocks import ParseError
from serving.retrieval.parsing.formats import parse_file
from serving.retrieval.parsing.frames import LENGTH, Answer, read_frame
from serving.retrieval.parsing.sandbox import ForbiddenError, enter_sandbox, limit_cpu


def answer(name: str, content: bytes) -> Answer:
    """Parse one document; what is wrong with it becomes the answer's error."""
    try:
        return Answer(document=parse_file(name, content))
    except ParseError as error:
        return Answer(error=str(error))
    except MemoryError:
        return Answer(error="It needs more memory than a document may.")
    except RecursionError:
        return Answer(error="It is nested too deeply.")
    except ForbiddenError as error:
        return Answer(error=f"It was refused: {error}.")


def main() -> None:
    """Answer requests until standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    parse_file("warm-up.md", b"# Ready\n\nThis loads the libraries before anything is given up.")
    enter_sandbox()
    while (frame := read_frame(requests)) is not None:
        name, content = msgspec.msgpack.decode(frame, type=tuple[str, bytes])
        limit_cpu()
        encoded = msgspec.msgpack.encode(answer(name, content))
        answers.write(LENGTH.pack(len(encoded)))
        answers.write(encoded)
        answers.flush()


if __name__ == "__main__":
    main()
