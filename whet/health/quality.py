"""Items about answers that are wrong: by the random sample, and by what users say."""

from __future__ import annotations

import math

from whet.health.reading import SAMPLE_WRONG
from whet.health.records import ActionItem, HealthReading
from whet.web.filters import percent

_LEAST_JUDGED = 20
_LEAST_RATED = 30


def find_quality_items(reading: HealthReading) -> list[ActionItem]:
    """Return one item per alias whose sample, and per live version whose ratings, are bad."""
    told = {alert["alias"] for alert in reading.alerts if alert["kind"] == "errors"}
    found = []
    for one in reading.samples:
        if one.low < SAMPLE_WRONG or one.judged < _LEAST_JUDGED or one.alias in told:
            continue
        found.append(
            ActionItem(
                "answers_wrong",
                88,
                "bad",
                f"{percent(one.rate)} of the answers of {one.alias} are wrong"
                f" ({percent(one.low)} to {percent(one.high)}, {one.judged:,} judged of the random"
                " sample).",
                f"/drift?alias={one.alias}#error-rate",
                one.since,
                f"Open /adapters/{one.alias}: roll back if the version before was better; else"
                " review the conversations and train.",
            )
        )
    for state in reading.aliases:
        live = next((one for one in state.versions if one.label == state.live), None)
        if live is None or live.rated < _LEAST_RATED:
            continue
        if wilson_upper(live.thumbs_up, live.rated) >= 0.5:
            continue
        down = live.rated - live.thumbs_up
        found.append(
            ActionItem(
                "mostly_thumbs_down",
                86,
                "bad",
                f"{down:,} of {live.rated:,} rated answers of {state.alias} {live.label} have a"
                " thumb down (last 7 days).",
                f"/traffic?alias={state.alias}&rating=down&since=7d",
                state.live_since,
                f"Open /adapters/{state.alias}: roll back if the version before was better; else"
                " review the conversations and train.",
            )
        )
    return found


def wilson_upper(count: int, of: int, z: float = 1.96) -> float:
    """Return the upper end of Wilson's 95 % interval of a share (Wilson 1927)."""
    share = count / of
    middle = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (middle + spread) / (1 + z * z / of)
