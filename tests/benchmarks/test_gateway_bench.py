"""The pure parts of the gateway benchmark: what it reads, divides and prints, and what its upstream
answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.gateway import mock_upstream
from benchmarks.gateway.__main__ import main
from benchmarks.gateway.exact import Received, Row, compare
from benchmarks.gateway.figures import Spread, paired_ratios, parse_wrk, summarise, table

_RAW = {
    "requests": 1000, "duration_us": 2_000_000, "bytes": 5_000, "p50_us": 1500, "p90_us": 2500, "p99_us": 9000, "max_us": 12_000,
    "connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0, "checked": 1000, "broken": 0,
}  # fmt: skip


def _output(**changes: int) -> str:
    return (
        "Running 2s test @ http://127.0.0.1\n  1 threads and 32 connections\nRESULT"
        f" {json.dumps(_RAW | changes)}\n"
    )


def _run(
    number: int, arm: str, per_second: float, cell: str = "json-32", **more: object
) -> dict[str, object]:
    figures = {
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "cpu_us": None if arm == "direct" else 250.0,
        "sustained_per_second": None,
    }
    return {"round": number, "cell": cell, "arm": arm, "per_second": per_second, **figures, **more}


def test_wrks_line_is_read_in_seconds_and_milliseconds() -> None:
    load = parse_wrk(_output())
    assert (load.responses, load.per_second, load.p50_ms, load.p99_ms) == (1000, 500.0, 1.5, 9.0)
    assert load.failures == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"broken": 3}, "3 of 1000 answers were not 200 and whole"),
        ({"checked": 998}, "2 answers were not read"),
        ({"read": 2, "connect": 1}, "3 connections failed"),
        ({"timeout": 4}, "4 requests had no answer"),
        ({"requests": 0, "checked": 0}, "no answer at all"),
    ],
)
def test_every_way_to_fail_is_said(changes: dict[str, int], said: str) -> None:
    assert any(said in sentence for sentence in parse_wrk(_output(**changes)).failures)


def test_the_first_broken_answer_is_quoted() -> None:
    load = parse_wrk(_output(broken=1) + "BROKEN 500 the engine failed\n")
    assert "500 the engine failed" in load.failures[0]


def test_output_without_a_result_is_an_error_that_quotes_it() -> None:
    with pytest.raises(BenchmarkError, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1")


def test_ratios_are_taken_within_a_round() -> None:
    runs = [
        _run(1, "whet", 100),
        _run(1, "litellm", 10),
        _run(2, "whet", 300),
        _run(2, "litellm", 10),
        _run(3, "whet", 50),
    ]
    assert paired_ratios(runs, "json-32", "whet", "litellm") == [10.0, 30.0]


def test_a_peer_that_answered_nothing_gives_no_ratio() -> None:
    assert (
        paired_ratios([_run(1, "whet", 100), _run(1, "litellm", 0)], "json-32", "whet", "litellm")
        == []
    )


def test_a_spread_is_the_median_with_what_lies_around_it() -> None:
    assert Spread.of([3.0, 1.0, 2.0]).plain() == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert Spread.of([0.0123456, 123456.0]).plain() == {
        "median": 61730.0,
        "low": 0.01235,
        "high": 123500.0,
    }
    with pytest.raises(BenchmarkError):
        Spread.of([])


@pytest.fixture
def result() -> dict[str, object]:
    runs = [
        _run(1, "direct", 50_000),
        _run(1, "whet", 4000, sustained_per_second=3800.0),
        _run(1, "litellm", 100, cpu_us=9000.0),
        _run(2, "direct", 50_000),
        _run(2, "whet", 5000, sustained_per_second=4700.0),
        _run(2, "litellm", 100, cpu_us=9500.0),
    ]
    return {
        "command": "python -m benchmarks.gateway",
        "commit": "abc",
        "started_at": "2026-01-31 09:30 UTC",
        "machine": {
            "cpu": "A CPU",
            "cores": 2,
            "kernel": "6.1",
            "python": "3.11",
            "other_cpu": {"median": 0.03, "low": 0.01, "high": 0.05},
        },
        "versions": {"litellm": "1.0"},
        "rounds": 2,
        "seconds": 5,
        "summary": summarise(runs),
        "memory_mib": {"whet": 120},
        "log": {
            "responses": 9,
            "complete": 10,
            "asked": 12,
            "rows": 12,
            "exact_received": 4,
            "exact_rows": 4,
            "exact_wrong": 0,
        },
        "failures": [],
    }


def test_the_table_holds_medians_ranges_and_ratios(result: dict[str, object]) -> None:
    lines = table(result).splitlines()
    row = next(line for line in lines if line.startswith("| LiteLLM"))
    assert "100 (100–100)" in row
    assert "45.0 (40.0–50.0)" in row  # Whet is 45 times that
    assert next(line for line in lines if line.startswith("| Whet")).endswith("| 1 |")
    # No CPU of its own
    assert next(line for line in lines if line.startswith("| direct")).count("–") > 1
    assert "Failures: none" in lines


def test_a_busy_machine_is_said(result: dict[str, object]) -> None:
    assert "machine was busy" not in table(result)
    result["machine"]["other_cpu"]["median"] = 0.5
    assert "machine was busy" in table(result)


def test_failures_stay_in_the_table(result: dict[str, object]) -> None:
    result["failures"] = ["round 1: something broke"]
    assert "- round 1: something broke" in table(result).splitlines()


def test_answers_and_rows_are_compared_one_by_one() -> None:
    answers = [
        Received("a", False, "1"),
        Received("b", True, "2"),
        Received("c", True, "3"),
        Received("d", True, "4"),
    ]
    rows = [
        Row("a", False, "1", "complete"),
        Row("b", True, "other", "complete"),  # other content
        Row("c", True, "3", "cancelled"),  # says it was not received
        Row("e", True, "5", "complete"),  # nobody received it; and d has no row
    ]
    assert compare(answers, rows) == {"exact_received": 4, "exact_rows": 4, "exact_wrong": 4}
    assert compare(answers[:1], rows[:1] * 2)["exact_wrong"] == 1
    assert compare(answers[:1], rows[:1])["exact_wrong"] == 0


@pytest.mark.parametrize(
    "arguments",
    [["--arms", "whet,nobody"], ["--loads", ""], ["--rounds", "0"], ["--seconds", "-1"]],
)
def test_arguments_that_make_no_sense_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


# --- the upstream ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    state = mock_upstream.State()
    server = await asyncio.get_running_loop().create_server(
        lambda: mock_upstream.Upstream(state), "127.0.0.1", 0
    )
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_the_upstream_answers_json_with_the_callers_id_and_model(upstream: str) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.post(
            f"{upstream}/v1/chat/completions",
            data=b'{"model": "support@v1", "messages": []}',
            headers={"x-request-id": "int_1"},
        ) as response:
            answer = await response.json()
        assert (answer["id"], answer["model"]) == ("chatcmpl-int_1", "support@v1")
        assert answer["choices"][0]["message"]["content"] == "".join(mock_upstream.WORDS)
        async with session.get(f"{upstream}/mock/stats") as response:
            assert await response.json() == {"asked": 1, "sent": 1}


@pytest.mark.parametrize("pace_ms", [0, 0.1])
async def test_the_upstream_streams_the_same_events_at_once_and_paced(
    upstream: str, pace_ms: float
) -> None:
    body = b'{"model":"support--v1--ab","stream":true,"stream_options":{"include_usage":true}}'
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{upstream}/mock/pace", json={"ms": pace_ms}) as response:
            assert response.status == 200
        async with session.post(
            f"{upstream}/v1/chat/completions", data=body, headers={"x-request-id": "int_1"}
        ) as response:
            content = await response.read()
    assert content == b"".join(mock_upstream.events("support--v1--ab", "chatcmpl-int_1", True))
    assert content.endswith(b"data: [DONE]\n\n")


async def test_the_upstream_loads_adapters_and_says_other_probabilities_for_them(
    upstream: str,
) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.post(
            f"{upstream}/v1/load_lora_adapter",
            json={"lora_name": "a--v1--ab", "lora_path": "/adapters/a"},
        ) as response:
            assert response.status == 200
        async with session.get(f"{upstream}/v1/models") as response:
            names = [(card["id"], card["parent"]) for card in (await response.json())["data"]]
        assert names == [(mock_upstream.BASE_MODEL, None), ("a--v1--ab", mock_upstream.BASE_MODEL)]
        found = {}
        for model in (mock_upstream.BASE_MODEL, "a--v1--ab"):
            async with session.post(
                f"{upstream}/v1/completions",
                json={"model": model, "prompt": [5, 6], "prompt_logprobs": 0},
            ) as response:
                found[model] = (await response.json())["choices"][0]["prompt_logprobs"]
        assert found[mock_upstream.BASE_MODEL][0] is None
        assert (
            found["a--v1--ab"][1]["6"]["logprob"]
            == found[mock_upstream.BASE_MODEL][1]["6"]["logprob"] - 4
        )
