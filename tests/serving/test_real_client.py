"""The client `openai` for Python, as an ordinary program uses it, against gateway and real vLLM.

The short form of tests/clients, which drives many clients on a real model. This base is of random
weights: it calls a tool only when it is told to, and white space is taken from it, with which it
would fill JSON for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
from transformers import AutoTokenizer

from feedback.conversations import retrieved_texts, training_row
from tests.engine_fixture import CONTEXT, LiveEngine
from tests.serving.conftest import Running, serve, wait_for
from tests.serving.memory_searcher import MemorySearcher, add_collection, hit
from training.data.rows import Row, read_objects
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from whet.conversation import history
from whet.database import reading
from whet.tables import replicas

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1500),
]  # with the start of the engine, which shares its cores
READY_S = 120
QUESTION: Any = {"role": "user", "content": "What is the weather in Bonn?"}


LAMPS = hit(1, "Lamps are kept 24 months.", score=0.9)
CITING = "Lamps are kept 24 months [1]."


class Weather(pydantic.BaseModel):
    city: Literal["Bonn", "Kiel"]


TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": Weather.model_json_schema()},
}


@pytest.fixture(scope="module")
def gateway(live_engine: LiveEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway with the base alone."""
    context = live_engine.context(
        tmp_path_factory.mktemp("client") / "home",
        engine_max_model_len=CONTEXT,
        engine_max_lora_rank=8,
        rollout_auto=False,
    )

    def is_ready() -> bool:
        with reading(context.database) as connection:
            row = connection.execute(replicas.select()).first()
        return bool(row and row.state == "ready")

    searcher = MemorySearcher([LAMPS])
    for running in serve(context, live_engine, services=None, searcher=searcher):  # type: ignore[arg-type]
        wait_for(is_ready, "the engine's place in rotation", timeout_s=READY_S)
        add_collection(running, "manual")
        yield running
    context.close()


@pytest.fixture(scope="module")
def client(gateway: Running) -> openai.OpenAI:
    """With the client's own limits and retries, as a newcomer has it."""
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key)


@pytest.fixture(scope="module")
def short(live_engine: LiveEngine) -> dict[str, Any]:
    """Settings under which this base ends: no white space, few tokens."""
    tokenizer = AutoTokenizer.from_pretrained(live_engine.base_folder)
    texts = [str(tokenizer.decode([token])) for token in range(len(tokenizer))]
    no_space = {str(token): -100 for token, text in enumerate(texts) if text.strip() != text}
    return {"model": "base", "logit_bias": no_space, "temperature": 0, "max_tokens": 300}


@pytest.mark.parametrize(
    "as_history",
    [lambda message: message, lambda message: message.model_dump()],
    ids=["object", "dump"],
)
def test_answer_is_taken_back_as_history(client: openai.OpenAI, as_history: Any) -> None:
    messages: list[Any] = [QUESTION]
    answer = client.chat.completions.create(model="base", messages=messages, max_tokens=8)
    messages += [as_history(answer.choices[0].message), QUESTION]
    second = client.chat.completions.create(model="base", messages=messages, max_tokens=8)
    assert second.choices[0].message.content and second.usage and answer.usage
    assert second.usage.prompt_tokens > answer.usage.prompt_tokens


def test_answer_of_responses_is_taken_back_as_history(client: openai.OpenAI) -> None:
    items: list[Any] = [QUESTION]
    items += client.responses.create(model="base", input=items, max_output_tokens=8).output
    assert client.responses.create(
        model="base", input=[*items, QUESTION], max_output_tokens=8
    ).output_text
    dumped: list[Any] = [item if isinstance(item, dict) else item.model_dump() for item in items]
    assert client.responses.create(
        model="base", input=[*dumped, QUESTION], max_output_tokens=8
    ).output_text


def test_stream_is_the_answer_in_parts(client: openai.OpenAI) -> None:
    asked: Any = {"model": "base", "messages": [QUESTION], "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    parts = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == whole
    assert parts[-1].usage.completion_tokens == 8


@pytest.mark.parametrize("stream", [False, True])
def test_tool_turn(
    client: openai.OpenAI, gateway: Running, short: dict[str, Any], stream: bool
) -> None:
    """Ask, get the call, send its result, get an answer in words."""
    messages: list[Any] = [QUESTION]
    asked: Any = {
        **short,
        "messages": messages,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    }
    if stream:
        with client.chat.completions.stream(**asked) as events:
            completion: Any = events.get_final_completion()
    else:
        completion = client.chat.completions.create(**asked)
    message = completion.choices[0].message
    (call,) = message.tool_calls
    assert Weather.model_validate_json(call.function.arguments), (
        "a forced call is held to its tool's schema"
    )
    messages += [
        message,
        {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"temperature": 21})},
    ]
    answer = client.chat.completions.create(
        model="base", messages=messages, tools=[TOOL], max_tokens=8
    )
    assert answer.choices[0].message.content
    row = gateway.row(answer.id)
    assert (
        row.status == "complete"
        and row.request["messages"][1]["tool_calls"][0]["function"]["name"] == "get_weather"
    )


def test_history_with_a_tool_turn_is_taken_by_responses(client: openai.OpenAI) -> None:
    asked: Any = {"model": "base", "max_output_tokens": 8}
    asked["tools"] = [{"type": "function", **TOOL["function"]}]
    items: list[Any] = [QUESTION]
    items += client.responses.create(**asked, input=items, tool_choice="none").output
    call = {"call_id": "call_1", "name": "get_weather", "arguments": '{"city": "Bonn"}'}
    result = {"call_id": "call_1", "output": "21 degrees"}
    items += [QUESTION, {"type": "function_call", **call}]
    items += [{"type": "function_call_output", **result}]
    assert client.responses.create(**asked, input=items).output_text


def test_structured_output(client: openai.OpenAI, short: dict[str, Any]) -> None:
    parsed = client.chat.completions.parse(**short, messages=[QUESTION], response_format=Weather)
    assert isinstance(parsed.choices[0].message.parsed, Weather)


# --- retrieval -----------------------------------------------------------------------------------

RETRIEVING: Any = {"rag": {"collection": "manual"}, "structured_outputs": {"choice": [CITING]}}


def test_answer_with_citations(
    client: openai.OpenAI, gateway: Running, live_engine: LiveEngine
) -> None:
    """Whole and streamed, and with the tokens that a training row of it has."""
    messages: Any = [{"role": "user", "content": "How long are lamps kept?"}]
    asked: Any = {"model": "base", "messages": messages, "max_tokens": 64, "extra_body": RETRIEVING}
    raw = client.chat.completions.with_raw_response.create(**asked)
    whole = raw.parse()
    message = whole.choices[0].message
    assert message.content == CITING and raw.headers["x-whet-retrieval"] == "found"
    assert message.annotations
    cited = message.annotations[0].url_citation
    assert CITING[cited.start_index : cited.end_index] == "[1]" and cited.title == "Page 1"
    chunks = list(client.chat.completions.create(**asked, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == CITING
    (annotations,) = [found for d in deltas if (found := getattr(d, "annotations", None))]
    assert annotations == [each.model_dump() for each in message.annotations]
    assert chunks[-1].model_dump()["whet"] == whole.model_dump()["whet"]
    row = gateway.row(raw.headers["x-whet-interaction-id"])
    assert row.retrieval["cited"] == [1] and row.response_text == CITING
    made = training_row(
        example_id="exm_1",
        messages=[turn.as_chat() for turn in history(row.request)],
        answer=CITING,
        context=retrieved_texts(row.retrieved),
    )
    (learned,) = read_objects([(1, made)], unit="line").rows
    assert isinstance(learned, Row)
    encoder = Encoder(BaseModel(live_engine.base_folder, "base"), CONTEXT)
    assert len(encoder.prompt_ids(learned)) == row.prompt_tokens


def test_responses_stream_with_citations(client: openai.OpenAI) -> None:
    tool: Any = {"type": "file_search", "vector_store_ids": ["manual"]}
    with client.responses.stream(
        model="base",
        input="How long are lamps kept?",
        tools=[tool],
        max_output_tokens=64,
        extra_body={"structured_outputs": {"choice": [CITING]}},
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == CITING
    assert kinds.index("response.output_text.annotation.added") < kinds.index(
        "response.output_text.done"
    )
    (item,) = [item for item in final.output if item.type == "message"]
    assert item.content[0].annotations[0].filename == "pages/1.md"  # type: ignore[union-attr]
