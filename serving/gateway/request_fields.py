"""Fields that clients send and no engine gets: what is dropped in silence, dropped and said, or
refused with the name of what does the same here.

`docs/gateway.md` shows these tables; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Top-level fields without effect on what a model of this gateway answers. They are dropped, and
# the response header `x-whet-ignored` names them.
IGNORED: Mapping[str, str] = {
    "store": "the interaction log keeps what was asked",
    "service_tier": "there is one tier",
    "prompt_cache_key": "the engine's prefix cache needs no key",
    "prompt_cache_retention": "the engine's prefix cache decides",
    "prompt_cache_options": "the engine's prefix cache decides",
    "verbosity": "open-weight templates do not know it",
    "prediction": "a hint for speed alone",
    "safety_identifier": "read as `user` where that is missing",
    "max_tool_calls": "counts built-in tools, of which there are none",
    "length_penalty": "means something to beam search alone",
    "early_stopping": "means something to beam search alone",
    "best_of": "1 is what happens; more is refused",
    "modalities": "text is what there is; others are refused",
    "stream_options": "without `stream` there is nothing to set",
    "provider": "there is one provider",
    "usage": "usage is always counted",
    "guided_decoding_backend": "the engine chooses",
}

# Values of fields above, or of fields refused below, that ask for what happens anyway.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "priority": (0,),
    "modalities": (["text"],),
    "background": (False,),
    "use_beam_search": (False,),
    "echo": (False,),
    "return_mm_kwargs": (False, True),
    "watermarking": (False,),
    "routed_experts_prompt_start": (0,),
    "mm_payload": ("tensors", "none"),
    "function_call": ("none", "auto"),  # without `functions`, which has its own sentence
}
_NEUTRAL_ONLY = frozenset({"best_of", "modalities"})  # ignored with these values, else refused

_MEMORY = "nothing is remembered between requests: send the whole conversation in `input`"
_TEXT_ONLY = "this gateway answers with text, from text"
_TEMPLATE = "the model's own chat template is used"
_OPERATOR = "this is for whoever operates the engine"

# Top-level fields that would change the answer and are not passed on: what to do instead.
SUBSTITUTES: Mapping[str, str] = {
    "guided_json": 'use `structured_outputs`: {"json": …}, or `response_format`',
    "guided_regex": 'use `structured_outputs`: {"regex": …}',
    "guided_choice": 'use `structured_outputs`: {"choice": […]}',
    "guided_grammar": 'use `structured_outputs`: {"grammar": …}',
    "guided_whitespace_pattern": 'use `structured_outputs`: {"whitespace_pattern": …}',
    "format": "use `response_format`",
    "json_schema": 'use `response_format`: {"type": "json_schema", …}',
    "response_schema": 'use `response_format`: {"type": "json_schema", …}',
    "functions": "use `tools`",
    "function_call": "use `tool_choice`",
    "best_of": "use `n` and choose",
    "use_beam_search": "use `n`; there is no beam search",
    "documents": "put the texts into a message",
    "chat_template": _TEMPLATE,
    "chat_template_kwargs": "plain completions use no template; ask /v1/chat/completions",
    "enable_thinking": (
        'use `chat_template_kwargs`: {"enable_thinking": …}, if the operator '
        "allows it (WHET_ALLOWED_TEMPLATE_KWARGS), or `reasoning_effort`"
    ),
    "thinking": "use `reasoning_effort`, or `chat_template_kwargs` as the model's template has it",
    "reasoning": "use `reasoning_effort` in chat; `reasoning` belongs to /v1/responses",
    "thinking_token_budget": "use `max_tokens`",
    "prompt_logprobs": (
        "log-probabilities of prompts are not offered; `logprobs` gives the answer's"
    ),
    "logprob_token_ids": "use `top_logprobs`",
    "echo": "the prompt is yours already; /v1/completions has `echo`",
    "web_search_options": "this gateway searches nothing; put what was found into a message",
    "moderation": "this gateway moderates nothing; ask a moderation model yourself",
    "modalities": _TEXT_ONLY,
    "audio": _TEXT_ONLY,
    "image": _TEXT_ONLY,
    "images": _TEXT_ONLY,
    "mm_processor_kwargs": _TEXT_ONLY,
    "media_io_kwargs": _TEXT_ONLY,
    "return_mm_kwargs": _TEXT_ONLY,
    "prompt_embeds": "send `prompt` as text or token ids",
    "cache_salt": "prefixes are shared among your users; there is no substitute",
    "priority": "requests are answered in the order of their arrival",
    "request_id": "use the header `X-Request-ID`",
    "session_id": "use `user` for who asks, `metadata` for anything else",
    "conversation": _MEMORY,
    "previous_response_id": _MEMORY,
    "prompt": "stored prompts do not exist here: send `input` and `instructions`",
    "background": "wait for the answer, or use `stream`",
    "context_management": "use `truncation`, or shorten `input`",
    "vllm_xargs": _OPERATOR,
    "kv_transfer_params": _OPERATOR,
    "ec_transfer_params": _OPERATOR,
    "repetition_detection": "use `repetition_penalty`",
    "watermarking": "there is no watermark",
    "stream_interval": "every token is sent as it comes",
    "max_completion_tokens": "use `max_tokens`",
    "max_new_tokens": "use `max_tokens`",
    "num_predict": "use `max_tokens`",
    "num_ctx": "GET /v1/models/{model} says the context length; it cannot be changed",
    "stop_sequences": "use `stop`",
    "system": "use a message with the role `system`",
    "options": "send the fields themselves: `temperature`, `max_tokens`, …",
    "do_sample": "use `temperature`: 0 for the likeliest token",
    "models": "name one model in `model`",
    "route": "name one model in `model`",
    "transforms": "use `truncate_prompt_tokens`",
    "plugins": "this gateway runs no plugins",
    "suffix": "there is no infilling; put it into `prompt`",
    "lora_request": "name the adapter's alias or version in `model`",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a top-level field that no request type has."""

    is_dropped: bool
    is_said: bool = False  # named in `x-whet-ignored`
    substitute: str = field(default="")


def judge_field(name: str, value: Any) -> Verdict:
    """Decide by name and value. Values that mean "nothing" are dropped in silence, as null is."""
    if value is None or value in _NEUTRAL.get(name, ()):
        return Verdict(is_dropped=True, is_said=value is not None and name in IGNORED)
    if name in IGNORED and name not in _NEUTRAL_ONLY:
        return Verdict(is_dropped=True, is_said=True)
    if name in SUBSTITUTES and value in ([], {}, ""):
        return Verdict(is_dropped=True)
    return Verdict(is_dropped=False, substitute=SUBSTITUTES.get(name, ""))
