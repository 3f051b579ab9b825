"""Run by the supervisor's tests: a real `Supervisor` over dummy processes.

python -m tests.whet.supervised HOME SPECS_JSON
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rich.console import Console

from whet.errors import WhetError
from whet.plugins import ProcessSpec
from whet.up import state
from whet.up.supervisor import Supervisor
from whet.up.terminal import Terminal

# A server whose ready page answers 200 after `after` seconds; `ignore` makes it deaf to SIGTERM; it
# has a child of its own.
SERVER = """
import http.server, os, signal, subprocess, sys, time
port, after, ignore = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "deaf"
if ignore: signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("pids", os.getpid(), grandchild.pid, flush=True)
began = time.monotonic()
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() - began >= after else 503); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", port), Page).serve_forever()
"""


def main() -> int:
    home = Path(sys.argv[1])
    specs = [
        ProcessSpec(
            **{
                **given,
                "argv": given["argv"]
                if "-m" in given["argv"]
                else [sys.executable, "-c", *given["argv"]],
                "remedies": tuple(map(tuple, given.get("remedies", ()))),
            }
        )
        for given in json.loads(sys.argv[2])
    ]
    terminal = Terminal(Console(force_terminal=False), time.monotonic)
    try:
        with state.supervisor_lock(home):
            state.end_leftovers(home)
            supervisor = Supervisor(specs, home, terminal)
            with supervisor.signals():
                try:
                    supervisor.start()
                    supervisor.watch()
                finally:
                    supervisor.stop()
    except WhetError as error:
        print(error, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
