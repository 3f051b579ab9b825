"""One engine replica over HTTP: what the reconciler asks of it.

Completions of clients go another way (`gateway/exchange.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import aiohttp

from whet.errors import EngineError
from whet.json_types import JsonObject

LIST_TIMEOUT_S = 5.0
# A large adapter from a slow disk; it waits for the engine's step in progress
LOAD_TIMEOUT_S = 60.0
PROVE_TIMEOUT_S = 60.0  # a prompt among many others of a busy engine


_STARTED = re.compile(r"^process_start_time_seconds ([0-9.e+]+)$", re.MULTILINE)


class EngineRefusedError(EngineError):
    """The engine answered, and said no. Asking again would be answered the same."""

    code = "engine_refused"


class EngineSilentError(EngineError):
    """The engine did not answer in time: it hangs, or it is busy."""

    code = "engine_silent"


@dataclass(frozen=True, slots=True)
class Served:
    """One name the engine answers to."""

    name: str
    path: str  # of the adapter's folder; of the base, whatever the engine says
    is_adapter: bool
    max_model_len: int | None = None  # tokens of prompt and answer; None: it does not say


def _served(card: JsonObject) -> Served:
    length = card.get("max_model_len")
    return Served(
        str(card["id"]),
        str(card.get("root") or ""),
        card.get("parent") is not None,
        length if isinstance(length, int) else None,
    )


class EngineClient:
    """Speaks to one replica.

    Every method raises EngineError when it does not answer as it should, in time.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> None:
        self.url = url
        self._session = session
        self._headers = headers

    async def _call(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        *,
        timeout_s: float,
        final: tuple[int, ...] = (400, 404),
    ) -> Any:
        try:
            async with self._session.request(
                method,
                self.url + path,
                json=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                content = await response.read()
                if response.status == 200:
                    return (
                        await response.json(content_type=None)
                        if content.startswith((b"{", b"["))
                        else content.decode()
                    )
                message = (
                    f"The engine at {self.url} answered {response.status} to {path}:"
                    f" {content[:300].decode('utf-8', 'replace')}"
                )
        except TimeoutError as error:
            raise EngineSilentError(
                f"The engine at {self.url} did not answer {path} within {timeout_s:g} s."
            ) from error
        except (aiohttp.ClientError, ConnectionError, ValueError) as error:
            raise EngineError(f"The engine at {self.url} cannot be reached: {error}.") from error
        if response.status in final:
            raise EngineRefusedError(message)
        raise EngineError(message)

    async def served(self) -> list[Served]:
        """The base and every adapter the engine has a name for.

        A name says nothing about readiness.
        """
        body = await self._call("GET", "/v1/models", timeout_s=LIST_TIMEOUT_S)
        return [_served(card) for card in body["data"]]

    async def process_started_at(self) -> float | None:
        """When the engine's process was started (seconds since 1970), which tells it from one that
        was started after it; None if it does not say.
        """
        found = _STARTED.search(str(await self._call("GET", "/metrics", timeout_s=LIST_TIMEOUT_S)))
        return float(found[1]) if found else None

    async def load(self, name: str, folder: str) -> None:
        """Make the engine read an adapter folder.

        The path is absolute: an engine looks a relative one up on a model hub.

        Raises EngineRefusedError for an adapter it cannot serve (500, in this engine, is how it
        says so).
        """
        if not folder.startswith("/"):
            raise EngineError(f"{folder} is not an absolute path; the engine is given no other.")
        try:
            await self._call(
                "POST",
                "/v1/load_lora_adapter",
                {"lora_name": name, "lora_path": folder},
                timeout_s=LOAD_TIMEOUT_S,
                final=(400, 404, 500),
            )
        except EngineRefusedError as error:
            if "--enable-lora" not in str(error):
                raise
            raise EngineRefusedError(
                f"The engine at {self.url} takes no adapters: it was started with"
                " WHET_ENGINE_MAX_LORAS=0, or without --enable-lora."
            ) from error

    async def unload(self, name: str) -> None:
        """Make the engine forget a name. Its memory is freed when the process ends."""
        await self._call(
            "POST", "/v1/unload_lora_adapter", {"lora_name": name}, timeout_s=LOAD_TIMEOUT_S
        )

    async def one_token(self, model: str, *, timeout_s: float) -> None:
        """A real completion of one token: what `/health` cannot tell."""
        body = await self._call(
            "POST",
            "/v1/completions",
            {"model": model, "prompt": [0], "max_tokens": 1, "temperature": 0},
            timeout_s=timeout_s,
        )
        if not body.get("choices"):
            raise EngineError(f"The engine at {self.url} answered without a choice.")

    async def tokenize(self, model: str, messages: list[JsonObject]) -> list[int] | None:
        """The tokens that the engine's template and tokenizer make of a conversation; None of an
        engine that does not say.
        """
        return await self._tokens(
            {"model": model, "messages": [*messages], "add_generation_prompt": True}
        )

    async def tokenize_text(self, model: str, text: str) -> list[int] | None:
        """The tokens that the engine's tokenizer makes of a plain text, without a template; None of
        an engine that does not say."""
        return await self._tokens({"model": model, "prompt": text, "add_special_tokens": False})

    async def _tokens(self, body: JsonObject) -> list[int] | None:
        final = (400, 404, 405, 501)
        try:
            answer = await self._call(
                "POST", "/tokenize", body, timeout_s=PROVE_TIMEOUT_S, final=final
            )
        except EngineRefusedError:
            return None
        found = answer.get("tokens") if isinstance(answer, dict) else None
        return [int(token) for token in found] if isinstance(found, list) else None

    async def prompt_logprobs(self, model: str, token_ids: list[int]) -> list[float]:
        """Natural logarithms of the probability of every prompt token but the first:
        `len(token_ids) - 1` numbers.
        """
        body: JsonObject = {
            "model": model,
            "prompt": [*token_ids],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        answer = await self._call("POST", "/v1/completions", body, timeout_s=PROVE_TIMEOUT_S)
        found = answer["choices"][0].get("prompt_logprobs")
        if not isinstance(found, list) or len(found) != len(token_ids):
            raise EngineRefusedError(
                f"The engine at {self.url} gave no log-probabilities for the"
                f" {len(token_ids)} prompt tokens."
            )
        return [
            float(at[str(token)]["logprob"])
            for at, token in zip(found[1:], token_ids[1:], strict=True)
        ]
