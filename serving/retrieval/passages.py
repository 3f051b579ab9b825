"""What is embedded of a passage, and the ids of documents and passages."""

from __future__ import annotations

import hashlib

SECTION_SEPARATOR = " > "  # between the headings of a passage's path
_ID_DIGITS = 32  # of hexadecimal: 128 bits


def embedded_text(title: str, section: str, text: str) -> str:
    """Return the text that is searched, embedded and counted: the heading path, then the text.

    A title that the path begins with is not said twice.
    """
    is_in_path = section == title or section.startswith(title + SECTION_SEPARATOR)
    path = section if is_in_path else SECTION_SEPARATOR.join(filter(None, (title, section)))
    return f"{path}\n{text}" if path else text


def text_digest(title: str, section: str, text: str) -> str:
    """Return `text_sha256`: the hash of `embedded_text` under which its vector is kept."""
    return hashlib.sha256(_encode(embedded_text(title, section, text))).hexdigest()


def document_id(collection: str, address: str) -> str:
    """Return the id of the document at an address: the same whenever it is added."""
    return f"doc_{_hash(collection, address)}"


def passage_id(document: str, position: int, text_sha256: str) -> str:
    """Return the id of a passage: another one when its text, headings or place change."""
    return f"psg_{_hash(document, str(position), text_sha256)}"


def _hash(*parts: str) -> str:
    return hashlib.sha256(_encode("\0".join(parts))).hexdigest()[:_ID_DIGITS]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # an address may be a file name of odd bytes
