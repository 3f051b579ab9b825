"""What the detector is configured by. One number is meant to be changed: the false alarms that are bearable."""

from __future__ import annotations

from dataclasses import dataclass

from whet.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """`target` decides how sensitive the detector is; everything else has a reason and rarely another value."""

    target: float = 0.5  # false incidents per 100 days that are bearable, over all signals of one alias
    rows_per_user: int = 3  # of a day: more, and a few busy people are the statistic; measured 2 false alarms in 100 days without, 0.1 with
    seed: int = 0  # of the daily samples and the clusters: the same table gives the same incidents

    history_days: int = 63  # nine weeks: 45 weekdays and 18 weekend days to judge a day by
    gap_days: int = 8  # days before today that are not history yet, so that a slow change does not become its own reference
    cold_days: int = 42  # below six weeks of traffic nothing is judged against a history, and only information is given
    min_history: int = 20  # days that a chart's history needs; below, its spread is too uncertain to test with
    min_rows: int = 30  # values of a signal that a day needs; a day with fewer is a day without the signal

    slack: float = 0.75  # k of the CUSUM, in standard deviations: shifts above 1.5 of them are found fastest
    clip: float = 6.0  # |z| of one day at most: one odd day alone cannot reach the threshold
    least_threshold: float = 5.5  # above clip - slack: an incident needs two days of evidence
    least_turnover_z: float = 3.5  # standard errors between users that a change has to exceed: what an exchange of users alone does not reach
    join_days: int = 10  # a signal that starts to move within this many days of an open incident belongs to it
    resolve_days: int = 7  # days back to normal before an incident resolves itself
    rebase_days: int = 5  # days after a declared change before the new level is judged

    hour_rows: int = (
        200  # sampled rows that an hour needs to be judged, and values that a signal needs in it; below, 12 % of refusals instead of 3 % look like chance
    )
    hour_share: float = 0.2  # of the target that hours may raise, on days that have hours that are judged; the day keeps the rest

    codebook_days: int = 14  # first days, whose questions make the topics; they are no history themselves
    topics: int = 24  # clusters of questions
    texts_per_day: int = 4_000  # questions looked at per day at most: bounds the cost on busy days
    kept_per_day: int = 1_500  # conversations of a day kept to confirm and explain changes with, for `history_days` days

    def __post_init__(self) -> None:
        for name, low, high in (("target", 0.01, 50.0), ("rows_per_user", 1, 1000), ("cold_days", 21, 400), ("topics", 2, 200), ("min_rows", 5, 10_000)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(f"{name} has to lie between {low} and {high}, and is {value}.")
