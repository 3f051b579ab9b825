"""How an answer is scored against its row. Pure functions of text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from training.rows import Row


@dataclass(frozen=True, slots=True)
class Score:
    """Both from 0 to 1."""

    correct: float  # 1 when every check occurs, or, without checks, when the answer equals the reference in normal form
    f1: float  # overlap with the reference in words: shows progress where nothing is right to the letter yet


def normal(text: str) -> str:
    """Without case and surplus space."""
    return " ".join(text.casefold().split())


def score(row: Row, answer: str) -> Score:
    said = normal(answer)
    correct = all(normal(check) in said for check in row.checks) if row.checks else said == normal(row.answer)
    return Score(float(correct), token_f1(row.answer, answer))


def token_f1(reference: str, answer: str) -> float:
    """Harmonic mean of precision and recall over words."""
    expected, found = Counter(normal(reference).split()), Counter(normal(answer).split())
    shared = sum((expected & found).values())
    if not shared:
        return float(not expected and not found)
    precision, recall = shared / found.total(), shared / expected.total()
    return 2 * precision * recall / (precision + recall)
