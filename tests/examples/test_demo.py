"""The demo ends what it started, however it is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Listening to Ctrl-C as from a terminal: what is started in a shell's background ignores it, and so does all that it starts.
_DEMO = """
import signal, sys, time
from pathlib import Path
import examples.zenith.demo as told

signal.signal(signal.SIGINT, signal.default_int_handler)

class Product:
    def __init__(self, *_): pass
    def stop(self): Path(sys.argv[1]).write_text("stopped")

def tell(*_, **__):
    print("begun", flush=True)
    time.sleep(120)

told.Product, told._tell = Product, tell
told.demo(seed=7, questions=20, keep_running=False, as_json=False)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_is_ended_ends_the_product_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    stopped = tmp_path / "stopped"
    environment = {"PATH": "/usr/bin:/bin", "WHET_HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", _DEMO, str(stopped)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        code = process.wait(timeout=30)
    assert stopped.exists(), "the product was left running"
    assert code != 0
