"""What a health reading consists of: plain data, from which everything else is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from sqlalchemy import RowMapping

from whet.health.version_summary import AliasState
from whet.registry import Adapter, Rollout


@dataclass(frozen=True)
class SupervisedProcess:
    """One process of `whet up` on this machine. Times in ms."""

    name: str
    phase: str  # as of whet.up.plan
    pid: int | None
    since: int
    down_since: int | None
    restarts: int
    last_exit: int | None
    reason: str  # why its last start failed, as its log says
    log: str
    is_stopped: bool  # by SIGSTOP: it lives and does nothing


@dataclass(frozen=True)
class Machine:
    """What this machine alone knows. Bytes; None: could not be read."""

    processes: tuple[SupervisedProcess, ...] = ()
    is_supervised: bool = False  # `whet up` runs for this home
    free_bytes: int | None = None
    backlog_bytes: int = 0  # of log records that may not be in the database yet
    backlog_since: int | None = None


@dataclass(frozen=True)
class ScheduledJob:
    """How the last run of one of the scheduler's jobs ended."""

    name: str
    every_s: float
    finished_at: int
    failing_since: int | None
    error: str | None


@dataclass(frozen=True)
class UndeliveredNotification:
    """A message about an alert that a service has refused so far."""

    alert_id: str
    title: str
    severity: str
    event: str  # open | closed
    service: str  # `slack://…`
    attempts: int
    error: str
    created_at: int
    next_at: int


@dataclass(frozen=True)
class SampleRate:
    """The newest judged week of an alias's random sample."""

    alias: str
    judged: int
    rate: float
    low: float
    high: float
    since: int  # begin of the first of the weeks in a row in which too many answers were wrong


@dataclass(frozen=True)
class HealthReading:
    """Everything at one moment. Rows of tables are dicts by column; times in ms."""

    now: int
    last_answer_at: int | None = None
    answers: int = 0  # in the last hour
    failed: int = 0
    failing_since: int | None = None  # first failed answer of the last hour
    alerts: Sequence[RowMapping] = ()
    drift: RowMapping | None = None
    waiting: int = 0
    waiting_since: int | None = None
    dataset: RowMapping | None = None
    runs: Sequence[RowMapping] = ()  # newest first
    requests: Sequence[RowMapping] = ()  # not yet claimed
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    adapters: list[Adapter] = field(default_factory=list)
    gate_reasons: dict[str, str] = field(default_factory=dict)
    replicas: Sequence[RowMapping] = ()
    leases: dict[str, RowMapping] = field(default_factory=dict)  # by name
    jobs: list[ScheduledJob] = field(default_factory=list)
    undelivered: list[UndeliveredNotification] = field(default_factory=list)
    samples: list[SampleRate] = field(default_factory=list)
    aliases: list[AliasState] = field(default_factory=list)
    machine: Machine = Machine()

    @property
    def is_new(self) -> bool:
        """An installation that was never used."""
        return self.last_answer_at is None and not self.adapters


class ActionItemFacts(TypedDict):
    """An action item as scripts get it."""

    code: str
    kind: str
    sentence: str
    href: str
    since: int | None
    todo: str


@dataclass(frozen=True)
class ActionItem:
    """Something that needs a person. `cost` of waiting: higher first."""

    code: str  # for programs; the same for the same kind of thing
    cost: int
    kind: str  # bad | attention | information
    sentence: str
    href: str  # the thing itself
    since: int | None
    todo: str = ""  # what to do next; the page behind `href` says it where this is empty

    def as_json(self) -> ActionItemFacts:
        """Return it for scripts."""
        return {
            "code": self.code,
            "kind": self.kind,
            "sentence": self.sentence,
            "href": self.href,
            "since": self.since,
            "todo": self.todo,
        }
