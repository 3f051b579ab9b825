"""How many passages a prompt has room for: the conversation stays whole, the lowest passages go.

Most requests are far from the limit, and their bytes alone show it: no tokenizer makes more tokens
of a text than it has bytes. Others are counted by the engine's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving.gateway.core import Core
from serving.gateway.request_types import ChatRequest, Request, ResponsesRequest
from serving.gateway.retrieval import with_hits
from serving.gateway.routing import Choice, Replica, pick_replica
from serving.gateway.tokenization import prompt_fields
from serving.gateway.upstream import UpstreamError
from serving.retrieval.records import Hit

_ANSWER_SHARE = 4  # a request that names no limit keeps 1/4 of the context for its answer
_TEMPLATE_TOKENS = 64  # what a chat template writes by itself, at most: a date, a sentence, marks
_MESSAGE_TOKENS = 8  # what it writes around each message


async def fit_hits(core: Core, choice: Choice, request: Request, hits: Sequence[Hit]) -> list[Hit]:
    """Return as many of the first hits as fit into the prompt with the whole conversation."""
    replica = pick_replica(choice.target.replicas)
    context = (replica.max_model_len if replica else None) or (
        core.context.settings.engine_max_model_len
    )
    room = context - _answer_tokens(request, context)
    control = core.request_policy.control_tokens
    if _most_tokens(with_hits(request, hits, control)) <= room:
        return list(hits)
    fitting, too_many = 0, len(hits) + 1
    while too_many - fitting > 1:
        # All of them first: that is the usual case. Then halves.
        count = len(hits) if too_many > len(hits) else (fitting + too_many) // 2
        prompt = with_hits(request, hits[:count], control)
        tokens = await _count(core, choice, replica, prompt)
        if (_most_tokens(prompt) if tokens is None else tokens) <= room:
            fitting = count
        else:
            too_many = count
    return list(hits[:fitting])


def _answer_tokens(request: Request, context: int) -> int:
    if isinstance(request, ResponsesRequest):
        wanted = request.max_output_tokens
    elif isinstance(request, ChatRequest):
        wanted = request.max_completion_tokens or request.max_tokens
    else:
        wanted = request.max_tokens
    return wanted or context // _ANSWER_SHARE


def _most_tokens(request: Request) -> int:
    """Return a number of tokens that the prompt cannot have more of."""
    count = len(request.messages) if isinstance(request, ChatRequest) else 2
    if isinstance(request, ResponsesRequest) and isinstance(request.input, list):
        count += len(request.input)
    return len(_prompt_text(request).encode()) + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * count


def _prompt_text(request: Request) -> str:
    """Return all that a template can write of a request, as JSON."""
    names = ("messages", "tools", "instructions", "input", "chat_template_kwargs")
    fields = {name: found for name in names if (found := getattr(request, name, None)) is not None}
    return msgspec.json.encode(fields).decode()


async def _count(
    core: Core, choice: Choice, replica: Replica | None, request: Request
) -> int | None:
    """Return how many tokens the prompt has by the engine's count; None if it gives none.

    Engines count no Responses request: its JSON is counted, which is longer than its prompt.
    """
    if replica is None:
        return None
    is_chat = isinstance(request, ChatRequest)
    fields = prompt_fields(request) if is_chat else {"prompt": _prompt_text(request)}
    name = choice.target.engine_model or replica.base_model
    body = msgspec.json.encode({"model": name, **fields})
    try:
        response = await core.upstream.post(replica.url, "/tokenize", body, "budget")
        try:
            if response.status != 200:
                return None
            found = msgspec.json.decode(await response.read(), type=_Counted)
        finally:
            response.close()
    except (UpstreamError, TimeoutError, msgspec.DecodeError):
        return None
    return len(found.tokens) if found.count is None else found.count


class _Counted(msgspec.Struct):
    count: int | None = None
    tokens: list[int] = []
