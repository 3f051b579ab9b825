"""The demo ends what it started, however it is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.zenith.policy import policy_page
from examples.zenith.scenario import held_out, new_world
from examples.zenith.story.report import _with_documents, columns

# Listening to Ctrl-C as from a terminal: what is started in a shell's background ignores it, and so
# does all that it starts.
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
def test_a_demo_that_is_ended_ends_the_product_that_it_started(
    tmp_path: Path, number: signal.Signals
) -> None:
    stopped = tmp_path / "stopped"
    environment = {
        "PATH": "/usr/bin:/bin",
        "WHET_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", _DEMO, str(stopped)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        code = process.wait(timeout=30)
    assert stopped.exists(), "the product was left running"
    assert code != 0


def test_the_report_has_five_columns_and_says_what_documents_did() -> None:
    right = {
        "base_old": 0.0, "base_new": 0.0, "v1_old": 0.98, "v1_new": 0.0, "v1_documents_old": 0.9,
        "v1_documents_new": 0.25, "v2_old": 0.97, "v2_new": 0.96, "v2_documents_old": 0.9,
        "v2_documents_new": 0.8,
    }  # fmt: skip
    found = columns(right, dict.fromkeys(right, 100))
    assert [each["name"] for each in found] == [
        "base",
        "v1",
        "v1 + documents",
        "v2",
        "v2 + documents",
    ]
    assert found[2]["new"] == {"right": 0.25, "n": 100}
    sentence = _with_documents(found)[0]
    assert "v1 answers 25.0 % of" in sentence.replace("%", " %") and "(without: 0.0%)" in sentence


@pytest.mark.parametrize("kind", ["old", "new"])
def test_a_policy_page_holds_every_fact_of_a_right_answer(kind: str) -> None:
    world = new_world()
    for row in held_out(kind, 60, 3):
        facts = row["expected"]
        product = world.product(facts["product"])
        assert product is not None
        page = policy_page(world, product)
        assert all(text in page for text in (facts["product"], f"{facts['term_months']} months"))
        assert f"please {facts['step']}" in page and f"by {facts['channel']}" in page
