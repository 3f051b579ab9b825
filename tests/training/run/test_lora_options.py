"""LoRA+ and NEFTune: what they change in the loop, what they leave alone, and that a resumed run
keeps both to the bit.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.run.small import RECIPE, encoded, fresh, weights
from tests.training.run.test_checkpoint import _kept
from training.loop.loss import mean_loss, noisy_embeddings, plain
from training.loop.master_weights import MasterWeights, set_rate
from training.loop.row_threads import row_thread_count
from training.loop.trainer import train
from training.models.base_model import BaseModel
from training.recipes.methods import METHODS
from training.recipes.recipe import Recipe, recipe_from
from training.recipes.recipe_checks import relevant_fields
from whet.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN = replace(RECIPE, dropout=0.0, epochs=2.0)


class _Stopped(Exception):
    pass


def _train(base: BaseModel, recipe: Recipe, **more: Any) -> Any:
    rows, model = encoded(base, 40), fresh(base, recipe)
    train(model, rows[:32], rows[32:], recipe, pad_id=0, **{"on_step": lambda step: None, **more})
    return model


def test_loraplus_gives_b_a_multiple_of_the_rate_of_a(base: BaseModel) -> None:
    model = fresh(base, PLAIN)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    masters = MasterWeights(model)
    optimiser = masters.optimiser(0.1, 16.0)
    set_rate(optimiser, 1e-3)
    by_copy = dict(zip(map(id, masters.copies), masters.parameters, strict=True))
    rates = {
        names[id(by_copy[id(copy)])]: (group["lr"], group["weight_decay"])
        for group in optimiser.param_groups
        for copy in group["params"]
    }
    assert len(rates) == len(masters.parameters)
    assert {rate for name, rate in rates.items() if ".lora_A" in name} == {(1e-3, 0.1)}
    assert {rate for name, rate in rates.items() if ".lora_B" in name} == {(16e-3, 0.1)}
    found = [copy for group in optimiser.param_groups for copy in group["params"]]
    assert list(map(id, found)) == list(map(id, masters.copies)), (
        "a checkpoint numbers by this order"
    )


def test_loraplus_learns_other_weights_and_a_ratio_of_one_the_same(base: BaseModel) -> None:
    import torch

    before = weights(_train(base, PLAIN))
    assert torch.equal(weights(_train(base, replace(PLAIN, loraplus_lr_ratio=1.0))), before)
    assert not torch.equal(weights(_train(base, replace(PLAIN, loraplus_lr_ratio=4.0))), before)


def test_noise_is_added_while_training_and_nowhere_else(base: BaseModel) -> None:
    import torch

    recipe, rows = replace(PLAIN, neftune_noise_alpha=10.0), encoded(base, 8)
    model = fresh(base, recipe)
    embeddings, ids = plain(model).get_input_embeddings(), torch.tensor([rows[0].ids])
    clean = embeddings(ids)
    quiet_loss = mean_loss(model, rows, PLAIN, 0)
    with noisy_embeddings(model, recipe):
        # In training mode, as PEFT leaves a new model
        noise = (embeddings(ids) - clean).abs().max()
        assert 0 < noise <= 10.0 / (clean.shape[1] * clean.shape[2]) ** 0.5
        assert mean_loss(model, rows, recipe, 0) == quiet_loss, (
            "held-out rows are read without noise"
        )
    assert torch.equal(embeddings(ids), clean) and not hasattr(embeddings, "neftune_noise_alpha")


def test_noise_changes_what_is_learned_and_follows_from_the_seed(base: BaseModel) -> None:
    import torch

    noisy = replace(PLAIN, neftune_noise_alpha=5.0)
    first, again, other = (
        weights(_train(base, recipe)) for recipe in (noisy, noisy, replace(noisy, seed=1))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first, weights(_train(base, PLAIN)))
    assert row_thread_count(replace(noisy, threads=4), "cpu") == 1, (
        "threads would draw in any order"
    )
    assert row_thread_count(replace(PLAIN, threads=4), "cpu") == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stopped_run_with_both_goes_on_to_the_same_bits(
    base: BaseModel, tmp_path: Path, dtype: str
) -> None:
    import torch

    recipe = replace(PLAIN, neftune_noise_alpha=5.0, loraplus_lr_ratio=8.0, dtype=dtype)
    undisturbed = weights(_train(base, recipe))

    def stop(step: Any) -> None:
        if step.step == 4:
            raise _Stopped

    with pytest.raises(_Stopped):
        _train(base, recipe, on_step=stop, checkpoints=_kept(tmp_path))
    kept = _kept(tmp_path)
    snapshot = kept.resume()
    assert snapshot is not None and snapshot.state.step == 3
    assert torch.equal(
        weights(_train(base, recipe, checkpoints=kept, resume=snapshot)), undisturbed
    )


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("full", "loraplus_lr_ratio"),
        ("ia3", "loraplus_lr_ratio"),
        ("rlhf", "loraplus_lr_ratio"),
        ("prompt", "neftune_noise_alpha"),
        ("dpo", "neftune_noise_alpha"),
    ],
)
def test_methods_without_the_field_refuse_it(method: str, field: str) -> None:
    with pytest.raises(InputError, match=f"The method {method} has no {field}"):
        recipe_from({"method": method, field: 5.0})
    assert field not in relevant_fields({"method": method, field: 5.0})


def test_values_out_of_range_are_refused() -> None:
    for field, value in (("loraplus_lr_ratio", 0.5), ("neftune_noise_alpha", -1.0)):
        with pytest.raises(InputError, match=field):
            recipe_from({field: value})


def test_a_librarys_trainer_takes_loraplus(base: BaseModel, tmp_path: Path) -> None:
    """TRL's loop: the same two rates, over the float32 copies."""
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from training.methods.trl_trainer import Ready

    assert "loraplus_lr_ratio" in METHODS["dpo"].reads

    class Trainer(Ready, DPOTrainer):
        loraplus_lr_ratio = 16.0

    from datasets import Dataset

    row = {"prompt_ids": [5, 6], "chosen_ids": [7, 4], "rejected_ids": [8, 4]}
    config = DPOConfig(output_dir=str(tmp_path), learning_rate=1e-3, use_cpu=True, report_to=[])
    trainer = Trainer(
        fresh(base, PLAIN, fused=False),
        args=config,
        train_dataset=Dataset.from_list([row] * 4),
        processing_class=base.tokenizer,
    )
    made = trainer.create_optimizer()
    assert [group["lr"] for group in made.param_groups if group["params"]] == [1e-3, 16e-3]
    copies = set(map(id, trainer.masters.copies))
    assert {id(each) for group in made.param_groups for each in group["params"]} == copies
    assert trainer.create_optimizer() is made
