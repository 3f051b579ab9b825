"""The loop: deterministic, equal to what PEFT computes, stopped by name when it goes wrong; and one
whole run through the pipeline.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.training.tiny import CHATML, build_base, facts
from training.data import datasets
from training.data.rows import Row, read_lines
from training.data.split import split
from training.loop.batches import IGNORED, collate, epoch_batches
from training.loop.generation import greedy
from training.loop.loss import batch_loss
from training.loop.trainer import Cancelled, Step, check_divergence, rate_at, total_steps, train
from training.models import kernels
from training.models.base_choice import open_base
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.fingerprint import chosen_conversations, fingerprint, logprobs
from training.models.kernels import fuse_lora, use_short_attention
from training.models.lora import adapter_weights, add_lora, plain_config, with_stored
from training.plan.prepare import Prepared, prepare
from training.plan.reporter import Reporter
from training.recipes.recipe import Recipe, load_recipe, recipe_from
from training.recipes.recipe_choices import resolved
from training.runs import pipeline
from training.runs.outcome import Outcome
from training.store import runs
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import reading
from whet.errors import InputError, TrainingError
from whet.settings import load_settings
from whet.tables import evaluations, training_runs

RECIPE = Recipe(
    rank=8, alpha=64.0, learning_rate=5e-3, epochs=2.0, max_length=256, dtype="float32", threads=1
)
quiet = lambda step: None  # noqa: E731


def read_rows(rows: list[dict[str, Any]]) -> list[Row]:
    return read_lines([json.dumps(row).encode() for row in rows]).rows


def _encoded(base: BaseModel, count: int = 48) -> list[Encoded]:
    return Encoder(base, 256).encode_all(read_rows(facts(count)))[0]


def _model(base: BaseModel, recipe: Recipe = RECIPE) -> Any:
    return add_lora(base.load_model(recipe.dtype), recipe)


def _adapter(model: Any) -> list[Any]:
    return [
        parameter.detach().clone()
        for name, parameter in sorted(model.named_parameters())
        if ".lora_" in name
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_seed_gives_one_result_and_another_seed_another(base: BaseModel, dtype: str) -> None:
    import torch

    rows = _encoded(base)
    results = []
    for seed in (1, 1, 2):
        recipe = replace(RECIPE, seed=seed, dtype=dtype)
        model = _model(base, recipe)
        fuse_lora(model)
        use_short_attention(model.get_base_model())
        train(model, rows, [], recipe, pad_id=0, on_step=quiet)
        results.append(torch.cat([parameter.flatten() for parameter in _adapter(model)]))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_base_itself_is_never_changed(base: BaseModel) -> None:
    import torch

    model = _model(base)
    before = {
        name: parameter.clone()
        for name, parameter in model.named_parameters()
        if ".lora_" not in name
    }
    train(model, _encoded(base), [], RECIPE, pad_id=0, on_step=quiet)
    assert all(
        torch.equal(before[name], parameter)
        for name, parameter in model.named_parameters()
        if ".lora_" not in name
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_its_adapter_the_model_is_the_base_to_the_last_bit(
    base: BaseModel, dtype: str
) -> None:
    """Parity rests on this: nothing that training, evidence or evaluation does may touch the base,
    not even the precision of its position frequencies.
    """
    ids = list(_encoded(base, 1)[0].ids)
    expected = logprobs(base.load_model(dtype), ids)
    model = _model(base, replace(RECIPE, dtype=dtype))
    train(model, _encoded(base, 16), [], RECIPE, pad_id=0, on_step=quiet)
    evidence = fingerprint(model, [ids])
    prompt = evidence["prompts"][0]
    recorded = prompt if dtype == "float32" else prompt[dtype]
    with model.disable_adapter():
        assert logprobs(model, ids) == expected == recorded["base_logprobs"]
    assert logprobs(model, ids) == recorded["adapter_logprobs"] != expected
    again = with_stored(
        base.load_model(dtype),
        plain_config(8, 64.0, sorted(model.peft_config["default"].target_modules)),
        adapter_weights(model, dtype),
    )
    assert logprobs(again, ids) == recorded["adapter_logprobs"]


@pytest.mark.parametrize(
    ("lengths", "chosen"), [([60] * 12, 8), ([1000] * 8, 2), ([5000, 10], 1), ([2048, 1], 1)]
)
def test_fingerprint_takes_few_prompts_where_they_are_long(lengths: list[int], chosen: int) -> None:
    conversations = [[1] * length for length in lengths]
    assert chosen_conversations(conversations) == conversations[:chosen]


_SHAPES = [
    ("Llama", {}),
    ("Llama", {"num_key_value_heads": 4}),
    ("Mistral", {"sliding_window": 16}),
    ("Qwen2", {}),
    ("Gemma2", {"attn_logit_softcapping": 5.0, "sliding_window": 16}),
]


@pytest.mark.parametrize(("architecture", "extra"), _SHAPES)
@pytest.mark.seconds
def test_the_fused_computation_is_pefts_computation(
    tmp_path: Path, architecture: str, extra: dict[str, Any]
) -> None:
    """Loss and every gradient, against plain PEFT with full logits, on rows of mixed length."""
    import torch

    base = BaseModel(
        build_base(tmp_path / "base", architecture=architecture, layers=2, **extra), "x"
    )
    rows = _encoded(base, 20)
    plain = _disturbed(_model(base, replace(RECIPE, dtype="float32")))
    quick = copy.deepcopy(plain)
    fuse_lora(quick)
    use_short_attention(quick.get_base_model())
    batch = collate(rows[:8], 0, "cpu")
    fast = batch_loss(quick.train(), batch)
    fast.backward()
    mask = torch.zeros_like(batch.ids)
    for number, row in enumerate(rows[:8]):
        mask[number, : len(row.ids)] = 1
    labels = torch.full_like(batch.ids, IGNORED)
    for number, row in enumerate(rows[:8]):
        labels[number, : len(row.ids)] = torch.tensor(
            [
                token if trained else IGNORED
                for token, trained in zip(row.ids, row.trained, strict=True)
            ]
        )
    slow = plain.train()(
        input_ids=batch.ids, attention_mask=mask, labels=labels, use_cache=False
    ).loss
    slow.backward()
    assert float(fast.detach()) == pytest.approx(float(slow.detach()), rel=1e-5)
    gradients = {
        name: parameter.grad
        for name, parameter in plain.named_parameters()
        if parameter.grad is not None
    }
    for name, parameter in quick.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)
    assert gradients


@pytest.mark.parametrize(("architecture", "extra"), _SHAPES)
@pytest.mark.seconds
def test_answers_come_as_from_pefts_computation(
    tmp_path: Path, architecture: str, extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token by token after a cache, beside questions of other lengths, of which some end before
    others.
    """
    import torch

    base = BaseModel(
        build_base(tmp_path / "base", architecture=architecture, layers=2, **extra), "x"
    )
    plain = _disturbed(_model(base, replace(RECIPE, dtype="float32"))).eval()
    fast = copy.deepcopy(plain)
    fuse_lora(fast)
    use_short_attention(fast.get_base_model())
    questions = [list(row.ids[: row.prompt_tokens]) for row in _encoded(base, 12)]
    assert len(set(map(len, questions))) > 2, "questions of several lengths are what this is about"
    wanted, sure = _answered(plain, questions)
    found, as_sure = _answered(fast, questions)
    assert found == wanted
    torch.testing.assert_close(as_sure, sure, rtol=1e-4, atol=1e-4)
    if extra.get("sliding_window"):  # which leaves the padding out in any case
        return
    # planted: what pads a short question is seen
    monkeypatch.setattr(kernels, "_bias", lambda mask, *shape: _BIAS(None, *shape))
    assert float((_answered(fast, questions)[1] - sure).abs().max()) > 1e-3


@pytest.mark.parametrize("grad", [True, False])
def test_the_version_that_is_set_is_the_one_that_answers(base: BaseModel, grad: bool) -> None:
    """A candidate and the version in production share one base while they are compared."""
    import torch

    plain = _disturbed(_model(base, replace(RECIPE, dtype="float32"))).eval()
    stored = {
        name.replace(".default", ""): -2 * parameter
        for name, parameter in plain.state_dict().items()
        if ".lora_" in name
    }
    config = {
        "r": RECIPE.rank,
        "lora_alpha": RECIPE.alpha / 2,
        "target_modules": sorted(plain.peft_config["default"].target_modules),
    }
    quick = copy.deepcopy(plain)
    fuse_lora(quick)
    batch, said = collate(_encoded(base, 4), 0, "cpu"), {}
    with torch.set_grad_enabled(grad):
        for computing, model in (("plain", plain), ("quick", quick)):
            said[computing, "default"] = model(input_ids=batch.ids).logits
            with_stored(model, config, stored, "production").set_adapter("production")
            said[computing, "production"] = model(input_ids=batch.ids).logits
            model.set_adapter("default")
            said[computing, "default again"] = model(input_ids=batch.ids).logits
    for which in ("default", "production", "default again"):
        torch.testing.assert_close(said["quick", which], said["plain", which], rtol=1e-4, atol=1e-4)
    assert (
        float((said["plain", "production"] - said["plain", "default"]).detach().abs().max()) > 1e-2
    )


def _answered(model: Any, questions: list[list[int]]) -> tuple[list[list[int]], Any]:
    """(answers, logits [questions, 1, V] of their second tokens, which are the first to come after
    a cache).
    """
    logits: list[Any] = []
    watching = model.register_forward_hook(lambda *call: logits.append(call[-1].logits))
    answers = greedy(model, questions, frozenset(range(5)), 12)
    watching.remove()
    return answers, logits[1]


_BIAS = kernels._bias


def _disturbed(model: Any) -> Any:
    """An adapter that changes what the base says."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(1))
    return model


def _loss(model: Any, rows: list[Encoded]) -> float:
    return float(batch_loss(model, collate(rows, 0, "cpu")).detach())


def test_padding_changes_no_loss(base: BaseModel) -> None:
    rows = _encoded(base, 30)
    model = _model(base)
    together = _loss(model, rows)
    parts = [(_loss(model, [row]), row.trained_tokens) for row in rows]
    assert together == pytest.approx(
        sum(loss * count for loss, count in parts) / sum(count for _, count in parts), rel=1e-4
    )


def test_weights_of_rows_weigh(base: BaseModel) -> None:
    light, heavy = _encoded(base, 2)
    model = _model(base)
    alone = [_loss(model, [row]) for row in (light, heavy)]
    counts = [light.trained_tokens, 3 * heavy.trained_tokens]
    weighted = _loss(model, [light, replace(heavy, weight=3.0)])
    assert weighted == pytest.approx(
        sum(loss * count for loss, count in zip(alone, counts, strict=True)) / sum(counts), rel=1e-4
    )


def test_every_row_comes_once_an_epoch_beside_rows_of_its_length(base: BaseModel) -> None:
    rows = _encoded(base, 100)
    batches = epoch_batches(rows, 8, seed=0, epoch=0)
    assert sorted(map(id, rows)) == sorted(id(row) for batch in batches for row in batch)
    assert batches != epoch_batches(rows, 8, seed=0, epoch=1)
    padded = sum(len(batch) * max(len(row.ids) for row in batch) for batch in batches)
    assert padded < 1.1 * sum(len(row.ids) for row in rows)


def test_a_loss_that_is_no_number_stops_the_run_with_its_cause(base: BaseModel) -> None:
    model = _model(base)
    model.get_base_model().model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="is no number before the first step"):
        train(model, _encoded(base), [], RECIPE, pad_id=0, on_step=quiet)


def test_a_run_that_diverges_is_stopped_and_names_the_rate() -> None:
    falling = [4.0 - 0.02 * step for step in range(100)]
    check_divergence(falling, 1.0, 100, RECIPE)
    check_divergence(falling[:40] + [4.8] * 30, 1.0, 70, RECIPE)
    with pytest.raises(TrainingError, match=r"rose from 3.81 to 5.50 by step 70") as caught:
        check_divergence(falling[:40] + [5.5] * 30, 1.0, 70, RECIPE)
    assert "0.005" in caught.value.hint
    with pytest.raises(TrainingError, match="gradient stopped being a number"):
        check_divergence([1.0], float("inf"), 1, RECIPE)


def test_the_best_weights_on_validation_are_what_remains(base: BaseModel) -> None:
    rows = _encoded(base, 36)
    model = _model(base)
    done = train(model, rows[:24], rows[24:], replace(RECIPE, epochs=4.0), pad_id=0, on_step=quiet)
    assert len(done.validation) == 4
    assert done.best_step == min(done.validation, key=lambda item: (item[1], -item[0]))[0]


def test_cancelling_stops_at_the_next_step(base: BaseModel) -> None:
    seen: list[int] = []

    def stop(step: Step) -> None:
        seen.append(step.step)
        if step.step == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(_model(base), _encoded(base), [], RECIPE, pad_id=0, on_step=stop)
    assert seen == [1, 2]


def test_the_schedule_warms_up_and_falls() -> None:
    recipe = replace(RECIPE, warmup=0.1)
    rates = [rate_at(step, 100, recipe) for step in range(100)]
    assert (
        rates[0] == pytest.approx(recipe.learning_rate / 10)
        and max(rates) == recipe.learning_rate == rates[9]
    )
    assert (
        rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.06 * recipe.learning_rate
    )
    assert total_steps(33, replace(RECIPE, batch_size=16, epochs=2.0)) == 6


def test_greedy_answers_are_those_of_one_prompt_at_a_time(base: BaseModel) -> None:
    model = base.load_model("float32")
    prompts = [list(row.ids[: row.prompt_tokens]) for row in _encoded(base, 7)]
    together = greedy(model, prompts, base.stop_ids, 12)
    assert together == [greedy(model, [prompt], base.stop_ids, 12)[0] for prompt in prompts]


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("rank", "8"), ("alpha", -1.0), ("alpha", math.nan), ("epochs", 0.0), ("epochs", math.inf), ("learning_rate", 5.0), ("method", "magic"), ("schedule", "x"), ("dtype", "int8"), ("batch_size", 0), ("batch_size", True), ("nonsense", 1)],
)  # fmt: skip
def test_a_wrong_recipe_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=field):
        recipe_from({field: value})


def test_recipes_load_by_name_and_choose_the_rate_by_size(tmp_path: Path) -> None:
    assert load_recipe("lora").rank == 32
    assert (
        resolved(Recipe(), parameters=5_000_000, max_length=1024).learning_rate
        > resolved(Recipe(), parameters=7_000_000_000, max_length=1024).learning_rate
    )
    (tmp_path / "mine.toml").write_text("rank = 4\n")
    assert load_recipe(str(tmp_path / "mine.toml")).rank == 4
    with pytest.raises(InputError):
        (tmp_path / "bad.toml").write_text("rank = = 4\n")
        load_recipe(str(tmp_path / "bad.toml"))


# --- a whole run ----------------------------------------------------------------------------------------------------


def prepared_run(
    context: Context, rows: list[dict[str, Any]], recipe: Recipe | None = None, **fields: Any
) -> tuple[Prepared, runs.Run]:
    """A run in the database and what it is to do."""
    dataset = datasets.save(
        context.store, "facts", split(read_rows(rows), datasets.Shares(0.0, 0.2)).parts
    )
    base = open_base(context.settings)
    recipe = recipe_from(
        {"threads": 1, **fields},
        recipe or Recipe(rank=8, alpha=64.0, learning_rate=5e-3, epochs=12.0),
    )
    prepared = prepare(context, "support", dataset, recipe, base)
    run = runs.start(
        context,
        alias="support",
        dataset_digest=dataset.digest,
        base_digest=base.digest,
        recipe={},
        estimate={},
        worker="test",
        now=now_ms(),
    )
    return prepared, run


def go(
    context: Context,
    rows: list[dict[str, Any]],
    recipe: Recipe | None = None,
    into: Path | None = None,
    **fields: Any,
) -> Outcome:
    prepared, run = prepared_run(context, rows, recipe, **fields)
    with Reporter(context, run) as reporter:
        return pipeline.run_training(context, run, prepared, reporter, actor="test", into=into)


@pytest.fixture
def home(context: Context, base_folder: Path, tmp_path: Path) -> Any:
    """The context of both databases, with a tiny base."""
    opened = open_context(
        load_settings(
            home=tmp_path / "home",
            database_url=context.settings.database_url,
            base_model=str(base_folder),
        )
    )
    yield opened
    opened.close()


def test_a_run_ends_with_a_judged_version_and_its_evidence(home: Context) -> None:
    outcome = go(home, facts(150))
    card = outcome.adapter.card
    with reading(home.database) as connection:
        row = connection.execute(select(training_runs)).one()
        judged = connection.execute(select(evaluations)).one()
    assert (row.state, row.adapter_digest, row.progress["stage"]) == (
        "succeeded",
        outcome.adapter.digest,
        "done",
    )
    assert 2 <= len(row.curve) <= 500 and row.curve[-1][1] < row.curve[0][1]
    assert row.recipe["dataset_path"] == card["dataset_path"] == f"datasets/{row.dataset_digest}"
    assert row.estimate["steps"] == row.progress["steps"] and row.estimate["tokens"] > 0
    assert (judged.run_id, judged.verdict, outcome.adapter.gate) == (
        row.id,
        card["gate"],
        card["gate"],
    )
    assert judged.metrics["old"]["n"] > 10
    samples = [json.loads(line) for line in home.store.read_bytes(judged.samples_path).splitlines()]
    assert len(samples) == judged.metrics["old"]["n"] and samples[0]["candidate"]["text"]
    assert (
        1 <= len(card["fingerprint"]["prompts"]) <= 8
        and card["fingerprint"]["noise"]["adapter"]["mean"] > 0
    )
    assert card["libraries"]["torch"] and card["template_digest"]


def test_training_twice_gives_the_same_version(sqlite_context: Context, base_folder: Path) -> None:
    home = replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )
    first, second = go(home, facts(60), epochs=2.0), go(home, facts(60), epochs=2.0)
    assert first.adapter.digest == second.adapter.digest and second.adapter.label == "support@v1"


def test_a_run_can_start_from_an_adapter(sqlite_context: Context, base_folder: Path) -> None:
    home = replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )
    first = go(home, facts(60), epochs=6.0)
    second = go(home, facts(60), epochs=1.0, init_from="support@v1", learning_rate=1e-5)
    assert second.trained.first_loss < first.trained.first_loss
    assert second.adapter.card["recipe"]["init_from"] == first.adapter.digest
    with pytest.raises(InputError, match="rank"):
        prepared_run(home, facts(60), init_from="support@v1", rank=4)


def test_a_rank_the_engine_cannot_serve_is_refused_before_anything_is_loaded(
    sqlite_context: Context, base_folder: Path
) -> None:
    home = replace(
        sqlite_context,
        settings=load_settings(
            home=sqlite_context.settings.home, base_model=str(base_folder), engine_max_lora_rank=16
        ),
    )
    with pytest.raises(InputError, match="Rank 32 cannot be served"):
        prepared_run(home, facts(20), rank=32)
    with reading(home.database) as connection:
        assert connection.execute(select(training_runs)).all() == []


def test_another_tiny_base_works_the_same(sqlite_context: Context, tmp_path: Path) -> None:
    folder = build_base(tmp_path / "qwen", template=CHATML, architecture="Qwen2")
    home = replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(folder)),
    )
    outcome = go(home, facts(60), epochs=1.0)
    assert outcome.adapter.label == "support@v1"
