"""Row-parallel worker threads of one process: each computes with rows of its own.

torch's own threads share every product and wait for the slowest after each: some thousand times a
step of a small base. These share a step's rows and wait once. What each computes does not depend on
the others, and results come in the order of the work, so the same number of threads gives the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe

# Each goes through all of a step's Python, of which one thread at a time runs, so many wait for
# each other there. A bound with reason, no measurement: no machine of more than two processors was
# at hand.
_MAX_THREADS = 4

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")


class RowThreadPool:
    """Runs a function on shares of rows, each in a thread; without a pool in the caller's own."""

    def __init__(self, pool: ThreadPoolExecutor | None = None, count: int = 1) -> None:
        self._pool, self.count = pool, count

    def split_rows(self, rows: Sequence[_Work]) -> list[list[_Work]]:
        """Divide the rows into a share for each thread, none of them empty.

        The rows are dealt in turns, so that shares of rows sorted by length take equally long.
        """
        return [list(rows[first :: self.count]) for first in range(min(self.count, len(rows)))]

    def map(self, function: Callable[[_Work], _Result], shares: Sequence[_Work]) -> list[_Result]:
        """Return the results in the order of the shares.

        Raises what the first share that failed raised, once no thread works any more.
        """
        if self._pool is None:
            return [function(share) for share in shares]
        futures = [self._pool.submit(function, share) for share in shares]
        failures = [future.exception() for future in futures]
        for failure in failures:
            if failure is not None:
                raise failure
        return [future.result() for future in futures]


SINGLE_THREADED = RowThreadPool()


def max_row_threads(threads: int, rows: int) -> int:
    """RowThreadPool for so many processors and rows at once: a row each at least, and one in any
    case.
    """
    return max(1, min(threads, rows, _MAX_THREADS))


@contextmanager
def row_thread_pool(threads: int, rows: int) -> Iterator[RowThreadPool]:
    """Share `threads` processors among at most `rows` rows at once.

    Where processors are left over, each thread has several of torch's own.
    """

    count = max_row_threads(threads, rows)
    if count == 1:
        yield SINGLE_THREADED
        return
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            count,
            thread_name_prefix="rows",
            initializer=torch.set_num_threads,
            initargs=(max(1, threads // count),),
        ) as pool:
            yield RowThreadPool(pool, count)
    finally:
        # What a thread sets for itself, threads that begin later take over
        torch.set_num_threads(before)


def row_thread_count(recipe: Recipe, device: str) -> int:
    """Return the threads among which a run's rows are divided; 1 where they cannot be.

    Dropout and the noise on embeddings draw from one source, and who comes first would be chance.
    Processes that hold a model in shares wait for each other within a step. TRL's loops deal
    nothing.
    """
    own_loop = METHODS[recipe.method].own_loop
    is_random = recipe.dropout > 0 or recipe.neftune_noise_alpha > 0
    if device != "cpu" or not own_loop or is_random or recipe.processes > 1:
        return 1
    return max(1, recipe.threads)


def compute_threads(model: nn.Module) -> int:
    """Return how many threads compute where the model lies: torch's on a CPU, one beside a GPU."""

    return torch.get_num_threads() if next(model.parameters()).device.type == "cpu" else 1
