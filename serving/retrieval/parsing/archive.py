"""Checks a zip archive before a library opens it: how large it becomes, and what is in it."""

from __future__ import annotations

import io
import zipfile
import zlib

from serving.retrieval.parsing.blocks import ParseError

_MOST_FILES = 10_000
_LARGEST_TOTAL = 200 * 1024 * 1024  # bytes, unpacked
_LARGEST_XML = 60 * 1024 * 1024  # bytes of one part; its tree takes ten times as much
_LARGEST_RATIO = 100  # of unpacked to packed bytes; texts reach 20
_RATIO_FROM = 1024 * 1024  # bytes; small parts of spaces compress well
_READ_AT_ONCE = 1024 * 1024
_XML_ENDINGS = (".xml", ".rels")
_PROLOGUE = 4096  # bytes in which a document type is declared
_DOCTYPES = tuple("<!DOCTYPE".encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be"))


def check_archive(content: bytes) -> None:
    """Unpack an archive with a counter, keeping nothing.

    Raises ParseError for an archive that is damaged, holds another archive or a document type
    declaration, or grows beyond the limits. Sizes that an archive declares are not believed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
            if len(parts) > _MOST_FILES:
                raise ParseError(f"It holds {len(parts)} files; at most {_MOST_FILES} are read.")
            total = 0
            for part in parts:
                total += _check_part(archive, part, _LARGEST_TOTAL - total)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        raise ParseError("It is damaged: its archive cannot be unpacked.") from None


def _check_part(archive: zipfile.ZipFile, part: zipfile.ZipInfo, left: int) -> int:
    is_xml = part.filename.lower().endswith(_XML_ENDINGS)
    size = 0
    with archive.open(part) as stream:
        while chunk := stream.read(_READ_AT_ONCE):
            if size == 0:
                _check_beginning(chunk, is_xml)
            size += len(chunk)
            if size > (min(left, _LARGEST_XML) if is_xml else left) or (
                size > _RATIO_FROM and size > part.compress_size * _LARGEST_RATIO
            ):
                raise ParseError("It unpacks to far more than it should (a zip bomb).")
    return size


def _check_beginning(chunk: bytes, is_xml: bool) -> None:
    if is_xml and any(mark in chunk[:_PROLOGUE] for mark in _DOCTYPES):
        raise ParseError("It declares a document type, which no Word document does.")
    if not is_xml and chunk.startswith(b"PK\x03\x04"):
        raise ParseError("It holds another archive.")
