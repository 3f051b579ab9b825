"""What a library's trainers are told and what they say: batches, pairs, rates, losses that are no
numbers, and a reward model that learned nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.methods.test_methods import preferences, trained
from tests.training.test_trainer import go, prepared_run, read_rows
from tests.training.tiny import facts
from training.loop import throughput
from training.loop.batches import collate
from training.loop.diagnostics import warn_weak_rewards
from training.loop.generation import answer_limit
from training.loop.loss import batch_loss
from training.loop.pairs import (
    Pair,
    Rated,
    Work,
    check_batches,
    examples,
    max_completion_tokens,
    mismatched,
    padded,
    pairs,
    rated,
    sequences,
    with_longest_completions,
    work,
    work_of_pairs,
)
from training.loop.throughput import Written, write, writing_seconds
from training.loop.trainer import Step
from training.methods import preference, rlhf
from training.methods import trl_trainer as common
from training.methods.trl_progress import Progress
from training.methods.trl_progress import trained as done
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.plan.estimates import estimate
from training.plan.reporter import Reporter
from training.recipes.methods import METHODS, RATINGS
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from training.runs.load_model import measured
from whet.context import Context
from whet.errors import InputError, TrainingError
from whet.settings import load_settings


@pytest.fixture
def home(sqlite_context: Context, base_folder: Path) -> Context:
    return replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )


# --- batches ----------------------------------------------------------------------------------------------------------


def test_parts_of_a_batch_and_layers_computed_again_change_no_result(home: Context) -> None:
    fields: dict[str, Any] = {"rows": preferences(24), "epochs": 1.0, "batch_size": 4}
    whole = trained(home, "dpo", None, **fields).trained
    parts = trained(home, "dpo", None, micro_batch=2, gradient_checkpointing=True, **fields).trained
    assert whole.steps == parts.steps >= 5
    prepared, _ = prepared_run(
        home,
        preferences(24),
        load_recipe("dpo"),
        batch_size=4,
        micro_batch=2,
        gradient_checkpointing=True,
    )
    told = common.arguments(prepared, "", 19)
    assert (
        told["per_device_train_batch_size"],
        told["gradient_accumulation_steps"],
        told["gradient_checkpointing"],
    ) == (2, 2, True)
    assert parts.first_loss == pytest.approx(
        whole.first_loss, abs=1e-5
    ) and parts.last_loss == pytest.approx(whole.last_loss, abs=1e-3)


@pytest.mark.slow  # the same of every other method, and each costs a run
@pytest.mark.parametrize("method", ["kto", "orpo"])
def test_other_methods_take_parts_of_a_batch_too(home: Context, method: str) -> None:
    made = trained(home, method, None, batch_size=8, micro_batch=4, gradient_checkpointing=True)
    assert made.adapter is not None
    learned = made.adapter.card["recipe"]["rows"]["train"] * (2 if method == "kto" else 1)
    assert (
        made.trained.steps == 2 * math.ceil(learned / 8)
        and made.trained.last_loss < made.trained.first_loss
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"method": "dpo", "batch_size": 8, "micro_batch": 3},
            "A step of 8 rows cannot be computed 3 rows at a time",
        ),
        ({"method": "kto", "micro_batch": 1}, "one row at a time teaches nothing"),
        ({"method": "kto", "batch_size": 1}, "one row at a time teaches nothing"),
    ],
)
def test_batches_that_cannot_be_learned_from_are_refused_before_the_base_is_loaded(
    home: Context, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(BaseModel, "load_model", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(InputError, match=sentence) as caught:
        go(home, preferences(20), load_recipe(fields["method"]), **fields)
    assert caught.value.hint
    check_batches(recipe_from({**fields, "method": "lora"}))
    check_batches(recipe_from({**fields, "micro_batch": 2, "batch_size": 8}))
    # More than a step has: all of it
    check_batches(recipe_from({**fields, "micro_batch": 16, "batch_size": 8}))


def test_a_trainer_of_a_library_knows_of_one_gpu(tmp_path: Path) -> None:
    """The tests of the methods themselves train as if there were two."""
    from transformers import TrainingArguments

    config = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert config.n_gpu in (0, 1)
    config._n_gpu = 2
    assert common.on_one_gpu(config).n_gpu == 1
    config._n_gpu = 0
    assert common.on_one_gpu(config).n_gpu == 0


def test_how_much_there_is_to_learn_is_known_before_training(
    home: Context, bases: dict[str, BaseModel]
) -> None:
    encoder = Encoder(bases["chatml"], 256)
    some = read_rows(preferences(6))
    thumbs = read_rows([{**row, "rating": 1} for row in facts(3)])
    assert (examples("kto", [*some, *thumbs]), examples("dpo", some), examples("lora", some)) == (
        15,
        6,
        6,
    )
    found, answers = pairs(encoder, some), rated(encoder, [*some, *thumbs])
    learned = sum(len(pair.chosen) + len(pair.rejected) for pair in found)
    one_by_one, by_two = (
        replace(Recipe(method=method, batch_size=1), micro_batch=parts)
        for method, parts in (("dpo", 1), ("kto", 2))
    )
    filled = sum(
        2 * (len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))) for pair in found
    ) / sum(pair.tokens for pair in found)
    assert work(one_by_one, encoder, some) == Work(
        6, sum(pair.tokens for pair in found), learned, pytest.approx(filled)
    )  # type: ignore[arg-type]
    rated_work = work(by_two, encoder, [*some, *thumbs])
    assert (rated_work.examples, rated_work.tokens) == (15, sum(each.tokens for each in answers))
    assert rated_work.trained_tokens == sum(
        len(each.answer) for each in answers
    ) and rated_work.padding == pytest.approx(1.0), "one row at once is filled up to nothing"
    assert work(replace(by_two, batch_size=4), encoder, [*some, *thumbs]).padding > 1
    sampled = Recipe(method="rlhf", samples=3, batch_size=6)
    longest = max(len(pair.chosen) for pair in found)
    tokens, learned = (
        3 * sum(len(pair.prompt) + len(pair.chosen) for pair in found),
        3 * sum(len(pair.chosen) for pair in found),
    )
    together = 18 * (max(len(pair.prompt) for pair in found) + longest) / tokens
    assert work(sampled, encoder, some) == Work(6, tokens, learned, pytest.approx(together))  # type: ignore[arg-type]
    assert work(replace(sampled, batch_size=1), encoder, some).padding == pytest.approx(1.0), (
        "a question alone is filled up to nothing"
    )
    asked = [len(pair.prompt) for pair in found]
    as_written = work(sampled, encoder, some, [[10, 10, 40], [10, 10, 60]])
    learned = 18 * 140 // 6
    assert (as_written.tokens, as_written.trained_tokens) == (3 * sum(asked) + learned, learned)
    assert as_written.padding * as_written.tokens == pytest.approx(18 * (max(asked) + 50)), (
        "a step is as long as its longest, on average"
    )
    rewarded = work_of_pairs(sampled, encoder, some)
    assert (rewarded.examples, rewarded.tokens) == (
        6,
        sum(pair.tokens for pair in found),
    ), "the reward model reads both answers once"
    most = [
        len(row.ids) - row.prompt_tokens
        for row in with_longest_completions(encoder.encode_all(some)[0], sampled)
    ]
    assert most == [answer_limit(longest)] * 6, (
        "any answer may become as long as the longest may be"
    )
    prepared, _ = prepared_run(home, preferences(40), load_recipe("kto"), batch_size=8)
    assert METHODS["kto"].rows == RATINGS and examples("kto", prepared.dataset.train) == 2 * len(
        prepared.train
    )


def test_a_step_of_rlhf_is_timed_by_what_its_base_writes(
    home: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    prepared, _ = prepared_run(home, preferences(40), load_recipe("rlhf"), batch_size=4)
    recipe, rows, most = prepared.recipe, prepared.train, max_completion_tokens(prepared.train)
    model, before = prepared.base.load_model("float32"), torch.get_rng_state()
    every = frozenset(range(int(prepared.base.config["vocab_size"])))
    assert write(model, rows, recipe, 0, every, most).lengths == ((1,) * 4 * recipe.samples,) * 3, (
        "an answer ends with its end-of-turn token"
    )
    found, again = (write(model, rows, recipe, 0, prepared.base.stop_ids, most) for _ in range(2))
    assert found.lengths == again.lengths and torch.equal(before, torch.get_rng_state()), (
        "what the run draws later is not touched"
    )
    assert max(map(max, found.lengths)) <= most and found.seconds > 0
    assert writing_seconds(model, rows, recipe, 0, prepared.base.stop_ids, most) > 0
    assert torch.equal(before, torch.get_rng_state())
    monkeypatch.setattr(throughput, "_PATIENCE_S", 0.05)
    assert len(write(model, rows, recipe, 0, prepared.base.stop_ids, most).lengths) == 1, (
        "of a slow base one step has to do"
    )
    memory = {
        "process": 1,
        "base": 1,
        "adapter": 1,
        "optimiser": 1,
        "activations": 1,
        "checkpoint": 1,
        "loading": 1,
    }
    short, long = (
        estimate(prepared, 100.0, memory, written=Written(((length,),), 0.5)) for length in (10, 50)
    )
    answers = recipe.samples * len(rows) * recipe.epochs
    assert (
        long["tokens"] - short["tokens"] == 40 * answers and long["trained_tokens"] == 50 * answers
    )
    writes = estimate(prepared, 1e9, memory, written=Written(((10,),), 0.5))
    assert writes["seconds"] == pytest.approx(prepared.steps * 0.5, abs=0.2), "a step writes first"
    assert writes["tokens_per_s"] == pytest.approx(
        writes["tokens"] / (prepared.steps * 0.5), abs=1
    ), "and its pace counts that"


# --- KTO's pairs ------------------------------------------------------------------------------------------------------


def _both(questions: int) -> list[Rated]:
    """Of each question a good and a bad answer, side by side."""
    return [
        Rated([question], [100 + 2 * question + (not liked)], liked)
        for question in range(questions)
        for liked in (True, False)
    ]


@pytest.mark.parametrize("size", [2, 3, 4, 8])
@pytest.mark.parametrize("questions", [5, 8, 12])
def test_ktos_mismatched_pairs_are_of_two_questions_of_one_batch(questions: int, size: int) -> None:
    found = _both(questions)
    made = mismatched(found, size, seed=3)
    assert sorted(each.answer for each, _ in made) == sorted(each.answer for each in found), (
        "every answer once"
    )
    assert all(each.prompt != other.prompt for each, other in made)
    for first in range(0, len(made), size):
        batch = made[first : first + size]
        if len(batch) > 1 and size != 3:  # of three rows two may be of one question
            assert sorted(each.answer for each, _ in batch) == sorted(
                other.answer for _, other in batch
            ), "the answers of the batch, turned"
    assert mismatched(found, size, seed=3) == made != mismatched(found, size, seed=4)


def test_kto_mixes_what_was_liked_with_what_was_not() -> None:
    sorted_by_thumb = [Rated([number], [number], number < 32) for number in range(64)]
    made = mismatched(sorted_by_thumb, 8, seed=0)
    assert all(
        0 < sum(each.liked for each, _ in made[first : first + 8]) < 8 for first in range(0, 64, 8)
    )
    alternating = mismatched(_both(32), 8, seed=0)
    assert all(
        0 < sum(each.liked for each, _ in alternating[first : first + 8]) < 8
        for first in range(0, 64, 8)
    )


def test_ktos_pairs_share_a_question_only_where_there_is_no_other() -> None:
    same = [Rated([1], [number], True) for number in range(5)]
    assert [other.prompt for _, other in mismatched(same, 4, seed=0)] == [[1]] * 5
    assert all(
        each.prompt != other.prompt
        for each, other in mismatched([*same, Rated([2], [9], False)], 4, seed=0)
    )


def test_kto_is_given_these_pairs_in_this_order(
    home: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference as Collator

    seen: list[list[dict[str, Any]]] = []
    together = Collator.torch_call
    monkeypatch.setattr(
        Collator, "torch_call", lambda self, some: (seen.append(some), together(self, some))[1]
    )
    trained(home, "kto", None, rows=preferences(10), epochs=1.0, batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 4, 4, 2]
    for batch in seen:
        assert len({tuple(each["prompt_ids"]) for each in batch}) == len(batch), (
            "a question and its other answer met in a batch"
        )
        assert sorted(each["KL_completion_ids"] for each in batch) == sorted(
            each["completion_ids"] for each in batch
        ), "the answers of the batch, turned"


# --- what is said -----------------------------------------------------------------------------------------------------


def test_the_rate_of_each_step_is_told_and_a_loss_that_is_no_number_ends_the_run(
    home: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer.dpo_trainer import DPOTrainer

    told: list[Step] = []
    compute = DPOTrainer.compute_loss
    monkeypatch.setattr(Reporter, "step", lambda self, step: told.append(step))
    # A constant: the gradients stay numbers, and only the loss shows it.
    monkeypatch.setattr(
        DPOTrainer,
        "compute_loss",
        lambda self, *given, **named: (
            compute(self, *given, **named) + (math.nan if len(told) == 2 else 0.0)
        ),
    )
    with pytest.raises(TrainingError, match="The loss stopped being a number at step 3"):
        trained(
            home,
            "dpo",
            None,
            rows=preferences(30),
            epochs=1.0,
            batch_size=4,
            schedule="constant",
            warmup=0.0,
        )
    assert [step.rate for step in told] == [
        0.0,
        5e-3,
    ], "warmed up for one step, as transformers counts: from nothing"


def test_a_run_without_a_step_is_no_success(home: Context) -> None:
    prepared, _ = prepared_run(home, preferences(10), load_recipe("rlhf"))
    with pytest.raises(TrainingError, match="without a single step"):
        done(Progress(prepared.recipe, lambda step: None, 10, 1.0), 0, 0)


def test_rlhf_learns_from_fewer_rows_than_a_batch_has_in_bfloat16_and_says_when_its_rewards_are_weak(
    home: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Step] = []
    report = Reporter.step
    monkeypatch.setattr(
        Reporter, "step", lambda self, step: (told.append(step), report(self, step))[1]
    )
    monkeypatch.setattr(rlhf, "preferred", lambda score, found, batch_size: len(found) // 2)
    fields: dict[str, Any] = {
        "epochs": 2.0,
        "batch_size": 16,
        "samples": 2,
        "alpha": 0.5,
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
    }
    outcome = trained(home, "rlhf", None, rows=preferences(5), **fields)
    assert outcome.trained.steps == 2 and math.isfinite(outcome.trained.last_loss)
    assert outcome.trained.signs[0].startswith(
        "The reward model prefers the chosen answer in 50 % of 4 pairs"
    )
    assert told[0].signs == (outcome.trained.signs[0],), (
        "said while there is still something to stop"
    )
    assert outcome.trained.seconds > told[-1].seconds, "the reward model takes time, too"


def test_a_reward_model_in_bfloat16_scores_by_a_float32_output_and_keeps_a_fraction_of_alpha(
    home: Context,
) -> None:
    import torch

    prepared, _ = prepared_run(
        home,
        preferences(10),
        load_recipe("rlhf"),
        alpha=0.5,
        rank=8,
        dtype="bfloat16",
        epochs=1.0,
        threads=1,
    )
    found = pairs(prepared.encoder, prepared.dataset.train)
    judge = rlhf.reward_base(prepared, 0)
    rlhf.train_rewards(judge, prepared, found, lambda step: None)
    layer = next(module for name, module in judge.named_modules() if name.endswith("q_proj"))
    assert layer.scaling["default"] == pytest.approx(0.5 / 8)
    kept = judge.get_base_model().score.modules_to_save["default"].weight
    assert (kept.dtype, layer.base_layer.weight.dtype) == (torch.float32, torch.bfloat16)
    assert all(map(math.isfinite, rlhf.scorer(judge, 0)([[*found[0].prompt, *found[0].chosen]])))


def test_batches_are_filled_up_to_their_longest_sequence() -> None:
    assert padded([[10, 20], [30, 40]], 1) == (2 * 20 + 2 * 40) / 100
    assert padded([[10, 20], [30, 40]], 2) == 4 * 40 / 100
    assert padded([[7], [7], [7]], 2) == 1.0 and padded([], 2) == 0.0


@pytest.mark.parametrize(
    ("method", "learned", "passes"), [("dpo", 2, 2), ("kto", 1, 4), ("orpo", 2, 1), ("simpo", 2, 1)]
)
def test_what_is_timed_and_weighed_before_a_run_is_what_its_steps_compute(
    home: Context, monkeypatch: pytest.MonkeyPatch, method: str, learned: int, passes: int
) -> None:
    """The reference's passes, and both answers of a preference."""
    import torch

    forward: list[bool] = []
    monkeypatch.setattr(
        preference,
        "batch_loss",
        lambda model, batch: (forward.append(torch.is_grad_enabled()), batch_loss(model, batch))[1],
    )
    prepared, _ = prepared_run(
        home, preferences(20), load_recipe(method), batch_size=4, dtype="float32"
    )
    _, model, loss_of, expected = measured(home, prepared)
    forward.clear()
    loss_of(model, collate(prepared.train[:2], 0, "cpu"))
    assert forward == [False] * (passes - 1) + [True]
    assert sequences(prepared.recipe) == learned
    assert expected["seconds"] == pytest.approx(
        expected["tokens"] / expected["tokens_per_s"], rel=0.02, abs=0.06
    ), "padding is in both"


def test_a_reward_model_is_in_the_estimate_of_memory(home: Context) -> None:
    prepared, _ = prepared_run(
        home, preferences(20), load_recipe("rlhf"), batch_size=4, dtype="float32"
    )
    memory = measured(home, prepared)[3]["memory"]
    assert memory["base"] < memory["reward model"] < memory["base"] + memory["adapter"]


def test_pairs_that_a_reward_model_orders_rightly_are_counted() -> None:
    found = [Pair([number], [2], [1]) for number in range(5)]
    by_last_token = [
        lambda some: [float(each[-1]) for each in some],
        lambda some: [-float(each[-1]) for each in some],
        lambda some: [0.0 for _ in some],
    ]
    assert [rlhf.preferred(score, found, 2) for score in by_last_token] == [5, 0, 0]
    assert warn_weak_rewards(
        6, 10
    ) == "" and "59 % of 100 pairs, hardly more than chance" in warn_weak_rewards(59, 100)
