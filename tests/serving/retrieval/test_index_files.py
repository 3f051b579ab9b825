"""Generations: swapped whole, kept while they are read, safe from kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.retrieval.index_files import (
    current_generation,
    open_generation,
    remove_unread,
    write_generation,
)

_ENDLESS = """
import sys
from pathlib import Path
from serving.retrieval.index_files import build_lock, write_generation

def write(folder):
    (folder / "part").write_text("half")
    print("writing", flush=True)
    sys.stdin.read()

folder = Path(sys.argv[1])
with build_lock(folder):
    write_generation(folder, "second", write)
"""


def _write(folder: Path, name: str) -> None:
    write_generation(folder, name, lambda target: (target / "content").write_text(name))  # type: ignore[arg-type,return-value]


def test_the_newest_generation_answers_and_the_older_goes(tmp_path: Path) -> None:
    assert open_generation(tmp_path) is None
    _write(tmp_path, "first")
    _write(tmp_path, "second")
    generation = open_generation(tmp_path)
    assert generation is not None and (generation.folder / "content").read_text() == "second"
    assert not (tmp_path / "first").exists()


def test_a_generation_that_is_read_stays(tmp_path: Path) -> None:
    _write(tmp_path, "first")
    reader = open_generation(tmp_path)
    assert reader is not None
    _write(tmp_path, "second")
    assert (reader.folder / "content").read_text() == "first"
    reader.close()
    assert remove_unread(tmp_path) == ["first"]


def test_a_writer_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    _write(tmp_path, "first")

    def fail(folder: Path) -> None:
        (folder / "part").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_generation(tmp_path, "second", fail)
    assert current_generation(tmp_path) == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "first"]


@pytest.mark.seconds
def test_a_writer_that_is_killed_leaves_the_old_one_and_no_lock(tmp_path: Path) -> None:
    _write(tmp_path, "first")
    writer = subprocess.Popen(
        [sys.executable, "-c", _ENDLESS, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert current_generation(tmp_path) == "first"
    _write(tmp_path, "third")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["build.lock", "current", "third"]
