"""instructor over the client `openai`. It asks for structured answers only, so these are its turns.

There is no check of a message object as history: instructor itself takes dictionaries only.
"""

from __future__ import annotations

import unittest
from typing import Any

import instructor
from checks import API_KEY, BASE_URL, MODEL, TICKET_QUESTION, Ticket, main
from openai import OpenAI
from pydantic import field_validator


class Turns:
    """What both modes do."""

    mode: instructor.Mode

    def setUp(self) -> None:
        self.client = instructor.from_openai(
            OpenAI(base_url=BASE_URL, api_key=API_KEY), mode=self.mode
        )

    def test_turn(self) -> None:
        ticket = self.client.chat.completions.create(
            model=MODEL,
            response_model=Ticket,
            messages=[{"role": "user", "content": TICKET_QUESTION}],
        )
        assert isinstance(ticket, Ticket)

    def test_history_dump(self) -> None:
        messages: list[Any] = [{"role": "user", "content": TICKET_QUESTION}]
        _, completion = self.client.chat.completions.create_with_completion(
            model=MODEL, response_model=Ticket, messages=messages
        )
        message = completion.choices[0].message
        messages.append(message.model_dump())
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": "Stored."}
            for call in message.tool_calls or []
        ]
        messages.append({"role": "user", "content": TICKET_QUESTION})
        assert isinstance(
            self.client.chat.completions.create(
                model=MODEL, response_model=Ticket, messages=messages
            ),
            Ticket,
        )

    def test_settings(self) -> None:
        ticket = self.client.chat.completions.create(
            model=MODEL,
            response_model=Ticket,
            temperature=0,
            max_tokens=100,
            seed=7,
            user="customer-17",
            messages=[
                {"role": "system", "content": "You sort tickets."},
                {"role": "user", "content": TICKET_QUESTION},
            ],
        )
        assert isinstance(ticket, Ticket)

    def test_stream(self) -> None:
        parts = list(
            self.client.chat.completions.create_partial(
                model=MODEL,
                response_model=Ticket,
                messages=[{"role": "user", "content": TICKET_QUESTION}],
            )
        )
        assert parts and parts[-1].category

    def test_tool_turn(self) -> None:
        """A refused answer goes back with the reason, as the result of the call."""
        refused = []

        class Checked(Ticket):
            @field_validator("category")
            @classmethod
            def _refuse_the_first(cls, value: str) -> str:
                if not refused:
                    refused.append(value)
                    raise ValueError("say it once more")
                return value

        ticket = self.client.chat.completions.create(
            model=MODEL,
            response_model=Checked,
            max_retries=2,
            messages=[{"role": "user", "content": TICKET_QUESTION}],
        )
        assert isinstance(ticket, Checked) and refused


class Tools(Turns, unittest.TestCase):
    mode = instructor.Mode.TOOLS
    test_structured_tools = Turns.test_turn


class JsonSchema(Turns, unittest.TestCase):
    mode = instructor.Mode.JSON_SCHEMA
    test_structured = Turns.test_turn


main(Tools, JsonSchema)
