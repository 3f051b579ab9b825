"""The manual that quality is measured on: the HTML pages of Debian's postgresql-doc-15."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from benchmarks.errors import BenchmarkError
from whet.lines import split_lines

PACKAGE = "postgresql-doc-15"
_QUESTIONS = Path(__file__).parent / "questions.jsonl"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question in a user's words, and the pages that answer it."""

    kind: str  # known: words of the page; intent: what somebody wants, in other words
    unseen: bool  # not looked at while weights were chosen
    question: str
    pages: list[str]


def load_questions() -> list[Question]:
    lines = split_lines(_QUESTIONS.read_text(encoding="utf-8"))
    return [msgspec.json.decode(line, type=Question) for line in lines]


def fetch_manual(cache: Path) -> Path:
    """Return the folder of pages; downloaded from Debian's archive and unpacked once."""
    folder = cache / PACKAGE / "usr" / "share" / "doc" / PACKAGE / "html"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", PACKAGE], cache)
    packages = sorted(cache.glob(f"{PACKAGE}_*.deb"))
    _run(["dpkg", "-x", str(packages[-1]), str(cache / PACKAGE)], cache)
    if not folder.is_dir():
        raise BenchmarkError(f"{packages[-1]} has no {folder.relative_to(cache)}.")
    return folder


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", "") or str(error)
        raise BenchmarkError(f"`{' '.join(command)}` failed: {told.strip()}") from error
