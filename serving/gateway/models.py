"""The cards of `GET /v1/models`: what each name stands for, its context length, the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from serving.gateway.request_types import MAX_CHOICES, MAX_LOGPROBS
from serving.gateway.routing import Route, Target
from whet.json_types import JsonObject
from whet.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for, whichever model it names."""

    request_bytes: int
    answer_seconds: float
    choices: int = MAX_CHOICES
    top_logprobs: int = MAX_LOGPROBS
    schema_bytes: int = 0
    schema_nodes: int = 0
    schema_depth: int = 0
    schema_alternatives: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            request_bytes=settings.request_max_bytes,
            answer_seconds=settings.request_timeout_s,
            schema_bytes=settings.schema_max_bytes,
            schema_nodes=settings.schema_max_nodes,
            schema_depth=settings.schema_max_depth,
            schema_alternatives=settings.schema_max_alternatives,
        )


def model_cards(
    routes: Mapping[str, Route], limits: Limits, *, default_length: int, started_at: int
) -> list[dict[str, object]]:
    """One card for each name that can be answered now: aliases and the base, then versions.

    `default_length`: tokens of prompt and answer of an engine that does not say. `started_at`: when
    this gateway started (ms), the age of what has none of its own.
    """
    ordered = sorted(routes.items(), key=lambda item: (item[1].arm == "exact", item[0]))
    return [
        _card(name, route, limits, default_length, started_at)
        for name, route in ordered
        if route.stable.replicas
    ]


def _card(
    name: str, route: Route, limits: Limits, default_length: int, started_at: int
) -> dict[str, object]:
    adapter = route.stable.adapter
    return {
        "id": name,
        "object": "model",
        "created": (adapter.created_at if adapter else started_at) // 1000,
        "owned_by": "whet",
        "root": route.stable.label,
        "parent": None if route.arm == "base" else "base",
        "max_model_len": context_length(route, default_length),
        "whet": {
            "kind": "alias" if route.alias else ("base" if route.arm == "base" else "version"),
            "stands_for": route.stable.label,
            "pinned": route.arm == "pinned",
            "trial": _trial(route),
            "limits": limits,
        },
    }


def _trial(route: Route) -> JsonObject | None:
    """The version on trial and its share of the requests; None when there is none."""
    if route.candidate is None or not route.candidate.replicas:
        return None
    return {"version": route.candidate.label, "share": route.share}


def context_length(route: Route, default: int) -> int:
    """Tokens of prompt and answer together that every engine behind the name can hold."""
    return min(_lengths(route.stable, route.candidate), default=default)


def _lengths(*targets: Target | None) -> Iterator[int]:
    for target in targets:
        for replica in target.replicas if target else ():
            if replica.max_model_len is not None:
                yield replica.max_model_len
