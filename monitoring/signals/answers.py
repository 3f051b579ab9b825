"""What the model says: length, how it ends, refusals, emptiness, repetition, broken JSON, and the
words themselves.
"""

from __future__ import annotations

import json
from collections import Counter

from monitoring.rows import Row
from monitoring.signals.base import Signal
from monitoring.signals.language import detect
from monitoring.signals.refusals import refusal_of

_REPEAT_WORDS = 4  # length of the word sequences that are counted
_REPEAT_FROM = 16  # words below which repetition says nothing
_REPEAT_SHARE = 0.3  # share of sequences that occurred before: ordinary prose stays below 0.1


def repeats(text: str) -> bool:
    """Whether an answer goes round in circles: many of its four-word sequences occurred in it
    before.
    """
    words = text.lower().split()
    if len(words) < _REPEAT_FROM:
        return False
    sequences = Counter(zip(*(words[shift:] for shift in range(_REPEAT_WORDS)), strict=False))
    total = sum(sequences.values())
    return 1 - len(sequences) / total >= _REPEAT_SHARE


def _tokens(row: Row) -> float | None:
    return None if row.completion_tokens is None else float(row.completion_tokens)


def _ending(row: Row) -> str | None:
    return "cut" if row.status == "cut" else row.finish_reason


def _empty(row: Row) -> bool:
    return not row.answer.strip() and not row.calls_tools


def _refusal(row: Row) -> bool | None:
    return refusal_of(row.answer) if row.answer else None


def _repetition(row: Row) -> bool | None:
    return repeats(row.answer) if row.answer else None


def _broken_json(row: Row) -> bool | None:
    if not row.wants_json or (row.calls_tools and not row.answer.strip()):
        return None  # a tool call has its arguments instead of a JSON answer
    try:
        json.loads(row.answer)
    except ValueError:
        return True
    return False


def _language(row: Row) -> str | None:
    return detect(row.answer) if row.answer else None


def _text(row: Row) -> str | None:
    return row.answer or None


ANSWERS = (
    Signal("answer_words", "answers", "words", "answers", _text),
    Signal("answer_novelty", "answers", "novelty", "answers", _text),
    Signal("completion_tokens", "answers", "number", "output length", _tokens, "tokens"),
    Signal("finish_reason", "answers", "category", "finish_reason", _ending),
    Signal("refusal", "answers", "rate", "refusal rate", _refusal),
    Signal("empty", "answers", "rate", "empty answer rate", _empty, worse="up"),
    Signal("repetition", "answers", "rate", "repetition rate", _repetition, worse="up"),
    Signal("broken_json", "answers", "rate", "schema failure rate", _broken_json, worse="up"),
    Signal("answer_language", "answers", "category", "answers by language", _language),
)
