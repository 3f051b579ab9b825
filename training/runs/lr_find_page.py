"""The picture of a learning-rate range test: loss over the rate, in one HTML file that needs
nothing else.
"""

from __future__ import annotations

import math

from training.runs.lr_find import RangeTest
from training.runs.search_page import STYLE, scatter

_STOPPED = {
    "end": "It went through all rates.",
    "diverged": "It was stopped because the loss diverged.",
    "time": "It was stopped because its time was over.",
}


def page(found: RangeTest) -> str:
    """Return the whole file."""
    title = (
        f"Suggested learning rate: {found.suggestion:.2g}"
        if found.suggestion
        else "The loss fell at no learning rate"
    )
    lowest = f" It was lowest at {found.lowest_at:.2g}." if found.lowest_at else ""
    shown = [(point.rate, point.smoothed, _look(found, point.rate)) for point in found.points]
    each = [
        (point.rate, point.loss, "pruned") for point in found.points if math.isfinite(point.loss)
    ]
    charts = scatter("learning_rate", shown, "Smoothed loss by learning rate") + scatter(
        "learning_rate", each, "Loss of each batch by learning rate"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Learning-rate range test</title><style>{STYLE}</style><h1>{title}</h1>"
        f"<p>{len(found.points)} steps at rising rates. {_STOPPED[found.stopped]}{lowest} The loss "
        "is in nats per token, of training batches; the large point is where it falls most "
        f'steeply.</p><div class="charts">{charts}</div></html>\n'
    )


def _look(found: RangeTest, rate: float) -> str:
    """Return the class of a point."""
    return "best-point" if rate == found.suggestion else "done"
