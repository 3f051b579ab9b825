"""One process of several at a run's loop: `python -m training.runs.rank FOLDER`, started by
torchrun.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from training.imports import load
from training.machine.allocator import keep_memory
from training.machine.parent_process import end_with_parent

if __name__ == "__main__":
    end_with_parent(os.getppid())
    keep_memory()
    sys.exit(load("training.runs.rank_loop:main")(Path(sys.argv[1])))
