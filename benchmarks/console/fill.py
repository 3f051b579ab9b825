"""`python -m benchmarks.console.fill`: an installation of a million interactions, indexed and
counted."""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.console.rows import Size, fill
from serving.log.bucketing import count_late
from serving.search_index.indexing import index_all
from tests import worlds
from whet.clock import now_ms
from whet.context import open_context
from whet.settings import load_settings


def main() -> int:
    """Fill the installation of WHET_HOME and WHET_DATABASE_URL, and say how long each part took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    given = parser.parse_args()
    context = open_context(load_settings())
    now = now_ms()
    worlds.world(context, 7, now)  # adapters, runs, datasets, incidents, a collection
    began = time.perf_counter()
    for made in fill(context, Size(given.interactions, given.items), now):
        if made % 100_000 == 0:
            _say(f"{made:,} interactions", began)
    began = time.perf_counter()
    _say(f"{index_all(context, sleep=lambda _: None):,} indexed", began)
    began = time.perf_counter()
    while count_late(context, now):
        pass
    _say("counted by time", began)
    context.close()
    return 0


def _say(what: str, began: float) -> None:
    sys.stdout.write(f"{what}, {time.perf_counter() - began:.1f} s\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
