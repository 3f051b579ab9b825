"""LiteLLM's SDK, by its providers `openai/` and `hosted_vllm/`."""

from __future__ import annotations

import json
import unittest
from typing import Any, ClassVar

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
from litellm import completion, responses, stream_chunk_builder

TOOLS = [GET_WEATHER]


class Chat(unittest.TestCase):
    target: ClassVar[dict[str, Any]] = {
        "model": f"openai/{MODEL}",
        "api_base": BASE_URL,
        "api_key": API_KEY,
    }

    def test_turn(self) -> None:
        assert (
            completion(
                messages=[{"role": "user", "content": QUESTION}],
                **self.target,
            )
            .choices[0]
            .message.content
        )

    def test_history_object(self) -> None:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        messages.append(completion(messages=messages, **self.target).choices[0].message)
        messages.append({"role": "user", "content": "And of Italy?"})
        assert completion(messages=messages, **self.target).choices[0].message.content

    def test_history_dump(self) -> None:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        messages.append(
            completion(messages=messages, **self.target).choices[0].message.model_dump()
        )
        messages.append({"role": "user", "content": "And of Italy?"})
        assert completion(messages=messages, **self.target).choices[0].message.content

    def test_settings(self) -> None:
        answer = completion(
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            ],
            temperature=0.7,
            top_p=0.9,
            max_tokens=16,
            n=2,
            seed=7,
            stop=["\n"],
            presence_penalty=0,
            frequency_penalty=0,
            logprobs=True,
            top_logprobs=2,
            user="customer-17",
            **self.target,
        )
        assert len(answer.choices) == 2

    def test_stream(self) -> None:
        stream = completion(
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            **self.target,
        )
        assert "".join(part.choices[0].delta.content or "" for part in stream)

    def test_tool_turn(self) -> None:
        messages: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
        message = (
            completion(messages=messages, tools=TOOLS, tool_choice="auto", **self.target)
            .choices[0]
            .message
        )
        assert message.tool_calls, message
        messages.append(message)
        for call in message.tool_calls:
            result = get_weather(**json.loads(call.function.arguments))
            messages.append(
                {
                    "tool_call_id": call.id,
                    "role": "tool",
                    "name": call.function.name,
                    "content": result,
                }
            )
        assert completion(messages=messages, tools=TOOLS, **self.target).choices[0].message.content

    def test_tool_stream(self) -> None:
        messages: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
        chunks = list(completion(messages=messages, tools=TOOLS, stream=True, **self.target))
        message = stream_chunk_builder(chunks, messages=messages).choices[0].message
        assert message.tool_calls, message
        messages.append(message)
        for call in message.tool_calls:
            result = get_weather(**json.loads(call.function.arguments))
            messages.append(
                {
                    "tool_call_id": call.id,
                    "role": "tool",
                    "name": call.function.name,
                    "content": result,
                }
            )
        stream = completion(messages=messages, tools=TOOLS, stream=True, **self.target)
        assert "".join(part.choices[0].delta.content or "" for part in stream)

    def test_structured(self) -> None:
        answer = completion(
            messages=[{"role": "user", "content": TICKET_QUESTION}],
            response_format=Ticket,
            **self.target,
        )
        Ticket.model_validate_json(answer.choices[0].message.content)


class HostedVllm(Chat):
    target: ClassVar[dict[str, Any]] = {
        "model": f"hosted_vllm/{MODEL}",
        "api_base": BASE_URL,
        "api_key": API_KEY,
    }


class Responses(unittest.TestCase):
    target: ClassVar[dict[str, Any]] = {
        "model": f"openai/{MODEL}",
        "api_base": BASE_URL,
        "api_key": API_KEY,
    }

    def test_turn(self) -> None:
        assert responses(input=QUESTION, **self.target).output_text

    def test_history_object(self) -> None:
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        items += responses(input=items, **self.target).output
        items.append({"role": "user", "content": "And of Italy?"})
        assert responses(input=items, **self.target).output_text

    def test_history_dump(self) -> None:
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        items += [item.model_dump() for item in responses(input=items, **self.target).output]
        items.append({"role": "user", "content": "And of Italy?"})
        assert responses(input=items, **self.target).output_text

    def test_stream(self) -> None:
        stream = responses(input=QUESTION, stream=True, **self.target)
        assert "".join(
            event.delta for event in stream if event.type == "response.output_text.delta"
        )

    def test_tool_turn(self) -> None:
        tools = [{"type": "function", **GET_WEATHER["function"]}]
        items: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
        response = responses(input=items, tools=tools, **self.target)
        items += response.output
        calls = [item for item in response.output if item.type == "function_call"]
        assert calls, response
        for call in calls:
            result = get_weather(**json.loads(call.arguments))
            items.append(
                {"type": "function_call_output", "call_id": call.call_id, "output": result}
            )
        assert responses(input=items, tools=tools, **self.target).output_text

    def test_structured(self) -> None:
        response = responses(input=TICKET_QUESTION, text_format=Ticket, **self.target)
        Ticket.model_validate_json(response.output_text)


main(Chat, HostedVllm, Responses)
