"""Charts as pages draw them: geometry in SVG units, made of figures; no query and no HTML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from whet.traffic_marks import Mark
from whet.traffic_series import Series, TimeRange, TrafficCounts
from whet.web.filters import duration, number, percent

WIDTH, HEIGHT = 720, 160
_PADDING = 4
_MOST_VERSIONS = 3  # lines that can be told apart without colour
_EMPTY = TrafficCounts()

Point = tuple[float, float]
Read = Callable[[TrafficCounts], float | None]


@dataclass(frozen=True)
class Line:
    """One line of a chart. `style`: a class of charts.css, with which its legend is drawn too."""

    label: str
    path: str
    dots: str
    style: str


@dataclass(frozen=True)
class Band:
    """One step of time: where it lies, what it says, and Traffic filtered to it."""

    x: float
    width: float
    at: int
    text: str
    href: str
    is_chosen: bool


@dataclass(frozen=True)
class Stroke:
    """A mark as a line: where it lies, and what it marks."""

    x: float
    mark: Mark


@dataclass(frozen=True)
class TimeChart:
    """One measure over time."""

    title: str
    summary: str
    top: str
    bottom: str
    lines: list[Line]
    bands: list[Band]
    strokes: list[Stroke]


@dataclass(frozen=True)
class Row:
    """One step of one series, for the table beside the charts."""

    at: int
    label: str
    counts: TrafficCounts
    href: str


@dataclass(frozen=True)
class TrafficCharts:
    """Everything that `shell/charts.html` shows of a range."""

    shown: TimeRange
    charts: list[TimeChart]
    ticks: list[int]
    marks: list[Mark]
    rows: list[Row]
    is_empty: bool
    by_version: bool
    stale_since: int | None


@dataclass(frozen=True)
class _Measure:
    title: str
    lines: tuple[tuple[str, Read], ...]
    write: Callable[[float | None], str]
    is_count: bool = False  # nothing in a step is 0, not unknown
    is_share: bool = False


_MEASURES = (
    _Measure("Requests", (("", lambda one: one.requests),), number, is_count=True),
    _Measure("Failed", (("", lambda one: one.failed_share),), lambda v: percent(v, 1), False, True),
    _Measure(
        "Time to first token",
        (("p50", lambda one: one.ttft_ms(0.5)), ("p95", lambda one: one.ttft_ms(0.95))),
        duration,
    ),
    _Measure(
        "Tokens",
        (("prompt", lambda one: one.prompt_tokens), ("answer", lambda one: one.completion_tokens)),
        number,
        is_count=True,
    ),
    _Measure("Thumbs up", (("", lambda one: one.thumbs_up_share),), percent, False, True),
)
# Two lines of three versions each would be six
_BY_VERSION = tuple(
    replace(one, lines=(("", lambda counts: counts.prompt_tokens + counts.completion_tokens),))
    if one.title == "Tokens"
    else one
    for one in _MEASURES
)


def draw_traffic(
    shown: TimeRange,
    series: Sequence[Series],
    marks: Sequence[Mark],
    *,
    by_version: bool,
    link: Callable[[int, int], str],
    chosen: tuple[int, int] | None = None,
    stale_since: int | None = None,
) -> TrafficCharts:
    """Make the charts of a range. `link`: (start, end in ms) → address of Traffic at that time."""
    drawn = list(series[:_MOST_VERSIONS])
    measures = _BY_VERSION if by_version else _MEASURES
    shown_marks = [mark for mark in marks if shown.start_at <= mark.at < shown.end_at]
    rows = [
        Row(start, one.label or "all", one.points[start], link(start, start + shown.step_ms))
        for start in reversed(shown.starts)
        for one in series
        if start in one.points
    ]
    return TrafficCharts(
        shown=shown,
        charts=[_draw(measure, shown, drawn, shown_marks, link, chosen) for measure in measures],
        ticks=[shown.starts[part * len(shown.starts) // 3] for part in range(3)],
        marks=shown_marks,
        rows=rows,
        is_empty=not series,
        by_version=by_version,
        stale_since=stale_since,
    )


def line_path(points: Sequence[Point | None]) -> str:
    """Return an SVG path through points (x, y); None leaves a gap."""
    parts = []
    for index, point in enumerate(points):
        if point is not None and not _is_alone(points, index):
            goes_on = index > 0 and points[index - 1] is not None
            parts.append(f"{'L' if goes_on else 'M'}{point[0]:g} {point[1]:g}")
    return "".join(parts)


def dots_path(points: Sequence[Point | None]) -> str:
    """Return an SVG path of the points that no line joins to another."""
    return "".join(
        f"M{point[0]:g} {point[1]:g}h0"
        for index, point in enumerate(points)
        if point is not None and _is_alone(points, index)
    )


def _is_alone(points: Sequence[Point | None], index: int) -> bool:
    before = points[index - 1] if index > 0 else None
    after = points[index + 1] if index + 1 < len(points) else None
    return before is None and after is None


def scale_y(value: float, low: float, high: float, height: float = HEIGHT) -> float:
    """Return the height of a value in SVG units, `high` at the top."""
    room = height - 2 * _PADDING
    return round(height - _PADDING - room * (value - low) / (high - low), 1)


def _draw(
    measure: _Measure,
    shown: TimeRange,
    drawn: Sequence[Series],
    marks: Sequence[Mark],
    link: Callable[[int, int], str],
    chosen: tuple[int, int] | None,
) -> TimeChart:
    starts = shown.starts
    width = WIDTH / len(starts)
    values = {
        (place, part): _without_last(
            measure, [_value(measure, read, one, start) for start in starts]
        )
        for place, one in enumerate(drawn)
        for part, (_, read) in enumerate(measure.lines)
    }
    highest = max((v for found in values.values() for v in found if v is not None), default=0.0)
    top = 1.0 if measure.is_share and highest > 0.5 else highest or 1.0
    lines = []
    for (place, part), found in values.items():
        name = measure.lines[part][0]
        points = [
            None if value is None else (round((i + 0.5) * width, 1), scale_y(value, 0, top))
            for i, value in enumerate(found)
        ]
        label = " ".join(text for text in (drawn[place].label, name) if text)
        style = f"line-{place}{'' if part == 0 else ' second'}"
        lines.append(Line(label, line_path(points), dots_path(points), style))
    bands = [
        Band(
            round(index * width, 1),
            round(width, 1),
            start,
            _band_text(measure, drawn, start),
            link(start, start + shown.step_ms),
            chosen is not None and chosen[0] <= start < chosen[1],
        )
        for index, start in enumerate(starts)
    ]
    span = shown.end_at - shown.start_at
    return TimeChart(
        title=measure.title,
        summary=_summary(measure, drawn),
        top=measure.write(top),
        bottom=measure.write(0) if not measure.title.startswith("Time") else "0",
        lines=lines,
        bands=bands,
        strokes=[
            Stroke(round(WIDTH * (mark.at - shown.start_at) / span, 1), mark) for mark in marks
        ],
    )


def _value(measure: _Measure, read: Read, one: Series, start: int) -> float | None:
    counts = one.points.get(start)
    if counts is None:
        return 0.0 if measure.is_count else None
    return read(counts)


def _without_last(measure: _Measure, values: list[float | None]) -> list[float | None]:
    """Leave out what the last step counts so far: drawn, it would look like a fall."""
    return [*values[:-1], None] if measure.is_count else values


def _band_text(measure: _Measure, drawn: Sequence[Series], start: int) -> str:
    """What a step says under the pointer."""
    said = []
    for one in drawn:
        counts = one.points.get(start, _EMPTY)
        figures = " / ".join(
            f"{name} {measure.write(read(counts))}".strip() for name, read in measure.lines
        )
        said.append(f"{one.label} {figures}".strip() + _of(measure, counts))
    return "; ".join(said) or "nothing"


def _summary(measure: _Measure, drawn: Sequence[Series]) -> str:
    """The figure of the whole range, with its n: the number beside the line."""
    if len(drawn) != 1:
        return ""
    total = drawn[0].total
    figures = " / ".join(
        f"{name} {measure.write(read(total))}".strip() for name, read in measure.lines
    )
    return figures + _of(measure, total)


def _of(measure: _Measure, counts: TrafficCounts) -> str:
    if not measure.is_share:
        return ""
    return f" of {number(counts.rated if measure.title == 'Thumbs up' else counts.requests)}"
