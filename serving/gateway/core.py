"""What all endpoints of one gateway process share, and how a caller is known."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

from serving.gateway.answers import ApiError, Headers, Scope
from serving.gateway.metrics import Metrics
from serving.gateway.reads import BoundedReads
from serving.gateway.recent import RecentRatings
from serving.gateway.request_policy import ANY_REQUEST, RequestPolicy
from serving.gateway.routing import Choice, choose
from serving.gateway.snapshot import Refresher
from serving.gateway.upstream import Upstream
from serving.log.spool import Spool
from serving.retrieval.records import Searcher
from whet.context import Context

_MAX_HASHES = 4096  # of keys in use that are remembered; one is 150 bytes
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class Caller:
    """Who asks, from the headers alone."""

    key_id: str = ""
    request_id: str = ""  # empty: none usable was given
    content_length: int | None = None
    retry: int | None = None  # how often an SDK asked before; None: it does not say
    headers: Headers = field(default_factory=list)  # all, with lower-case names


@dataclass(slots=True)
class Core:
    """Opened by the gateway's lifespan."""

    context: Context
    refresher: Refresher
    spool: Spool
    upstream: Upstream
    metrics: Metrics
    secret: bytes
    engine_headers: dict[str, str]
    request_policy: RequestPolicy = ANY_REQUEST
    searcher: Searcher | None = None  # None: nothing can be retrieved here
    waiting: int = 0  # requests that wait for an engine to become ready
    # Replica URL -> loop time of its last finished answer
    last_progress: dict[str, float] = field(default_factory=dict)
    _hashes: dict[bytes, str] = field(default_factory=dict)
    recent_ratings: RecentRatings = field(default_factory=RecentRatings)
    reads: BoundedReads = field(init=False)

    def __post_init__(self) -> None:
        self.reads = BoundedReads(self.context.database)

    def update_gauges(self) -> None:
        """Tell the metrics what is so now. Called once a second and for each scrape, so that a
        request pays nothing for it."""
        self.metrics.unavailable.set(1 if self.spool.failure else 0)
        self.metrics.pending.set(self.spool.pending_bytes)
        self.metrics.in_flight.set(self.refresher.in_flight + self.waiting)

    async def caller(self, scope: Scope) -> Caller:
        """Raises ApiError 401."""
        caller = Caller(headers=scope["headers"])
        key = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                key = value
            elif name == b"content-length":
                caller.content_length = int(value) if value.isdigit() else None
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                caller.request_id = value.decode()
            elif name == b"x-stainless-retry-count" and value.isdigit() and len(value) < 4:
                caller.retry = int(value)
        if key[:7].lower() != b"bearer " or len(key) > 512:
            raise ApiError(
                401,
                "This gateway needs a key: send the header 'Authorization: Bearer KEY'. `whet keys"
                " create NAME` makes one.",
                code="invalid_api_key",
            )
        hashed = self._hash(key)
        key_id = self.refresher.current.keys.get(hashed)
        if key_id is None:
            await self.refresher.missed()
            key_id = self.refresher.current.keys.get(hashed)
            if key_id is None:
                raise ApiError(
                    401,
                    "The key is not valid, or it was revoked. `whet keys list` shows the active"
                    " ones, `whet keys create NAME` makes one.",
                    code="invalid_api_key",
                )
        caller.key_id = key_id
        return caller

    def _hash(self, header: bytes) -> str:
        """The hash by which the key of an `Authorization` header is known; revoking works on it."""
        known = self._hashes.get(header)
        if known is None:
            # The same as whet.access.hash_key, in one call into C.
            known = hmac.digest(self.secret, header[7:].strip(), hashlib.sha256).hex()
            if known in self.refresher.current.keys:
                if len(self._hashes) >= _MAX_HASHES:
                    self._hashes.clear()
                self._hashes[header] = known
        return known

    async def choose(self, model: str, unit: str) -> Choice:
        """Raises ApiError 404 for a name that is still unknown after another look."""
        if model not in self.refresher.current.routes:
            await self.refresher.missed()
        return choose(self.refresher.current, model, unit)
