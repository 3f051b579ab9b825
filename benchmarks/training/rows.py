"""Rows of mixed length: the lengths of conversations (log-normal), tokens without meaning, the last
third of each row learned.
"""

from __future__ import annotations

import random

from training.models.encoded import Encoded

_MEAN_LOG, _SPREAD_LOG = 4.6, 0.6  # a median of 100 tokens, one row in forty above 330
_SHORTEST = 16
FIRST_WORD = 10  # below it stand control tokens


def mixed_rows(count: int, vocabulary: int, longest: int, seed: int = 0) -> list[Encoded]:
    """`count` rows of `_SHORTEST` to `longest` tokens."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        tokens = length(chance, longest)
        prompt = 2 * tokens // 3
        ids = tuple(chance.randrange(FIRST_WORD, vocabulary) for _ in range(tokens))
        rows.append(Encoded(ids, (False,) * prompt + (True,) * (tokens - prompt), prompt, 1.0))
    return rows


def length(chance: random.Random, longest: int) -> int:
    """Tokens of one conversation."""
    return min(longest, max(_SHORTEST, round(chance.lognormvariate(_MEAN_LOG, _SPREAD_LOG))))
