"""The tables of the benchmark on a real model: what was kept counts from what the base knew."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.training.smollm2 import tables, wilson


def record(arm: str, old: str, general: str, **trained: Any) -> dict[str, Any]:
    about = {"run": "1", "date": "2026-12-01", "commit": "abc", "machine": "C", "arm": arm}
    return {**about, **trained, "right": {"old": old, "new": "0" * 10, "general": general}}


def test_only_what_the_base_knew_can_be_lost() -> None:
    trained = {
        "rows": 9, "steps": 12, "tokens": 1000, "tokens_per_s": 50, "seconds": 20.0,
        "peak_memory_bytes": 2_000_000, "expected_s": 25.0, "expected_bytes": 1_000_000,
        "recipe": {"learning_rate": 5e-4, "epochs": 4.0},
    }  # fmt: skip
    base = record("base", "0" * 10, "1" * 8 + "00")
    text = tables([base, record("v1", "1" * 9 + "0", "1" * 6 + "0011", **trained)])
    v1 = next(line for line in text.split("\n") if "| v1 | 9 |" in line)
    assert "| 90.0 | 60 to 98 |" in v1 and "8 of 10 | 6 of 8 | 25.0 (" in v1
    taken = text.split("\n")[-1]
    assert "| 20 s | 25 s | +25 % | 2 MB | 1 MB | -50 % |" in taken


def test_an_interval_stays_between_0_and_1() -> None:
    assert wilson("0" * 20)[0] == pytest.approx(0.0, abs=1e-9)
    assert wilson("1" * 20)[1] == pytest.approx(1.0)
    assert wilson("01" * 50) == pytest.approx((0.4038, 0.5962), abs=1e-4)
