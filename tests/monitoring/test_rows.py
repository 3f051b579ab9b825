"""What monitoring makes of a logged answer: tool calls are neither empty answers nor broken JSON."""

from __future__ import annotations

from typing import Any

import pytest

from monitoring.rows import row_from_record
from monitoring.signals import SIGNALS
from tests.builders import interaction_row

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESPONSES_CALL = {"type": "function_call", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("response", "text", "is_empty"),
    [
        ({"role": "assistant", "content": "24 months."}, "24 months.", False),
        ({"role": "assistant", "content": ""}, "", True),
        ({"role": "assistant", "content": None, "tool_calls": []}, "", True),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, "", False),
        ({"output": [{"type": "reasoning"}, RESPONSES_CALL]}, "", False),
        ({"output": [{"type": "message", "content": []}]}, "", True),
        ({"output": "nonsense"}, "", True),
        (None, None, True),
    ],
)
@pytest.mark.parametrize("finish_reason", ["stop", "tool_calls"])
def test_a_tool_call_is_no_empty_answer_however_it_ends(
    response: Any, text: str | None, is_empty: bool, finish_reason: str
) -> None:
    record = interaction_row(1, response=response, response_text=text, finish_reason=finish_reason)
    row = row_from_record(record)
    signals = {signal.name: signal.of(row) for signal in SIGNALS}
    assert signals["empty"] is is_empty


def test_a_tool_call_instead_of_a_json_answer_is_not_broken_json() -> None:
    request = {"messages": [], "response_format": {"type": "json_object"}}
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    of = {signal.name: signal.of for signal in SIGNALS}["broken_json"]
    assert of(row_from_record(interaction_row(1, request=request, response=call, response_text=""))) is None  # fmt: skip
    assert of(row_from_record(interaction_row(1, request=request, response_text="{"))) is True
