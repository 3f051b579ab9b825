"""Ask many questions at once, with the answers in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

TOGETHER = 8  # requests in flight: enough to keep an endpoint busy, below what free tiers refuse
Question = TypeVar("Question")
Answer = TypeVar("Answer")


@contextmanager
def asked_together(
    ask: Callable[[Question], Answer], questions: Sequence[Question]
) -> Iterator[Iterator[Answer]]:
    """What `ask` makes of each question, in their order, several at once.

    Whoever leaves early leaves what was not asked yet; an error of `ask` comes in its question's
    turn.
    """
    pool = ThreadPoolExecutor(TOGETHER, thread_name_prefix="asks")
    try:
        yield pool.map(ask, questions)
    finally:
        pool.shutdown(cancel_futures=True)
