"""Another model as judge, behind an OpenAI-compatible address."""

from __future__ import annotations

from training.endpoint import Endpoint
from training.evaluation.opinion import Ask

_ANSWER_TOKENS = 1000  # the object takes ten; a model that thinks first needs room for it


def judge_at(url: str, model: str, key: str) -> Ask:
    """A judge behind an OpenAI-compatible address.

    Raises InputError for what is not an http address.
    """
    return Endpoint(url, model, key, max_tokens=_ANSWER_TOKENS).answer
