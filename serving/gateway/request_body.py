"""Reading a request's body: bounded, decompressed where needed, and in UTF-8.

The usual body begins with `{` and ends with `}`: two comparisons say so, and nothing else is done.
Only for other bodies are the headers looked at.
"""

from __future__ import annotations

import re
import zlib

from serving.gateway.answers import ApiError, Headers, Receive
from serving.gateway.core import Caller

# What can be decompressed. Others (br, zstd) would need a library that nothing else here needs.
ENCODINGS = ("gzip", "deflate")
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # the header of the data decides which of the two it is
_RAW_DEFLATE = -zlib.MAX_WBITS  # what some clients send as `deflate`, against RFC 9110
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")  # byte order marks
_JSON = re.compile(rb"[ \t\r\n]*[\[{]")  # how a JSON object or list begins
_FORMS = (b"application/x-www-form-urlencoded", b"multipart/form-data")


async def read_body(receive: Receive, caller: Caller, limit: int) -> bytes | None:
    """Return the request's body, or None when the client went away while sending it.

    Raises ApiError 413 beyond `limit` bytes, before or after decompression, and 415 or 400 for a
    body that is compressed or encoded in a way that cannot be read.
    """
    announced = caller.content_length
    if announced is not None and announced > limit:
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        rest = await _receive_rest(receive, body, limit)
        if rest is None:
            return None
        body = rest
    if len(body) > limit:
        raise _too_large(limit)
    if body[:1] == b"{" and body[-1:] == b"}":
        return body
    return decode_body(body, caller.headers, limit)


async def _receive_rest(receive: Receive, first: bytes, limit: int) -> bytes | None:
    parts, size = [first], len(first)
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body"):
            return b"".join(parts)
    raise _too_large(limit)


def decode_body(body: bytes, headers: Headers, limit: int) -> bytes:
    """Return `body` as the JSON parser takes it: decompressed, in UTF-8, without a mark.

    A body that begins like JSON is taken as JSON whatever its headers say. Raises ApiError.
    """
    encoding = _values(headers, b"content-encoding").lower()
    if encoding not in (b"", b"identity") and not _JSON.match(body):
        body = _decompress(body, encoding.decode("latin-1"), limit)
    if body.startswith(_UTF8_BOM):
        body = body[len(_UTF8_BOM) :]
    if b"\0" in body[:4] or body.startswith(_UTF16_OR_32):
        raise ApiError(
            400,
            "The body is in UTF-16 or UTF-32. JSON is sent in UTF-8 (RFC 8259): encode it so.",
            code="invalid_encoding",
        )
    media_type = _values(headers, b"content-type").lower()
    if media_type.startswith(_FORMS) and not _JSON.match(body):
        raise ApiError(
            415,
            "The body is a form. Send one JSON object, with `Content-Type: application/json`.",
            code="unsupported_media_type",
            headers=[(b"accept", b"application/json")],
        )
    return body


def _values(headers: Headers, wanted: bytes) -> bytes:
    """All values of a header, joined by commas as RFC 9110 allows."""
    return b", ".join(value.strip() for name, value in headers if name == wanted)


def _decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo `encoding`; never makes more than `limit` bytes and one."""
    name = "gzip" if encoding == "x-gzip" else encoding
    if name not in ENCODINGS:
        raise ApiError(
            415,
            f"The body is compressed as {encoding[:64]!r}, which this gateway does not read. "
            f"Send it uncompressed, or with one of: {', '.join(ENCODINGS)}.",
            code="unsupported_content_encoding",
            headers=[(b"accept-encoding", ", ".join(ENCODINGS).encode())],
        )
    has_header = name == "gzip" or (len(body) > 1 and int.from_bytes(body[:2]) % 31 == 0)
    window = _GZIP_OR_ZLIB if has_header else _RAW_DEFLATE
    decompressor = zlib.decompressobj(window)
    try:
        found = decompressor.decompress(body, limit + 1)
    except zlib.error:
        raise ApiError(
            400,
            f"The header Content-Encoding says {name}, but the body is not {name} data. "
            "Compress it so, or leave the header out.",
            code="invalid_encoding",
        ) from None
    if len(found) > limit:
        raise _too_large(limit)
    if not decompressor.eof or decompressor.unused_data:
        # Several gzip members would be legal; thousands of tiny ones would cost seconds.
        raise ApiError(
            400,
            f"The body ends before its {name} data does, or goes on after it. "
            "Send one whole compressed stream.",
            code="invalid_encoding",
        )
    return found


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"The request body is longer than {limit} bytes, the limit of this gateway "
        "(WHET_REQUEST_MAX_BYTES). Send a shorter prompt.",
        code="request_too_large",
    )
