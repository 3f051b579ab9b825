"""The daily signals: which column each is read from, how a day of it becomes numbers, and what counts as worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monitoring.detector.table import COLUMNS, EMBEDDING, PREFIXES, Floats, Table, kind_of
from monitoring.signals.answers import refuses, repeats
from monitoring.signals.language import detect

Shape = Literal["rate", "positive", "latency", "score", "category", "topics", "novelty"]
Side = Literal["questions", "answers", "quality", "service"]


@dataclass(frozen=True, slots=True)
class DailySignal:
    """One signal. `floor` is the least relative change worth an incident; `least` the least absolute one, in the signal's unit."""

    name: str
    side: Side  # a new adapter is a declared change for answers, quality and service, a new template for all
    shape: Shape
    label: str  # begins a sentence
    unit: str = ""
    worse: Literal["both", "up"] = "both"  # `up`: a fall is good news
    floor: float = 0.25
    least: float = 0.0


# Floors. Rates: a quarter of themselves, since a fixed number of points hides a doubled rare failure. Languages 20 %, novelty 15 %, both at least a point. Tokens 8 % and log-probabilities
# 4 %: with 1,500 sampled rows a day the slow exchange of users alone moves them by 1 to 3 % in two months. Latency 8 %: its daily swings
# are of that order. Scores 0.02 of their range of about 1.
SIGNALS: tuple[DailySignal, ...] = (
    DailySignal("prompt_tokens", "questions", "positive", "Length of prompts", "tokens", floor=0.08),
    DailySignal("language", "questions", "category", "Language of questions", floor=0.2, least=0.01),
    DailySignal("prompt_novelty", "questions", "novelty", "Questions unlike earlier ones", worse="up", floor=0.15, least=0.01),
    DailySignal("prompt_topics", "questions", "topics", "Topics of questions", least=0.01),
    DailySignal("completion_tokens", "answers", "positive", "Length of answers", "tokens", floor=0.08),
    DailySignal("finish_reason", "answers", "category", "How answers end", least=0.005),
    DailySignal("answer_language", "answers", "category", "Language of answers", floor=0.2, least=0.01),
    DailySignal("refusal", "answers", "rate", "Refusals"),
    DailySignal("schema_failure", "answers", "rate", "Answers that break their schema", worse="up"),
    DailySignal("repetition", "answers", "rate", "Answers that repeat themselves", worse="up"),
    DailySignal("empty", "answers", "rate", "Empty answers", worse="up"),
    DailySignal("logprob", "answers", "positive", "Uncertainty (mean negative log-probability)", floor=0.04),
    DailySignal("logprob_min", "answers", "positive", "Uncertainty at the least certain token", floor=0.04),
    DailySignal("retrieval_score", "answers", "score", "Score of the best passage", least=0.02),
    DailySignal("context_overlap", "answers", "score", "Share of the answer found in the passages", least=0.02),
    DailySignal("thumb_given", "quality", "rate", "Conversations that were rated"),
    DailySignal("thumb_down", "quality", "rate", "Thumbs down among ratings", worse="up"),
    DailySignal("regenerated", "quality", "rate", "Answers asked for again", worse="up"),
    DailySignal("edited", "quality", "rate", "Answers changed by the user", worse="up"),
    DailySignal("ttft_ms", "service", "latency", "Time to the first token", "ms", worse="up", floor=0.08),
    DailySignal("time_per_token_ms", "service", "latency", "Time per token", "ms", worse="up", floor=0.08),
    DailySignal("queue_ms", "service", "latency", "Time in the queue", "ms", worse="up", floor=0.25),
)  # fmt: skip
BY_NAME = {signal.name: signal for signal in SIGNALS}
_OWN: dict[str, tuple[Shape, float]] = {"rate_": ("rate", 0.25), "value_": ("positive", 0.08), "category_": ("category", 0.25)}


def signals_of(names: set[str]) -> list[DailySignal]:
    """The signals that a table with these columns can have, the application's own last."""
    found = [signal for signal in SIGNALS if _sources(signal.name) & names]
    for name in sorted(names):
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
        if name not in COLUMNS and kind_of(name) and prefix in _OWN:
            shape, floor = _OWN[prefix]
            found.append(DailySignal(name, "answers", shape, f"`{name}`", floor=floor, least=0.01 if shape == "category" else 0.0))
    return found


def signal_of(name: str) -> DailySignal:
    """A signal by its name, an application's own included."""
    return BY_NAME.get(name) or signals_of({name})[0]


_DERIVED = {
    "language": {"prompt"}, "answer_language": {"answer"}, "refusal": {"answer"}, "repetition": {"answer"}, "empty": {"answer"},
    "thumb_given": {"thumb"}, "thumb_down": {"thumb"}, "prompt_novelty": {"prompt", EMBEDDING}, "prompt_topics": {"prompt", EMBEDDING},
}  # fmt: skip


def _sources(name: str) -> set[str]:
    return {name} | _DERIVED.get(name, set())


def numbers_of(signal: DailySignal, table: Table) -> Floats | None:
    """One number per row, NaN where unknown; None where the table cannot tell. Not for categories and embeddings."""
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
    return np.array([np.nan if text is None and signal.name != "empty" else float(read(text or "")) for text in answer])


_FROM_ANSWER: dict[str, Callable[[str], bool]] = {"refusal": refuses, "repetition": repeats, "empty": lambda text: not text.strip()}


def categories_of(signal: DailySignal, table: Table) -> NDArray[Any] | None:
    """One str or None per row; None where the table cannot tell."""
    if signal.name in table:
        return table.columns[signal.name]
    source = table.get({"language": "prompt", "answer_language": "answer"}.get(signal.name, ""))
    return None if source is None else np.array([detect(text) if text else None for text in source], dtype=object)
