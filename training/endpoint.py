"""Chat completions from any OpenAI-compatible address: who rewrites questions, teaches or judges.

What comes back is a stranger's text; whoever asked checks it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import openai

from whet.errors import EndpointError, InputError
from whet.urls import mask_url, split_credentials

TIMEOUT_S = 120.0  # a large model on a slow machine writes a long answer within it
RETRIES = 3  # after a lost connection, a 429 or a 5xx; the client waits longer each time


@dataclass(frozen=True)
class Endpoint:
    """Where to ask.

    `url` ends before /chat/completions; `key` is sent as a bearer token to this host alone:
    redirects are not followed. Usable from several threads.
    """

    url: str
    model: str
    key: str = ""
    temperature: float = 0.0
    max_tokens: int | None = None  # of an answer; None: the model's own end
    retries: int = RETRIES

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or not self.model:
            raise InputError(
                f"{mask_url(self.url)!r} with the model {self.model!r} names no endpoint; expected"
                " http://… and a model.",
                hint="Such as http://127.0.0.1:8000/v1 and base.",
            )

    def answer(self, messages: Sequence[Mapping[str, object]]) -> str:
        """The model's text, stripped. Raises EndpointError."""

        plain: Any = [
            {"role": message["role"], "content": message["content"]} for message in messages
        ]
        limit = openai.omit if self.max_tokens is None else self.max_tokens
        try:
            found = self._client.chat.completions.create(
                model=self.model, messages=plain, temperature=self.temperature, max_tokens=limit
            )
            text = found.choices[0].message.content
        except openai.APIStatusError as error:
            raise EndpointError(
                f"{mask_url(self.url)} answered {error.status_code} for {self.model}:"
                f" {_first_line(error)}",
                hint="Check the address, the model's name and the key.",
            ) from error
        except openai.APIError as error:
            raise EndpointError(
                f"{mask_url(self.url)} cannot be asked: {_first_line(error)}",
                hint="Check that it runs and can be reached from here.",
            ) from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise EndpointError(
                f"{mask_url(self.url)} answered something that is not a chat completion.",
                hint="Name an OpenAI-compatible endpoint, up to /v1.",
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise EndpointError(
                f"{self.model} at {mask_url(self.url)} answered without text.",
                hint=(
                    "Use a model that follows instructions; one that reasons may need more tokens."
                ),
            )
        return text.strip()

    @cached_property
    def _client(self) -> openai.OpenAI:
        # Without credentials in the URL, which httpx writes into its log.
        address, credentials = split_credentials(self.url)
        http = openai.DefaultHttpxClient(
            follow_redirects=False, timeout=TIMEOUT_S, auth=credentials
        )
        return openai.OpenAI(
            base_url=address,
            api_key=self.key or "none",
            max_retries=self.retries,
            timeout=TIMEOUT_S,
            http_client=http,
        )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
