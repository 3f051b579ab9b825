"""LlamaIndex: `OpenAILike`."""

from __future__ import annotations

import asyncio
import unittest

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
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


class Chat(unittest.TestCase):
    llm = OpenAILike(
        model=MODEL,
        api_base=BASE_URL,
        api_key=API_KEY,
        context_window=4096,
        is_chat_model=True,
        is_function_calling_model=True,
    )

    def test_turn(self) -> None:
        assert str(self.llm.complete(QUESTION))

    def test_history_object(self) -> None:
        messages = [ChatMessage(role="user", content=QUESTION)]
        messages.append(self.llm.chat(messages).message)
        messages.append(ChatMessage(role="user", content="And of Italy?"))
        assert self.llm.chat(messages).message.content

    def test_history_dump(self) -> None:
        messages = [ChatMessage(role="user", content=QUESTION)]
        messages.append(ChatMessage.model_validate(self.llm.chat(messages).message.model_dump()))
        messages.append(ChatMessage(role="user", content="And of Italy?"))
        assert self.llm.chat(messages).message.content

    def test_settings(self) -> None:
        llm = OpenAILike(
            model=MODEL,
            api_base=BASE_URL,
            api_key=API_KEY,
            context_window=4096,
            is_chat_model=True,
            temperature=0.2,
            max_tokens=16,
            top_p=0.9,
            logprobs=True,
            top_logprobs=2,
            additional_kwargs={"seed": 7, "stop": ["\n"], "user": "customer-17"},
        )
        assert llm.chat(
            [
                ChatMessage(role="system", content="Be brief."),
                ChatMessage(role="user", content=QUESTION),
            ]
        ).message.content

    def test_stream(self) -> None:
        assert "".join(
            part.delta or ""
            for part in self.llm.stream_chat([ChatMessage(role="user", content=QUESTION)])
        )

    def test_tool_turn(self) -> None:
        tool = FunctionTool.from_defaults(get_weather)
        messages = [ChatMessage(role="user", content=WEATHER_QUESTION)]
        response = self.llm.chat_with_tools([tool], chat_history=messages)
        calls = self.llm.get_tool_calls_from_response(response)
        messages.append(response.message)
        for call in calls:
            result = tool(**call.tool_kwargs)
            messages.append(
                ChatMessage(
                    role="tool",
                    content=str(result),
                    additional_kwargs={"tool_call_id": call.tool_id},
                )
            )
        assert self.llm.chat_with_tools([tool], chat_history=messages).message.content

    def test_tool_stream(self) -> None:
        """A whole agent: it streams every step."""

        async def run() -> str:
            agent = FunctionAgent(
                tools=[get_weather], llm=self.llm, system_prompt="You are a helpful assistant."
            )
            output = await agent.run(user_msg=WEATHER_QUESTION)
            assert output.tool_calls, output
            return str(output)

        assert asyncio.run(run())

    def test_structured(self) -> None:
        llm = OpenAILike(
            model=MODEL,
            api_base=BASE_URL,
            api_key=API_KEY,
            context_window=4096,
            is_chat_model=True,
            should_use_structured_outputs=True,
        )
        assert isinstance(
            llm.as_structured_llm(Ticket)
            .chat([ChatMessage(role="user", content=TICKET_QUESTION)])
            .raw,
            Ticket,
        )

    def test_structured_tools(self) -> None:
        assert isinstance(
            self.llm.as_structured_llm(Ticket)
            .chat([ChatMessage(role="user", content=TICKET_QUESTION)])
            .raw,
            Ticket,
        )


main(Chat)
