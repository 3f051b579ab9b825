"""Starts of LoRA's matrices: what PiSSA and OLoRA take from the base is given back before a version
is stored.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.run.small import RECIPE, encoded, fresh, weights
from tests.training.run.test_checkpoint import _kept
from tests.training.test_trainer import go, prepared_run
from tests.training.tiny import facts
from training.loop.trainer import train
from training.methods.families import family
from training.models.base_model import BaseModel
from training.models.fingerprint import logprobs
from training.models.lora import INITIAL, add_lora, served_adapter, with_stored
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from training.recipes.recipe_checks import check_servable
from training.runs.search import Plan, Search
from training.store.adapter_publish import read_weights
from whet.context import Context
from whet.errors import InputError
from whet.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")

STARTS = ("gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")
PLAIN = replace(RECIPE, dropout=0.0, epochs=2.0)


@pytest.fixture
def home(sqlite_context: Context, base_folder: Path) -> Context:
    settings = load_settings(home=sqlite_context.settings.home, base_model=str(base_folder))
    return replace(sqlite_context, settings=settings)


def _ids(base: BaseModel) -> list[int]:
    return list(encoded(base, 1)[0].ids)


def _apart(one: list[Any], other: list[Any]) -> float:
    assert one[0] is other[0] is None, "nothing precedes the first token"
    return max(abs(left - right) for left, right in zip(one[1:], other[1:], strict=True))


@pytest.mark.parametrize("start", STARTS)
def test_before_the_first_step_the_model_answers_like_the_base(base: BaseModel, start: str) -> None:
    ids = _ids(base)
    model = fresh(base, replace(PLAIN, init_lora_weights=start))
    assert _apart(logprobs(model.eval(), ids), logprobs(base.load_model("float32"), ids)) < 1e-3
    learned = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learned and all(".default." in name for name in learned)
    assert (INITIAL in model.peft_config) == start.startswith(("pissa", "olora"))


@pytest.mark.parametrize("method", ["lora", "rslora"])
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_is_served_is_what_was_trained_on_the_unchanged_base(
    home: Context, base: BaseModel, method: str, start: str
) -> None:
    fields: dict[str, Any] = {"rank": 4, "alpha": 8.0, "epochs": 2.0, "dtype": "float32"}
    prepared, _ = prepared_run(
        home, facts(24), load_recipe(method), init_lora_weights=start, learning_rate=5e-3, **fields
    )
    ids, made = _ids(base), family(METHODS[method])
    untouched = logprobs(base.load_model("float32"), ids)
    model = made.build(prepared)
    train(model, prepared.train, [], prepared.recipe, pad_id=0, on_step=lambda step: None)
    trained = logprobs(model.eval(), ids)
    assert _apart(trained, untouched) > 0.1, "nothing was learned, so this shows nothing"
    served = made.candidate(model, prepared)
    assert _apart(logprobs(served, ids), trained) < 2e-3
    with served.disable_adapter():
        assert logprobs(served, ids) == untouched
    config = served.peft_config["default"]
    assert config.r == 8 and list(served.peft_config) == ["default"]
    again = with_stored(base.load_model("float32"), *reversed(served_adapter(served, "float32")))
    assert logprobs(again, ids) == logprobs(served, ids)


@pytest.mark.seconds
def test_the_fingerprint_of_a_version_is_that_of_the_converted_adapter(
    home: Context, base: BaseModel
) -> None:
    fields: dict[str, Any] = {"rank": 4, "alpha": 8.0, "epochs": 2.0, "learning_rate": 5e-3}
    outcome = go(home, facts(40), load_recipe("lora"), init_lora_weights="pissa", **fields)
    assert outcome.adapter is not None and outcome.adapter.rank == 8
    stored, config = read_weights(home, outcome.adapter)
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16.0, True)
    assert {tensor.shape[0] for name, tensor in stored.items() if "lora_A" in name} == {8}
    assert outcome.adapter.card["recipe"]["init_lora_weights"] == "pissa"
    prompt = outcome.adapter.card["fingerprint"]["prompts"][0]
    served = with_stored(base.load_model("float32"), config, stored)
    found = logprobs(served, prompt["token_ids"])
    recorded = prompt["adapter_logprobs"]
    assert _apart(found, recorded) < 1e-3
    assert _apart(recorded, prompt["base_logprobs"]) > 0.05


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    base: BaseModel, tmp_path: Path, dtype: str
) -> None:
    import torch

    recipe = replace(PLAIN, init_lora_weights="pissa", dtype=dtype)
    rows = encoded(base, 32)

    def run(**more: Any) -> Any:
        model = fresh(base, recipe)
        train(model, rows, [], recipe, pad_id=0, **{"on_step": lambda step: None, **more})
        return weights(model)

    class Stopped(Exception):
        pass

    def stop(step: Any) -> None:
        if step.step == 4:
            raise Stopped

    undisturbed = run()
    with pytest.raises(Stopped):
        run(on_step=stop, checkpoints=_kept(tmp_path))
    kept = _kept(tmp_path)
    assert torch.equal(run(checkpoints=kept, resume=kept.resume()), undisturbed)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"init_lora_weights": "svd"}, "expected one of default, gaussian, orthogonal, pissa"),
        ({"init_lora_weights": "pissa_niter_0"}, "pissa_niter_16"),
        ({"init_lora_weights": "pissa", "init_from": "production"}, "goes on from a version"),
        ({"init_lora_weights": "orthogonal", "rank": 5}, "an even number"),
        ({"init_lora_weights": "pissa", "method": "qlora"}, "The method qlora has no"),
        ({"init_lora_weights": "pissa", "method": "dpo"}, "The method dpo has no"),
        ({"init_lora_weights": "olora", "method": "full"}, "The method full has no"),
    ],
)
def test_a_start_that_cannot_be_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        recipe_from(fields)


def test_a_rank_that_doubles_above_what_the_engine_serves_is_refused(home: Context) -> None:
    recipe = Recipe(rank=40, init_lora_weights="pissa")
    with pytest.raises(
        InputError, match=r"Rank 80 cannot be served.*rank 40 makes .* of rank 80"
    ) as caught:
        check_servable(recipe, 64)
    assert "--rank 32 or less" in caught.value.hint
    check_servable(replace(recipe, rank=32), 64)
    check_servable(replace(recipe, init_lora_weights="gaussian"), 64)
    prepared, _ = prepared_run(home, facts(24), Recipe(rank=8, init_lora_weights="olora"))
    assert max(Search(home, prepared, Plan(("rank",), max_rank=64))._ranks()) == 32


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_layer_with_fewer_directions_than_the_rank_is_named(base: BaseModel, start: str) -> None:
    recipe = replace(PLAIN, rank=40, init_lora_weights=start)
    with pytest.raises(InputError, match=r"needs 40 directions of each layer; .*k_proj has 32"):
        add_lora(base.load_model("float32"), recipe)
