"""The client `openai` for Python: chat completions and responses."""

from __future__ import annotations

import json
import unittest
from typing import Any, ClassVar

import openai
from checks import (
    API_KEY,
    BASE_URL,
    GET_WEATHER,
    MODEL,
    QUESTION,
    TICKET_QUESTION,
    WEATHER_QUESTION,
    Ticket,
    get_weather,
    main,
)
from openai import OpenAI

client = OpenAI(base_url=BASE_URL, api_key=API_KEY)


class Chat(unittest.TestCase):
    def test_turn(self) -> None:
        completion = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": QUESTION}]
        )
        assert completion.choices[0].message.content

    def test_history_object(self) -> None:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        completion = client.chat.completions.create(model=MODEL, messages=messages)
        messages.append(completion.choices[0].message)
        messages.append({"role": "user", "content": "And of Italy?"})
        assert (
            client.chat.completions.create(model=MODEL, messages=messages)
            .choices[0]
            .message.content
        )

    def test_history_dump(self) -> None:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        completion = client.chat.completions.create(model=MODEL, messages=messages)
        messages.append(completion.choices[0].message.model_dump())
        messages.append({"role": "user", "content": "And of Italy?"})
        assert (
            client.chat.completions.create(model=MODEL, messages=messages)
            .choices[0]
            .message.content
        )

    def test_settings(self) -> None:
        completion = client.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            ],
            temperature=0.7,
            top_p=0.9,
            max_completion_tokens=16,
            n=2,
            seed=7,
            stop=["\n"],
            presence_penalty=0,
            frequency_penalty=0,
            logprobs=True,
            top_logprobs=2,
            logit_bias={},
            user="customer-17",
            safety_identifier="customer-17",
            metadata={"page": "help"},
            store=False,
            service_tier="auto",
            prompt_cache_key="help",
            verbosity="low",
            modalities=["text"],
        )
        assert len(completion.choices) == 2 and completion.choices[0].logprobs

    def test_stream(self) -> None:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        )
        text, usage = "", None
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content is not None:
                text += chunk.choices[0].delta.content
            usage = chunk.usage or usage
        assert text and usage and usage.completion_tokens

    def test_tool_turn(self) -> None:
        tools: Any = [GET_WEATHER]
        messages: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
        completion = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
        message = completion.choices[0].message
        assert completion.choices[0].finish_reason == "tool_calls" and message.tool_calls, (
            completion
        )
        messages.append(message)
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "content": get_weather(**arguments)}
            )
        assert (
            client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
            .choices[0]
            .message.content
        )

    def test_tool_stream(self) -> None:
        tools: Any = [GET_WEATHER]
        messages: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
        with client.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
            for _ in stream:
                pass
            message = stream.get_final_completion().choices[0].message
        assert message.tool_calls, message
        messages.append(message.model_dump())
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            messages.append(
                {"role": "tool", "tool_call_id": call.id, "content": get_weather(**arguments)}
            )
        with client.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
            assert stream.get_final_completion().choices[0].message.content

    def test_structured(self) -> None:
        completion = client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": TICKET_QUESTION}],
            response_format=Ticket,
        )
        assert isinstance(completion.choices[0].message.parsed, Ticket)

    def test_structured_tools(self) -> None:
        completion = client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": TICKET_QUESTION}],
            tools=[openai.pydantic_function_tool(Ticket)],
            tool_choice="required",
        )
        calls = completion.choices[0].message.tool_calls
        assert calls and isinstance(calls[0].function.parsed_arguments, Ticket), completion


class Responses(unittest.TestCase):
    TOOLS: ClassVar[Any] = [{"type": "function", **GET_WEATHER["function"]}]

    def test_turn(self) -> None:
        assert client.responses.create(
            model=MODEL, instructions="Be brief.", input=QUESTION
        ).output_text

    def test_history_object(self) -> None:
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        items += client.responses.create(model=MODEL, input=items).output
        items.append({"role": "user", "content": "And of Italy?"})
        assert client.responses.create(model=MODEL, input=items).output_text

    def test_history_dump(self) -> None:
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        items += [
            item.model_dump() for item in client.responses.create(model=MODEL, input=items).output
        ]
        items.append({"role": "user", "content": "And of Italy?"})
        assert client.responses.create(model=MODEL, input=items).output_text

    def test_settings(self) -> None:
        response = client.responses.create(
            model=MODEL,
            input=QUESTION,
            temperature=0,
            top_p=0.9,
            max_output_tokens=16,
            user="customer-17",
            safety_identifier="customer-17",
            metadata={"page": "help"},
            store=False,
            service_tier="auto",
            prompt_cache_key="help",
            truncation="auto",
            parallel_tool_calls=True,
            text={"verbosity": "low"},
        )
        assert response.output_text

    def test_stream(self) -> None:
        stream = client.responses.create(model=MODEL, input=QUESTION, stream=True)
        assert "".join(
            event.delta for event in stream if event.type == "response.output_text.delta"
        )

    def test_tool_turn(self) -> None:
        items: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
        response = client.responses.create(model=MODEL, tools=self.TOOLS, input=items)
        items += response.output
        calls = [item for item in response.output if item.type == "function_call"]
        assert calls, response
        for call in calls:
            items.append(
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": get_weather(**json.loads(call.arguments)),
                }
            )
        assert client.responses.create(model=MODEL, tools=self.TOOLS, input=items).output_text

    def test_tool_stream(self) -> None:
        items: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
        with client.responses.stream(model=MODEL, tools=self.TOOLS, input=items) as stream:
            response = stream.get_final_response()
        items += response.output
        calls = [item for item in response.output if item.type == "function_call"]
        assert calls, response
        for call in calls:
            items.append(
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": get_weather(**json.loads(call.arguments)),
                }
            )
        with client.responses.stream(model=MODEL, tools=self.TOOLS, input=items) as stream:
            assert stream.get_final_response().output_text

    def test_structured(self) -> None:
        response = client.responses.parse(model=MODEL, input=TICKET_QUESTION, text_format=Ticket)
        assert isinstance(response.output_parsed, Ticket)


main(Chat, Responses)
