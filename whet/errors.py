"""Every error Whet raises on purpose.

A message says what was expected and what was found; `hint` says what to do. The command line prints
both and exits with `exit_code`; the HTTP boundaries answer with `status` and `code`. Anything that
is not a `WhetError` is a defect.
"""

from __future__ import annotations


class WhetError(Exception):
    """Something a person can act on."""

    code = "error"
    status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigurationError(WhetError):
    """A setting is missing, malformed, or contradicts another."""

    code = "configuration"
    exit_code = 2


class InputError(WhetError):
    """Data from outside (a file, a request, a document) is not what the format asks for."""

    code = "invalid_input"
    status = 400
    exit_code = 2


class NotFoundError(WhetError):
    """Nothing goes by that name or id."""

    code = "not_found"
    status = 404
    exit_code = 2


class ConflictError(WhetError):
    """Somebody else got there first, or the state does not allow it."""

    code = "conflict"
    status = 409


class AccessError(WhetError):
    """The caller is unknown, or known and not allowed."""

    code = "unauthorized"
    status = 401


class DatabaseError(WhetError):
    """The database cannot be used as it is."""

    code = "database"


class StoreError(WhetError):
    """The file store refuses, or its content is not what its digest says."""

    code = "store"


class AdapterError(InputError):
    """An adapter folder is not one that can be served."""

    code = "adapter_refused"


class EngineError(WhetError):
    """The inference engine is absent, broken, or answers what it should not."""

    code = "engine"
    status = 502


class EngineUnavailableError(EngineError):
    """No replica can answer this model at this moment."""

    code = "engine_unavailable"
    status = 503


class TrainingError(WhetError):
    """A run cannot start or cannot go on."""

    code = "training"


class ProcessError(WhetError):
    """A process of `whet up` cannot be started or does not stay up."""

    code = "process"


class NotificationError(WhetError):
    """An alert could not be told to somebody; it is tried again."""

    code = "notification_failed"


class EndpointError(WhetError):
    """A model's endpoint elsewhere is absent, refuses, or answers what it should not."""

    code = "endpoint"
    status = 502
