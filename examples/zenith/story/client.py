"""Applications, as the demo plays them: a real OpenAI client whose every request is counted and
every answer scored.

The client knows the world, so it can tell a right answer from a wrong one; a real application
cannot. What it passes on to the product is only what a real one would: the conversation, and now
and then a thumb.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import AsyncOpenAI, OpenAIError

from examples.zenith.scenario import score

_MAX_TOKENS = 96  # the longest reference answer is about half of this
_TIMEOUT_S = 120
PASSAGES = 1  # a page is about one product, and a second one takes the tiny base off the first


@dataclass(frozen=True)
class Question:
    """One thing to ask, with what a right answer contains.

    `kind` is `old` or `new`: did the change touch it?
    """

    messages: list[dict[str, str]]
    expected: dict[str, Any]
    kind: str


@dataclass(frozen=True)
class Answer:
    """One response as the client received it."""

    at: float  # seconds since 1970
    kind: str
    model: str  # what was asked for
    adapter: str  # what answered, from the response header
    interaction_id: str
    right: bool
    stream: bool
    text: str


@dataclass
class Ledger:
    """What went out and what came back, over the whole demo."""

    sent: int = 0
    failures: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return {"sent": self.sent, "answered": len(self.answers), "failed": len(self.failures)}


class Application:
    """Asks through the gateway; every request ends up in the ledger, whatever became of it."""

    def __init__(self, base_url: str, key: str, ledger: Ledger) -> None:
        self._client = AsyncOpenAI(
            base_url=f"{base_url}/v1", api_key=key, timeout=_TIMEOUT_S, max_retries=0
        )
        self._http = httpx.AsyncClient(
            base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT_S
        )
        self.ledger = ledger

    async def ask(
        self,
        question: Question,
        model: str,
        *,
        stream: bool,
        user: str | None = None,
        collection: str | None = None,
    ) -> Answer | None:
        """One completion at temperature 0, with the best passage of `collection` where one is
        named. None if it failed; the failure is in the ledger.
        """
        self.ledger.sent += 1
        request: dict[str, Any] = {
            "model": model,
            "messages": question.messages,
            "temperature": 0,
            "max_tokens": _MAX_TOKENS,
        }
        if user:
            request["user"] = user
        if collection:
            request["extra_body"] = {"rag": {"collection": collection, "top_k": PASSAGES}}
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                **request, stream=stream
            )
            parsed = raw.parse()
            if stream:
                text = "".join(
                    [
                        chunk.choices[0].delta.content or ""
                        async for chunk in parsed
                        if chunk.choices
                    ]
                )
            else:
                text = parsed.choices[0].message.content or ""
        except OpenAIError as error:
            self.ledger.failures.append(f"{type(error).__name__}: {error}")
            return None
        answer = Answer(
            at=time.time(),
            kind=question.kind,
            model=model,
            adapter=raw.headers["x-whet-adapter"],
            interaction_id=raw.headers["x-whet-interaction-id"],
            right=score(question.expected, text).right,
            stream=stream,
            text=text,
        )
        self.ledger.answers.append(answer)
        return answer

    async def rate(self, answer: Answer, rating: int) -> None:
        response = await self._http.post(
            "/v1/feedback", json={"interaction_id": answer.interaction_id, "rating": rating}
        )
        if response.status_code != 202:
            self.ledger.failures.append(
                f"feedback answered {response.status_code}: {response.text[:200]}"
            )

    async def score(
        self,
        questions: Iterable[Question],
        model: str,
        *,
        collection: str | None = None,
        concurrency: int = 48,
    ) -> list[Answer]:
        """Ask everything once, half of it streamed.

        An exact version is no traffic of an alias, so held-out questions never reach the drift
        windows, the review queue or a training set.
        """
        gate = asyncio.Semaphore(concurrency)

        async def one(number: int, question: Question) -> Answer | None:
            async with gate:
                return await self.ask(
                    question, model, stream=number % 2 == 0, collection=collection
                )

        answers = await asyncio.gather(
            *(one(number, question) for number, question in enumerate(questions))
        )
        return [answer for answer in answers if answer is not None]

    async def close(self) -> None:
        await self._client.close()
        await self._http.aclose()


class Traffic:
    """Background traffic in a thread of its own: arrivals at random moments around `rate` per
    second, until `stop()`.

    `model`, `rate` and `source` may be changed while it runs: the world changes, the client does
    not restart.
    """

    # Of people who got a wrong answer, how many press thumbs-down; of the served, thumbs-up. Real
    # shares are lower; the demo compresses days into a minute, and says so.
    THUMBS_DOWN, THUMBS_UP = 0.8, 0.1
    USERS = 400

    def __init__(
        self,
        base_url: str,
        key: str,
        ledger: Ledger,
        source: Callable[[], Question],
        *,
        model: str,
        rate: float,
        seed: int,
    ) -> None:
        self.source, self.model, self.rate = source, model, rate
        self._base_url, self._key, self._ledger = base_url, key, ledger
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="traffic", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No new requests; returns when the last answer is in."""
        self._stopping.set()
        self._thread.join(timeout=_TIMEOUT_S)

    async def _run(self) -> None:
        application = Application(self._base_url, self._key, self._ledger)
        running: set[asyncio.Task[None]] = set()
        while not self._stopping.is_set():
            await asyncio.sleep(self._random.expovariate(self.rate))
            task = asyncio.create_task(self._one(application))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        await application.close()

    async def _one(self, application: Application) -> None:
        question = self.source()
        answer = await application.ask(
            question,
            self.model,
            stream=self._random.random() < 0.5,
            user=f"customer-{self._random.randrange(self.USERS)}",
        )
        if answer is None or answer.adapter == "base":
            return  # nobody rates a model that does not know the job yet
        if not answer.right and self._random.random() < self.THUMBS_DOWN:
            await application.rate(answer, -1)
        elif answer.right and self._random.random() < self.THUMBS_UP:
            await application.rate(answer, 1)


def live_score(
    answers: list[Answer], since: float, until: float | None = None
) -> tuple[float, int]:
    """(share of right answers, n) of background traffic in a span of time."""
    chosen = [
        answer for answer in answers if since <= answer.at and (until is None or answer.at < until)
    ]
    return (sum(answer.right for answer in chosen) / len(chosen) if chosen else 0.0), len(chosen)
