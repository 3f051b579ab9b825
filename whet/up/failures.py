"""Why a process ended, read from its log: the line that holds the error, and whether more tries
help.

    (EngineCore pid=71) ERROR 11-30 22:00:01 [core.py:9] ValueError: Head size 16 is not supported
    └───────────── left out: `_PREFIX` ──────────────┘ └────────────── the reason ───────────────┘
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LONGEST = 300  # characters of a reason: a sentence, not a table of values
# What loggers and vLLM's processes put before a line of a traceback.
_PREFIX = re.compile(
    r"^(\([\w -]+ pid=\d+\)\s*)?"
    r"((\d{4}-)?\d\d-\d\d[ T][\d:.,]+\s+)?"
    r"((DEBUG|INFO|WARNING|ERROR|CRITICAL)\b:?\s*)?"
    r"((\d{4}-)?\d\d-\d\d[ T][\d:.,]+\s+)?"
    r"(\[[\w./]+:\d+\]\s?)?"
)
# The last line of a traceback: `package.SomethingError: text`, at the beginning of a line.
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*_?(?P<kind>[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Fault))(?::"
    r" ?(?P<text>.*))?$"
)
_USAGE = re.compile(r"^\S+: error: (?P<text>.+)$")  # argparse
_SENTENCE = re.compile(r"^(?:whet: |error: |Error: |fatal: )(?P<text>.+)$", re.IGNORECASE)
# Pydantic says the cause on the line after the name of the field.
_VALIDATION = re.compile(r"^\d+ validation errors? for ")
_VALIDATED = re.compile(r"^\s+(?:Value error, |Assertion failed, )?(?P<text>.+?)(?: \[type=.*)?$")
# Errors that only say that another one came before.
_ELSEWHERE = re.compile(
    r"root cause|stack trace (above|for)|background process|engine core initialization failed|"
    r"died unexpectedly|EngineDeadError|engine is dead|exited unexpectedly|"
    r"^(SystemExit|KeyboardInterrupt|CancelledError|BrokenPipeError|ConnectionResetError|EOFError)\b",
    re.IGNORECASE,
)
# What another moment can cure: a port, memory, a disk or a server that others use as well.
_TRANSIENT = re.compile(
    r"address already in use|errno 98\b|port \S+ is (already )?(in use|taken)|"
    r"out of memory|memoryerror|cannot allocate memory|errno 12\b|unable to mmap|"
    r"(free|available|not enough|insufficient) memory|unable to allocate|"
    r"no space left|errno 28\b|too many open files|resource temporarily unavailable|"
    r"connection (refused|reset|aborted|error|timed out)|connectionerror|could not connect|"
    r"the database system is|database is locked|operationalerror|interfaceerror|"
    r"time(d )?-?out|timeouterror|temporarily|temporary failure|"
    r"cuda error|cuda driver|cudart|nccl|device-side|"
    r"max retries exceeded|service unavailable|\b50[234]\b|stale file handle|input/output error",
    re.IGNORECASE,
)
# Names of errors that come from what was asked for or what lies on the disk. Any other one
# (RuntimeError, OSError) may be a machine's mood.
_LASTING = re.compile(
    r"^(ValueError|ValidationError|TypeError|AttributeError|KeyError|IndexError|AssertionError|"
    r"NotImplementedError|ImportError|ModuleNotFoundError|NameError|SyntaxError|"
    r"TemplateSyntaxError|FileNotFoundError|NotADirectoryError|IsADirectoryError|PermissionError|"
    r"JSONDecodeError|UnicodeDecodeError|SafetensorError|EntryNotFoundError|"
    r"LocalEntryNotFoundError|HFValidationError|RepositoryNotFoundError|GatedRepoError|"
    r"OSError: .*(not the path|does not appear|couldn't|can't load|incorrect path|no file named|"
    r"not a valid JSON)|RuntimeError: Cannot find any model weights|"
    r"usage|whet)\b",
    re.IGNORECASE,
)
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a process ended."""

    reason: str = ""  # one line; "" when its log does not say
    # Whether the same start would fail in the same way again. Of neither a lasting nor a transient
    # one that is unknown: a process that has run here before gets the benefit of the doubt.
    lasting: bool = False
    transient: bool = False
    todo: str = ""  # what a person can do

    def is_same(self, other: Failure) -> bool:
        """Return whether both ended for one reason; figures (pids, free bytes) may differ."""
        return bool(self.reason) and _plain(self.reason) == _plain(other.reason)


UNKNOWN = Failure()


def _plain(reason: str) -> str:
    return _NUMBERS.sub("#", reason)


def find_failure(lines: Sequence[str], remedies: Iterable[tuple[str, str]] = ()) -> Failure:
    """Read the log lines of one start that failed.

    `remedies`: (regular expression on the reason, what to do); the first that matches counts.
    """
    kind, reason = _error_line([_PREFIX.sub("", line, count=1) for line in lines])
    if not reason:
        return UNKNOWN
    transient = bool(_TRANSIENT.search(reason) or _ELSEWHERE.search(reason))
    lasting = bool(_LASTING.match(kind) or _LASTING.match(reason)) and not transient
    todo = next((do for pattern, do in remedies if re.search(pattern, reason, re.I)), "")
    return Failure(_shortened(reason.rstrip(" :")), lasting, transient, todo)


def _shortened(reason: str) -> str:
    """Return at most `_LONGEST` characters, cut behind a sentence or a word."""
    if len(reason) <= _LONGEST:
        return reason
    cut = reason[:_LONGEST]
    end = cut.rfind(". ")
    return cut[: end + 1] if end > _LONGEST // 3 else cut.rpartition(" ")[0] + " …"


def _error_line(lines: list[str]) -> tuple[str, str]:
    """Return (kind, line) of the last error that does not point to an earlier one."""
    pointing = ("", "")
    for number in range(len(lines) - 1, -1, -1):
        kind, text = _parsed(lines, number)
        if not kind:
            continue
        if not _ELSEWHERE.search(text):
            return kind, text
        pointing = pointing if pointing[1] else (kind, text)
    return pointing


def _parsed(lines: list[str], number: int) -> tuple[str, str]:
    """Return (kind, text) of a line that is an error; ("", "") of any other."""
    line = lines[number].rstrip()
    if found := _EXCEPTION.match(line):
        kind, text = found["kind"], (found["text"] or "").strip()
        if kind == "ValidationError" or _VALIDATION.match(text):
            return "ValidationError", _validated(lines, number) or line
        if not text and number + 1 < len(lines):  # some libraries begin on the next line
            text = lines[number + 1].strip()
        return kind, f"{kind}: {text}" if text else kind
    if found := _USAGE.match(line):
        return "usage", found["text"]
    if found := _SENTENCE.match(line):
        return "whet" if line.startswith("whet: ") else "error", found["text"]
    return "", ""


def _validated(lines: list[str], number: int) -> str:
    """Return the causes below `N validation errors for X`, without pydantic's links and inputs."""
    causes, field = [], ""
    for line in lines[number + 1 : number + 12]:
        if "errors.pydantic.dev" in line:
            continue
        if not line.startswith(" "):
            if not re.fullmatch(r"[\w.\[\]-]+", line.strip()):  # the name of a field
                break
            field = f"{line.strip()}: "
            continue
        if found := _VALIDATED.match(line):
            causes.append(field + found["text"].strip())
    return "; ".join(causes).rstrip(".") + "." if causes else ""
