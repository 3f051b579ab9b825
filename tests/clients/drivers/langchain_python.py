"""LangChain: `ChatOpenAI` of langchain-openai, by chat completions and by responses."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

import checks
from checks import (
    API_KEY,
    BASE_URL,
    MODEL,
    QUESTION,
    TICKET_QUESTION,
    WEATHER_QUESTION,
    Ticket,
    main,
)
from langchain_core.messages import (
    HumanMessage,
    convert_to_openai_messages,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

get_weather = tool(checks.get_weather)


class Chat(unittest.TestCase):
    llm = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY)
    settings: ClassVar[dict[str, Any]] = {
        "temperature": 0,
        "top_p": 0.9,
        "max_tokens": 16,
        "seed": 7,
        "stop": ["\n"],
        "service_tier": "auto",
        "store": False,
        "verbosity": "low",
    }

    def test_turn(self) -> None:
        assert self.llm.invoke(QUESTION).text

    def test_history_object(self) -> None:
        messages: list[Any] = [HumanMessage(QUESTION)]
        messages.append(self.llm.invoke(messages))
        messages.append(HumanMessage("And of Italy?"))
        assert self.llm.invoke(messages).text

    def test_history_dump(self) -> None:
        messages: list[Any] = [HumanMessage(QUESTION)]
        messages.append(self.llm.invoke(messages))
        again = [*messages_from_dict(messages_to_dict(messages)), HumanMessage("And of Italy?")]
        assert self.llm.invoke(again).text
        dicts: list[Any] = [
            *convert_to_openai_messages(messages),
            {"role": "user", "content": "And of Italy?"},
        ]
        assert self.llm.invoke(dicts).text

    def test_settings(self) -> None:
        llm = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, **self.settings)
        assert llm.invoke(
            [("developer", "Be brief."), ("human", QUESTION)],
            user="customer-17",
        ).text

    def test_stream(self) -> None:
        assert "".join(chunk.text for chunk in self.llm.stream(QUESTION))

    def test_tool_turn(self) -> None:
        llm = self.llm.bind_tools([get_weather])
        messages: list[Any] = [HumanMessage(WEATHER_QUESTION)]
        answer = llm.invoke(messages)
        assert answer.tool_calls, answer
        messages.append(answer)
        for call in answer.tool_calls:
            messages.append(get_weather.invoke(call))
        assert llm.invoke(messages).text

    def test_tool_stream(self) -> None:
        llm = self.llm.bind_tools([get_weather])
        messages: list[Any] = [HumanMessage(WEATHER_QUESTION)]
        answer: Any = None
        for chunk in llm.stream(messages):
            answer = chunk if answer is None else answer + chunk
        assert answer.tool_calls, answer
        messages.append(answer)
        for call in answer.tool_calls:
            messages.append(get_weather.invoke(call))
        assert "".join(chunk.text for chunk in llm.stream(messages))

    def test_structured(self) -> None:
        assert isinstance(self.llm.with_structured_output(Ticket).invoke(TICKET_QUESTION), Ticket)

    def test_structured_tools(self) -> None:
        assert isinstance(
            self.llm.with_structured_output(Ticket, method="function_calling").invoke(
                TICKET_QUESTION
            ),
            Ticket,
        )


class Responses(Chat):
    llm = ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key=API_KEY, use_responses_api=True)
    settings: ClassVar[dict[str, Any]] = {
        "use_responses_api": True,
        "temperature": 0,
        "top_p": 0.9,
        "max_tokens": 16,
        "service_tier": "auto",
        "store": False,
        "verbosity": "low",
    }


main(Chat, Responses)
