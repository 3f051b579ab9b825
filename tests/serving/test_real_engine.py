"""The gateway, the reconciler and real vLLM. One engine for the session; see
`tests/engine_fixture.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import openai
import psutil
import pytest

from monitoring.scores import run_scores
from serving.rollout_store import RolloutStore
from tests.engine_fixture import CONTEXT, LiveEngine
from tests.serving.conftest import READY_S, Running, ready, replica, wait_for
from tests.serving.test_protocol import HELLO
from whet.clock import now_ms
from whet.database import reading
from whet.tables import answer_scores

# With the start of the engine, which shares its cores
pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500)]
LONG = 6000  # tokens of an answer that something happens to: many seconds of the engine


def test_every_version_is_proved_against_what_training_computed(live: Running) -> None:
    proofs = replica(live).ready
    measured = [
        proof["parity"]
        for name, proof in proofs.items()
        if name != "base" and proof["parity"]["measured"]
    ]
    assert len(measured) == 2 and all(
        parity["mean"] < 0.05 and parity["difference_from_base"] > 1 for parity in measured
    )
    assert all(parity["template"] == "same" for parity in measured), (
        "the engine makes the tokens of a conversation that training made"
    )
    assert [
        proof["parity"]["why"]
        for proof in proofs.values()
        if "parity" in proof and not proof["parity"]["measured"]
    ]


def test_a_version_whose_answers_are_not_those_of_training_is_refused(
    live: Running, live_engine: LiveEngine
) -> None:
    from serving.parity import EngineLogprobs, check_parity

    own, other = (live_engine.adapters[n].fingerprint for n in (0, 1))
    swapped = {
        **own,
        "prompts": [
            {**a, "adapter_logprobs": b["adapter_logprobs"]}
            for a, b in zip(own["prompts"], other["prompts"], strict=True)
        ],
    }  # type: ignore[call-overload]
    numbers = EngineLogprobs(
        *[
            [value for prompt in own["prompts"] for value in prompt[which][1:]]
            for which in ("adapter_logprobs", "base_logprobs")
        ]
    )  # type: ignore[attr-defined]
    assert check_parity("x", own, numbers, limit=512).reason == ""
    assert "unlike it did in training" in check_parity("x", swapped, numbers, limit=512).reason


def test_an_engine_that_has_answered_rests(live: Running, live_engine: LiveEngine) -> None:
    """Without the plugin's `rest_soon` it looks for work without pause for a second after each
    request (0.5 to 1 s of a processor), beside a training that wants the processor.
    """
    assert live_engine.process is not None
    engine = psutil.Process(live_engine.process.pid)
    processes = [engine, *engine.children(recursive=True)]

    def seconds() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    def used_in_the_second_after_an_answer() -> float:
        live.client().chat.completions.create(model="base", messages=HELLO, max_tokens=1)
        before = seconds()
        time.sleep(1)
        return seconds() - before

    # Some of them meet the gateway's own question, which comes every three seconds
    used = [used_in_the_second_after_an_answer() for _ in range(5)]
    assert min(used) < 0.35, (
        f"the engine used {used} s of a processor in the second after an answer"
    )


def test_a_process_of_the_engine_sleeps_while_it_waits_for_another(
    live: Running, live_engine: LiveEngine
) -> None:
    """Without the plugin's `rest_soon` they yield the processor a million times a second: a third
    of what an answer costs, and Linux 6.18 then lets no other process run for up to half a minute.
    """
    assert live_engine.process is not None
    processes = [
        process
        for process in psutil.Process(live_engine.process.pid).children(recursive=True)
        if "VLLM::" in process.name()
    ]
    assert len(processes) == 2, f"expected the engine's core and its worker, found {processes}"

    def sleeps() -> list[int]:
        return [process.num_ctx_switches().voluntary for process in processes]

    before = sleeps()
    tokens = (
        live.client()
        .chat.completions.create(model="base", messages=HELLO, max_tokens=300, temperature=0)
        .usage.completion_tokens
    )
    slept = [after - earlier for after, earlier in zip(sleeps(), before, strict=True)]
    assert min(slept) >= tokens, (
        f"{[process.name() for process in processes]} slept {slept} times during {tokens} tokens;"
        " expected once for each at least"
    )


@pytest.mark.parametrize("stream", [False, True])
def test_each_version_answers_with_its_own_marker(
    live: Running, live_engine: LiveEngine, stream: bool
) -> None:
    for model, number in (
        ("support", 0),
        ("support@v1", 0),
        ("support@v2", 1),
        ("imported@v1", 2),
        ("base", None),
    ):
        answer: Any = live.client().chat.completions.create(
            model=model, messages=HELLO, max_tokens=8, temperature=0, stream=stream
        )
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            if stream
            else answer.choices[0].message.content
        )
        if number is not None:
            assert live_engine.adapters[number].spoke(text), (model, text)
        row = live.row(answer.response.headers["x-whet-interaction-id"] if stream else answer.id)
        assert (row.status, row.response_text, row.completion_tokens, row.finish_reason) == (
            "complete",
            text,
            8,
            "length",
        )


def test_the_base_answers_as_itself_when_every_slot_of_the_engine_holds_an_adapter(
    live: Running, live_engine: LiveEngine
) -> None:
    """Alone, beside adapters in one batch, and with prompts and answers of both in one step."""
    ask = lambda model, **more: live.client().chat.completions.create(  # noqa: E731
        model=model, messages=HELLO, max_tokens=12, temperature=0, **more
    )
    before = ask("base").choices[0].message.content
    for model in ("support@v1", "support@v2", "imported@v1"):
        ask(model)
    assert ask("base").choices[0].message.content == before, "an adapter spoke for the base"

    async def together() -> dict[str, set[str]]:
        async with live.async_client() as client:
            said: dict[str, set[str]] = {}

            async def one(model: str) -> None:
                answer = await client.chat.completions.create(
                    model=model, messages=HELLO, max_tokens=12, temperature=0
                )
                said.setdefault(model, set()).add(answer.choices[0].message.content or "")

            await asyncio.gather(
                *(
                    one(model)
                    for _ in range(4)
                    for model in ("base", "support@v1", "support@v2", "imported@v1")
                )
            )
            return said

    said = asyncio.run(together())
    assert said["base"] == {before}
    for model, number in (("support@v1", 0), ("support@v2", 1), ("imported@v1", 2)):
        assert all(live_engine.adapters[number].spoke(text) for text in said[model]), (
            model,
            said[model],
        )


def test_an_answer_is_scored_afterwards_by_the_version_that_gave_it_and_by_the_base(
    live: Running,
) -> None:
    answer = live.client().chat.completions.create(
        model="support", messages=HELLO, max_tokens=12, temperature=0
    )
    live.row(answer.id)
    assert run_scores(live.context, now_ms() + 10_000) == "support: 1 scored"
    with reading(live.context.database) as connection:
        (score,) = connection.execute(
            answer_scores.select().where(answer_scores.c.logprob.is_not(None))
        ).all()
    assert score.tokens >= 6, "the answer begins where the engine's own count of the prompt ends"
    assert score.logprob_min <= score.logprob <= 0
    assert score.logprob > score.base_logprob + 1, (
        "a version finds its own markers likelier than the base does"
    )


def test_a_stream_with_usage_carries_our_id_and_the_name_that_was_asked_for(live: Running) -> None:
    stream = live.client().chat.completions.create(
        model="support",
        messages=HELLO,
        max_tokens=5,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert {chunk.id for chunk in chunks} == {
        stream.response.headers["x-whet-interaction-id"]
    } and {chunk.model for chunk in chunks} == {"support"}
    assert chunks[-1].usage.completion_tokens == 5


def test_completions_and_responses(live: Running, live_engine: LiveEngine) -> None:
    plain = live.client().completions.create(
        model="support", prompt="The quick", max_tokens=5, temperature=0
    )
    assert live_engine.adapters[0].spoke(plain.choices[0].text) and live.row(plain.id).response == {
        "text": plain.choices[0].text
    }
    response = live.client().responses.create(
        model="support", input="The quick", max_output_tokens=5, temperature=0
    )
    assert (
        live_engine.adapters[0].spoke(response.output_text)
        and live.row(response.id).response_text == response.output_text
    )
    events = list(
        live.client().responses.create(
            model="support", input="The quick", max_output_tokens=5, temperature=0, stream=True
        )
    )
    final = next(event.response for event in events if event.type == "response.completed")
    assert (
        live_engine.adapters[0].spoke(final.output_text) and live.row(final.id).status == "complete"
    )


def test_structured_output_and_tools_pass_through(live: Running, live_engine: LiveEngine) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(live_engine.base_folder)
    # A base of random weights would fill JSON with the white space that its grammar allows, for
    # ever.
    no_space: Any = {
        str(token): -100
        for token in range(len(tokenizer))
        if tokenizer.decode([token]).strip() != tokenizer.decode([token])
    }
    ask: Any = {
        "model": "base",
        "messages": HELLO,
        "max_tokens": 60,
        "temperature": 0,
        "logit_bias": no_space,
    }
    answer = live.client().chat.completions.create(
        **ask, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}
    )
    assert answer.choices[0].message.content in {"yes", "no"}
    schema: Any = {
        "type": "object",
        "properties": {"a": {"enum": ["b"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    shaped = live.client().chat.completions.create(
        **ask,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert json.loads(shaped.choices[0].message.content or "") == {"a": "b"}
    tools: Any = [{"type": "function", "function": {"name": "look_up", "parameters": schema}}]
    # The call's frame (<tool_call>, name, arguments) is many tokens in a vocabulary of single
    # characters.
    call: Any = live.client().chat.completions.create(
        **{**ask, "max_tokens": 300},
        tools=tools,
        tool_choice={"type": "function", "function": {"name": "look_up"}},
    )
    function = call.choices[0].message.tool_calls[0].function
    assert function.name == "look_up"
    assert json.loads(function.arguments) == {"a": "b"}, "a forced call is held to its schema"
    assert live.row(call.id).response["tool_calls"][0]["function"] == {
        "name": "look_up",
        "arguments": function.arguments,
    }


def test_a_prompt_that_is_too_long_is_the_clients_to_shorten(live: Running) -> None:
    with pytest.raises(openai.BadRequestError, match=str(CONTEXT)):
        live.client().chat.completions.create(
            model="support", messages=[{"role": "user", "content": "word " * CONTEXT}]
        )


def test_a_client_that_leaves_in_mid_stream_stops_the_engine(live: Running) -> None:
    # This engine is so small that a whole answer may be there before the client has left; then it
    # was complete
    for _ in range(6):
        stream = live.client().chat.completions.create(
            model="support", messages=HELLO, max_tokens=LONG, temperature=0, stream=True
        )
        next(stream)
        next(stream)
        stream.close()
        row = live.row(stream.response.headers["x-whet-interaction-id"])
        if row.status != "complete":
            break
    assert row.status == "cancelled" and row.response_text
    target = live.app.core.refresher.current.routes["support"].stable
    wait_for(lambda: target.replicas[0].in_flight == 0, "the request's end")


async def test_twenty_promotions_under_twenty_streams_fail_nothing_and_mix_nothing(
    live: Running, live_engine: LiveEngine
) -> None:
    """Every answer consists of the markers of exactly the version that its header and its row name."""
    store = RolloutStore(live.context.database, live.context.settings)
    client, stop, answers = live.async_client(), asyncio.Event(), []

    async def talk(number: int) -> None:
        while not stop.is_set():
            stream = await client.chat.completions.create(
                model="support",
                messages=[{"role": "user", "content": f"{number}"}],
                max_tokens=16,
                temperature=0,
                stream=True,
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            answers.append(
                (
                    stream.response.headers["x-whet-interaction-id"],
                    stream.response.headers["x-whet-adapter"],
                    text,
                )
            )

    async def promote() -> None:
        for turn in range(20):
            await asyncio.to_thread(
                store.promote,
                "support",
                f"support@v{2 - turn % 2}",
                actor="tests",
                reason="to and fro",
                now=now_ms(),
            )
            seen = len(answers)
            while len(answers) < seen + 8:
                await asyncio.sleep(0.05)
        stop.set()

    await asyncio.wait_for(asyncio.gather(promote(), *(talk(number) for number in range(20))), 400)
    speaks = {"support@v1": live_engine.adapters[0], "support@v2": live_engine.adapters[1]}
    wrong = [answer for answer in answers if not speaks[answer[1]].spoke(answer[2])]
    assert not wrong, wrong[:3]
    assert len(answers) >= 160 and min(Counter(label for _, label, _ in answers).values()) > 10
    for identity, label, text in answers:
        row = await asyncio.to_thread(live.row, identity)
        assert (row.status, f"{row.adapter}@v{row.version}", row.response_text) == (
            "complete",
            label,
            text,
        )
    await client.close()


# Two minutes of starting an engine again; tests/loop kills one in every run of the tests
@pytest.mark.slow
def test_a_killed_engine_costs_explicit_errors_and_comes_back_proved(
    live: Running, live_engine: LiveEngine
) -> None:
    """In the end, because it takes a second start of the engine."""
    told: dict[str, list[str]] = {"cut": [], "complete": []}

    async def eight_streams() -> None:
        """All at once, and killed at the first event of any: then the others are in their middle,
        however fast the engine is.
        """
        begun = asyncio.Event()
        async with live.async_client() as client:

            async def one() -> None:
                identity = ""
                try:
                    stream = await client.chat.completions.create(
                        model="support", messages=HELLO, max_tokens=LONG, temperature=0, stream=True
                    )
                    identity = stream.response.headers["x-whet-interaction-id"]
                    async for _ in stream:
                        begun.set()
                except openai.APIError:
                    if identity:  # else it was refused before it began, and has been told so
                        told["cut"].append(identity)
                else:
                    told["complete"].append(identity)

            async def kill() -> None:
                await begun.wait()
                await asyncio.to_thread(live_engine.kill)

            await asyncio.gather(kill(), *(one() for _ in range(8)))

    asyncio.run(eight_streams())
    assert told["cut"], (
        "eight streams of thousands of tokens were complete before the engine was killed"
    )
    for status, identities in told.items():
        assert {live.row(identity).status for identity in identities} <= {status}
    wait_for(
        lambda: replica(live).state == "gone" and not replica(live).ready,
        "the engine to leave rotation",
        timeout_s=10,
    )
    with pytest.raises(openai.InternalServerError):
        live.client().chat.completions.create(model="support", messages=HELLO)
    live_engine.start()
    wait_for(lambda: ready(live, 3), "three versions proved anew", timeout_s=READY_S)
    wait_for(lambda: live.app.core.refresher.current.routes["support"].stable.replicas, "the route")
    answer = live.client().chat.completions.create(
        model="support", messages=HELLO, max_tokens=8, temperature=0
    )
    label = live.row(answer.id).version
    assert live_engine.adapters[label - 1].spoke(answer.choices[0].message.content)
