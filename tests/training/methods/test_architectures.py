"""Nine architectures, shrunk and of random weights: trained by their family's recipe, stored,
loaded by real vLLM and proved there.

Mixtures of experts are not among them: with adapters enabled, vLLM 0.32 chooses a Triton kernel for
experts, which its CPU build lacks. They are merged, and served as a base. One engine after the
other; each costs a start of about a minute, so all of them are slow tests.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from serving.base import base_of
from serving.engine import EngineClient, EngineRefusedError
from serving.processes import engine_process
from tests.engine_fixture import LiveEngine
from tests.serving.conftest import free_port, serve, wait_for
from tests.training.methods.test_merged import PROMPTS, TOKENS, trained_and_merged
from tests.training.test_trainer import go
from tests.training.tiny import BRACKETS, CHATML, TURNS, build_base, facts
from training.adapters.export import export_merged
from training.models.base_choice import open_base
from training.recipes.recipe import load_recipe
from whet.access import engine_key
from whet.context import open_context
from whet.database import reading
from whet.settings import load_settings
from whet.tables import replicas

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(500)]

# Architecture → (recipe of its family, chat template, what its configuration needs beyond the
# common shape).
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Llama": ("llama", CHATML, {}),
    "Mistral": ("mistral", BRACKETS, {"sliding_window": 128}),
    "Qwen2": ("qwen", CHATML, {}),
    "Qwen3": ("qwen", CHATML, {}),
    "Gemma": ("gemma", TURNS, {}),
    "Gemma2": ("gemma", TURNS, {"query_pre_attn_scalar": 32, "sliding_window": 128}),
    "Phi3": ("phi", CHATML, {"tie_word_embeddings": False}),
    "Granite": ("granite", CHATML, {}),
    # Its usual sixteenth hides what so small an adapter does
    "Cohere": ("lora", CHATML, {"logit_scale": 1.0}),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_goes_from_training_to_parity_on_the_engine(
    architecture: str, tmp_path: Path, record_property: Any
) -> None:
    recipe, template, extra = ARCHITECTURES[architecture]
    # Heads of 32: the CPU engine has no attention kernel for smaller ones.
    base = build_base(
        tmp_path / "base", template=template, architecture=architecture, hidden=128, **extra
    )
    context = open_context(
        load_settings(
            home=tmp_path / "home",
            base_model=str(base),
            engine_max_model_len=256,
            engine_max_lora_rank=32,
            engine_max_loras=1,
            engine_start_timeout_s=300,
            engine_urls=f"http://127.0.0.1:{(port := free_port())}",
        )
    )
    outcome = go(context, facts(60), load_recipe(recipe), epochs=2.0, learning_rate=5e-3)
    assert outcome.trained.last_loss < outcome.trained.first_loss
    spec = engine_process(context, base_of(context), port=port)
    engine = LiveEngine(
        base, engine_key(context.settings.home, ""), [], spec, tmp_path / "engine.log"
    )
    engine.start()
    try:
        for running in serve(context, engine, services=None):  # type: ignore[arg-type]
            digest = outcome.adapter.digest

            def proof(digest: str = digest) -> Any:
                with reading(running.context.database) as connection:  # noqa: B023
                    row = connection.execute(replicas.select()).first()
                assert engine.process and engine.process.poll() is None, engine.log.read_text(
                    errors="replace"
                )[-3000:]
                assert row is None or digest not in row.refused, row.refused[digest]
                return row and row.ready.get(digest)

            parity = wait_for(proof, "parity", timeout_s=120)["parity"]
    finally:
        engine.kill(signal.SIGTERM)
        context.close()
    print(
        architecture,
        {name: parity[name] for name in ("mean", "max", "base_mean", "difference_from_base")},
    )
    assert parity["measured"] and parity["deviation"]["adapter"] <= parity["allowed"]["adapter"]
    assert parity["difference_from_base"] > 0.1, (
        "an adapter without effect would agree with anything"
    )


EXPERTS: dict[str, dict[str, Any]] = {
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.mark.parametrize("architecture", EXPERTS)
def test_a_mixture_of_experts_is_trained_merged_and_served_as_a_base_that_agrees_with_the_trainer(
    architecture: str, tmp_path: Path
) -> None:
    base = build_base(
        tmp_path / "base",
        architecture=architecture,
        hidden=128,
        tie_word_embeddings=False,
        **EXPERTS[architecture],
    )
    settings: dict[str, Any] = {
        "engine_max_model_len": 256,
        "engine_start_timeout_s": 300,
        "engine_max_loras": 0,
    }
    context = open_context(load_settings(home=tmp_path / "home", base_model=str(base)))
    outcome = go(context, facts(60), load_recipe("moe"), epochs=4.0, learning_rate=5e-3)
    model = open_base(context.settings)
    export_merged(context, outcome.adapter, model, tmp_path / "merged")
    prompts = outcome.adapter.card["fingerprint"]["prompts"]
    context.close()

    context = open_context(
        load_settings(home=tmp_path / "serving", base_model=str(tmp_path / "merged"), **settings)
    )
    served = base_of(context)
    engine = LiveEngine(
        served.folder or base,
        engine_key(context.settings.home, ""),
        [],
        engine_process(context, served, port=free_port()),
        tmp_path / "log",
    )
    engine.start()
    try:
        found, refused = asyncio.run(
            _measured(engine, served.engine_name, [prompt["token_ids"] for prompt in prompts])
        )
    finally:
        engine.kill(signal.SIGTERM)
        context.close()
    pairs = [
        (ours, theirs)
        for prompt, of_engine in zip(prompts, found, strict=True)
        for ours, theirs in zip(prompt["adapter_logprobs"][1:], of_engine, strict=True)
    ]
    effect = [
        (ours, base)
        for prompt in prompts
        for ours, base in zip(
            prompt["adapter_logprobs"][1:], prompt["base_logprobs"][1:], strict=True
        )
    ]
    apart, moved = (
        sum(abs(one - other) for one, other in some) / len(some) for some in (pairs, effect)
    )
    print(architecture, {"mean": apart, "difference_from_base": moved})
    assert moved > 0.1, "training without effect would agree with anything"
    assert apart < 0.05
    assert "takes no adapters" in refused


async def _measured(
    engine: LiveEngine, name: str, prompts: list[list[int]]
) -> tuple[list[list[float]], str]:
    """(log-probabilities of the prompts' tokens, what the engine's client says to an adapter)."""
    async with aiohttp.ClientSession() as session:
        client = EngineClient(session, engine.url, {"Authorization": f"Bearer {engine.key}"})
        found = [await client.prompt_logprobs(name, prompt) for prompt in prompts]
        with pytest.raises(EngineRefusedError) as refused:
            await client.load("adapter", "/no-such-folder")
        return found, str(refused.value)


def test_the_engine_says_the_same_through_an_adapter_and_from_the_merged_model(
    tmp_path: Path,
) -> None:
    """Fifty prompts at temperature 0 on two engines, one after the other: the built-in base with
    the adapter loaded, and the merged folder.
    """
    context = open_context(load_settings(home=tmp_path / "home"))
    adapter, prompts = trained_and_merged(context, tmp_path / "merged")
    folder = context.store.local_folder(adapter.path)
    context.close()
    beside = _answers(tmp_path / "one", "", prompts, folder)
    merged = _answers(tmp_path / "two", str(tmp_path / "merged"), prompts, None)
    assert [number for number in range(PROMPTS) if beside[number] != merged[number]] == []


def _answers(
    home: Path, base_model: str, prompts: list[list[int]], adapter: Path | None
) -> list[list[int]]:
    """Token ids that an engine of its own writes to each prompt."""
    context = open_context(
        load_settings(
            home=home,
            base_model=base_model,
            engine_max_model_len=256,
            engine_max_lora_rank=16,
            engine_start_timeout_s=300,
        )
    )
    base = base_of(context)
    engine = LiveEngine(
        home,
        engine_key(home, ""),
        [],
        engine_process(context, base, port=free_port()),
        home / "engine.log",
    )
    engine.start()
    try:
        client = openai.OpenAI(
            base_url=f"{engine.url}/v1", api_key=engine.key, max_retries=0, timeout=60
        )
        name = base.engine_name
        if adapter is not None:
            name = "merged-or-not"
            client.post(
                "/load_lora_adapter",
                cast_to=str,
                body={"lora_name": name, "lora_path": str(adapter)},
            )
        extra = {"return_token_ids": True}
        answers = [
            client.completions.create(
                model=name, prompt=prompt, max_tokens=TOKENS, temperature=0, extra_body=extra
            )
            for prompt in prompts
        ]
        return [list(answer.choices[0].token_ids) for answer in answers]  # type: ignore[attr-defined]
    finally:
        engine.kill(signal.SIGTERM)
        context.close()
