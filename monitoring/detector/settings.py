"""What the detector is configured by.

One number is meant to be changed: the false alarms that are bearable.
"""

from __future__ import annotations

from dataclasses import dataclass

from whet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """`target` decides how sensitive the detector is; everything else has a reason and rarely
    another value.
    """

    # False incidents per 100 days that are bearable, over all signals of one alias
    target: float = 0.5
    # Of a day: more, and a few busy people are the statistic; measured 2 false alarms in 100 days
    # without, 0.1 with
    rows_per_user: int = 3
    seed: int = 0  # of the daily samples and the clusters: the same table gives the same incidents

    history_days: int = 63  # nine weeks: 45 weekdays and 18 weekend days to judge a day by
    # Days before today that are not history yet, so that a slow change does not become its own
    # reference
    gap_days: int = 8
    # Below six weeks of traffic nothing is judged against a history, and only information is given
    cold_days: int = 42
    # Days that a chart's history needs; below, its spread is too uncertain to test with
    min_history: int = 20
    # Values of a signal that a day needs; a day with fewer is a day without the signal
    min_rows: int = 30

    # K of the CUSUM, in standard deviations: shifts above 1.5 of them are found fastest
    slack: float = 0.75
    clip: float = 6.0  # |z| of one day at most: one odd day alone cannot reach the threshold
    least_threshold: float = 5.5  # above clip - slack: an incident needs two days of evidence
    # Standard errors between users that a change has to exceed: what an exchange of users alone
    # does not reach
    least_turnover_z: float = 3.5
    # A signal that starts to move within this many days of an open incident belongs to it
    join_days: int = 10
    resolve_days: int = 7  # days back to normal before an incident resolves itself
    rebase_days: int = 5  # days after a declared change before the new level is judged

    hour_rows: int = (
        # Sampled rows that an hour needs to be judged, and values that a signal needs in it; below,
        # 12 % of refusals instead of 3 % look like chance
        200
    )
    # Of the target that hours may raise, on days that have hours that are judged; the day keeps the
    # rest
    hour_share: float = 0.2

    # First days, whose questions make the topics; they are no history themselves
    codebook_days: int = 14
    topics: int = 24  # clusters of questions
    texts_per_day: int = 4_000  # questions looked at per day at most: bounds the cost on busy days
    # Conversations of a day kept to confirm and explain changes with, for `history_days` days
    kept_per_day: int = 1_500

    def __post_init__(self) -> None:
        for name, low, high in (
            ("target", 0.01, 50.0),
            ("rows_per_user", 1, 1000),
            ("cold_days", 21, 400),
            ("topics", 2, 200),
            ("min_rows", 5, 10_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(
                    f"{name} has to lie between {low} and {high}, and is {value}."
                )
