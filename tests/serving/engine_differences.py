"""Where the gateway answers otherwise than the engine behind it, and why.

`docs/gateway.md` shows this table; `tests/serving/test_shapes.py` allows nothing else, and no row
that nothing needs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What stands for the status of a stream that did not come to its end, beside those of HTTP.
BROKEN_OFF = 0  # the connection was closed in its middle
FAILED_STREAM = 1  # it has status 200 and an error event


def _engine_refuses(engine: Any, gateway: Any) -> bool:
    return engine != 200 and bool(gateway == 200)


def _gateway_refuses(engine: Any, gateway: Any) -> bool:
    return engine in (200, 404) and bool(gateway == 400)


def _always(engine: Any, gateway: Any) -> bool:
    return True


def _names_field(engine: Any, gateway: Any) -> bool:
    """True when the gateway names a place in the body, and the engine none or the same field."""
    if not gateway or not re.fullmatch(r"[\w.\[\]'@-]+", gateway):
        return False
    field = re.split(r"[.\[]", gateway)[0]
    return engine is None or re.split(r"[.\[]", engine.removeprefix("body."))[0] in (field, "body")


@dataclass(frozen=True)
class Difference:
    """One row of the table. `shapes` and `aspect` are patterns; `allows` looks at both values."""

    id: str
    shapes: str
    aspect: str
    request: str
    engine: str
    gateway: str
    reason: str
    allows: Callable[[Any, Any], bool] = _always


DIFFERENCES = (
    Difference(
        "null", r".*(: null|stream: None|, null result|/null name)(/stream)?", "status",
        "a field that is null", "400 for some fields", "as if the field were not there",
        "SDKs send null for what was not set", _engine_refuses,
    ),
    Difference(
        "no-tools", r"chat/(tools: empty|tool_choice: auto|no tools, .*)(/stream)?", "status",
        "`tools: []`, or `tool_choice` without tools", "400", "as if there were neither",
        "SDKs send them so", _engine_refuses,
    ),
    Difference(
        "stream-options", r".*unstreamed options: .*", "status",
        "`stream_options` without `stream`", "400", "ignored, named in `x-whet-ignored`",
        "there is nothing to set", _engine_refuses,
    ),
    Difference(
        "tool-calls", r".*(tool call without (type|id)|object arguments)(/stream)?", "status",
        "tool calls without `type` or `id`, arguments as an object", "400",
        "completed; the object as JSON text", "some SDKs leave them out", _engine_refuses,
    ),
    Difference(
        "continued-alone", r"chat/continued alone(/stream)?", "status",
        "`continue_final_message` alone", "400: `add_generation_prompt` contradicts it",
        "`add_generation_prompt` is false then", "nothing else can be meant", _engine_refuses,
    ),
    Difference(
        "engine-fields",
        r".*/(documents|prompt_logprobs|echo|priority|cache_salt|best_of|unheard_of): \w+"
        r"(/stream)?",
        "status", "fields that only the engine knows, and unknown ones", "200",
        "400, with what to use instead",
        "some run templates, fetch addresses or reach into the engine's memory; "
        "a misspelt field must not be lost", _gateway_refuses,
    ),
    Difference(
        "limits", r".*/(logit_bias|top_logprobs|logprobs|n): (high|low)(/stream)?", "status",
        "values beyond the gateway's limits", "200, or clamped", "400 that names the limit",
        "a limit that is exceeded in silence is a wrong answer", _gateway_refuses,
    ),
    Difference(
        "prompts", r"completions/prompt: two texts(/stream)?", "status",
        "several prompts in one request", "200", "400",
        "each answer has its own row in the log", _gateway_refuses,
    ),
    Difference(
        "echo-logprobs", r"completions/echo with logprobs(/stream)?", "status",
        "`echo` with `logprobs`", "200", "400",
        "log-probabilities of prompts can end an engine whose output head is open to adapters",
        _gateway_refuses,
    ),
    Difference(
        "built-in-tools", r"responses/(tools: search|previous_response_id: valid)(/stream)?",
        "status", "built-in tools other than `file_search`, and stored responses",
        "200 without effect, or 404", "400",
        "the gateway runs no other tools and remembers nothing", _gateway_refuses,
    ),
    Difference(
        "types", r".*/(stream: ('true'|1)|metadata: type|no model)(/stream)?", "status",
        "texts and numbers for `stream`, `metadata` that is no object, no `model`", "200", "400",
        "the request would be answered otherwise than it was meant", _gateway_refuses,
    ),
    Difference(
        "unknown-role", r"chat/unknown role(/stream)?", "status",
        "a role outside OpenAI's six", "200", "400",
        "templates drop or mistake what they do not know", _gateway_refuses,
    ),
    Difference(
        "late-refusals", r".*/stream", "status",
        "a streamed request that the engine refuses", "200 and an error event, or a cut connection",
        "400 as when it is not streamed", "clients see the status first",
        lambda engine, gateway: engine in (FAILED_STREAM, BROKEN_OFF) and gateway == 400,
    ),
    Difference(
        "engine-errors", r".*", "status",
        "constraints the engine fails on", "500", "400 that names the field",
        "the request is at fault", lambda engine, gateway: engine == 500 and gateway == 400,
    ),
    Difference(
        "param", r".*", "param",
        "a refusal's `error.param`", "null, or `body.` and a path", "the field's path",
        "clients show it", _names_field,
    ),
    Difference(
        "max-tokens-name", r".*/max_(completion|output)_tokens: \w+(/stream)?", "param",
        "`error.param` of `max_completion_tokens` and `max_output_tokens`", "`max_tokens`",
        "the field that was sent", "clients show it",
        lambda engine, gateway: engine == "max_tokens",
    ),
    Difference(
        "no-json", r".*/body \w+", "param",
        "a body that is no JSON object", "`param` is `body`", "`param` is null",
        "no field is at fault", lambda engine, gateway: gateway is None,
    ),
    Difference(
        "fingerprint", r"(chat|completions)/.*", "chunks",
        "`system_fingerprint` of a stream", "in the last chunk",
        "in the usage chunk, with `include_usage`",
        "the chunk that carries it is left out otherwise",
        lambda engine, gateway: _without_fingerprint(engine) == _without_fingerprint(gateway),
    ),
    Difference(
        "user-metadata", r"responses/(user|metadata): \w+", "body",
        "`user` and `metadata` in the answer of `/v1/responses`", "as sent", "null",
        "they stay in the log and do not reach the engine",
        lambda engine, gateway: {**engine, "user": None, "metadata": None} == gateway,
    ),
    Difference(
        "models", r"models/list", "body",
        "`GET /v1/models`", "the engine's names and permissions",
        "aliases and versions that can be answered now, and what they stand for",
        "names of the engine change with every start",
    ),
)  # fmt: skip


def _without_fingerprint(chunks: list[str]) -> set[str]:
    return {chunk.replace(", 'system_fingerprint'", "") for chunk in chunks}


def explain(shape: str, aspect: str, engine: Any, gateway: Any) -> Difference | None:
    """The row that allows a difference; None if there is none."""
    for row in DIFFERENCES:
        if re.fullmatch(row.shapes, shape) and row.aspect == aspect and row.allows(engine, gateway):
            return row
    return None


def table() -> str:
    """The rows as Markdown."""
    head = "| request | engine | gateway | reason |\n|---|---|---|---|\n"
    cells = ((row.request, row.engine, row.gateway, row.reason) for row in DIFFERENCES)
    return head + "".join(f"| {' | '.join(row)} |\n" for row in cells)
