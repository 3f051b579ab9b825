"""pydantic-ai: agents on `OpenAIChatModel` and `OpenAIResponsesModel`."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

from checks import (
    API_KEY,
    BASE_URL,
    MODEL,
    QUESTION,
    TICKET_QUESTION,
    WEATHER_QUESTION,
    Ticket,
    get_weather,
    main,
)
from pydantic_ai import Agent, ModelMessagesTypeAdapter, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Chat(unittest.TestCase):
    model: Any = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY))

    def test_turn(self) -> None:
        assert Agent(self.model).run_sync(QUESTION).output

    def test_history_object(self) -> None:
        agent = Agent(self.model, instructions="Be brief.")
        first = agent.run_sync(QUESTION)
        assert agent.run_sync("And of Italy?", message_history=first.all_messages()).output

    def test_history_dump(self) -> None:
        agent = Agent(self.model, instructions="Be brief.")
        first = agent.run_sync(QUESTION)
        history = ModelMessagesTypeAdapter.validate_json(first.all_messages_json())
        assert agent.run_sync("And of Italy?", message_history=history).output

    def test_settings(self) -> None:
        agent = Agent(self.model, system_prompt="Be brief.", instructions="Answer in English.")
        settings = OpenAIChatModelSettings(
            temperature=0,
            top_p=0.9,
            max_tokens=16,
            timeout=60,
            seed=7,
            stop_sequences=["\n"],
            presence_penalty=0,
            frequency_penalty=0,
            parallel_tool_calls=True,
            openai_user="customer-17",
            openai_service_tier="auto",
            openai_store=False,
        )
        assert agent.run_sync(QUESTION, model_settings=settings).output

    def test_stream(self) -> None:
        async def run() -> str:
            async with Agent(self.model).run_stream(QUESTION) as result:
                return "".join([part async for part in result.stream_text(delta=True)])

        assert asyncio.run(run())

    def test_tool_turn(self) -> None:
        agent = Agent(self.model)
        asked = []

        @agent.tool_plain
        def weather(city: str) -> str:
            """Get the weather of a city."""
            asked.append(city)
            return get_weather(city)

        assert agent.run_sync(WEATHER_QUESTION).output
        assert asked, "the tool was not called"

    def test_tool_stream(self) -> None:
        agent = Agent(self.model)
        asked = []

        @agent.tool_plain
        def weather(city: str) -> str:
            """Get the weather of a city."""
            asked.append(city)
            return get_weather(city)

        async def run() -> str:
            async with agent.run_stream(WEATHER_QUESTION) as result:
                return "".join([part async for part in result.stream_text(delta=True)])

        assert asyncio.run(run())
        assert asked, "the tool was not called"

    def test_structured(self) -> None:
        assert isinstance(
            Agent(self.model, output_type=NativeOutput(Ticket)).run_sync(TICKET_QUESTION).output,
            Ticket,
        )

    def test_structured_tools(self) -> None:
        assert isinstance(
            Agent(self.model, output_type=Ticket).run_sync(TICKET_QUESTION).output, Ticket
        )


class Responses(Chat):
    model = OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key=API_KEY))


main(Chat, Responses)
