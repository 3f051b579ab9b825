"""How numbers, times and digests are written on every page: pure functions, registered as Jinja
filters.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

from whet.clock import iso, to_datetime
from whet.lines import split_lines

_STEPS = ((365 * 86_400, "y"), (30 * 86_400, "mo"), (86_400, "d"), (3600, "h"), (60, "min"))
_NONE = "–"
# `2026-01-31T09:30:00Z`, `2026-01-31 09:30 UTC`, or a bare `since 09:30 UTC`
_UTC = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<clock>\d\d:\d\d(?::\d\d)?)(?:Z| UTC)|since \d\d:\d\d UTC"
)


def relative(at: int, now: int) -> str:
    """`3 min ago`, `in 2 h`, `just now`; both arguments in ms."""
    seconds = (now - at) / 1000
    for size, unit in _STEPS:
        if abs(seconds) >= size:
            amount = f"{int(abs(seconds) // size)} {unit}"
            return f"in {amount}" if seconds < 0 else f"{amount} ago"
    return (
        "just now"
        if abs(seconds) < 10
        else f"{int(abs(seconds))} s ago"
        if seconds > 0
        else f"in {int(-seconds)} s"
    )


def ago(at: int | None, now: int) -> Markup:
    """A `<time>` element: relative text, absolute UTC on hover; the browser turns the hover into
    the viewer's zone.
    """
    if at is None:
        return Markup(_NONE)
    absolute = to_datetime(at).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" data-at="{}" title="{}">{}</time>').format(
        iso(at), at, absolute, relative(at, now)
    )


def since(at: int | None, now: int) -> Markup:
    """A `<time>` element: `since 16:01 UTC (36 min)`; the browser puts it into the viewer's zone."""
    if at is None:
        return Markup("")
    moment = to_datetime(at)
    is_today = moment.date() == to_datetime(now).date()
    clock = moment.strftime("%H:%M UTC" if is_today else "%d %b %H:%M UTC")
    return Markup('<time datetime="{}" data-at="{}" data-form="since">since {} ({})</time>').format(
        iso(at), at, clock, age(at, now)
    )


def clock(at: int, now: int) -> Markup:
    """A `<time>` element: `14:30 UTC`, with the day where it is another one; the browser puts it
    into the viewer's zone.
    """
    moment = to_datetime(at)
    is_today = moment.date() == to_datetime(now).date()
    text = moment.strftime("%H:%M UTC" if is_today else "%d %b %H:%M UTC")
    return Markup('<time datetime="{}" data-at="{}" data-form="clock">{}</time>').format(
        iso(at), at, text
    )


def utc_clock(at: int) -> str:
    """`2026-01-31 14:30 UTC`."""
    return to_datetime(at).strftime("%Y-%m-%d %H:%M UTC")


def local_times(text: str, now: int, at: int | None = None) -> Markup:
    """Text whose UTC times the browser puts into the viewer's zone.

    `at`: the moment that `since 16:01 UTC` in it means, which has no day.
    """
    made, end = Markup(""), 0
    for found in _UTC.finditer(text):
        made += escape(text[end : found.start()])
        end = found.end()
        if found["day"] is not None:
            moment = datetime.fromisoformat(f"{found['day']}T{found['clock']}+00:00")
            made += Markup('<time datetime="{}" data-at="{}" data-form="clock">{}</time>').format(
                moment.strftime("%Y-%m-%dT%H:%M:%SZ"), int(moment.timestamp() * 1000), found[0]
            )
        else:
            made += since(at, now) if at is not None else escape(found[0])
    return made + escape(text[end:])


def age(at: int, now: int) -> str:
    """How long ago, without the word: `36 min`, `8 s`."""
    seconds = max(0, now - at) / 1000
    size, unit = next((step for step in _STEPS if seconds >= step[0]), (1, "s"))
    return f"{int(seconds // size)} {unit}"


def number(value: float | None, digits: int | None = None) -> str:
    """`12,345`, `0.123`, `1.2 M`: enough figures to compare, no more.

    `digits`: decimals, when the caller knows.
    """
    if value is None:
        return _NONE
    if digits is not None:
        return f"{value:,.{digits}f}"
    if abs(value) >= 1_000_000:
        return f"{value / 1_000_000:.1f} M"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share from 0 to 1 as `97 %`."""
    return _NONE if value is None else f"{100 * value:.{digits}f} %"


def duration(ms: float | None) -> str:
    """Milliseconds as `340 ms`, `1.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if ms is None:
        return _NONE
    if ms < 1000:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def short(digest: str | None) -> Markup:
    """The first 8 characters of a digest, the whole of it on hover."""
    return (
        Markup('<code title="{}">{}</code>').format(digest, digest[:8]) if digest else Markup(_NONE)
    )


def clip(text: str | None, length: int = 120) -> str:
    """The first words of a text on one line."""
    words = " ".join((text or "").split())
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 run`, `3 runs`, `no runs`."""
    word = one if count == 1 else many or f"{one}s"
    return f"{number(count) if count else 'no'} {word}"


def lines(value: Any) -> Markup:
    """Plain text with its line breaks, escaped."""
    return Markup("<br>").join(escape(line) for line in split_lines(str(value or "")))


def code(text: str) -> Markup:
    """Plain text in which `words between backticks` become code."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is only a backtick
        parts[-2:] = [f"{parts[-2]}`{parts[-1]}"]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )
