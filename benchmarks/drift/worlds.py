"""Simulated services whose users have habits of their own: days of requests from a seed, with or
without a change.

A user keeps a style (length, certainty), a language, a tendency to be refused, an application and
two favourite topics; activity is heavy-tailed; one user in a hundred is replaced each day; every
day is a little slower or faster than the others. A world without a shift is stationary: whatever is
raised in it is false.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.searches import Searches
from monitoring.detector.columns import Table, date_of, day_number

TOPICS, DIMENSIONS, LANGUAGES, ROUTES = 12, 16, 8, 8
FIRST_DAY = day_number(date_of(20_454))  # 2026-01-01
_LANGUAGE_NAMES = np.array(["en", "es", "de", "fr", "pt", "it", "nl", "pl"], dtype=object)
_LANGUAGE_SHARES = (0.62, 0.10, 0.07, 0.06, 0.06, 0.04, 0.03, 0.02)
_TOPIC_WEIGHTS = 1 / np.arange(1, TOPICS + 1)
_TOPIC_WEIGHTS = _TOPIC_WEIGHTS / _TOPIC_WEIGHTS.sum()
# The last one is the new topic
_CENTRES = np.random.default_rng(99).normal(size=(TOPICS + 1, DIMENSIONS))
_RAMP_DAYS = 14
# Standard deviation of an hour's own swing: lengths, certainty, time to the first token; then, of
# the logarithm of the rate, refusals, repetition, broken schemas.
_HOUR_SWINGS = np.array([0.02, 0.02, 0.02, 0.10, 0.10, 0.15, 0.15])
Floats = NDArray[np.float64]
_TEMPLATES = (
    "Hello, my {0} has a problem with the {1}, order {5}. {4}",
    "How do I change the {0} of the {1}? {4}",
    "{4} The {0} does not work since I touched the {1} and the {3}",
    "Can you explain {0} and {1} to me, number {5}?",
    "I need help with {0}, {1} and also the {2} please",
    "Since yesterday {0} shows an error about {1}. {4} Case {5}",
    "What is the difference between {0} and {2}? My {3} is the old one",
    "Please cancel {0} for {1}, I wrote about the {2} before. {4}",
)
_FILLERS = (
    "Thanks in advance.",
    "This is urgent!",
    "I tried everything.",
    "Kind regards",
    "What should I do now?",
    "It worked last week.",
)
VOCABULARY = [
    words.split()
    for words in (
        "invoice payment refund charge card billing receipt amount tax discount",
        "login password account email verification code reset username session profile",
        "delivery parcel courier address tracking shipment warehouse delay package pickup",
        "router wifi signal network cable connection modem speed antenna firmware",
        "battery charger screen button speaker headphone microphone camera case adapter",
        "subscription plan upgrade trial renewal contract cancellation licence seat tier",
        "photo album folder backup cloud storage sync upload gallery archive",
        "recipe oven temperature dough flour butter minutes pan sugar yeast",
        "flight seat luggage gate passport booking airport boarding visa hotel",
        "python function loop exception variable library compile syntax thread module",
        "appointment doctor prescription symptom insurance clinic dosage allergy vaccine referral",
        "garden soil seed watering fertiliser pruning greenhouse tomato compost hedge",
        # The new topic
        "solar panel inverter roof kilowatt grid feed-in installer mounting tariff",
    )
]
VOCABULARY[-1] = [*VOCABULARY[-1], "photovoltaic"]


@dataclass(frozen=True)
class Shift:
    """A change and what has to be found: `signals` that may lead, whether a new topic has to be
    named.
    """

    name: str
    signals: tuple[str, ...]
    amount: float = 0.0
    topic: bool = False
    ramp: bool = False
    tenant: bool = False  # only the requests of one tenant change
    days: int = 0  # after which everything is as before; 0: it lasts


SHIFTS = {
    shift.name: shift
    for shift in (
        Shift("refusal x1.5", ("refusal",), 1.5),
        Shift("refusal x2", ("refusal",), 2.0),
        Shift("refusal x4", ("refusal",), 4.0),
        Shift("refusal x3 in one tenant", ("refusal",), 3.0, tenant=True),
        Shift("refusal x5 for three days", ("refusal",), 5.0, days=3),
        Shift("schema failure 1 to 2 %", ("schema_failure",), 0.02),
        Shift("schema failure 1 to 3 %", ("schema_failure",), 0.03),
        Shift("schema failure 1 to 10 %", ("schema_failure",), 0.10),
        Shift("TTFT +10 %", ("ttft_ms",), 1.10),
        Shift("TTFT +20 %", ("ttft_ms",), 1.20),
        Shift("log-probability -5 %", ("logprob",), 1.05),
        Shift("log-probability -10 %", ("logprob",), 1.10),
        Shift("log-probability -10 % ramp", ("logprob",), 1.10, ramp=True),
        Shift("new topic 2 %", ("prompt_novelty", "prompt_topics"), 0.02, topic=True),
        Shift("new topic 5 %", ("prompt_novelty", "prompt_topics"), 0.05, topic=True),
        Shift("new topic 8 %", ("prompt_novelty", "prompt_topics"), 0.08, topic=True),
        Shift("new topic 15 %", ("prompt_novelty", "prompt_topics"), 0.15, topic=True),
        Shift("topics change places", ("prompt_topics",), 0.3),
        Shift("language +2 points", ("language",), 0.02),
        Shift("language +5 points", ("language",), 0.05),
        Shift("repetition 0.5 to 2 %", ("repetition",), 0.02),
        Shift("truncation 4 to 10 %", ("finish_reason",), 0.10),
        Shift("adapter without effect", ("logprob", "completion_tokens", "thumb_down"), 1.0),
        Shift("wrong answers, same questions", ("thumb_down",), 2.0),
    )
}
# Of services that search a collection of documents.
SEARCH_SHIFTS = {
    shift.name: shift
    for shift in (
        Shift(
            "documents lost 10 %", ("retrieval_miss", "retrieval_score", "retrieval_empty"), 0.10
        ),
        Shift(
            "new topic 8 % without documents",
            ("retrieval_miss", "retrieval_score", "retrieval_empty"),
            0.08,
            topic=True,
        ),
    )
}
# Changes so gross that nobody should wait a day for them; `ratings stop` and `language +30 points`
# are a client that broke and an application that was sent elsewhere.
GROSS = {
    shift.name: shift
    for shift in (
        SHIFTS["refusal x2"],
        SHIFTS["refusal x4"],
        SHIFTS["schema failure 1 to 3 %"],
        SHIFTS["schema failure 1 to 10 %"],
        SHIFTS["repetition 0.5 to 2 %"],
        SHIFTS["new topic 15 %"],
        SHIFTS["adapter without effect"],
        SHIFTS["language +5 points"],
        Shift("language +30 points", ("language",), 0.30),
        Shift("repetition 0.5 to 10 %", ("repetition",), 0.10),
        Shift("ratings stop", ("thumb_given",)),
    )
}
NULLS = {
    "independent": "every request a user of its own, no rhythm, no daily swing",
    "clustered": "habits, heavy-tailed activity, users replaced",
    "clustered, weekly": "the same, half the volume at weekends, some applications closed then",
    "holiday week": "clustered, weekly, one week with 60 % fewer requests",
    "volume x4": "clustered, weekly, volume four times as high within 60 days",
    "heavy user": "clustered, weekly, on one day one user sends 20 % of the requests",
    "missing signal": "clustered, weekly, two signals absent on 10 % of days",
    "declared template": "clustered, weekly, a new template version moves prompts and answers",
    "seasons": "clustered, weekly, each topic turns by a quarter up and down within 60 days",
    "wandering levels": (
        "clustered, weekly, latency, lengths and refusals drift about their level for weeks"
    ),
    "launch": "clustered, weekly, twice the users on one day, who leave within six weeks",
    "big tenant": (
        "clustered, weekly, one tenant of other habits sends 10 to 40 % of a day's requests"
    ),
    "anonymous users": "clustered, weekly, seasons, and the table has no column `user`",
    "gaps": "clustered, weekly, seasons, twice two days are missing and once half a day",
}
# Stationary worlds that are also simulated by the hour, and one that only hours can notice.
HOUR_NULLS = {
    name: NULLS[name]
    for name in ("clustered, weekly", "holiday week", "heavy user", "missing signal")
} | {
    "clock change": (
        "clustered, weekly, everybody comes an hour earlier from one day on, as when summer time"
        " begins"
    ),
}
# Hour of the day (UTC) around which users of a language are awake; en, es, de, fr, pt, it, nl, pl.
_AWAKE = np.array([16.0, 19.0, 11.0, 11.0, 17.0, 11.0, 11.0, 11.0])
# Worlds whose topics turn with the season: by how much of themselves, and within how many days.
_SEASONAL = ("seasons", "anonymous users", "gaps")
_SEASON, _SEASON_DAYS = 0.25, 120  # from the least to the most takes half of the days
# Daily persistence of levels that wander, and the standard deviation (of the logarithm) within
# which they stay: latency, lengths, refusals.
_WANDER, _WANDERING = 0.95, np.array([0.08, 0.03, 0.10])
_GAPS = (70, 71, 95, 96)  # days without any rows; half of day 110 is missing too
_HALF_DAY = 110
_LAUNCH_DAYS = 42  # within which the users of a launch leave again
_TENANT_SHARE = (0.1, 0.4)  # of a day's requests, drawn for each day
TENANT, TENANT_USERS = "acme", 0.25  # of the users, where a service has tenants
_EVENT = 75  # day on which holiday, heavy user and template come: warm-up and history lie before it


def hash_of(user: str) -> float:
    """A number between 0 and 1 that stays the same for a user."""
    digits = "".join(letter for letter in str(user) if letter.isdigit()) or "0"
    return (int(digits) * 2654435761 % 2**32) / 2**32


def sentences(topics: NDArray[np.int64], r: np.random.Generator) -> NDArray[Any]:
    """One question per topic number: a template, two or three words of the topic, one word of
    another, a number that is new each time.
    """
    n = len(topics)
    templates, fillers = r.integers(len(_TEMPLATES), size=n), r.integers(len(_FILLERS), size=n)
    words = r.integers(len(VOCABULARY[0]), size=(n, 3))
    other = r.integers(TOPICS, size=n), r.integers(len(VOCABULARY[0]), size=n)
    numbers = r.integers(1000, 99_999, size=n)
    made = []
    for i in range(n):
        own = VOCABULARY[topics[i]]
        stray = VOCABULARY[other[0][i]][other[1][i]]
        made.append(
            _TEMPLATES[templates[i]].format(
                own[words[i, 0]],
                own[words[i, 1]],
                own[words[i, 2]],
                stray,
                _FILLERS[fillers[i]],
                numbers[i],
            )
        )
    return np.array(made, dtype=object)


@dataclass
class World:
    """One service.

    `volume` is its requests on a weekday; `world` one of NULLS; a shift begins on day `start`.
    """

    seed: int
    volume: int = 2000
    world: str = "clustered, weekly"
    shift: Shift | None = None
    start: int = 63
    # Requests have an hour, and hours a rhythm of users and length and swings of their own
    hours: bool = False
    start_hour: int = 0  # of day `start`, at which the shift begins; needs `hours`
    texts: bool = False  # questions as sentences instead of embeddings
    searches: bool = False  # every question is searched for in a collection of documents
    tenants: bool = False  # a quarter of the users belong to one tenant
    # How far topics lie apart, in standard deviations of a question around its topic
    clarity: float = 1.0
    traits: dict[str, NDArray[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.users = max(50, int(1.5 * self.volume))
        self.activity = self.random.pareto(1.3, self.users) + 0.05
        self.traits = self._drawn(self.users)
        self.names = np.array([f"u{number}" for number in range(self.users)], dtype=object)
        self.next_user = self.users
        # Of its own: days are the same with hours and without
        self.clock = np.random.default_rng([self.seed, 24])
        self.phases = self._awake(self.traits["language"])
        self.swing = np.zeros(len(_HOUR_SWINGS))
        self.turns = np.random.default_rng([self.seed, 60])  # of its own, as the clock's
        self.season_phases = self.turns.uniform(0, 2 * np.pi, TOPICS + 1)
        self.wander = self.turns.normal(0, _WANDERING)
        self.is_tenant = self.turns.random(self.users) < 0.05
        self.collection = Searches(self.seed, TOPICS) if self.searches else None

    def _awake(self, languages: NDArray[Any]) -> Floats:
        """The hour around which each user asks."""
        return np.asarray(_AWAKE[languages] + self.clock.normal(0, 2.5, len(languages)))

    def _drawn(self, n: int) -> dict[str, NDArray[Any]]:
        r = self.random
        return {
            "style": r.normal(0, 0.6, n),
            "language": r.choice(LANGUAGES, n, p=_LANGUAGE_SHARES),
            "refused": r.beta(0.6, 19.4, n),
            "route": r.choice(ROUTES, n),
            "first": r.choice(TOPICS, n, p=_TOPIC_WEIGHTS),
            "second": r.choice(TOPICS, n, p=_TOPIC_WEIGHTS),
            "unhappy": r.beta(2, 8, n),
        }

    def _replace_some(self) -> None:
        gone = self.random.choice(self.users, self.users // 100, replace=False)
        for name, values in self._drawn(len(gone)).items():
            self.traits[name][gone] = values
        self.names[gone] = [f"u{self.next_user + i}" for i in range(len(gone))]
        self.next_user += len(gone)
        self.phases[gone] = self._awake(self.traits["language"][gone])

    def day(self, day: int) -> Table:
        """The requests of day number `day` (0 is FIRST_DAY); days have to be asked for in order."""
        r = self.random
        clustered, weekly = (
            self.world != "independent",
            self.world not in ("independent", "clustered"),
        )
        if clustered:
            self._replace_some()
        weekend = weekly and (day + FIRST_DAY + 3) % 7 >= 5
        n = int(r.poisson(self._volume(day) * (0.5 if weekend else 1.0)))
        weights = (
            self.activity
            * np.where(weekend & (self.traits["route"] < 4), 0.3, 1.0)
            * r.gamma(2, 0.5, self.users)
        )
        if self.world == "launch":
            weights = weights * self._launched(day)
        if self.world == "big tenant":
            weights = self._tenant_weights(weights)
        who = r.choice(self.users, n, p=weights / weights.sum())
        if self.world == "heavy user" and day == _EVENT:
            who[r.random(n) < 0.2] = int(np.argmax(self.traits["style"]))
        traits = self.traits if clustered else self._drawn(n)
        rows = np.arange(n) if not clustered else who
        swing = float(r.normal(0, 0.06)) - 0.1 * weekend if clustered else 0.0
        of = {name: values[rows] for name, values in traits.items()}
        if self.world == "big tenant":
            self._as_tenant(of, self.is_tenant[rows])
        if self.tenants:
            of["is_acme"] = np.array([hash_of(name) < TENANT_USERS for name in self.names])[who]
        hours = (
            self._hours_of(self.phases[rows] - self._clock_change(day), bool(weekend))
            if self.hours
            else None
        )
        columns = (
            self._shifted_at(hours, of, n, swing, day)
            if hours is not None and day == self.start
            else self._columns(r, of, n, swing, day)
        )
        if self.world != "anonymous users":
            columns["user"] = (
                np.array([f"d{day}-{i}" for i in range(n)], dtype=object)
                if not clustered
                else self.names[who]
            )
        if self.world == "big tenant":
            columns["slice_tenant"] = np.where(self.is_tenant[who], TENANT, "others").astype(object)
        elif self.tenants:
            columns["slice_tenant"] = np.where(of["is_acme"], TENANT, "others").astype(object)
        columns["id"] = np.array([f"{day}-{i}" for i in range(n)], dtype=object)
        columns["day"] = np.full(n, FIRST_DAY + day)
        if hours is not None:
            columns["hour"] = hours
            self._swing_by_hour(columns)
        if self.collection is not None:
            is_lost = self.shift and self.shift.name.startswith("documents") and day >= self.start
            self.collection.lost = self.shift.amount if self.shift and is_lost else 0.0
            topics = columns["truth_topic"].astype(np.int64)
            columns |= self.collection.columns(topics, of["style"])
        self._oddities(columns, day, n)
        return Table(columns)

    def _is_shifted(self, shift: Shift, day: int) -> bool:
        return day >= self.start and (not shift.days or day < self.start + shift.days)

    def is_missing(self, day: int) -> bool:
        """True for a day on which the service had no requests at all."""
        return self.world == "gaps" and day in _GAPS

    def _launched(self, day: int) -> Floats:
        """Weight of each user: the second half comes on the day of the launch and leaves again."""
        newcomers = np.arange(self.users) >= self.users // 2
        here = max(0.0, 1 - (day - _EVENT) / _LAUNCH_DAYS) if day >= _EVENT else 0.0
        return np.where(newcomers, here, 1.0)

    def _tenant_weights(self, weights: Floats) -> Floats:
        """Weights of the users, those of the tenant together another share on each day."""
        share = self.turns.uniform(*_TENANT_SHARE)
        tenant, others = weights[self.is_tenant].sum(), weights[~self.is_tenant].sum()
        return np.where(self.is_tenant, weights * share / tenant, weights * (1 - share) / others)

    def _as_tenant(self, of: dict[str, NDArray[Any]], is_tenant: NDArray[np.bool_]) -> None:
        """Its users write longer, mostly in German, about two topics, and are refused more often."""
        drawn = self.turns.random(len(is_tenant))
        of["style"] = of["style"] + 0.4 * is_tenant
        of["language"] = np.where(is_tenant & (drawn < 0.7), 2, of["language"])
        of["first"] = np.where(is_tenant, np.where(drawn < 0.5, 3, 6), of["first"])
        of["refused"] = np.where(is_tenant, np.minimum(1, 1.5 * of["refused"]), of["refused"])

    def _season(self, day: int) -> Floats:
        """By how much each topic is more or less asked for than on average."""
        return 1 + _SEASON * np.sin(2 * np.pi * day / _SEASON_DAYS + self.season_phases)

    def _clock_change(self, day: int) -> float:
        return float(self.world == "clock change" and day >= _EVENT)

    def _hours_of(self, phases: Floats, weekend: bool) -> NDArray[np.int64]:
        """Hour of each request: around its user's own, two hours later at weekends; one in seven at
        any time, machines among them.
        """
        n = len(phases)
        around = phases + 2 * weekend + self.clock.normal(0, 3, n)
        return np.asarray(
            np.where(self.clock.random(n) < 0.15, self.clock.uniform(0, 24, n), around) % 24,
            dtype=np.int64,
        )

    def _shifted_at(
        self, hours: NDArray[np.int64], of: dict[str, NDArray[Any]], n: int, swing: float, day: int
    ) -> dict[str, NDArray[Any]]:
        """The day on which the shift begins: the same requests as without it until its hour."""
        shift, state = self.shift, self.random.bit_generator.state
        self.shift = None
        usual = self._columns(self.random, of, n, swing, day)
        self.shift, self.random.bit_generator.state = shift, state
        changed, late = self._columns(self.random, of, n, swing, day), hours >= self.start_hour
        return {
            name: np.where(late[:, None] if values.ndim > 1 else late, values, usual[name])
            for name, values in changed.items()
        }

    def _swing_by_hour(self, columns: dict[str, NDArray[Any]]) -> None:
        """What an hour does to all of its requests: it fades over some hours. Nights are wordier."""
        r, hours = self.clock, columns["hour"]
        for hour in range(24):
            self.swing = 0.6 * self.swing + 0.8 * r.normal(0, _HOUR_SWINGS)
            here = hours == hour
            for name, by in zip(
                ("prompt_tokens", "completion_tokens", "logprob", "ttft_ms"),
                self.swing,
                strict=False,
            ):
                columns[name][here] *= np.exp(
                    by
                    + (0.1 * np.cos(2 * np.pi * (hour - 3) / 24) if name == "prompt_tokens" else 0)
                )
            for name, by in zip(
                ("refusal", "repetition", "schema_failure"), self.swing[4:], strict=True
            ):
                # Some of the others become events, or some events do not happen: the hour's rate is
                # multiplied by exp(by).
                usual, draw = np.nanmean(columns[name]), r.random(len(here))
                more, fewer = draw < usual * np.expm1(max(by, 0.0)), draw < -np.expm1(min(by, 0.0))
                known = here & np.isfinite(columns[name])
                columns[name] = np.where(
                    known & more, 1.0, np.where(known & fewer, 0.0, columns[name])
                )

    def _volume(self, day: int) -> float:
        if self.world == "launch" and day >= _EVENT:
            return self.volume * (1 + max(0.0, 1 - (day - _EVENT) / _LAUNCH_DAYS))
        if self.world == "gaps" and day == _HALF_DAY:
            return 0.5 * self.volume
        if self.world == "holiday week" and _EVENT <= day < _EVENT + 7:
            return 0.4 * self.volume
        if self.world == "volume x4":
            return self.volume * (1 + 3 * min(1.0, max(0, day - _EVENT + 15) / 60))
        return self.volume

    def _columns(
        self, r: np.random.Generator, of: dict[str, NDArray[Any]], n: int, swing: float, day: int
    ) -> dict[str, NDArray[Any]]:
        shift = self.shift if self.shift and self._is_shifted(self.shift, day) else None
        name, amount = (shift.name, shift.amount) if shift else ("", 0.0)
        part = min(1.0, (day - self.start + 1) / _RAMP_DAYS) if shift and shift.ramp else 1.0
        uncertainty = np.exp(-1.2 + 0.5 * of["style"] + r.normal(0, 0.6, n))
        ttft = np.exp(5.3 + swing + r.normal(0, 0.6, n))
        tokens = np.exp(5.2 + of["style"] + r.normal(0, 0.7, n))
        answer = np.exp(4.6 + 0.4 * of["style"] + r.normal(0, 0.6, n))
        refused = of["refused"].copy()
        language = np.where(r.random(n) < 0.95, of["language"], 0)
        topic = np.where(
            r.random(n) < 0.6,
            of["first"],
            np.where(r.random(n) < 0.5, of["second"], r.choice(TOPICS, n, p=_TOPIC_WEIGHTS)),
        )
        if self.world in _SEASONAL:
            season = self._season(day)
            weights = _TOPIC_WEIGHTS * season[:TOPICS]
            moved = r.random(n) > season[topic] / (1 + _SEASON)
            topic = np.where(moved, r.choice(TOPICS, n, p=weights / weights.sum()), topic)
        if self.world == "wandering levels":
            noise = self.turns.normal(0, _WANDERING * np.sqrt(1 - _WANDER**2))
            self.wander = _WANDER * self.wander + noise
            slower, longer, stricter = np.exp(self.wander)
            ttft, answer, refused = (
                ttft * slower,
                answer * longer,
                np.minimum(1, refused * stricter),
            )
        schema, repeats, cut, down = 0.01, 0.005, 0.04, of["unhappy"]
        if name.startswith("refusal"):
            more = np.minimum(1, amount * refused)
            refused = np.where(of["is_acme"], more, refused) if shift and shift.tenant else more
        elif name.startswith("schema"):
            schema = amount
        elif name.startswith("TTFT"):
            ttft = ttft * amount
        elif name.startswith("log-probability"):
            uncertainty = uncertainty * (1 + (amount - 1) * part)
        elif name.startswith("new topic"):
            new = r.random(n) < amount
            topic, refused = (
                np.where(new, TOPICS, topic),
                np.where(new, np.maximum(refused, 0.1), refused),
            )
        elif name.startswith("topics"):
            topic = np.where(r.random(n) < amount, (topic + 5) % TOPICS, topic)
        elif name.startswith("language"):
            language = np.where(r.random(n) < amount, 1, language)
        elif name.startswith("repetition"):
            repeats = amount
        elif name.startswith("truncation"):
            cut = amount
        elif name.startswith("adapter"):
            uncertainty, answer, down = uncertainty * 1.15, answer * 1.25, np.minimum(1, down * 1.5)
        elif name.startswith("wrong"):
            down = np.minimum(1, amount * down)
        rated = r.random(n) < (0.0 if name == "ratings stop" else 0.06)
        question: dict[str, NDArray[Any]] = {"prompt": sentences(topic, r)} if self.texts else {}
        if not self.texts:
            question["embedding"] = (
                self.clarity * _CENTRES[topic] + r.normal(size=(n, DIMENSIONS))
            ).astype(np.float32)
        return {
            **question,
            "prompt_tokens": tokens,
            "completion_tokens": answer,
            "ttft_ms": ttft,
            "time_per_token_ms": np.exp(3.2 + 0.5 * swing + r.normal(0, 0.25, n)),
            "logprob": -uncertainty,
            "refusal": (r.random(n) < refused).astype(float),
            "schema_failure": np.where(r.random(n) < 0.5, r.random(n) < schema, np.nan),
            "repetition": (r.random(n) < repeats).astype(float),
            "thumb": np.where(rated, np.where(r.random(n) < down, -1.0, 1.0), np.nan),
            "finish_reason": np.where(r.random(n) < cut, "length", "stop").astype(object),
            "language": _LANGUAGE_NAMES[language],
            "route": of["route"].astype(str).astype(object),
            "truth_topic": topic.astype(float),
        }

    def _oddities(self, columns: dict[str, NDArray[Any]], day: int, n: int) -> None:
        if self.world == "missing signal":
            for name in ("logprob", "refusal"):
                if self.random.random() < 0.1:
                    columns[name] = np.full(n, np.nan)
        if self.world == "declared template":
            new = day >= _EVENT
            columns["template"] = np.full(n, "t2" if new else "t1", dtype=object)
            if new:
                columns["prompt_tokens"] = columns["prompt_tokens"] * 1.3
                columns["completion_tokens"] = columns["completion_tokens"] * 0.8
                columns["logprob"] = columns["logprob"] * 0.9

    def draw(self, n: int, **fixed: float) -> Table:
        """`n` independent requests of `n` users on one day: one side of a pair.

        `fixed`: a rate to have instead, by column.
        """
        traits = self._drawn(n)
        if "refusal" in fixed:
            traits["refused"] = np.full(n, fixed["refusal"])
        columns = self._columns(self.random, traits, n, 0.0, 0)
        columns["user"] = columns["id"] = np.array(
            [f"{self.seed}-{self.next_user + i}" for i in range(n)], dtype=object
        )
        self.next_user += n
        return Table(columns)
