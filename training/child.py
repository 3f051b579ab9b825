"""One run in a process of its own: `python -m training.child PARENT`, started by the worker, told
on standard input what to run.

It imports what it needs before it is told, so that a request does not wait ten seconds for imports.
It ends its run's row itself, in every way but one: when it is killed, the worker sees that.
"""

from __future__ import annotations

import json
import logging
import sys
from io import BufferedReader, FileIO
from typing import cast

from training.imports import load
from training.machine.allocator import keep_memory
from training.machine.parent_process import end_with_parent, end_with_pipe


def main(parent: int) -> None:
    """Wait for one line on standard input, `{"run", "attempt", "alias", "started_at", "request"}`,
    and do it.
    """
    end_with_parent(parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    keep_memory()
    run = load("training.runs.child_run:run")
    # unbuffered: what follows is the pipe's end, which others watch
    line = cast(FileIO, cast(BufferedReader, sys.stdin.buffer).raw).readline()
    if not line:
        return
    end_with_pipe(sys.stdin.fileno())
    run(json.loads(line))


if __name__ == "__main__":
    main(int(sys.argv[1]))
