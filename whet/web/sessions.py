"""Who is asking: signed session cookies, CSRF tokens, HTTP Basic with a short memory, and log-in
throttling.

Nothing here keeps state that a restart may not lose: a cookie carries itself, the rest is memory of
the last minutes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field

from itsdangerous import BadSignature, Signer

_IDLE_MS = 12 * 3600 * 1000  # a working day: a reviewer is not logged out over lunch
_LIFETIME_MS = 7 * 24 * 3600 * 1000  # even an open tab asks for the password once a week
_RENEW_MS = 15 * 60 * 1000  # a cookie older than this is written again with the next answer
# Scrypt costs 0.3 s; a script that sends Basic with each request pays it once a minute
_BASIC_MEMORY_MS = 60 * 1000
_FREE_FAILURES = 5  # wrong passwords before waiting starts: people mistype
# Short enough that nobody can lock an admin out, long enough that guessing is hopeless
_LONGEST_WAIT_MS = 60 * 1000
_FORGET_MS = 15 * 60 * 1000
_MOST_REMEMBERED = 10_000  # entries per memory, so that a flood of names cannot fill it


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie says: whose it is, which log-in, and since when (ms).

    `mark` stands for the password that was used: when it is changed, every session that began with
    the old one ends.
    """

    name: str
    mark: str
    id: str
    began_at: int
    seen_at: int

    def expired(self, now: int) -> bool:
        return now - self.seen_at > _IDLE_MS or now - self.began_at > _LIFETIME_MS

    def due(self, now: int) -> bool:
        """True when the cookie should be renewed."""
        return now - self.seen_at > _RENEW_MS


@dataclass
class Sessions:
    """Issues and reads session cookies. `secret` is the installation's own."""

    secret: bytes
    _ended: dict[str, int] = field(default_factory=dict)  # session id -> when it was logged out

    @property
    def cookie(self) -> str:
        """Cookies are shared between ports of one host, so two installations must not use one name."""
        return f"whet_{hashlib.sha256(self.secret).hexdigest()[:8]}"

    def mark(self, password_hash: str) -> str:
        return hmac.new(self.secret, f"mark:{password_hash}".encode(), hashlib.sha256).hexdigest()[
            :16
        ]

    def begin(self, name: str, password_hash: str, now: int) -> Session:
        return Session(name, self.mark(password_hash), secrets.token_urlsafe(16), now, now)

    def write(self, session: Session, now: int) -> str:
        """The cookie's value, with the time of this use."""
        return self.sign("session", [session.name, session.mark, session.id, session.began_at, now])

    def read(self, value: str, now: int) -> Session | None:
        """None for a cookie that is forged, damaged, too old or logged out."""
        content = self.unsign("session", value)
        if content is None:
            return None
        try:
            session = Session(*content)  # type: ignore[arg-type]
        except TypeError:  # written by an earlier version
            return None
        return None if session.expired(now) or session.id in self._ended else session

    def end(self, session: Session, now: int) -> None:
        self._ended = {key: at for key, at in self._ended.items() if now - at < _LIFETIME_MS}
        self._ended[session.id] = now

    def csrf(self, session: Session) -> str:
        """The token that forms and scripts of this session must send back."""
        return hmac.new(self.secret, f"csrf:{session.id}".encode(), hashlib.sha256).hexdigest()[:40]

    def sign(self, purpose: str, content: object) -> str:
        body = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
        return self._signer(purpose).sign(body).decode()

    def unsign(self, purpose: str, value: str) -> list[object] | None:
        try:
            body = self._signer(purpose).unsign(value).decode()
            content = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (BadSignature, ValueError):
            return None
        return content if isinstance(content, list) else None

    def _signer(self, purpose: str) -> Signer:
        return Signer(
            self.secret,
            salt=f"whet.console.{purpose}",
            key_derivation="hmac",
            digest_method=hashlib.sha256,
        )


def basic_credentials(header: str) -> tuple[str, str] | None:
    """(name, password) of an `Authorization: Basic …` header; None when it is none or is malformed."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon else None


@dataclass
class BasicMemory:
    """Remembers for a minute that a name and password were right, as a keyed hash."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _until: dict[str, int] = field(default_factory=dict)

    def _hash(self, name: str, password: str) -> str:
        return hmac.new(
            self.key, f"{name}\0{password}".encode("utf-8", "surrogatepass"), hashlib.sha256
        ).hexdigest()

    def knows(self, name: str, password: str, now: int) -> bool:
        return self._until.get(self._hash(name, password), 0) > now

    def remember(self, name: str, password: str, now: int) -> None:
        self._until = {key: until for key, until in self._until.items() if until > now}
        self._until[self._hash(name, password)] = now + _BASIC_MEMORY_MS


@dataclass
class Throttle:
    """Wrong passwords, counted per subject (a name at an address): five are free, then the wait
    doubles up to a minute.
    """

    # Subject -> (count, time of the last)
    _failures: dict[str, tuple[int, int]] = field(default_factory=dict)

    def wait_ms(self, subject: str, now: int) -> int:
        """Milliseconds until this subject may try again; 0 for now."""
        count, last = self._failures.get(subject, (0, 0))
        if count < _FREE_FAILURES or now - last > _FORGET_MS:
            return 0
        wait = min(1000 << min(count - _FREE_FAILURES, 10), _LONGEST_WAIT_MS)
        return max(0, last + wait - now)

    def failed(self, subject: str, now: int) -> None:
        if len(self._failures) >= _MOST_REMEMBERED:
            self._failures = {
                key: value for key, value in self._failures.items() if now - value[1] < _FORGET_MS
            }
        count, last = self._failures.get(subject, (0, 0))
        self._failures[subject] = (1 if now - last > _FORGET_MS else count + 1, now)

    def succeeded(self, subject: str) -> None:
        self._failures.pop(subject, None)
