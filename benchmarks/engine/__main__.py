"""`python -m benchmarks.engine`: two real engines on the built-in base, one with Whet's plugin for
LoRA on the CPU and one without, asked in turns.

Both serve one adapter of random weights at the rank and with the layers that training makes. Rounds
alternate between them; while one is asked, the other is idle. Prints a table: tokens a second and
CPU seconds per thousand tokens of the engine's processes. Takes five minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from serving.base import base_of
from serving.processes import engine_process
from whet.access import engine_key
from whet.context import Context, open_context
from whet.registry import ENGINE_LORA_MODULES
from whet.settings import load_settings

_TICKS = os.sysconf("SC_CLK_TCK")
_QUESTION = (
    "Hello, the lamp in our hall flickers since yesterday, it is {n} months old. Is that covered,"
    " and what should I do next?"
)
_TOKENS = 60


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--port", type=int, default=18160, help="the first of two")
    options = parser.parse_args(given)
    with tempfile.TemporaryDirectory(prefix="whet-engine-") as scratch:
        context = open_context(
            load_settings(home=Path(scratch) / "home", engine_max_lora_rank=options.rank)
        )
        adapter = _adapter(context, Path(scratch) / "adapter", options.rank)
        found: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
        arms = {"without": {"VLLM_PLUGINS": "none"}, "with": {}}
        with (
            _engine(context, options.port, arms["without"], Path(scratch)) as plain,
            _engine(context, options.port + 1, arms["with"], Path(scratch)) as ours,
        ):
            engines = {"without": plain, "with": ours}
            for url, _ in engines.values():
                _post(
                    context,
                    url,
                    "/v1/load_lora_adapter",
                    {"lora_name": "a", "lora_path": str(adapter)},
                )
            for number in range(options.rounds + 1):
                for name in ("without", "with") if number % 2 else ("with", "without"):
                    for model, at_once in (("a", 1), ("a", 8), (base_of(context).engine_name, 8)):
                        figures = _ask(context, *engines[name], model, at_once)
                        if number:  # the first round warms both up
                            found.setdefault(
                                (name, "adapter" if model == "a" else "base", at_once), []
                            ).append(figures)
        context.close()
    print(
        "| model | requests at once | tokens/s without | with | ratio (lowest–highest) | CPU s per"
        " 1,000 tokens without | with |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for model, at_once in (("adapter", 1), ("adapter", 8), ("base", 8)):
        before, after = found["without", model, at_once], found["with", model, at_once]
        ratios = [b[0] / a[0] for a, b in zip(before, after, strict=True)]
        rate, cpu = (
            [statistics.median(one[place] for one in arm) for arm in (before, after)]
            for place in (0, 1)
        )
        print(
            f"| {model} | {at_once} | {rate[0]:.0f} | {rate[1]:.0f} |"
            f" {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |"
            f" {cpu[0]:.1f} | {cpu[1]:.1f} |"
        )
    return 0


def _adapter(context: Context, folder: Path, rank: int) -> Path:
    """Random weights in PEFT's format: what they say does not matter here."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        context.settings.resolved_base_model, dtype=torch.float32
    )
    made = get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(ENGINE_LORA_MODULES))
    )
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=1e-3)
    made.save_pretrained(folder, safe_serialization=True)
    return folder


@contextmanager
def _engine(
    context: Context, port: int, environment: dict[str, str], folder: Path
) -> Iterator[tuple[str, int]]:
    """(URL, process id of the group's leader) of an engine that is ready."""
    spec = engine_process(context, base_of(context), port=port)
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            spec.argv,
            env={**os.environ, **spec.environment, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 300
            while not _answers(spec.ready_url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(
                        "The engine did not become"
                        f" ready:\n{(folder / f'{port}.log').read_text(errors='replace')[-2000:]}"
                    )
                time.sleep(0.5)
            yield spec.ready_url.removesuffix("/health"), process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _post(context: Context, url: str, path: str, body: dict[str, Any]) -> None:
    headers = {
        "Authorization": f"Bearer {engine_key(context.settings.home, '')}",
        "Content-Type": "application/json",
    }
    urllib.request.urlopen(
        urllib.request.Request(url + path, json.dumps(body).encode(), headers), timeout=60
    ).close()


def _ask(context: Context, url: str, pid: int, model: str, at_once: int) -> tuple[float, float]:
    """(tokens per second, CPU seconds per thousand tokens) of 4 questions, or of 40 where several
    are asked at once.
    """
    began, cpu = time.monotonic(), _cpu(pid)
    tokens = asyncio.run(_questions(context, url, model, at_once, 4 if at_once == 1 else 40))
    return tokens / (time.monotonic() - began), 1000 * (_cpu(pid) - cpu) / tokens


async def _questions(context: Context, url: str, model: str, at_once: int, count: int) -> int:
    client = openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key=engine_key(context.settings.home, ""), max_retries=0
    )
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> int:
        async with gate:
            asked: Any = [{"role": "user", "content": _QUESTION.format(n=number)}]
            answer = await client.chat.completions.create(
                model=model,
                messages=asked,
                max_tokens=_TOKENS,
                temperature=0,
                extra_body={"ignore_eos": True},
            )
            return answer.usage.completion_tokens if answer.usage else 0

    async with client:
        return sum(await asyncio.gather(*(one(number) for number in range(count))))


def _cpu(leader: int) -> float:
    """User and system time of all processes of the leader's session so far."""
    spent = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == leader:  # session
                spent += int(fields[11]) + int(fields[12])
    return spent / _TICKS


if __name__ == "__main__":
    raise SystemExit(main())
