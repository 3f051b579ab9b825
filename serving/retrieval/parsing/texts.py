"""Texts as they leave a parser: one encoding, no invisible characters, plain spaces."""

from __future__ import annotations

import re
from collections import Counter

from charset_normalizer import from_bytes

from serving.retrieval.parsing.blocks import ParseError
from serving.retrieval.records import Notice

_SPACES = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")
# Line ends, the soft hyphen, the byte order mark, and what other programs put between words.
_TRANSLATED = {
    "\r\n": "\n", "\r": "\n", "\x0b": "\n", "\x0c": "\n", "\x85": "\n", "\u2028": "\n",
    "\u2029": "\n\n", "\u00ad": "", "\ufeff": "", "\u200b": "", "\u2060": "",
}  # fmt: skip
_TRANSLATE = re.compile("|".join(map(re.escape, _TRANSLATED)))
# Characters that nobody sees and a model reads, or that show a text in another order than it has:
# control characters, directions, Unicode's tags, private use, halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2061-\u206f"
    "\ud800-\udfff\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e0fff]"
)
_DETECT_FROM = 64 * 1024  # bytes; more do not change the guess
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


class NoticeCounter:
    """Counts what a parser leaves out of a document's text."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, code: str, count: int = 1) -> None:
        """Count `count` more cases of `code`."""
        self._counts[code] += count

    def notices(self) -> list[Notice]:
        """Return the counts above zero."""
        return [Notice(code, count) for code, count in self._counts.items() if count]


def clean(text: str, counter: NoticeCounter) -> str:
    """Return `text` without unseen characters, with \\n as its only line end."""
    text = _TRANSLATE.sub(lambda match: _TRANSLATED[match.group()], text)
    text, removed = _UNSEEN.subn("", text)
    if removed:
        counter.add("unseen_characters", removed)
    return text


def one_line(text: str) -> str:
    """Return `text` with each run of white space as one space."""
    return " ".join(text.split())


def paragraph(text: str) -> str:
    """Return `text` with its own line breaks, without blank lines and double spaces."""
    lines = [one_line(line) for line in _SPACES.sub(" ", text).split("\n")]
    return "\n".join(line for line in lines if line)


def paragraphs(text: str) -> list[str]:
    """Return the parts of `text` that blank lines separate."""
    return [part for part in _BLANK_LINES.split(text.strip()) if part.strip()]


def decode(content: bytes, declared: str = "") -> str:
    """Decode a text file: by its byte order mark, as UTF-8, as declared, or as what is likeliest.

    Raises ParseError for bytes that are no text.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    if b"\0" in content[:_DETECT_FROM]:
        raise ParseError("It is no text: it holds zero bytes and no byte order mark.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    encodings = [declared] if declared else []
    best = from_bytes(content[:_DETECT_FROM]).best()
    encodings += [best.encoding] if best is not None else []
    for encoding in encodings:
        try:
            return content.decode(encoding, "replace")
        except LookupError:  # a declaration may name anything
            continue
    raise ParseError("Its encoding was not recognised.", hint="Save it as UTF-8.")
