"""The picture of a search: what mattered, how the trials went, what each parameter did.

One HTML file that needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TypedDict

from optuna import Study
from optuna.trial import FrozenTrial

_WIDTH, _HEIGHT, _EDGE = 420, 180, 46  # of a chart, in the SVG's own units
STYLE = (
    ":root{color-scheme:light"
    " dark;--ground:#fafaf8;--line:#8b8b83;--faint:#e4e4df;--ink:#1c1c1a;--soft:#6b6b64;--accent:#4650bd;--best:#1c6b3c}"
    "@media(prefers-color-scheme:dark){:root{--ground:#141415;--line:#74747c;--faint:#2f2f33;--ink:#ececea;--soft:#9b9b97;--accent:#a3abff;--best:#7fd09b}}"
    "body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0"
    " 1rem;color:var(--ink);background:var(--ground);overflow-wrap:anywhere}"
    "h1{font-size:20px;line-height:1.3}h2{font-size:15px;margin-top:2rem}svg{max-width:100%;height:auto}.charts{display:flex;flex-wrap:wrap;gap:1rem}.wrap{overflow-x:auto}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}td,th{padding:.2rem"
    " .7rem;text-align:right;border-bottom:1px solid var(--faint);white-space:nowrap}"
    "th{font-weight:500;color:var(--soft)}tr.best"
    " td{color:var(--best);font-weight:600}.soft,summary{color:var(--soft)}summary{cursor:pointer;padding:.4rem 0}"
    ".bar,.done{fill:var(--accent)}.pruned{fill:none;stroke:var(--line)}.best-point{fill:var(--best)}.axis{stroke:var(--line)}text{font-size:12px;fill:var(--soft)}"
)
_MOST_ROWS = 30  # trials that are listed at once, best first; the others stand folded below


class SearchResults(TypedDict):
    """What a search found."""

    trials: dict[str, int]  # how they ended → how many
    best: dict[str, int | float]  # trial, validation_loss and its parameters
    importances: dict[str, float]  # parameter → share of what mattered
    recipe: str
    picture: str


def page(study: Study, importances: dict[str, float]) -> str:
    """The whole file."""
    trials = [trial for trial in study.trials if trial.state.is_finished()]
    best = study.best_trial
    shown = [(trial, _last(trial)) for trial in trials]
    points = [(trial, loss) for trial, loss in shown if loss is not None]
    names = sorted({name for trial in trials for name in trial.params})
    charts = [
        scatter(
            "trial", [(float(trial.number), loss, _look(trial, best)) for trial, loss in points]
        )
    ]
    charts += [
        scatter(
            name,
            [
                (float(trial.params[name]), loss, _look(trial, best))
                for trial, loss in points
                if name in trial.params
            ],
        )
        for name in names
    ]
    done, early = sum(map(_finished, trials)), sum(not _finished(trial) for trial in trials)
    counts = (
        f"{done} {'trial' if done == 1 else 'trials'} came to an end,"
        f" {early} {'was' if early == 1 else 'were'} ended early. The loss is in nats per token, of"
        " validation rows."
    )
    head = "".join(f"<th>{escape(_said(name))}</th>" for name in ("trial", "state", "loss", *names))
    ordered = sorted(shown, key=lambda pair: math.inf if pair[1] is None else pair[1])
    rows = [_row(trial, loss, names, trial.number == best.number) for trial, loss in ordered]
    listed = _table(head, rows[:_MOST_ROWS]) + (
        "<details><summary>The"
        f" {len(rows) - _MOST_ROWS} others</summary>{_table(head, rows[_MOST_ROWS:])}</details>"
        if len(rows) > _MOST_ROWS
        else ""
    )
    mattered = _bars(importances) if importances else "<p>Too few finished trials to tell.</p>"
    recipe = ", ".join(
        f"{_said(name)} {_short(best.params[name])}" for name in names if name in best.params
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width, initial-scale=1"><title>Search of a'
        f" recipe</title><style>{STYLE}</style><h1>Best: {escape(recipe)}, with a validation loss"
        f" of {best.value:.4f}</h1><p>Trial {best.number}. {counts}</p><h2>What"
        f" mattered</h2>{mattered}<h2>Validation loss by trial and by parameter</h2><p"
        " class=soft>Hollow points were ended early, the large one is the best.</p><div"
        f' class="charts">{"".join(charts)}</div><h2>Trials</h2>{listed}</html>\n'
    )


def _said(name: str) -> str:
    return name.replace("_", " ")


def _look(trial: FrozenTrial, best: FrozenTrial) -> str:
    """The class of a trial's point."""
    return "best-point" if trial.number == best.number else "done" if _finished(trial) else "pruned"


def _table(head: str, rows: Sequence[str]) -> str:
    return (
        "<div"
        f' class="wrap"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _finished(trial: FrozenTrial) -> bool:
    return bool(trial.state.name == "COMPLETE")


def _last(trial: FrozenTrial) -> float | None:
    """The result, or of a trial that was ended early the last loss it told."""
    value = (
        trial.value
        if _finished(trial)
        else next(reversed(trial.intermediate_values.values()), None)
    )
    return float(value) if value is not None and math.isfinite(value) else None


def _row(trial: FrozenTrial, loss: float | None, names: Sequence[str], best: bool) -> str:
    ended = (
        "the best"
        if best
        else (
            "finished"
            if _finished(trial)
            else "ended early"
            if trial.state.name == "PRUNED"
            else trial.state.name.lower()
        )
    )
    cells = [
        str(trial.number),
        ended,
        "" if loss is None else f"{loss:.4f}",
        *(_short(trial.params.get(name)) for name in names),
    ]
    return f"<tr{' class=best' if best else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def _bars(shares: dict[str, float]) -> str:
    rows = [
        f'<text x="0" y="{22 * number + 15}">{escape(_said(name))}</text><rect class="bar" x="110"'
        f' y="{22 * number + 4}" width="{260 * share:.1f}" height="14"/><text'
        f' x="{116 + 260 * share:.1f}" y="{22 * number + 15}">{100 * share:.0f} %</text>'
        for number, (name, share) in enumerate(shares.items())
    ]
    height = 22 * len(shares) + 4
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" aria-label="Importance'
        f' of each parameter">{"".join(rows)}</svg>'
    )


def scatter(name: str, points: list[tuple[float, float, str]], label: str = "") -> str:
    """Return a chart of the loss over one quantity; a rate has a logarithmic scale.

    `points`: (x, loss, class of the point); `label`: what the chart shows, for screen readers.
    """
    if not points:
        return ""
    across = [math.log10(x) if name == "learning_rate" else x for x, _, _ in points]
    left, right, low, high = (
        min(across),
        max(across),
        min(y for _, y, _ in points),
        max(y for _, y, _ in points),
    )

    def place(x: float, y: float) -> tuple[float, float]:
        share_x, share_y = (x - left) / ((right - left) or 1), (high - y) / ((high - low) or 1)
        return _EDGE + (_WIDTH - 2 * _EDGE) * share_x, 10 + (_HEIGHT - _EDGE - 10) * share_y

    dots = []
    for x, (_, loss, look) in zip(across, points, strict=True):
        at = place(x, loss)
        dots.append(
            f'<circle class="{look}" cx="{at[0]:.1f}" cy="{at[1]:.1f}"'
            f' r="{7 if look == "best-point" else 4}"/>'
        )
    ends = [10**left, 10**right] if name == "learning_rate" else [left, right]
    bottom = _HEIGHT - _EDGE + 8
    words = (
        f'<text x="{_EDGE}" y="{_HEIGHT - 8}">{ends[0]:.3g}</text><text x="{_WIDTH - _EDGE}"'
        f' y="{_HEIGHT - 8}" text-anchor="end">{ends[1]:.3g}</text>'
    )
    words += (
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}"'
        f' text-anchor="middle">{escape(_said(name))}{" (log)" if name == "learning_rate" else ""}</text><text'
        f' x="0" y="14">{high:.3f}</text><text x="0" y="{bottom - 8}">{low:.3f}</text>'
    )
    axis = f'<line class="axis" x1="{_EDGE}" y1="{bottom}" x2="{_WIDTH - _EDGE}" y2="{bottom}"/>'
    label = escape(label or f"Validation loss by {_said(name)}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img"'
        f' aria-label="{label}">{axis}{"".join(dots)}{words}</svg>'
    )
