"""Lines are split at line feeds alone, so that no text that JSON holds is torn."""

from __future__ import annotations

import json

import pytest

from whet.lines import read_jsonl, split_lines

# What str.splitlines() splits at beside \n and \r, and JSON leaves as it is inside a text.
SEPARATORS = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"


@pytest.mark.parametrize("separator", SEPARATORS)
def test_other_separators_stay_in_the_text(separator: str) -> None:
    text = f"one{separator}two"
    line = json.dumps({"a": text}, ensure_ascii=False)
    assert split_lines(f"{text}\n{text}\r\n") == [text, text]
    assert read_jsonl(f"{line}\n\n{line}\n".encode()) == [{"a": text}] * 2


def test_an_empty_text_has_no_line_and_a_missing_last_feed_loses_none() -> None:
    assert split_lines("") == [] and split_lines("a\nb") == ["a", "b"] and split_lines("\n") == [""]
