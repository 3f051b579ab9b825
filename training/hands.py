"""Threads of one process that each compute with rows of their own.

torch's own threads share every product and wait for the slowest after each: some thousand times a step of a small base. Hands share a step's rows and wait once.
What each computes does not depend on the others, and results come in the order of the work, so the same hands give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from training.methods.registry import METHODS
from training.recipe import Recipe

# Each hand goes through all of a step's Python, of which one thread at a time runs, so many hands wait for each other there. A bound with reason, no measurement: no machine of more than two
# processors was at hand.
_MOST = 4

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")


class Hands:
    """So many threads at once; without a pool the caller's own."""

    def __init__(self, pool: ThreadPoolExecutor | None = None, count: int = 1) -> None:
        self._pool, self.count = pool, count

    def deal(self, rows: Sequence[_Work]) -> list[list[_Work]]:
        """The rows in a share for each hand, in turns, so that shares of rows sorted by length take as long as each other; none is empty."""
        return [list(rows[hand :: self.count]) for hand in range(min(self.count, len(rows)))]

    def each(self, function: Callable[[_Work], _Result], shares: Sequence[_Work]) -> list[_Result]:
        """The results, in the order of the shares. Raises what the first share that failed raised, when no hand works any more."""
        if self._pool is None:
            return [function(share) for share in shares]
        futures = [self._pool.submit(function, share) for share in shares]
        failures = [future.exception() for future in futures]
        for failure in failures:
            if failure is not None:
                raise failure
        return [future.result() for future in futures]


ONE = Hands()


def how_many(threads: int, rows: int) -> int:
    """Hands for so many processors and rows at once: a row each at least, and one in any case."""
    return max(1, min(threads, rows, _MOST))


@contextmanager
def hands(threads: int, rows: int) -> Iterator[Hands]:
    """`threads` processors for at most `rows` rows at once; torch's own threads within a hand where processors are left over."""
    import torch

    count = how_many(threads, rows)
    if count == 1:
        yield ONE
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, thread_name_prefix="hand", initializer=torch.set_num_threads, initargs=(max(1, threads // count),)) as pool:
            yield Hands(pool, count)
    finally:
        torch.set_num_threads(before)  # what a thread sets for itself, threads that begin later take over


def shared_by(recipe: Recipe, device: str) -> int:
    """Threads among which a run's rows are dealt; 1 where they cannot be.

    Dropout and the noise on embeddings draw from one source, and who comes first would be chance.
    Processes that hold a model in shares wait for each other within a step. TRL's loops deal nothing.
    """
    own_loop = METHODS[recipe.method].own_loop
    is_random = recipe.dropout > 0 or recipe.neftune_noise_alpha > 0
    if device != "cpu" or not own_loop or is_random or recipe.processes > 1:
        return 1
    return max(1, recipe.threads)


def threads_of(model: Any) -> int:
    """Threads that this process computes with where the model lies: those that were chosen for it on a processor, one beside a GPU."""
    import torch

    return torch.get_num_threads() if next(model.parameters()).device.type == "cpu" else 1
