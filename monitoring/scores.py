"""How likely the engine finds its own answers: log-probabilities of a random sample, asked for
after the answers were given.

Off the request path: the engine reads question and answer once more as a prompt, with the version
that answered and with the base alone. The first figure is a signal of the days (`logprob`,
`logprob_min`); the difference of the two shows an adapter without effect within the hour. The only
writer of `answer_scores`. An answer is scored once; what a run does not come to, the next one does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from sqlalchemy import Connection, func, select

from monitoring.alert_store import Alert, alerts_of_kind
from monitoring.alerting import Change, resolved
from monitoring.intervals import SCORES_EVERY_S
from monitoring.run import apply
from monitoring.windows import list_aliases
from whet.access import engine_key
from whet.context import Context
from whet.conversation import Message, answer_of, history
from whet.database import insert_ignore, reading, writing
from whet.errors import EngineError
from whet.ids import new_id
from whet.json_types import JsonObject
from whet.records.monitoring import AlertDetail
from whet.registry import current_rollouts, list_adapters
from whet.tables import answer_scores, interactions, replicas

_log = logging.getLogger(__name__)
HOUR_MS = 3_600_000
_TIMEOUT_S = 30.0
# An answer this new may not have its rating, and competes with whoever waits for one now
_LATE_MS = 5_000
KIND: Literal["adapter"] = "adapter"
# Answers compared with the base before anything is said: at the default of 60 an hour, a quarter of
# an hour's.
LEAST_COMPARED = 15
# Nats per token, on average over the answer, between the version and its base. The engine's own
# noise in bfloat16 is below 0.005 when averaged like this; the smallest difference that any adapter
# trained in this repository's tests made is above 0.3.
WITHOUT_EFFECT = 0.01
# Answers that the comparison may use: on a quiet service an hour holds too few
_SPAN_MS = 6 * HOUR_MS

# Fields of a request that change the prompt or the answer's form; scoring does not repeat them.
_CHANGE_PROMPT = ("tools", "response_format", "chat_template_kwargs")

# (replica URL, engine name, messages) → log-probability of each prompt token
Ask = Callable[[str, str, list[JsonObject]], list[float | None]]


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer to be scored."""

    interaction_id: str
    adapter_digest: str
    created_at: int
    messages: list[JsonObject]  # with the answer as the last one
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Engine:
    """A replica that has the version and the base ready."""

    url: str
    names: Mapping[str, str]  # digest, or "base" → name in the engine


def run_scores(context: Context, now: int, *, ask: Ask | None = None) -> str | None:
    """Score some answers of each alias, then look for adapters without effect.

    Raises EngineError when no answer could be scored for the engine's sake.
    """
    each = math.ceil(context.settings.scores_per_hour * SCORES_EVERY_S / 3600)
    if each == 0:
        return None
    with reading(context.database) as connection:
        aliases, engines = list_aliases(connection), _engines(connection)
    asked = ask or ask_engine(engine_key(context.settings.home, context.settings.engine_key))
    said = []
    for alias in aliases:
        with reading(context.database) as connection:
            waiting = _waiting(connection, alias, now, each)
        scored = sum(_score(context, alias, one, engines, asked, now) for one in waiting)
        with writing(context.database) as connection:
            _judge(connection, alias, now)
        if scored:
            said.append(f"{alias}: {scored} scored")
    return ", ".join(said) or None


def _score(
    context: Context, alias: str, one: Answered, engines: Sequence[Engine], ask: Ask, now: int
) -> bool:
    engine = next(
        (engine for engine in engines if {one.adapter_digest, "base"} <= engine.names.keys()), None
    )
    if engine is None:
        return False  # it is loading, or was unloaded: another run may find it
    found = _answer_part(
        ask(engine.url, engine.names[one.adapter_digest], one.messages), one.prompt_tokens
    )
    base = _answer_part(ask(engine.url, engine.names["base"], one.messages), one.prompt_tokens)
    values: dict[str, Any] = {
        "tokens": min(len(found), len(base)),
        "logprob": None,
        "logprob_min": None,
        "base_logprob": None,
    }
    if found and len(found) == len(base):
        values |= {
            "logprob": sum(found) / len(found),
            "logprob_min": min(found),
            "base_logprob": sum(base) / len(base),
        }
    key = {
        "interaction_id": one.interaction_id,
        "alias": alias,
        "adapter_digest": one.adapter_digest,
        "created_at": one.created_at,
        "scored_at": now,
    }
    with writing(context.database) as connection:
        connection.execute(insert_ignore(connection, answer_scores).values(**key, **values))
    return values["logprob"] is not None


def _answer_part(found: Sequence[float | None], prompt_tokens: int) -> list[float]:
    """What stands after the prompt as the engine counted it when it answered."""
    return [value for value in found[prompt_tokens:] if value is not None]


def ask_engine(key: str) -> Ask:
    """The real engine's `/v1/chat/completions` with `prompt_logprobs`.

    The function raises EngineError.
    """

    def ask(url: str, name: str, messages: list[JsonObject]) -> list[float | None]:
        body = {
            "model": name, "messages": messages, "add_generation_prompt": False, "continue_final_message": True,
            "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0,
        }  # fmt: skip
        try:
            answer = httpx.post(
                f"{url}/v1/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=_TIMEOUT_S,
            )
        except httpx.HTTPError as error:
            raise EngineError(f"The engine at {url} did not score an answer: {error}.") from error
        if answer.status_code != 200:
            if answer.status_code < 500:
                return []  # this conversation cannot be scored: too long with its answer, say
            raise EngineError(
                f"The engine at {url} answered {answer.status_code} when it was asked to score an"
                f" answer: {answer.text[:300]}"
            )
        found = answer.json().get("prompt_logprobs") or []
        # Each place holds the token that stands there, and the likeliest one where that is another:
        # the actual token comes first.
        return [
            None if not place else float(next(iter(place.values()))["logprob"]) for place in found
        ]

    return ask


# --- an adapter without effect -------------------------------------------------------------------------------------


def without_effect(compared: Sequence[tuple[float, float]]) -> bool | None:
    """Whether a version answers as its base does; None while too few answers are compared.

    Pairs: mean log-probability by the version, and by the base.
    """
    if len(compared) < LEAST_COMPARED:
        return None
    return sum(abs(version - base) for version, base in compared) / len(compared) < WITHOUT_EFFECT


def _judge(connection: Connection, alias: str, now: int) -> None:
    """Open an alert for a live version without effect; close it when another is live or an effect
    shows.
    """
    live = current_rollouts(connection).get(alias)
    digests = [
        digest for digest in ((live.stable_digest, live.candidate_digest) if live else ()) if digest
    ]
    # One alert per version, ever: whoever closed it has been told.
    known = alerts_of_kind(connection, alias, KIND)
    labels = {
        adapter.digest: adapter.label for adapter in list_adapters(connection, alias, removed=True)
    }
    for digest in digests:
        rows = connection.execute(
            select(
                answer_scores.c.interaction_id,
                answer_scores.c.logprob,
                answer_scores.c.base_logprob,
            )
            .where(
                answer_scores.c.alias == alias,
                answer_scores.c.adapter_digest == digest,
                answer_scores.c.created_at >= now - _SPAN_MS,
            )
            .where(answer_scores.c.logprob.is_not(None))
            .order_by(answer_scores.c.created_at.desc())
            .limit(4 * LEAST_COMPARED)
        ).all()
        verdict = without_effect([(row.logprob, row.base_logprob) for row in rows])
        mine = next((alert for alert in known if alert.detail.adapter_digest == digest), None)
        label = labels.get(digest, digest[:8])
        if verdict and mine is None:
            title = (
                f"{alias}: {label} changes nothing. In {len(rows)} of its answers each token is as"
                " likely from the base model alone; it is loaded, and without effect."
            )
            detail = AlertDetail(
                adapter_digest=digest,
                interaction_ids=[row.interaction_id for row in rows],
                since_at=now,
                signals=[],
            )
            apply(
                connection,
                alias,
                Change(
                    "open", KIND, title, detail, severity="bad", key=f"{KIND}:{alias}:{digest[:16]}"
                ),
                now,
            )
        elif verdict is False and mine is not None and mine.is_open:
            _close(connection, alias, mine, "Its answers differ from the base's by now.", now)
    for alert in known:
        if alert.is_open and alert.detail.adapter_digest not in digests:
            _close(connection, alias, alert, "Another version is live.", now)


def _close(connection: Connection, alias: str, alert: Alert, why: str, now: int) -> None:
    detail = resolved(alert.detail, why)
    apply(connection, alias, Change("resolve", KIND, alert.title, detail, alert.id), now)


# --- reading -------------------------------------------------------------------------------------------------------


def _engines(connection: Connection) -> list[Engine]:
    rows = connection.execute(
        select(replicas.c.url, replicas.c.ready).where(replicas.c.state == "ready")
    ).all()
    return [
        Engine(
            row.url, {digest: proof["engine_name"] for digest, proof in (row.ready or {}).items()}
        )
        for row in rows
    ]


_END = len(new_id("int")) - 3  # the last four characters of an id are random


def _waiting(connection: Connection, alias: str, now: int, count: int) -> list[Answered]:
    """`count` answers of the last hour by an adapter, in random order, that have no score: plain
    conversations of text alone.
    """
    query = (
        select(interactions)
        .join(answer_scores, answer_scores.c.interaction_id == interactions.c.id, isouter=True)
        .where(
            interactions.c.alias == alias,
            interactions.c.created_at >= now - HOUR_MS,
            interactions.c.created_at < now - _LATE_MS,
            interactions.c.status == "complete",
            interactions.c.route == "chat",
            interactions.c.adapter_digest.is_not(None),
            interactions.c.completion_tokens > 0,
            answer_scores.c.interaction_id.is_(None),
        )
        .order_by(func.substr(interactions.c.id, _END, 4))
        .limit(4 * count)
    )
    found = [answered(dict(row)) for row in connection.execute(query).mappings()]
    return [one for one in found if one is not None][:count]


def answered(row: Mapping[str, Any]) -> Answered | None:
    """A logged row as a conversation to score; None where question or answer are not plain text, or
    the log does not say how long the prompt was.
    """
    request = row["request"] if isinstance(row["request"], dict) else {}
    said = request.get("messages")
    if (
        not isinstance(said, list)
        or not row["response_text"]
        or not row["prompt_tokens"]
        or any(request.get(name) for name in _CHANGE_PROMPT)
    ):
        return None
    messages = history(request)
    answer = answer_of(request, row["response"], row["response_text"])
    if len(messages) + bool(answer.given) != len(said) or not all(map(_is_plain, messages)):
        return None
    if not messages or messages[-1].role != "user" or answer.tool_calls:
        return None
    # Of a continued answer the engine counted the given beginning as part of the prompt, so only
    # the continuation is scored.
    chat = [message.as_chat() for message in messages]
    chat.append({"role": "assistant", "content": answer.text})
    return Answered(row["id"], row["adapter_digest"], row["created_at"], chat, row["prompt_tokens"])


def _is_plain(message: Message) -> bool:
    """Whether a message is text alone: no parts, no call of a tool and no result of one."""
    return isinstance(message.parts, str) and not message.tool_calls and not message.tool_call_id
