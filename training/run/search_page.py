"""The picture of a search: what mattered, how the trials went, what each parameter did. One HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study

_WIDTH, _HEIGHT, _EDGE = 420, 180, 34  # of a chart, in the SVG's own units
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1d2129}"
    "h1{font-size:1.4rem}h2{font-size:1.05rem;margin-top:2rem}svg{max-width:100%}.charts{display:flex;flex-wrap:wrap;gap:1rem}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .7rem;text-align:left;border-bottom:1px solid #e2e5ea}"
    ".bar,.done{fill:#2f6fde}.pruned{fill:none;stroke:#8a93a3}.axis{stroke:#c7ccd5}text{font-size:11px;fill:#5b6472}"
    "@media(prefers-color-scheme:dark){body{background:#14171c;color:#e6e9ef}td,th{border-color:#2c323b}text{fill:#9aa4b2}}"
)


def page(study: Study, importances: dict[str, float]) -> str:
    """The whole file."""
    trials = [trial for trial in study.trials if trial.state.is_finished()]
    best = study.best_trial
    shown = [(trial, _last(trial)) for trial in trials]
    points = [(trial, loss) for trial, loss in shown if loss is not None]
    names = sorted({name for trial in trials for name in trial.params})
    charts = [_scatter("trial", [(float(trial.number), loss, _finished(trial)) for trial, loss in points])]
    charts += [_scatter(name, [(float(trial.params[name]), loss, _finished(trial)) for trial, loss in points if name in trial.params]) for name in names]
    counts = f"{sum(map(_finished, trials))} trials came to their end, {sum(not _finished(trial) for trial in trials)} were ended early."
    head = "".join(f"<th>{escape(name)}</th>" for name in ("trial", "state", "loss", *names))
    rows = "".join(_row(trial, loss, names) for trial, loss in sorted(shown, key=lambda pair: math.inf if pair[1] is None else pair[1]))
    mattered = _bars(importances) if importances else "<p>Too few finished trials to tell.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Search of a recipe</title><style>{_STYLE}</style>'
        f"<h1>Best validation loss {best.value:.4f}, by trial {best.number}</h1><p>{counts}</p>"
        f"<h2>What mattered</h2>{mattered}<h2>Validation loss by trial and by parameter</h2><p>Hollow points were ended early.</p>"
        f'<div class="charts">{"".join(charts)}</div><h2>Trials</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></html>\n'
    )


def _finished(trial: Any) -> bool:
    return bool(trial.state.name == "COMPLETE")


def _last(trial: Any) -> float | None:
    """The result, or of a trial that was ended early the last loss it told."""
    value = trial.value if _finished(trial) else next(reversed(trial.intermediate_values.values()), None)
    return float(value) if value is not None and math.isfinite(value) else None


def _row(trial: Any, loss: float | None, names: Sequence[str]) -> str:
    cells = [str(trial.number), trial.state.name.lower(), "" if loss is None else f"{loss:.4f}", *(_short(trial.params.get(name)) for name in names)]
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def _bars(shares: dict[str, float]) -> str:
    rows = [
        f'<text x="0" y="{22 * number + 15}">{escape(name)}</text><rect class="bar" x="110" y="{22 * number + 4}" width="{260 * share:.1f}" height="14"/>'
        f'<text x="{116 + 260 * share:.1f}" y="{22 * number + 15}">{100 * share:.0f} %</text>'
        for number, (name, share) in enumerate(shares.items())
    ]
    height = 22 * len(shares) + 4
    return f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" role="img" aria-label="Importance of each parameter">{"".join(rows)}</svg>'


def _scatter(name: str, points: list[tuple[float, float, bool]]) -> str:
    """Loss over one quantity; a rate on a logarithmic scale."""
    if not points:
        return ""
    across = [math.log10(x) if name == "learning_rate" else x for x, _, _ in points]
    left, right, low, high = min(across), max(across), min(y for _, y, _ in points), max(y for _, y, _ in points)

    def place(x: float, y: float) -> tuple[float, float]:
        share_x, share_y = (x - left) / ((right - left) or 1), (high - y) / ((high - low) or 1)
        return _EDGE + (_WIDTH - 2 * _EDGE) * share_x, 10 + (_HEIGHT - _EDGE - 10) * share_y

    dots = []
    for x, (_, loss, done) in zip(across, points, strict=True):
        at = place(x, loss)
        dots.append(f'<circle class="{"done" if done else "pruned"}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="4"/>')
    ends = [10**left, 10**right] if name == "learning_rate" else [left, right]
    bottom = _HEIGHT - _EDGE + 8
    words = f'<text x="{_EDGE}" y="{_HEIGHT - 8}">{ends[0]:.3g}</text><text x="{_WIDTH - _EDGE}" y="{_HEIGHT - 8}" text-anchor="end">{ends[1]:.3g}</text>'
    words += f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(name)}</text><text x="0" y="14">{high:.3f}</text><text x="0" y="{bottom - 8}">{low:.3f}</text>'
    axis = f'<line class="axis" x1="{_EDGE}" y1="{bottom}" x2="{_WIDTH - _EDGE}" y2="{bottom}"/>'
    label = f"Validation loss by {escape(name)}"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{label}">{axis}{"".join(dots)}{words}</svg>'
