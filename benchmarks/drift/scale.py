"""One day of very many requests, in a process of its own: `python -m benchmarks.drift.scale WHAT
ROWS` prints CPU and peak memory as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from benchmarks.drift.peers import evidently_default
from benchmarks.drift.worlds import FIRST_DAY, World
from monitoring.detector.settings import DetectorSettings
from monitoring.detector.watch import Watch

_DAYS = 45


def main(what: str, rows: int) -> dict[str, float]:
    service, large = World(0, 2000), World(1, rows)
    before = [service.day(day) for day in range(_DAYS)]
    watch = Watch("scale", DetectorSettings())
    if what == "whet":
        for day, table in enumerate(before):
            watch.step(FIRST_DAY + day, table)
    if what == "evidently":
        evidently_default(before[-7:], before[-1])  # its import is paid once
    day = large.day(_DAYS - _DAYS % 7)  # a weekday
    day.columns["day"][:] = FIRST_DAY + _DAYS
    began = time.process_time()
    if what == "whet":
        watch.step(FIRST_DAY + _DAYS, day)
    elif what == "evidently":
        evidently_default(before[-7:], day)
    return {
        "cpu_s": round(time.process_time() - began, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": len(day),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
