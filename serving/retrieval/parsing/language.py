"""The language of a document whose file does not say it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from serving.retrieval.parsing.blocks import Block, Kind

_LOOK_AT = 2_000  # characters
_LEAST = 40  # characters; shorter texts are guessed wrong too often
_BLOCKS = 50
_SURE = 0.9


def detect_language(blocks: Sequence[Block]) -> str:
    """Return the ISO 639-1 code of a document's language; empty when unsure."""
    text = _sample(block.text for block in blocks if block.kind is not Kind.CODE)
    if len(text) < _LEAST:
        return ""
    language, probability = _identifier().classify(text)
    return str(language) if probability >= _SURE else ""


def _sample(texts: Iterable[str]) -> str:
    return " ".join(islice(texts, _BLOCKS))[:_LOOK_AT]


@cache
def _identifier() -> Any:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
