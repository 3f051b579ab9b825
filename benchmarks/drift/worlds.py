"""Simulated services whose users have habits of their own: days of requests from a seed, with or without a change.

A user keeps a style (length, certainty), a language, a tendency to be refused, an application and two favourite topics; activity is
heavy-tailed; one user in a hundred is replaced each day; every day is a little slower or faster than the others. A world
without a shift is stationary: whatever is raised in it is false.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.table import Table, date_of, day_number

TOPICS, DIMENSIONS, LANGUAGES, ROUTES = 12, 16, 8, 8
FIRST_DAY = day_number(date_of(20_454))  # 2026-01-01
_LANGUAGE_NAMES = np.array(["en", "es", "de", "fr", "pt", "it", "nl", "pl"], dtype=object)
_LANGUAGE_SHARES = (0.62, 0.10, 0.07, 0.06, 0.06, 0.04, 0.03, 0.02)
_TOPIC_WEIGHTS = 1 / np.arange(1, TOPICS + 1)
_TOPIC_WEIGHTS = _TOPIC_WEIGHTS / _TOPIC_WEIGHTS.sum()
_CENTRES = np.random.default_rng(99).normal(size=(TOPICS + 1, DIMENSIONS))  # the last one is the new topic
_RAMP_DAYS = 14
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
_FILLERS = ("Thanks in advance.", "This is urgent!", "I tried everything.", "Kind regards", "What should I do now?", "It worked last week.")
_VOCABULARY = [
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
        "solar panel inverter roof kilowatt grid feed-in installer mounting tariff",  # the new topic
    )
]
_VOCABULARY[-1] = [*_VOCABULARY[-1], "photovoltaic"]


@dataclass(frozen=True)
class Shift:
    """A change and what has to be found: `signals` that may lead, whether a new topic has to be named."""

    name: str
    signals: tuple[str, ...]
    amount: float = 0.0
    topic: bool = False
    ramp: bool = False


SHIFTS = {
    shift.name: shift
    for shift in (
        Shift("refusal x1.5", ("refusal",), 1.5),
        Shift("refusal x2", ("refusal",), 2.0),
        Shift("refusal x4", ("refusal",), 4.0),
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
        Shift("adapter without effect", ("logprob", "completion_tokens", "thumb_down"), 1.0),
        Shift("wrong answers, same questions", ("thumb_down",), 2.0),
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
}
_EVENT = 75  # day on which holiday, heavy user and template come: warm-up and history lie before it


def sentences(topics: NDArray[np.int64], r: np.random.Generator) -> NDArray[Any]:
    """One question per topic number: a template, two or three words of the topic, one word of another, a number that is new each time."""
    n = len(topics)
    templates, fillers = r.integers(len(_TEMPLATES), size=n), r.integers(len(_FILLERS), size=n)
    words = r.integers(len(_VOCABULARY[0]), size=(n, 3))
    other = r.integers(TOPICS, size=n), r.integers(len(_VOCABULARY[0]), size=n)
    numbers = r.integers(1000, 99_999, size=n)
    made = []
    for i in range(n):
        own = _VOCABULARY[topics[i]]
        stray = _VOCABULARY[other[0][i]][other[1][i]]
        made.append(_TEMPLATES[templates[i]].format(own[words[i, 0]], own[words[i, 1]], own[words[i, 2]], stray, _FILLERS[fillers[i]], numbers[i]))
    return np.array(made, dtype=object)


@dataclass
class World:
    """One service. `volume` is its requests on a weekday; `world` one of NULLS; a shift begins on day `start`."""

    seed: int
    volume: int = 2000
    world: str = "clustered, weekly"
    shift: Shift | None = None
    start: int = 63
    texts: bool = False  # questions as sentences instead of embeddings
    clarity: float = 1.0  # how far topics lie apart, in standard deviations of a question around its topic
    traits: dict[str, NDArray[Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.users = max(50, int(1.5 * self.volume))
        self.activity = self.random.pareto(1.3, self.users) + 0.05
        self.traits = self._drawn(self.users)
        self.names = np.array([f"u{number}" for number in range(self.users)], dtype=object)
        self.next_user = self.users

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

    def day(self, day: int) -> Table:
        """The requests of day number `day` (0 is FIRST_DAY); days have to be asked for in order."""
        r = self.random
        clustered, weekly = self.world != "independent", self.world not in ("independent", "clustered")
        if clustered:
            self._replace_some()
        weekend = weekly and (day + FIRST_DAY + 3) % 7 >= 5
        n = int(r.poisson(self._volume(day) * (0.5 if weekend else 1.0)))
        weights = self.activity * np.where(weekend & (self.traits["route"] < 4), 0.3, 1.0) * r.gamma(2, 0.5, self.users)
        who = r.choice(self.users, n, p=weights / weights.sum())
        if self.world == "heavy user" and day == _EVENT:
            who[r.random(n) < 0.2] = int(np.argmax(self.traits["style"]))
        traits = self.traits if clustered else self._drawn(n)
        rows = np.arange(n) if not clustered else who
        swing = float(r.normal(0, 0.06)) - 0.1 * weekend if clustered else 0.0
        columns = self._columns(r, {name: values[rows] for name, values in traits.items()}, n, swing, day)
        columns["user"] = np.array([f"d{day}-{i}" for i in range(n)], dtype=object) if not clustered else self.names[who]
        columns["id"] = np.array([f"{day}-{i}" for i in range(n)], dtype=object)
        columns["day"] = np.full(n, FIRST_DAY + day)
        self._oddities(columns, day, n)
        return Table(columns)

    def _volume(self, day: int) -> float:
        if self.world == "holiday week" and _EVENT <= day < _EVENT + 7:
            return 0.4 * self.volume
        if self.world == "volume x4":
            return self.volume * (1 + 3 * min(1.0, max(0, day - _EVENT + 15) / 60))
        return self.volume

    def _columns(self, r: np.random.Generator, of: dict[str, NDArray[Any]], n: int, swing: float, day: int) -> dict[str, NDArray[Any]]:
        shift = self.shift if self.shift and day >= self.start else None
        name, amount = (shift.name, shift.amount) if shift else ("", 0.0)
        part = min(1.0, (day - self.start + 1) / _RAMP_DAYS) if shift and shift.ramp else 1.0
        uncertainty = np.exp(-1.2 + 0.5 * of["style"] + r.normal(0, 0.6, n))
        ttft = np.exp(5.3 + swing + r.normal(0, 0.6, n))
        tokens = np.exp(5.2 + of["style"] + r.normal(0, 0.7, n))
        answer = np.exp(4.6 + 0.4 * of["style"] + r.normal(0, 0.6, n))
        refused = of["refused"].copy()
        language = np.where(r.random(n) < 0.95, of["language"], 0)
        topic = np.where(r.random(n) < 0.6, of["first"], np.where(r.random(n) < 0.5, of["second"], r.choice(TOPICS, n, p=_TOPIC_WEIGHTS)))
        schema, repeats, down = 0.01, 0.005, of["unhappy"]
        if name.startswith("refusal"):
            refused = np.minimum(1, amount * refused)
        elif name.startswith("schema"):
            schema = amount
        elif name.startswith("TTFT"):
            ttft = ttft * amount
        elif name.startswith("log-probability"):
            uncertainty = uncertainty * (1 + (amount - 1) * part)
        elif name.startswith("new topic"):
            new = r.random(n) < amount
            topic, refused = np.where(new, TOPICS, topic), np.where(new, np.maximum(refused, 0.1), refused)
        elif name.startswith("topics"):
            topic = np.where(r.random(n) < amount, (topic + 5) % TOPICS, topic)
        elif name.startswith("language"):
            language = np.where(r.random(n) < amount, 1, language)
        elif name.startswith("repetition"):
            repeats = amount
        elif name.startswith("adapter"):
            uncertainty, answer, down = uncertainty * 1.15, answer * 1.25, np.minimum(1, down * 1.5)
        elif name.startswith("wrong"):
            down = np.minimum(1, amount * down)
        rated = r.random(n) < 0.06
        question: dict[str, NDArray[Any]] = {"prompt": sentences(topic, r)} if self.texts else {}
        if not self.texts:
            question["embedding"] = (self.clarity * _CENTRES[topic] + r.normal(size=(n, DIMENSIONS))).astype(np.float32)
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
            "finish_reason": np.where(r.random(n) < 0.04, "length", "stop").astype(object),
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
        """`n` independent requests of `n` users on one day: one side of a pair. `fixed`: a rate to have instead, by column."""
        traits = self._drawn(n)
        if "refusal" in fixed:
            traits["refused"] = np.full(n, fixed["refusal"])
        columns = self._columns(self.random, traits, n, 0.0, 0)
        columns["user"] = columns["id"] = np.array([f"{self.seed}-{self.next_user + i}" for i in range(n)], dtype=object)
        self.next_user += n
        return Table(columns)
