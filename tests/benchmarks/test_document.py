"""A document's generated part: only that changes, and a document without its markers is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks
from benchmarks.document import put_between_markers
from benchmarks.drift import figures as drift
from benchmarks.errors import BenchmarkError
from benchmarks.gateway import figures as gateway

BEGIN, END = "<begin>", "<end>"


def test_only_what_stands_between_the_markers_changes() -> None:
    changed = put_between_markers(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new\n", BEGIN, END)
    assert changed == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert put_between_markers(changed, "new", BEGIN, END) == changed


@pytest.mark.parametrize(
    "document", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_a_document_without_the_markers_is_refused(document: str) -> None:
    with pytest.raises(BenchmarkError):
        put_between_markers(document, "new", BEGIN, END)


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [("gateway", gateway.BEGIN, gateway.END), ("drift", drift.BEGIN, drift.END)],
)
def test_each_benchmark_s_readme_holds_its_markers(name: str, begin: str, end: str) -> None:
    readme = Path(benchmarks.__file__).parent / name / "README.md"
    put_between_markers(readme.read_text(), "new", begin, end)
