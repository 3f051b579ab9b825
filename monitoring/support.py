"""How much of an answer its passages support: what of it can be found in them, word for word.

Counted are runs of three words and numbers. Words that were found are no proof that the passage was
used, and a faithful paraphrase scores low: the figure says something as a mean over many answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# With what divides thousands and decimals inside; signs and units differ between texts.
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_WORD = re.compile(rf"{_NUMBER.pattern}|[^\W_]+")
_RUN = 3  # words: two are often a phrase of the language, four miss what changed one word


def support_share(answer: str, passages: Sequence[str]) -> float | None:
    """Return the share of the answer's word triples and numbers that occur in the passages, 0 to 1.

    None where there are no passages, or the answer has neither three words nor a number.
    """
    if not passages:
        return None
    claims = [*_triples(answer), *_NUMBER.findall(answer)]
    if not claims:
        return None
    known: set[object] = set()
    for passage in passages:
        known.update(_triples(passage))
        known.update(_NUMBER.findall(passage))
    return sum(claim in known for claim in claims) / len(claims)


def _triples(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return zip(*(words[shift:] for shift in range(_RUN)), strict=False)
