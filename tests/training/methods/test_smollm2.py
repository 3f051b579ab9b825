"""A short circle on a real model: SmolLM2-135M, trained in both dtypes, proved on a real engine in
both, every planted mismatch refused there, and asked through the gateway.

What the built-in base has not: 30 layers, a vocabulary of 49,152, a template that adds a system
turn of its own, weights that were trained by somebody else.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from safetensors.torch import save_file

from serving.base import base_of
from serving.engine import EngineClient
from serving.parity import EngineLogprobs, check_parity
from serving.processes import engine_process
from tests.engine_fixture import LiveEngine
from tests.serving.conftest import Running, free_port, serve, wait_for
from tests.training.methods.smollm2 import (
    ALPHA,
    DTYPES,
    LENGTH,
    RANK,
    SYSTEM,
    Trained,
    new_version,
)
from tests.training.tiny import facts
from training.data.rows import read_lines
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.store.adapter_publish import publish
from training.store.adapter_store import CONFIG, WEIGHTS
from whet.access import engine_key
from whet.context import open_context
from whet.database import reading
from whet.settings import load_settings
from whet.tables import replicas

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=DTYPES)
def live(
    request: pytest.FixtureRequest,
    smollm2: BaseModel,
    trained: dict[str, Trained],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """An engine in one dtype and a gateway, with the versions that were trained in both."""
    folder = tmp_path_factory.mktemp("smollm2")
    context = open_context(
        load_settings(
            home=folder / "home",
            base_model=str(smollm2.folder),
            engine_urls=f"http://127.0.0.1:{(port := free_port())}",
            engine_max_model_len=LENGTH,
            engine_max_lora_rank=RANK,
            engine_max_loras=2,
            engine_dtype=request.param,
            rollout_auto=False,
        )
    )
    for dtype, version in trained.items():
        publish(context, new_version(smollm2, dtype, version))
    spec = engine_process(context, base_of(context), port=port)
    log = folder / "engine.log"
    engine = LiveEngine(smollm2.folder, engine_key(context.settings.home, ""), [], spec, log)
    engine.start()
    try:
        yield from serve(context, engine, services=None)  # type: ignore[arg-type]
    finally:
        engine.kill(signal.SIGTERM)
        context.close()


def test_template_adds_its_system_turn_and_weights_are_tied(smollm2: BaseModel) -> None:
    row = read_lines([json.dumps(facts(1)[0]).encode()]).rows[0]
    encoded = Encoder(smollm2, LENGTH).encode(row)
    assert isinstance(encoded, Encoded)
    assert SYSTEM in smollm2.tokenizer.decode(encoded.ids)
    assert smollm2.config["vocab_size"] == 49152 and smollm2.config["tie_word_embeddings"]
    assert "lm_head.weight" not in smollm2.shapes


def test_fingerprint_knows_the_noise_of_bfloat16_whatever_was_trained_in(
    trained: dict[str, Trained],
) -> None:
    noise = {dtype: version.card["noise"]["base"]["mean"] for dtype, version in trained.items()}
    assert noise["float32"] == pytest.approx(noise["bfloat16"], rel=0.05), noise
    assert 0.01 < noise["float32"] < 0.2, noise


def test_versions_trained_in_both_dtypes_are_served(
    live: Running, record_property: Callable[[str, object], None]
) -> None:
    def proofs() -> Any:
        with reading(live.context.database) as connection:
            row = connection.execute(replicas.select()).first()
        assert row is None or not row.refused, row.refused
        return row and len(row.ready) == 3 and row.ready

    for name, proof in wait_for(proofs, "two proved versions", timeout_s=300).items():
        if name != "base":
            parity = proof["parity"]
            print(live.context.settings.engine_dtype, proof["engine_name"], parity)
            assert parity["template"] == "same" and parity["difference_from_base"] > 0.5
            record_property(f"{live.context.settings.engine_dtype} {proof['engine_name']}", parity)


def _layer(name: str) -> int:
    return int(name.split(".layers.")[1].split(".")[0])


def _zeroed(version: Trained, drop: Callable[[str], bool]) -> Trained:
    weights = {
        name: torch.zeros_like(value) if drop(name) else value
        for name, value in version.weights.items()
    }
    return Trained(weights, version.config, version.card)


def _renamed(version: Trained, renames: dict[str, str]) -> Trained:
    def moved(name: str) -> str:
        return next((name.replace(a, b) for a, b in renames.items() if a in name), name)

    weights = {moved(name): value for name, value in version.weights.items()}
    return Trained(weights, version.config, version.card)


def _configured(version: Trained, **changes: object) -> Trained:
    return Trained(version.weights, {**version.config, **changes}, version.card)


_SCALE, _OTHER = "at {} times the scale", "its weights or the layers"
PLANTED: dict[str, tuple[str, Callable[[Trained], Trained]]] = {
    "alpha halved": (_SCALE.format("0.50"), lambda v: _configured(v, lora_alpha=ALPHA / 2)),
    "alpha doubled": (_SCALE.format("2.00"), lambda v: _configured(v, lora_alpha=ALPHA * 2)),
    "rsLoRA": (_SCALE.format("4.00"), lambda v: _configured(v, use_rslora=True)),
    "zeroed": ("is not applied", lambda v: _zeroed(v, lambda name: True)),
    "half the layers missing": (_OTHER, lambda v: _zeroed(v, lambda name: _layer(name) >= 15)),
    "two layers swapped": (
        _OTHER,
        lambda v: _renamed(v, {".layers.20.": ".layers.21.", ".layers.21.": ".layers.20."}),
    ),
    "other modules": (
        _OTHER,
        lambda v: _renamed(v, {".gate_proj.": ".up_proj.", ".up_proj.": ".gate_proj."}),
    ),
    "without attention": (_OTHER, lambda v: _zeroed(v, lambda name: "self_attn" in name)),
}


def test_planted_mismatches_are_refused_by_their_cause(
    live: Running, smollm2: BaseModel, trained: dict[str, Trained], tmp_path: Path
) -> None:
    planted = {
        f"{name}, trained in {dtype}": (cause, trained[dtype].card, plant(trained[dtype]))
        for name, (cause, plant) in PLANTED.items()
        for dtype in DTYPES
    }
    for dtype, other in zip(DTYPES, reversed(DTYPES), strict=True):
        name = f"another adapter, trained in {dtype}"
        planted[name] = (_OTHER, trained[dtype].card, _shuffled(trained[other]))
    said = asyncio.run(_reasons(live, planted, trained, tmp_path))
    assert {name for name, (cause, *_) in planted.items() if cause in said[name]} == set(planted), (
        said
    )


def _shuffled(version: Trained) -> Trained:
    """Weights of the same size that belong to no training: rows of every matrix in reverse."""
    weights = {name: value.flip(0).contiguous() for name, value in version.weights.items()}
    return Trained(weights, version.config, version.card)


async def _reasons(
    live: Running,
    planted: dict[str, tuple[str, dict[str, Any], Trained]],
    trained: dict[str, Trained],
    folder: Path,
) -> dict[str, str]:
    """Why each is refused by the comparison that the reconciler makes."""
    served = base_of(live.context).engine_name
    found: dict[str, str] = {}
    async with aiohttp.ClientSession() as session:
        key = engine_key(live.context.settings.home, "")
        client = EngineClient(session, live.engine.url, {"Authorization": f"Bearer {key}"})

        async def measure(name: str, card: dict[str, Any]) -> list[float]:
            asked = [await client.prompt_logprobs(name, p["token_ids"]) for p in card["prompts"]]
            return [value for values in asked for value in values]

        bases = {dtype: await measure(served, v.card) for dtype, v in trained.items()}
        for number, (name, (_, card, version)) in enumerate(planted.items()):
            place = folder / str(number)
            place.mkdir()
            save_file(version.weights, str(place / WEIGHTS))
            (place / CONFIG).write_text(json.dumps(version.config))
            await client.load(f"planted-{number}", str(place))
            base = next(bases[dtype] for dtype in DTYPES if trained[dtype].card is card)
            measured = EngineLogprobs(await measure(f"planted-{number}", card), base)
            result = check_parity(name, card, measured, limit=LENGTH)
            print(name, result)
            found[name] = result.reason
            await client.unload(f"planted-{number}")
    return found


def test_questions_and_tool_turns_are_answered_through_the_gateway(live: Running) -> None:
    question = {"role": "user", "content": "How long is the warranty of the kettle?"}
    client = live.client()
    for model in ("desk-float32@v1", "base"):
        answer = client.chat.completions.create(
            model=model, messages=[question], max_tokens=16, temperature=0, timeout=120
        )
        print(model, answer.choices[0].message.content)
        assert answer.choices[0].message.content and answer.usage.prompt_tokens > 20
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "warranty", "arguments": '{"item": "kettle"}'},
    }
    turns = [
        question,
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "24 months"},
    ]
    plain = client.chat.completions.create(
        model="desk-float32@v1", messages=turns, max_tokens=16, temperature=0, timeout=120
    )
    print("tool turn", plain.choices[0].message.content)
    assert plain.choices[0].message.content
    assert plain.usage.prompt_tokens > answer.usage.prompt_tokens, (
        "the tool's result is in the prompt"
    )
