"""What becomes of an engine's refusal: whose fault it is, which field, in which words."""

from __future__ import annotations

import json

import msgspec
import pytest

from serving.gateway.engine_errors import EngineError, read_error, refusal, stream_notice
from serving.gateway.request_types import Request
from serving.gateway.requests import parse

PLAIN = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
FAULTS = (
    "3 validation errors:\n  {'type': 'missing', 'loc': 'body.tools.0.function', 'msg': 'Field"
    " required', 'input': 1}\n  {'type': 'missing', 'loc': 'body.tools.0.function.name', 'msg':"
    " 'Field required', 'input': 1}\n  {'type': 'x', 'loc': 'body.tools', 'msg': \"Input should be"
    " 'a'\", 'input': 'y'}"
)


def request(**more: object) -> Request:
    return parse("chat", json.dumps({**PLAIN, **more}).encode()).request


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, EngineError("Bad. (parameter=logit_bias, value=9)"), (400, "logit_bias", "engine_refused")),
        (422, EngineError("Bad.", "body.response_format.type"), (400, "response_format.type", "engine_refused")),
        (400, EngineError("n must be 1 when greedy."), (400, "n", "engine_refused")),
        (400, EngineError("Nobody knows."), (400, None, "engine_refused")),
        (400, EngineError(FAULTS, "body.tools"), (400, "tools[0].function.name", "engine_refused")),
        (
            400,
            EngineError("This model's maximum context length is 8 tokens.", "prompt"),
            (400, "prompt", "context_length_exceeded"),
        ),
        (503, EngineError("Busy."), (503, None, "engine_busy")),
        (404, EngineError("The model `x` does not exist."), (502, None, "engine_error")),
        (500, EngineError("Internal server error"), (502, None, "engine_error")),
    ],
)  # fmt: skip
def test_a_refusal_has_a_status_a_field_and_a_code(
    status: int, error: EngineError, expected: tuple[int, str | None, str]
) -> None:
    found = refusal(status, error, request())
    assert (found.status, found.param, found.code) == expected
    assert "validation error" not in found.message and "parameter=" not in found.message


def test_a_failure_over_a_constraint_is_the_constraints_unless_the_engine_is_lost() -> None:
    constrained = request(structured_outputs={"grammar": "root ::="})
    found = refusal(500, EngineError("Internal server error"), constrained)
    assert (found.status, found.param) == (400, "structured_outputs")
    lost = refusal(500, EngineError("EngineCore encountered an issue."), constrained)
    assert lost.status == 502, "a dead engine is nobody's constraint"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"error":{"message":"m","param":"p","code":400}}', EngineError("m", "p", 400)),
        (b'{"message":"m"}', EngineError("m")),
        (b"no json", EngineError("no json")),
        ({"error": "m"}, EngineError("m")),
        ({"message": "m", "code": "x"}, EngineError("m")),
        ({"message": "m", "code": True}, EngineError("m")),
    ],
)
def test_an_error_is_read_whatever_its_form(value: object, expected: EngineError) -> None:
    assert read_error(value) == expected


def test_a_notice_goes_on_counting_the_events_of_a_responses_stream() -> None:
    sent = [b'event: a\ndata: {"sequence_number":3}\n\n', b'data: {"sequence_number":4}\n\n']
    event = stream_notice("responses", "Broken.", sent).split(b"data: ")[1]
    assert msgspec.json.decode(event.strip())["sequence_number"] == 5
    assert stream_notice("chat", "Broken.", sent).startswith(b'data: {"error"')
