"""What change detection remembers, in the database and the store: each day's statistics, and some
of its conversations without text.

The state of a detector follows from the stored days and people's decisions, in order; nothing else
is kept. The only writer of `drift_days`.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sqlalchemy import Connection, select, update

from monitoring.alert_store import load_alerts
from monitoring.days import DAY_MS
from monitoring.detector.codebook import Codebook
from monitoring.detector.columns import EMBEDDING, Table
from monitoring.detector.daily import Chart, DayStatistics
from monitoring.detector.hours import HOURS
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.watch import Remembered, Watch
from monitoring.history_store import all_days
from monitoring.hourstore import KeptHour, stored_hours
from whet.context import Context
from whet.conversation import last_question
from whet.database import insert_ignore, reading, writing
from whet.errors import StoreError
from whet.json_types import JsonObject
from whet.records.monitoring import DAY_CONFIRMED, DAY_STATISTICS
from whet.tables import alerts, drift_days, interactions

_log = logging.getLogger(__name__)
_LEFT_OUT = ("prompt", "answer")  # texts stay in the log, where they can be erased
_CHUNK = 500  # ids per query: below SQLite's limit on variables


def detector_settings(context: Context) -> DetectorSettings:
    return DetectorSettings(target=context.settings.drift_target)


def open_watch(context: Context, alias: str) -> Watch:
    """The detector of an alias as it stood after its last stored day."""
    settings = detector_settings(context)
    watch = Watch(
        alias,
        settings,
        codebook=read_codebook(context, alias),
        questions=lambda ids: read_questions(context, ids),
    )
    with reading(context.database) as connection:
        stored = all_days(connection, alias)
        decisions = expected_incidents(connection, alias)
        hours = stored_hours(connection, alias)
    for row in stored:
        # The hours of a day were judged before it
        while hours and hours[0].hour.hour < (row.day + 1) * HOURS:
            _resume_hour(watch, decisions, hours.popleft())
        decide(watch, decisions, row.day, (row.day + 1) * DAY_MS)
        sample = (
            read_sample(context, row.sample_path)
            if row.day > stored[-1].day - settings.history_days
            else Table({})
        )
        watch.resume(
            Remembered(
                DayStatistics.from_record(row.statistics),
                frozenset(Chart(*names) for names in row.confirmed),
                sample,
            )
        )
    for hour in hours:
        _resume_hour(watch, decisions, hour)
    return watch


def _resume_hour(watch: Watch, decisions: list[tuple[int, str]], kept: KeptHour) -> None:
    decide(watch, decisions, kept.hour.hour // HOURS, kept.created_at)
    watch.resume_hour(kept.hour)


def expected_incidents(connection: Connection, alias: str) -> list[tuple[int, str]]:
    """(instant of the decision, ms; name of the incident) of changes that a person marked as
    expected, oldest first.
    """
    query = select(alerts).where(alerts.c.alias == alias, alerts.c.state == "expected")
    return [
        (alert.changed_at, alert.detail.incident.id)
        for alert in load_alerts(connection, query.order_by(alerts.c.changed_at))
        if alert.detail.incident
    ]


def decide(watch: Watch, decisions: list[tuple[int, str]], day: int, until: int) -> None:
    """Tell the detector what people decided before `until` (ms), before it takes in the day or an
    hour of it: levels are learned anew from `day` on.
    """
    due = {name for decided, name in decisions if decided < until}
    for incident in watch.stream.incidents:
        if incident.state == "open" and incident.name in due:
            watch.stream.expected(incident, day)


def store_day(
    context: Context, watch: Watch, day: Remembered, now: int, also: Callable[[Connection], None]
) -> None:
    """Keep a day; `also` runs in the same transaction, so that a day counts when its incidents are
    open and not before.

    Raises StoreError when the store cannot be written: then the day is judged again by the next
    run.
    """
    number = day.statistics.day
    path = context.store.put_json(f"{_folder(watch.alias)}/{number}.json", sample_json(day.kept))
    codebook = f"{_folder(watch.alias)}/topics.json"
    if watch.codebook is not None and not context.store.exists(codebook):
        context.store.put_json(codebook, watch.codebook.as_json())
    values = {
        "alias": watch.alias,
        "day": number,
        "rows": day.statistics.rows,
        "statistics": DAY_STATISTICS.encode(
            day.statistics.record([one.record() for one in day.changes])
        ),
        "confirmed": DAY_CONFIRMED.encode([list(chart) for chart in sorted(day.confirmed)]),
        "judged": number - watch.stream.memory.days[0] >= watch.settings.cold_days,
        "sample_path": path,
        "created_at": now,
    }
    oldest = number - watch.settings.history_days
    with writing(context.database) as connection:
        if connection.execute(insert_ignore(connection, drift_days).values(**values)).rowcount == 0:
            return  # another process took the same day in meanwhile, with the same outcome
        also(connection)
        past = (
            drift_days.c.alias == watch.alias,
            drift_days.c.day <= oldest,
            drift_days.c.sample_path.is_not(None),
        )
        gone = list(connection.scalars(select(drift_days.c.sample_path).where(*past)))
        connection.execute(update(drift_days).where(*past).values(sample_path=None))
    # After the commit: a path without a file would be an error, a file without a path is only left
    # over
    for old in gone:
        context.store.remove_folder(old)


def last_day(connection: Connection, alias: str) -> int | None:
    """The newest day that was taken in."""
    found: int | None = connection.scalar(
        select(drift_days.c.day)
        .where(drift_days.c.alias == alias)
        .order_by(drift_days.c.day.desc())
        .limit(1)
    )
    return found


# --- conversations as JSON -----------------------------------------------------------------------------------------


def sample_json(table: Table) -> JsonObject:
    """Plain data, by type.

    Vectors as 16-bit floats: of a length of 1 they keep three digits, and distances need two.
    """
    texts: JsonObject = {}
    numbers: JsonObject = {}
    made: JsonObject = {"texts": texts, "numbers": numbers}
    for name, values in table.columns.items():
        if name == EMBEDDING:
            made[name] = {
                "width": values.shape[1],
                "float16": base64.b64encode(values.astype("<f2").tobytes()).decode(),
            }
        elif values.dtype == object and name not in _LEFT_OUT:
            texts[name] = values.tolist()
        elif values.dtype != object:
            numbers[name] = [None if np.isnan(value) else value.item() for value in values]
    return made


def sample_table(made: Mapping[str, Any]) -> Table:
    """What `sample_json` wrote."""
    columns: dict[str, Any] = {
        name: np.array([*values, None], dtype=object)[:-1] for name, values in made["texts"].items()
    }
    for name, values in made["numbers"].items():
        columns[name] = np.array(
            [np.nan if value is None else value for value in values],
            dtype=np.int64 if name == "day" else np.float64,
        )
    if EMBEDDING in made:
        vectors = np.frombuffer(base64.b64decode(made[EMBEDDING]["float16"]), dtype="<f2").astype(
            np.float32
        )
        columns[EMBEDDING] = vectors.reshape(-1, made[EMBEDDING]["width"])
    return Table(columns)


def _folder(alias: str) -> str:
    return f"reports/days/{alias}"


def read_sample(context: Context, path: str | None) -> Table:
    """Empty where the file is gone: the verdicts stand without it, only later explanations know
    less.
    """
    if path is None:
        return Table({})
    try:
        return sample_table(context.store.read_json(path))
    except StoreError as error:
        _log.warning("A day's conversations are missing: %s", error)
        return Table({})


def read_codebook(context: Context, alias: str) -> Codebook | None:
    path = f"{_folder(alias)}/topics.json"
    return Codebook.from_json(context.store.read_json(path)) if context.store.exists(path) else None


def read_questions(context: Context, ids: list[str]) -> dict[str, str]:
    """Id → question, of those that are still in the log."""
    found: dict[str, str] = {}
    with reading(context.database) as connection:
        for start in range(0, len(ids), _CHUNK):
            query = select(interactions.c.id, interactions.c.request).where(
                interactions.c.id.in_(ids[start : start + _CHUNK])
            )
            found.update({row.id: last_question(row.request) for row in connection.execute(query)})
    return found
