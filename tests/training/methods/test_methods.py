"""Every method for real: a tiny base of random weights, a few steps on the CPU through the whole
pipeline, and what comes of it loaded again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.training.test_trainer import go, prepared_run, read_rows
from tests.training.tiny import facts
from training.loop.pairs import pairs
from training.loop.trainer import Cancelled, Step
from training.machine.device import stored_dtype
from training.methods.rlhf import reward_base, scorer, train_rewards
from training.methods.virtual import VirtualTokens
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.fingerprint import logprobs
from training.models.lora import with_stored
from training.plan.reporter import Reporter
from training.recipes.methods import ADAPTER, FOLDER, METHODS, MODEL, PREFERENCES, RATINGS, Method
from training.recipes.recipe import load_recipe
from training.runs import pipeline
from training.runs.outcome import Outcome
from training.store.adapter_publish import read_weights
from whet.context import Context
from whet.database import reading
from whet.settings import load_settings
from whet.tables import adapters, training_runs

# Small enough for seconds; the rates are those that move a model this small in so few steps.
QUICK: dict[str, Any] = {"epochs": 2.0, "dtype": "float32", "seed": 3}
RATES = {
    "full": 1e-3,
    "prefix": 3e-2,
    "prompt": 1e-1,
    "ia3": 1e-1,
    "dpo": 5e-3,
    "kto": 5e-3,
    "orpo": 5e-3,
    "simpo": 5e-3,
    "rlhf": 5e-3,
}


def preferences(count: int) -> list[dict[str, Any]]:
    """The facts, each beside another item's answer."""
    rows = []
    for right, wrong in zip(facts(count), facts(count, shift=2), strict=True):
        rows.append(
            {
                "messages": right["messages"][:-1],
                "chosen": right["messages"][-1]["content"],
                "rejected": wrong["messages"][-1]["content"],
            }
        )
    return rows


def rows_for(method: str, count: int = 40) -> list[dict[str, Any]]:
    return preferences(count) if METHODS[method].rows in (PREFERENCES, RATINGS) else facts(count)


# One of each family; the others, which differ by a few lines, run with `make test-all`.
_ALWAYS = {"rslora", "qlora", "lora", "dpo", "prompt", "ia3"}


def _some(wanted: Callable[[Method], bool]) -> list[Any]:
    return [
        pytest.param(name, marks=() if name in _ALWAYS else pytest.mark.slow)
        for name, method in METHODS.items()
        if wanted(method)
    ]


@pytest.fixture
def home(sqlite_context: Context, base_folder: Path) -> Context:
    return replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )


def trained(home: Context, method: str, into: Path | None, **fields: Any) -> Outcome:
    rate = {"learning_rate": RATES.get(method, 5e-3)}
    small = {"rank": 8, "alpha": 16.0} if "alpha" in METHODS[method].reads else {}
    return go(
        home,
        fields.pop("rows", None) or rows_for(method),
        load_recipe(method),
        into=into,
        **{**QUICK, **rate, **small, **fields},
    )


# A reward model and a policy with enough steps to show something, 30 s of processor time
@pytest.mark.slow
def test_the_reward_model_prefers_what_people_chose_and_the_policy_earns_more(
    home: Context,
) -> None:
    fields: dict[str, Any] = {
        "rank": 8,
        "alpha": 16.0,
        "threads": 1,
        "dtype": "float32",
        "batch_size": 8,
        "learning_rate": 5e-3,
    }
    prepared, _ = prepared_run(home, preferences(40), load_recipe("rlhf"), epochs=25.0, **fields)
    found = pairs(prepared.encoder, prepared.dataset.train)
    judge = reward_base(prepared, 0)
    train_rewards(judge, prepared, found, lambda step: None)
    score = scorer(judge.eval(), 0)
    chosen, rejected = (
        score([[*pair.prompt, *getattr(pair, which)] for pair in found])
        for which in ("chosen", "rejected")
    )
    assert sum(better > worse for better, worse in zip(chosen, rejected, strict=True)) >= 0.9 * len(
        found
    )
    assert score([[*found[0].prompt, *found[0].chosen]]) == pytest.approx(chosen[:1], abs=1e-4), (
        "padding beside a longer conversation changes no reward"
    )
    outcome = trained(home, "rlhf", None, epochs=12.0)
    assert outcome.trained.last_loss < outcome.trained.first_loss, (
        "the mean reward, with its sign changed"
    )


def test_a_run_in_a_trainer_of_a_library_is_cancelled_at_its_next_step(
    home: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def stop(self: Reporter, step: Step) -> None:
        seen.append(step.step)
        if step.step == 2:
            raise Cancelled

    monkeypatch.setattr(Reporter, "step", stop)
    with pytest.raises(Cancelled):
        trained(home, "orpo", None)
    assert seen == [1, 2]


def _ids(base: BaseModel) -> list[int]:
    rows = read_rows(facts(1))
    return list(Encoder(base, 256).encode_all(rows)[0][0].ids)


def _adapters() -> list[Any]:
    """Those of a library's trainers in both dtypes: what they train is float32, and has to meet a
    base that computes in bfloat16.
    """
    dtypes = {
        name: ("float32", "bfloat16") if method.module in ("preference", "rlhf") else ("float32",)
        for name, method in METHODS.items()
    }
    some = _some(lambda method: method.engine == ADAPTER and method.name != "distill")
    return [
        pytest.param(*param.values, dtype, marks=param.marks)
        for param in some
        for dtype in dtypes[param.values[0]]
    ]


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As transformers counts them, on a machine that has them."""
    from transformers import TrainingArguments

    made = TrainingArguments.__post_init__

    def counted(self: Any) -> None:
        made(self)
        self._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", counted)


@pytest.mark.parametrize(("method", "dtype"), _adapters())
@pytest.mark.usefixtures("two_gpus")
def test_a_method_whose_adapter_the_engine_serves_ends_as_a_version(
    home: Context, bases: dict[str, BaseModel], method: str, dtype: str
) -> None:
    # It writes answers, which is what takes its time
    small = {"rows": preferences(16), "epochs": 1.0} if method == "rlhf" else {}
    outcome = trained(home, method, None, dtype=dtype, **small)
    base = bases["chatml"]
    assert outcome.adapter is not None and outcome.adapter.card["recipe"]["method"] == method
    if method != "rlhf":  # whose figure is a reward, which rises and falls with what is sampled
        assert outcome.trained.last_loss < outcome.trained.first_loss
    # It begins as its own reference, between whose two answers nothing is preferred: -log σ(0)
    if method == "dpo":
        assert outcome.trained.first_loss == pytest.approx(0.6931, abs=1e-3)
    prompt = outcome.adapter.card["fingerprint"]["prompts"][0]
    recorded = prompt if dtype == "float32" else prompt[dtype]
    weights, config = read_weights(home, outcome.adapter)
    again = with_stored(base.load_model(dtype), config, weights)
    assert logprobs(again, prompt["token_ids"]) == pytest.approx(
        recorded["adapter_logprobs"], abs=1e-4, nan_ok=True
    ), "the stored version answers as the trained one"
    assert recorded["adapter_logprobs"] != recorded["base_logprobs"], "the adapter does nothing"
    assert config["use_rslora"] == (method == "rslora")


@pytest.mark.parametrize("method", _some(lambda method: method.engine != ADAPTER))
def test_a_method_that_the_engine_cannot_serve_ends_as_a_folder_that_answers_the_same(
    home: Context,
    bases: dict[str, BaseModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    base, into, judged = bases["chatml"], tmp_path / "made", []
    judge = pipeline.judge
    monkeypatch.setattr(
        pipeline,
        "judge",
        lambda context, model, *rest, **named: (
            judged.append(model),
            judge(context, model, *rest, **named),
        )[1],
    )
    outcome = trained(home, method, into)
    assert outcome.adapter is None and outcome.folder == into
    assert outcome.trained.last_loss < outcome.trained.first_loss
    with reading(home.database) as connection:
        run = connection.execute(select(training_runs)).one()
        assert connection.execute(select(adapters)).first() is None, (
            "nothing unservable may become addressable"
        )
    assert (run.state, run.adapter_digest, run.progress["folder"]) == ("succeeded", None, str(into))
    card = json.loads((into / "card.json").read_text())
    assert (
        card["method"] == method
        and card["evaluation"]["verdict"] == run.progress["verdict"]
        and card["files"]
    )
    ids = _ids(base)
    again = load_again(base, into, METHODS[method].engine)
    assert logprobs(again, ids) == pytest.approx(logprobs(judged[0], ids), abs=1e-4, nan_ok=True), (
        "the folder answers as what was judged"
    )
    assert logprobs(again, ids) != logprobs(
        base.load_model(str(again.dtype).removeprefix("torch.")), ids
    ), "nothing was learned"


def load_again(base: BaseModel, folder: Path, engine: str) -> Any:
    """As somebody does who has only the folder (and, for PEFT's, the base)."""
    if engine == MODEL:
        return BaseModel(folder, "merged").load_model(stored_dtype())
    assert engine == FOLDER
    from peft import PeftModel

    return VirtualTokens(PeftModel.from_pretrained(base.load_model("float32"), str(folder))).eval()
