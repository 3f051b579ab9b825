"""The promise of the log, answer by answer: a bounded number of requests, each read to its end,
against the rows that name them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import aiohttp

_CONCURRENT = 32
_MESSAGES = [
    {
        "role": "user",
        "content": "My television goes dark after a few seconds. What should I do next?",
    }
]


@dataclass(frozen=True, slots=True)
class Received:
    """What a client got."""

    interaction_id: str
    stream: bool
    sha256: str  # of the body's bytes


@dataclass(frozen=True, slots=True)
class Row:
    """What the log says."""

    interaction_id: str
    stream: bool
    sha256: str
    status: str


async def ask(url: str, model: str, key: str, count: int) -> list[Received]:
    """`count` requests, every second one streamed.

    Raises aiohttp.ClientError when one is not answered with 200 and in full.
    """
    received: list[Received] = []
    turns: Iterator[int] = iter(range(count))

    async def client(session: aiohttp.ClientSession) -> None:
        for turn in turns:  # shared: each takes the next
            body = {
                "model": model,
                "messages": _MESSAGES,
                "max_tokens": 64,
                "stream": turn % 2 == 1,
            }
            async with session.post(
                f"{url}/v1/chat/completions",
                data=json.dumps(body),
                headers={"content-type": "application/json"},
            ) as response:
                content = await response.read()
                response.raise_for_status()
                received.append(
                    Received(
                        response.headers["x-whet-interaction-id"],
                        turn % 2 == 1,
                        hashlib.sha256(content).hexdigest(),
                    )
                )

    async with aiohttp.ClientSession(
        headers={"authorization": f"Bearer {key}"}, timeout=aiohttp.ClientTimeout(total=60)
    ) as session:
        await asyncio.gather(*(client(session) for _ in range(_CONCURRENT)))
    return received


def compare(received: Iterable[Received], rows: Iterable[Row]) -> dict[str, int]:
    """How many answers have their one row with the same content.

    `wrong`: rows that are missing, double, too many, or say something else.
    """
    answers = {answer.interaction_id: answer for answer in received}
    found: dict[str, Row] = {}
    total = wrong = 0
    for row in rows:
        total += 1
        answer = answers.get(row.interaction_id)
        same = answer is not None and (row.stream, row.sha256, row.status) == (
            answer.stream,
            answer.sha256,
            "complete",
        )
        wrong += not same or row.interaction_id in found
        found[row.interaction_id] = row
    wrong += sum(1 for name in answers if name not in found)
    return {"exact_received": len(answers), "exact_rows": total, "exact_wrong": wrong}
