"""Identifiers: a prefix that says what it names, then time and randomness, so that ids sort by
creation.
"""

from __future__ import annotations

import os
import re
from collections import deque

from whet.clock import now_ms
from whet.errors import InputError

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no letter that reads as a digit
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]  # of 10 bits each
_TIME_CHARS = 9  # 45 bits of milliseconds: enough until the year 3084
# 65 bits: a billion ids in the same millisecond collide with probability 1 in 70
_RANDOM_CHARS = 13

_NOISE_BYTES = 9  # the 65 bits, in whole bytes
_NOISE_AHEAD = 64
_ahead: deque[bytes] = deque()  # random bytes of ids to come; taking one is atomic
os.register_at_fork(after_in_child=_ahead.clear)  # two processes must not make the same ids

_DATASET_REFERENCE = re.compile(r"(?P<name>[^@]+)@v?(?P<version>[0-9]{1,9})")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_RESERVED_IN_NAMES = "--"  # separates the parts of an engine name


def dataset_reference(text: str) -> tuple[str, int] | None:
    """Read the reference of a dataset version: `name@3` or `name@v3`; None for any other text."""
    match = _DATASET_REFERENCE.fullmatch(text)
    return (match["name"], int(match["version"])) if match else None


def new_id(prefix: str, *, at: int | None = None) -> str:
    """A new id such as `int_0d3kq…`.

    `prefix` is one of: int, rat, rol, drf, alr, itm, rev, req, run, evl, key, usr, aud, upl, file,
    vs, vsfb.
    """
    moment = now_ms() if at is None else at
    return f"{prefix}_{_base32(moment, _TIME_CHARS)}{_base32(_noise(), _RANDOM_CHARS)}"


def _noise() -> int:
    """72 random bits. They are fetched for many ids at a time: each call into the kernel gives the
    interpreter away, and an answer would wait until it is its turn again."""
    while True:
        try:
            return int.from_bytes(_ahead.popleft(), "big")
        except IndexError:
            block = os.urandom(_NOISE_BYTES * _NOISE_AHEAD)
            _ahead.extend(
                block[at : at + _NOISE_BYTES] for at in range(0, len(block), _NOISE_BYTES)
            )


def _base32(number: int, length: int) -> str:
    """The lowest `5 * length` bits of `number`, `length` odd; two characters at a time."""
    pairs = [_PAIRS[(number >> shift) & 1023] for shift in range(5 * (length - 3), -1, -10)]
    return ALPHABET[(number >> (5 * (length - 1))) & 31] + "".join(pairs)


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it may name an alias, an adapter, a dataset or a collection; it becomes part
    of paths and URLs.

    Raises InputError otherwise.
    """
    if not NAME.fullmatch(name) or _RESERVED_IN_NAMES in name or ".." in name:
        raise InputError(
            f"{what} {name[:80]!r} is not usable: expected 1 to 64 of a-z 0-9 . _ - starting with a"
            " letter or digit, without '--' or '..'.",
            hint="Choose a name such as 'support' or 'billing-de'.",
        )
    return name


def lowest_id(prefix: str, at: int) -> str:
    """Return what every id made at `at` (ms) or later sorts behind, and every earlier one before."""
    return f"{prefix}_{_base32(at, _TIME_CHARS)}"
