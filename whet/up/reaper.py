"""Waits for the supervisor to die and then kills the process groups that it left.

The supervisor holds the other end of our standard input and writes one line per change: `+PGID` or
`-PGID`. End of file means that the supervisor is gone. After a clean stop no group is left and
there is nothing to do. Run by path with `-I -S`, so that it stays small (about 8 MB) and starts at
once.
"""

import os
import signal
import sys
import time

GRACE_S = 2.0  # a gateway writes its last log rows within this time; the engine has nothing to save


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        if change == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in list(groups):
            try:
                os.killpg(group, number)
            except (ProcessLookupError, PermissionError):
                groups.discard(group)
        deadline = time.monotonic() + GRACE_S
        while number == signal.SIGTERM and time.monotonic() < deadline and any(map(_alive, groups)):
            time.sleep(0.05)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
