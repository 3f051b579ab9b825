"""Becomes the command it is given, after asking the kernel to end it with its parent.

Run by path, not as a module, so that it costs one bare interpreter start (about 20 ms) and imports
nothing of ours:

    python -I -S guard.py PARENT_PID command argument …

On Linux the process is killed when the supervisor dies, however it dies. Elsewhere the reaper
beside this file is the only guard. Grandchildren are the reaper's in any case: this signal reaches
the direct child alone.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be started: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
