"""What is refused or said before the first step: fields a method does not read, rows it cannot
learn from, results the engine cannot serve.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.training.methods.test_methods import preferences
from tests.training.test_commands import Shell
from tests.training.test_trainer import go, prepared_run, read_rows
from tests.training.tiny import build_base, facts, write_rows
from training.loop.pairs import pairs, rated
from training.methods.families import family
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.lora import add_lora, target_names
from training.recipes.methods import ADAPTER, METHODS, RATINGS
from training.recipes.recipe import FOLDER, Recipe, load_recipe, recipe_from
from training.recipes.recipe_choices import resolved
from whet.context import Context
from whet.errors import InputError
from whet.settings import load_settings


@pytest.fixture
def home(sqlite_context: Context, base_folder: Path) -> Context:
    return replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base_folder)),
    )


@pytest.fixture
def shell(tmp_path: Path, base_folder: Path) -> Shell:
    return Shell(tmp_path / "home", base_folder)


def test_every_method_has_a_family_a_recipe_of_its_own_and_words_where_the_engine_cannot_serve_it() -> (
    None
):
    for name, method in METHODS.items():
        module = family(method)
        assert all(
            hasattr(module, part) for part in ("build", "rows", "loss", "run", "candidate")
        ), name
        assert load_recipe(name).method == name
        assert (method.engine == ADAPTER) or "vLLM" in method.said or "no adapter" in method.said, (
            name
        )
        assert (
            resolved(load_recipe(name), parameters=7_000_000_000, max_length=512).learning_rate
            < 0.01
        )
    assert {file.stem for file in FOLDER.glob("*.toml")} >= {
        "llama",
        "mistral",
        "qwen",
        "gemma",
        "phi",
        "moe",
    }


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [("prompt", "rank", 8), ("full", "dropout", 0.1), ("lora", "beta", 0.5), ("dpo", "virtual_tokens", 5), ("orpo", "dropout", 0.1), ("kto", "teacher", "x"), ("ia3", "target_modules", ["q_proj"]), ("prefix", "init_from", "production")],
)  # fmt: skip
def test_a_field_that_a_method_does_not_read_is_refused_instead_of_ignored(
    method: str, field: str, value: Any
) -> None:
    with pytest.raises(InputError, match=f"The method {method} has no {field}"):
        recipe_from({"method": method, field: value})


@pytest.mark.parametrize(
    ("method", "rows", "sentence"),
    [
        ("dpo", facts(20), "have no chosen and rejected answer.*the first on line"),
        ("rlhf", facts(20), "have no chosen and rejected answer"),
        ("kto", facts(20), "are neither preferences nor rated"),
        (
            "lora",
            [{**row, "rating": -1} for row in facts(20)],
            "rated as bad answers .* would learn as right",
        ),
    ],
)
def test_rows_that_a_method_cannot_learn_from_are_refused_before_the_base_is_loaded(
    home: Context, method: str, rows: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        prepared_run(home, rows, load_recipe(method))


def test_pairs_are_what_the_engine_will_see(bases: dict[str, BaseModel]) -> None:
    """The same mask as for answers: the prompt as it is rendered, each answer with its end-of-turn
    token.
    """
    base = bases["chatml"]
    encoder = Encoder(base, 256)
    row = read_rows(preferences(1))[0]
    pair = pairs(encoder, [row])[0]
    assert pair.prompt == encoder.prompt_ids(row)
    assert (
        encoder.decode(pair.chosen) == "It is 24 months."
        and encoder.decode(pair.rejected) == "It is 3 years."
    )
    assert pair.chosen[-1] in base.stop_ids and pair.rejected[-1] in base.stop_ids
    both = rated(encoder, [row, *read_rows([{**facts(1)[0], "rating": -1}])])
    assert [each.liked for each in both] == [True, False, False] and both[0].prompt == pair.prompt


def test_a_rejected_answer_that_cannot_be_encoded_is_named(bases: dict[str, BaseModel]) -> None:
    row = {**preferences(1)[0], "rejected": "It is <|im_end|> over."}
    with pytest.raises(InputError, match="control token"):
        pairs(Encoder(bases["chatml"], 256), read_rows([row]))


def test_thumbs_alone_are_enough_for_kto_and_bad_answers_judge_nothing(home: Context) -> None:
    liked, not_liked = facts(24), facts(24, shift=2)
    rows = [{**row, "rating": 1} for row in liked] + [{**row, "rating": -1} for row in not_liked]
    prepared, _ = prepared_run(home, rows, load_recipe("kto"))
    assert {row.raw["rating"] for row in prepared.dataset.train} == {1, -1} and {
        row.raw["rating"] for row in prepared.dataset.test
    } <= {1}
    assert METHODS["kto"].rows == RATINGS


def test_what_the_engine_takes_no_adapter_on_is_left_out_or_refused_before_training(
    tmp_path: Path,
) -> None:
    experts = BaseModel(
        build_base(
            tmp_path / "moe",
            architecture="Olmoe",
            num_experts=4,
            num_experts_per_tok=2,
            tie_word_embeddings=False,
        ),
        "moe",
    )
    assert experts.has_experts
    model = experts.load_model("float32")
    assert target_names(model, ("all-linear",), served=True) == [
        "k_proj",
        "o_proj",
        "q_proj",
        "v_proj",
    ]
    with pytest.raises(InputError, match="no linear layer named experts"):
        target_names(model, ("experts",), served=True)
    joint = BaseModel(
        build_base(tmp_path / "phi", architecture="Phi3", tie_word_embeddings=False), "phi"
    ).load_model("float32")
    assert target_names(joint, ("all-linear",), served=True) == [
        "down_proj",
        "gate_up_proj",
        "o_proj",
        "qkv_proj",
    ]
    dense = BaseModel(
        build_base(tmp_path / "dense", architecture="Phi", partial_rotary_factor=1.0), "dense"
    ).load_model("float32")
    with pytest.raises(InputError, match="The engine takes no adapter on layers named dense, fc1"):
        target_names(dense, ("fc1", "dense"), served=True)
    assert "fc1" in target_names(dense, ("all-linear",), served=False), (
        "a model that is merged may change every layer"
    )


def test_a_mixture_of_experts_says_before_training_what_is_left_as_it_is(
    sqlite_context: Context, tmp_path: Path
) -> None:
    base = build_base(
        tmp_path / "moe",
        architecture="Olmoe",
        num_experts=4,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
    )
    home = replace(
        sqlite_context,
        settings=load_settings(home=sqlite_context.settings.home, base_model=str(base)),
    )
    prepared, _ = prepared_run(home, facts(20), load_recipe("lora"))
    assert any("its experts stay as they are" in notice for notice in prepared.notices)


def test_rslora_is_scaled_by_the_root_of_the_rank_and_does_not_continue_lora(
    home: Context, bases: dict[str, BaseModel]
) -> None:
    model = add_lora(
        bases["chatml"].load_model("float32"),
        Recipe(method="rslora", rank=16, alpha=8.0, dtype="float32"),
    )
    layer = next(module for name, module in model.named_modules() if name.endswith("q_proj"))
    assert layer.scaling["default"] == pytest.approx(2.0)
    small = {"rank": 4, "alpha": 8.0, "epochs": 1.0, "dtype": "float32"}
    go(home, facts(16), load_recipe("lora"), **small)
    with pytest.raises(InputError, match="rslora the other way"):
        go(home, facts(16), load_recipe("rslora"), init_from="support@v1", **small)


# --- the commands -----------------------------------------------------------------------------------------------------


def test_the_list_of_methods_says_what_the_engine_does_with_each(shell: Shell) -> None:
    listed = {row["method"]: row for row in shell.json("train", "methods")}
    assert list(listed) == list(METHODS)
    assert (
        listed["dora"]["engine"] == "model" and "vLLM does not serve DoRA" in listed["dora"]["said"]
    )
    assert "version under its alias" in shell("train", "methods")


def test_a_librarys_trainer_prints_nothing_between_the_lines_for_scripts(
    shell: Shell, tmp_path: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", preferences(30)))
    made = shell.json(
        "train", "run", rows, "--method", "orpo", "--epochs", "1", "--rank", "4", "--threads", "1"
    )
    assert made["adapter"] and not any("preferences" in notice for notice in made["notices"]), (
        "this method does look at the rejected answers"
    )


def test_an_unservable_method_says_so_before_training_and_writes_a_folder_when_it_is_given_one(
    shell: Shell, tmp_path: Path
) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", facts(60)))
    said = shell.refused("train", "run", rows, "--method", "ia3")
    assert "vLLM serves no (IA)³" in said and "--into FOLDER" in said
    assert shell.json("train", "list") == [], "nothing was started"
    assert "--into belongs to methods that cannot" in shell.refused(
        "train", "run", rows, "--into", str(tmp_path / "x")
    )
    assert "exists already" in shell.refused(
        "train", "run", rows, "--method", "ia3", "--into", str(tmp_path)
    )
    assert "has no rank" in shell.refused(
        "train", "run", rows, "--method", "prompt", "--rank", "8", "--into", str(tmp_path / "x")
    )
    made = shell.json(
        "train",
        "run",
        rows,
        "--method",
        "ia3",
        "--into",
        str(tmp_path / "whole"),
        "--epochs",
        "1",
        "--threads",
        "1",
    )
    assert (made["adapter"], made["folder"]) == (None, str(tmp_path / "whole")) and made[
        "next"
    ].endswith("whet up")
    assert any("(IA)³" in notice for notice in made["notices"])
    shown = shell.json("train", "show", made["run"])
    assert (
        shown["state"] == "succeeded"
        and shown["progress"]["folder"] == made["folder"]
        and shown["progress"]["verdict"] == made["verdict"]
    )
