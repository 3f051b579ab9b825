"""What the model says: length, how it ends, refusals, emptiness, repetition, broken JSON, and the words themselves."""

from __future__ import annotations

import json
import re
from collections import Counter

from monitoring.rows import Row
from monitoring.signals.base import Signal
from monitoring.signals.language import detect

# Version 1. Phrases that open a refusal, per language. Literal alternatives without repetition inside: matching is
# linear in the length of the text, whatever a model was talked into writing. Raise the version when a phrase changes,
# since counts before and after are then not comparable.
REFUSAL_VERSION = 1
_REFUSALS = (
    # English
    r"i can(?:'|’)?t (?:help|assist|answer|provide|do that|share|discuss|comply)",
    r"i cannot (?:help|assist|answer|provide|do that|share|discuss|comply)",
    r"i(?:'|’)m (?:unable|not able|not allowed) to",
    r"i am (?:unable|not able|not allowed) to",
    r"i (?:won(?:'|’)t|will not) be able to",
    r"i(?:'|’)m sorry,? but i",
    r"i am sorry,? but i",
    r"as an ai",
    r"i (?:don(?:'|’)t|do not) have (?:any |enough )?(?:information|access)",
    # German
    r"ich kann (?:ihnen |dir )?(?:dabei |damit )?(?:leider )?nicht",
    r"das kann ich (?:leider )?nicht",
    r"es tut mir leid,? aber",
    # French
    r"je ne peux pas",
    r"je suis désolée?,? mais",
    r"je ne suis pas en mesure",
    # Spanish
    r"no puedo (?:ayudar|responder|proporcionar|hacer)",
    r"lo siento,? pero",
    # Italian, Portuguese, Dutch
    r"non posso (?:aiutar|rispondere|fornire)",
    r"mi dispiace,? ma",
    r"não posso (?:ajudar|responder|fornecer)",
    r"lamento,? mas",
    r"ik kan (?:u |je )?(?:daar |hier )?(?:helaas )?niet",
)
_REFUSAL = re.compile("|".join(_REFUSALS), re.IGNORECASE)
_OPENING = 400  # characters: a refusal stands at the start; the same words later are usually part of an explanation

_REPEAT_WORDS = 4  # length of the word sequences that are counted
_REPEAT_FROM = 16  # words below which repetition says nothing
_REPEAT_SHARE = 0.3  # share of sequences that occurred before: ordinary prose stays below 0.1


def refuses(text: str) -> bool:
    """Whether an answer opens with a refusal in one of the known languages."""
    return _REFUSAL.search(text[:_OPENING]) is not None


def repeats(text: str) -> bool:
    """Whether an answer goes round in circles: many of its four-word sequences occurred in it before."""
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
    return refuses(row.answer) if row.answer else None


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


def _score(row: Row) -> float | None:
    return row.retrieval_score


ANSWERS = (
    Signal("answer_words", "answers", "words", "answers", _text),
    Signal("answer_novelty", "answers", "novelty", "answers", _text),
    Signal("completion_tokens", "answers", "number", "length of answers", _tokens, "tokens"),
    Signal("finish_reason", "answers", "category", "how answers end", _ending),
    Signal("refusal", "answers", "rate", "refusals", _refusal),
    Signal("empty", "answers", "rate", "empty answers", _empty, worse="up"),
    Signal("repetition", "answers", "rate", "answers that repeat themselves", _repetition, worse="up"),
    Signal("broken_json", "answers", "rate", "broken JSON answers", _broken_json, worse="up"),
    Signal("answer_language", "answers", "category", "language of answers", _language),
    Signal("retrieval_score", "answers", "number", "score of the best passage", _score),
)
