"""Evidently's report of two windows: the drill-down behind our own verdict.

The one file that imports Evidently and pandas.

Evidently's own defaults are not used for any verdict: its categorical test is a one-sample test,
and above 1,000 rows it cannot see a rare rate double. The report shows our signals with two-sample
tests that we register; the stored snapshot is rendered to HTML only when somebody asks. Requires
evidently >= 0.7.23, < 0.8 and pandas < 3.
"""

from __future__ import annotations

import os

# Before the import: Evidently's service would otherwise report its use to its makers
os.environ["DO_NOT_TRACK"] = "1"

import json
import logging
import math
import random
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from monitoring.rows import Row
from monitoring.signals import SIGNALS, Signal, Value, values_of
from monitoring.statistics import compare_categories, mann_whitney
from monitoring.verdict import Verdict

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its libraries use what others of them deprecate
    from evidently import DataDefinition, Dataset, Report
    from evidently.core.report import Snapshot
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift

_log = logging.getLogger(__name__)

_NUMBER_TEST = "whet_mann_whitney"
_CATEGORY_TEST = "whet_chi_squared"
_THRESHOLD = 0.01  # for single columns without a verdict of ours
_ALWAYS, _NEVER = 2.0, -1.0  # every p-value is below, none is
_MIN_VALUES = 2  # values a column needs on each side: with one, Evidently's histograms fail

Columns = Mapping[str, Sequence[Value]]  # signal name → values

# What Evidently raises on odd columns, seen and reported; nothing it raises may cost the verdict.
_EVIDENTLY_ERRORS = (
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    AssertionError,
)


def snapshot(reference: Sequence[Row], window: Sequence[Row], verdict: Verdict) -> dict[str, Any]:
    """A report of every signal that has values on both sides, as plain JSON data.

    `{"evidently": version, "verdict", "summary", "columns": [{"name", "p_value"}], "skipped":
    [{"name", "reason"}], "snapshot": Evidently's own serialisation as one string, or null when no
    column could be reported}`.
    """
    drifted = {finding.signal.name: finding.state == "drift" for finding in verdict.findings}
    return report_of(_columns(reference), _columns(window), drifted) | {
        "verdict": verdict.state,
        "summary": verdict.summary,
    }


def _columns(rows: Sequence[Row]) -> dict[str, list[Value]]:
    return values_of(list(rows))


def report_of(
    reference: Columns, window: Columns, drifted: Mapping[str, bool] | None = None
) -> dict[str, Any]:
    """The same from columns of values by signal name; `drifted` says which signals our verdict
    calls drift.
    """
    usable, skipped = [], []
    for signal in SIGNALS:
        if signal.shape in ("words", "novelty"):
            # Texts have a test of their own; Evidently's is slow and cannot see a new topic
            continue
        reason = _unusable(reference.get(signal.name, ()), window.get(signal.name, ()), signal)
        if reason:
            skipped.append({"name": signal.name, "reason": reason})
        else:
            usable.append(signal)
    with _global_random_state_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run, failed = _run(usable, reference, window, drifted or {})
    skipped += failed
    return {
        "evidently": version("evidently"),
        "columns": _scores(run),
        "skipped": skipped,
        "snapshot": run.dumps() if run is not None else None,
    }


def _unusable(reference: Sequence[Value], window: Sequence[Value], signal: Signal) -> str:
    before, after = len(_clean(reference, signal)), len(_clean(window, signal))
    if min(before, after) >= _MIN_VALUES:
        return ""
    return f"{before} earlier and {after} recent values; {_MIN_VALUES} of each are needed"


def _clean(values: Sequence[Value], signal: Signal) -> list[Any]:
    """Values of the type the signal has, finite; rates become words, since Evidently guesses types
    from contents.
    """
    if signal.shape == "rate":
        return ["yes" if value else "no" for value in values if value is not None]
    if signal.shape == "category":
        return [str(value) for value in values if value is not None]
    return [
        float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)
    ]


def _run(
    signals: Sequence[Signal], reference: Columns, window: Columns, drifted: Mapping[str, bool]
) -> tuple[Any, list[dict[str, str]]]:
    """Evidently's snapshot of these signals, and those it refused.

    One bad column must not cost the others their report.
    """
    if not signals:
        return None, []
    try:
        return _evidently(signals, reference, window, drifted), []
    except _EVIDENTLY_ERRORS as error:
        _log.info("Evidently refused the report as a whole (%s); trying each column.", error)
    good, failed = [], []
    for signal in signals:
        try:
            _evidently([signal], reference, window, drifted)
            good.append(signal)
        except _EVIDENTLY_ERRORS as error:
            failed.append({"name": signal.name, "reason": f"Evidently failed: {error}"})
    return (_evidently(good, reference, window, drifted) if good else None), failed


def _evidently(
    signals: Sequence[Signal], reference: Columns, window: Columns, drifted: Mapping[str, bool]
) -> Any:
    _register_tests()

    def frame(columns: Columns) -> Any:
        # Columns have different lengths once empty values are gone; they are compared one by one,
        # so rows need not match.
        return pd.DataFrame(
            {signal.name: pd.Series(_clean(columns[signal.name], signal)) for signal in signals}
        )

    numeric = [signal.name for signal in signals if signal.shape in ("number", "latency")]
    categorical = [signal.name for signal in signals if signal.shape in ("rate", "category")]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    methods = {**dict.fromkeys(numeric, _NUMBER_TEST), **dict.fromkeys(categorical, _CATEGORY_TEST)}
    metrics = [
        ValueDrift(column=name, method=method, threshold=_threshold(drifted.get(name)))
        for name, method in methods.items()
    ]
    before, after = (
        Dataset.from_pandas(frame(columns), data_definition=definition)
        for columns in (reference, window)
    )
    found = Report(metrics).run(after, before)
    found.dict()  # computes what is lazy, so that a failure shows here
    return found


def _threshold(is_drift: bool | None) -> float:
    """Evidently calls a column drifted below this p-value.

    Where we have a verdict (corrected over all signals, with an effect floor) its page must say the
    same, so the threshold is set to give exactly that.
    """
    return _THRESHOLD if is_drift is None else _ALWAYS if is_drift else _NEVER


@cache
def _register_tests() -> None:
    """Make our two-sample tests known to Evidently, once per process."""

    def numbers(
        reference: Any, current: Any, _feature_type: Any, threshold: float
    ) -> tuple[float, bool]:
        p_value, _ = mann_whitney(reference.to_numpy(float), current.to_numpy(float), "both")
        return p_value, p_value < threshold

    def categories(
        reference: Any, current: Any, _feature_type: Any, threshold: float
    ) -> tuple[float, bool]:
        names = sorted({*reference, *current}, key=str)
        counts = [
            sample.value_counts().reindex(names, fill_value=0).to_numpy(float)
            for sample in (reference, current)
        ]
        p_value = compare_categories(*counts)
        return p_value, p_value < threshold

    def known_as(name: str, title: str, kind: ColumnType) -> StatTest:
        return StatTest(
            name=name,
            display_name=title,
            allowed_feature_types=[kind],
            default_threshold=_THRESHOLD,
        )

    register_stattest(known_as(_NUMBER_TEST, "Mann-Whitney", ColumnType.Numerical), numbers)
    register_stattest(
        known_as(_CATEGORY_TEST, "two-sample chi-squared", ColumnType.Categorical), categories
    )


def _scores(run: Any) -> list[dict[str, Any]]:
    if run is None:
        return []
    found = []
    for metric in run.dict()["metrics"]:
        value = float(metric["value"])
        found.append(
            {"name": metric["config"]["column"], "p_value": value if math.isfinite(value) else None}
        )
    return found


@contextmanager
def _global_random_state_kept() -> Iterator[None]:
    """Evidently seeds numpy's global generator; whoever shares the process must not notice."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def render(stored: Mapping[str, Any]) -> str:
    """A self-contained HTML page of a stored snapshot (about 4 MB), or a short page that says why
    there is none.
    """
    if not stored.get("snapshot"):
        return (
            "<!doctype html><title>No report</title><p>No signal had enough values for a"
            " report.</p>"
        )
    return str(Snapshot.loads(stored["snapshot"]).get_html_str(as_iframe=False))


def main() -> None:
    """`python -m monitoring.evidently_report`: a stored snapshot on standard input, HTML on
    standard output.

    The console renders in a process of its own, so that it never carries Evidently's 300 MB itself.
    """
    sys.stdout.write(render(json.load(sys.stdin)))


if __name__ == "__main__":
    main()
