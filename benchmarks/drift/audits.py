"""The weekly error rate in simulated weeks: how often its 95 % interval holds the truth, and how
wide it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitoring.audit import BASELINE_WEEKS, CELLS, Judged, Week, compare, estimate, learn

LEAST_COVERED, MOST_COVERED = 0.93, 0.97
_SHARES = np.array([1, 1, 1, 1, 1, 0.5, 0.5]) / 6  # of a week's requests, Monday to Sunday
_HEAVY_TAIL = 1.3  # Pareto shape of users' activity, as in worlds.py


@dataclass(frozen=True)
class Service:
    """One kind of service.

    Errors cluster in users; some of the wrong answers, and few of the right ones, are rated down.
    """

    name: str
    error_rate: float
    answers: int  # a week
    drawn_a_day: int
    # Concentration of users' own error rates; smaller: more alike within a user; 0: independent
    alike: float
    rated_down: tuple[float, float] = (0.25, 0.02)  # share of wrong and of right answers


SERVICES = (
    Service("2 % wrong", 0.02, 14_000, 50, 30),
    Service("5 % wrong", 0.05, 14_000, 50, 30),
    Service("5 % wrong, nothing rated", 0.05, 14_000, 50, 30, (0.0, 0.0)),
    Service("5 % wrong, every request a user of its own", 0.05, 14_000, 50, 0),
    Service("10 % wrong, 15 a day judged", 0.10, 14_000, 15, 10),
    Service("30 % wrong", 0.30, 14_000, 50, 10),
    Service("5 % wrong in 1,400 answers, a quarter judged", 0.05, 1_400, 50, 10),
    Service("8 % wrong in 140,000 answers", 0.08, 140_000, 100, 10),
)


def run_service(service: Service, weeks: int, seed: int) -> dict[str, Any]:
    """`weeks` weeks of one service in a row, each with what was learned from the ones before."""
    rng = np.random.default_rng([seed, SERVICES.index(service)])
    earlier: deque[list[Judged]] = deque(maxlen=BASELINE_WEEKS)
    before = []
    covered = plain_covered = worse = 0
    width, plain_width, off = [], [], []
    for _ in range(weeks):
        week, truth = simulate(service, rng)
        found, plain = (
            estimate(week, learn([one for ones in earlier for one in ones])),
            estimate(week),
        )
        assert found is not None and plain is not None
        covered += found.low <= truth <= found.high
        plain_covered += plain.low <= truth <= plain.high
        width.append(found.high - found.low)
        plain_width.append(plain.high - plain.low)
        off.append(found.rate - truth)
        worse += compare(found, before).verdict == "worse"
        before.append(found)
        earlier.append(list(week.judged))
    return {
        "service": service.name,
        "weeks": weeks,
        "covered": covered,
        "width": round(float(np.mean(width)), 5),
        "plain_covered": plain_covered,
        "plain_width": round(float(np.mean(plain_width)), 5),
        "bias": round(float(np.mean(off)), 5),
        "called_worse": worse,
    }


def simulate(service: Service, rng: np.random.Generator) -> tuple[Week, float]:
    """(a week as the product knows it, the share of its answers that are wrong)."""
    users = max(20, service.answers // 6)
    rates = np.full(users, service.error_rate)
    if service.alike:
        rates = rng.beta(
            service.error_rate * service.alike, (1 - service.error_rate) * service.alike, users
        )
    activity = rng.pareto(_HEAVY_TAIL, users) + 1
    activity /= activity.sum()
    population: dict[int, dict[str, int]] = {}
    judged: list[Judged] = []
    wrong_ones = answers = 0
    for day, share in enumerate(_SHARES):
        count = int(rng.poisson(service.answers * share))
        wrong = rng.random(count) < rates[rng.choice(users, count, p=activity)]
        down = rng.random(count) < np.where(wrong, *service.rated_down)
        up = ~down & (rng.random(count) < np.where(wrong, 0.03, 0.1)) & (service.rated_down[0] > 0)
        cell = np.where(down, "down", np.where(up, "up", "quiet"))
        population[day] = {name: int((cell == name).sum()) for name in CELLS}
        # Each by itself, as the product draws
        drawn = np.flatnonzero(rng.random(count) < service.drawn_a_day / (service.answers / 7))
        judged += [Judged(day, str(cell[n]), bool(wrong[n])) for n in drawn]
        answers, wrong_ones = answers + count, wrong_ones + int(wrong.sum())
    return Week(population, judged), wrong_ones / answers
