"""The daily signals: which column each is read from, how a day of it becomes numbers, and what
counts as worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.columns import COLUMNS, EMBEDDING, PREFIXES, Floats, Table, kind_of
from monitoring.signals.answers import repeats
from monitoring.signals.language import detect
from monitoring.signals.refusals import refusal_of

Shape = Literal["rate", "positive", "latency", "score", "category", "topics", "novelty"]
Side = Literal["questions", "retrieval", "answers", "quality", "service"]


@dataclass(frozen=True, slots=True)
class DailySignal:
    """One signal.

    `floor` is the least relative change worth an incident; `least` the least absolute one, in the
    signal's unit.
    """

    name: str
    # A new adapter is a declared change for answers, quality and service, a new template for all
    side: Side
    shape: Shape
    label: str  # begins a sentence
    unit: str = ""
    worse: Literal["both", "up"] = "both"  # `up`: a fall opens no incident
    floor: float = 0.25
    least: float = 0.0
    bad: Literal["", "up", "down"] = ""  # the direction that nobody wants; empty: neither by itself

    def is_good_news(self, part: str, up: bool) -> bool:
        """True for a move away from what nobody wants, such as fewer refusals."""
        bad = self.bad or ("up" if self.worse == "up" else "")
        if self.name == "finish_reason":
            bad = "down" if part == "stop" else "up"
        return bool(bad) and up != (bad == "up")


# Floors. Rates: a quarter of themselves, since a fixed number of points hides a doubled rare
# failure. Languages 20 %, novelty 15 %, both at least a point. Tokens 8 % and log-probabilities 4
# %: with 1,500 sampled rows a day the slow exchange of users alone moves them by 1 to 3 % in two
# months. Latency 8 %: its daily swings are of that order. Topics half of their share of some weeks
# ago: a season turns them by a third. Scores 0.02 of their range of about 1; the gap of two scores
# is a tenth of a score. Questions that find nothing 2 points, since by definition about 5 % do.
# Searches take milliseconds, which a busy machine doubles: a quarter.
SIGNALS: tuple[DailySignal, ...] = (
    DailySignal("prompt_tokens", "questions", "positive", "Prompt length", "tokens", floor=0.08),
    DailySignal("language", "questions", "category", "Questions by language", floor=0.2, least=0.01),
    DailySignal("prompt_novelty", "questions", "novelty", "Out-of-distribution questions", worse="up", floor=0.15, least=0.01),
    DailySignal("prompt_topics", "questions", "topics", "Questions by topic", floor=0.5, least=0.01),
    DailySignal("retrieval_miss", "retrieval", "rate",
                "Questions that find nothing", worse="up", least=0.02),
    DailySignal("retrieval_empty", "retrieval", "rate", "Empty retrieval rate", worse="up"),
    DailySignal("retrieval_failed", "retrieval", "rate", "Failed retrieval rate", worse="up"),
    DailySignal("retrieval_score", "retrieval", "score",
                "Retrieval score of the best passage", least=0.02, bad="down"),
    DailySignal("retrieval_gap", "retrieval", "score",
                "Score gap between the first two passages", least=0.01),
    DailySignal("retrieval_ms", "retrieval", "latency",
                "Retrieval latency", "ms", worse="up", floor=0.25),
    DailySignal("completion_tokens", "answers", "positive", "Output length", "tokens", floor=0.08),
    DailySignal("finish_reason", "answers", "category", "finish_reason", least=0.005),
    DailySignal("answer_language", "answers", "category", "Answers by language", floor=0.2, least=0.01),
    DailySignal("refusal", "answers", "rate", "Refusal rate", bad="up"),
    DailySignal("schema_failure", "answers", "rate", "Schema failure rate", worse="up"),
    DailySignal("repetition", "answers", "rate", "Repetition rate", worse="up"),
    DailySignal("empty", "answers", "rate", "Empty answer rate", worse="up"),
    DailySignal("logprob", "answers", "positive", "Negative log-probability per token", floor=0.04, bad="up"),
    DailySignal("logprob_min", "answers", "positive", "Negative log-probability of the least certain token", floor=0.04, bad="up"),
    DailySignal("context_overlap", "answers", "score",
                "Share of the answer that the passages support", least=0.02, bad="down"),
    DailySignal("thumb_given", "quality", "rate", "Share of answers with a rating"),
    DailySignal("thumb_down", "quality", "rate", "Thumbs-down rate among ratings", worse="up"),
    DailySignal("regenerated", "quality", "rate", "Regeneration rate", worse="up"),
    DailySignal("edited", "quality", "rate", "Edit rate", worse="up"),
    DailySignal("ttft_ms", "service", "latency", "TTFT", "ms", worse="up", floor=0.08),
    DailySignal("time_per_token_ms", "service", "latency", "Time per output token", "ms", worse="up", floor=0.08),
    DailySignal("queue_ms", "service", "latency", "Queue time", "ms", worse="up", floor=0.25),
)  # fmt: skip
# Signals that follow who asks. Without a column `user` the rows of one busy person count as so many
# pieces of evidence: shares then have to move by half of themselves, which one person rarely does.
OF_USERS = frozenset({"language", "answer_language", "prompt_topics"})
FLOOR_WITHOUT_USERS = 0.5
BY_NAME = {signal.name: signal for signal in SIGNALS}
_OWN: dict[str, tuple[Shape, float]] = {
    "rate_": ("rate", 0.25),
    "value_": ("positive", 0.08),
    "category_": ("category", 0.25),
}


def signals_of(names: set[str]) -> list[DailySignal]:
    """The signals that a table with these columns can have, the application's own last."""
    found = [signal for signal in SIGNALS if _sources(signal.name) & names]
    for name in sorted(names):
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
        if name not in COLUMNS and kind_of(name) and prefix in _OWN:
            shape, floor = _OWN[prefix]
            found.append(
                DailySignal(
                    name,
                    "answers",
                    shape,
                    f"`{name}`",
                    floor=floor,
                    least=0.01 if shape == "category" else 0.0,
                )
            )
    return found


def signal_of(name: str) -> DailySignal:
    """A signal by its name, an application's own included."""
    return BY_NAME.get(name) or signals_of({name})[0]


_DERIVED = {
    "language": {"prompt"}, "answer_language": {"answer"}, "refusal": {"answer"}, "repetition": {"answer"}, "empty": {"answer"},
    "retrieval_miss": {"retrieval_score", "retrieval_empty"},
    "thumb_given": {"thumb"}, "thumb_down": {"thumb"}, "prompt_novelty": {"prompt", EMBEDDING}, "prompt_topics": {"prompt", EMBEDDING},
}  # fmt: skip


def _sources(name: str) -> set[str]:
    return {name} | _DERIVED.get(name, set())


def numbers_of(signal: DailySignal, table: Table) -> Floats | None:
    """One number per row, NaN where unknown; None where the table cannot tell.

    Not for categories and embeddings.
    """
    if signal.name in table:
        values: Floats = table.columns[signal.name]
        return np.asarray(-values) if signal.name.startswith("logprob") else values
    thumb = table.get("thumb")
    if signal.name in ("thumb_given", "thumb_down") and thumb is not None:
        if signal.name == "thumb_given":
            return np.asarray(np.isfinite(thumb) & (thumb != 0), dtype=float)
        return np.asarray(np.where(np.isfinite(thumb) & (thumb != 0), thumb < 0, np.nan))
    answer = table.get("answer")
    read = _FROM_ANSWER.get(signal.name)
    if answer is None or read is None:
        return None
    found = [
        None if text is None and signal.name != "empty" else read(text or "") for text in answer
    ]
    return np.array([np.nan if value is None else float(value) for value in found])


_FROM_ANSWER: dict[str, Callable[[str], bool | None]] = {
    "refusal": refusal_of,
    "repetition": repeats,
    "empty": lambda text: not text.strip(),
}


def categories_of(signal: DailySignal, table: Table) -> NDArray[Any] | None:
    """One str or None per row; None where the table cannot tell."""
    if signal.name in table:
        return table.columns[signal.name]
    source = table.get({"language": "prompt", "answer_language": "answer"}.get(signal.name, ""))
    return (
        None
        if source is None
        else np.array([detect(text) if text else None for text in source], dtype=object)
    )
