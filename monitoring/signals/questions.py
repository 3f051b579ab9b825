"""What people ask: length, language, and the words themselves."""

from __future__ import annotations

from monitoring.rows import Row
from monitoring.signals.base import Signal
from monitoring.signals.language import detect


def _length(row: Row) -> float | None:
    return float(len(row.question.split())) if row.question else None


def _prompt_tokens(row: Row) -> float | None:
    return None if row.prompt_tokens is None else float(row.prompt_tokens)


def _language(row: Row) -> str | None:
    return detect(row.question) if row.question else None


def _text(row: Row) -> str | None:
    return row.question or None


QUESTIONS = (
    Signal("question_words", "questions", "words", "questions", _text),
    Signal("question_novelty", "questions", "novelty", "questions", _text),
    Signal("question_length", "questions", "number", "question length", _length, "words"),
    Signal("question_language", "questions", "category", "questions by language", _language),
    Signal("prompt_tokens", "questions", "number", "prompt length", _prompt_tokens, "tokens"),
)
