"""Which languages texts are in (py3langid), on a sample when there are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from training.data.similar import words

UNKNOWN = "unknown"
_SAMPLE = 5000  # texts: the share of a language of 1 % is known to within 0.3 points then
_LOOK_AT = 500  # characters; more changes nothing
_FEWEST_WORDS = 5  # in fewer, names and borrowed words decide
# Probability from which a language counts: short plain English comes out between 0.8 and 0.95,
# names and fragments below
_SURE = 0.7


def mix(texts: Sequence[str]) -> tuple[dict[str, int], dict[int, str]]:
    """(ISO 639-1 code -> texts, position -> code) of the texts looked at: all of them, or evenly
    spread ones of a long list.
    """
    step = max(1, -(-len(texts) // _SAMPLE))
    found = {position: detect(texts[position]) for position in range(0, len(texts), step)}
    return dict(Counter(found.values()).most_common()), found


def detect(text: str) -> str:
    """ISO 639-1 code, or `unknown`."""
    look_at = text[:_LOOK_AT]
    if look_at.isascii() and len(words(look_at)) < _FEWEST_WORDS:
        return UNKNOWN
    language, probability = _identifier().classify(look_at)
    return str(language) if probability >= _SURE else UNKNOWN


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
