"""Versions merged into one: the weighted sum of what each adds to the base."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import training.commands.adapter_import
from tests.training.test_store import RANK, TARGETS, new_adapter, weights_for
from training.adapters.copies import export_adapter
from training.adapters.merge import COMBINATIONS, MergeRecipe, merge_adapters
from training.adapters.model_card import CARD_FILE
from training.models.base_model import BaseModel
from training.models.lora import plain_config
from training.store.adapter_publish import NewAdapter, publish, read_weights
from whet.cli import app
from whet.context import Context
from whet.errors import AdapterError, InputError, WhetError
from whet.registry import Adapter

pytestmark = pytest.mark.seconds
BOTH = (0.75, 0.25)


@pytest.fixture
def versions(sqlite_context: Context, base: BaseModel) -> list[Adapter]:
    """Two of equal rank and different scale: the second is rsLoRA."""
    second = new_adapter(base, name="billing", seed=1)
    second.config.update(use_rslora=True)
    return [publish(sqlite_context, new) for new in (new_adapter(base), second)]


def update(context: Context, version: Adapter) -> dict[str, torch.Tensor]:
    """Layer → what the version adds to its weight."""
    weights, config = read_weights(context, version)
    scale = config["lora_alpha"] / config["r"] ** (0.5 if config["use_rslora"] else 1)
    return {
        a: scale * (weights[a.replace("lora_A", "lora_B")].float() @ tensor.float())
        for a, tensor in weights.items()
        if ".lora_A." in a
    }


def distance(context: Context, merged: Adapter, versions: list[Adapter]) -> float:
    """From the exact weighted sum, as a share of its size."""
    found, (one, two) = update(context, merged), [update(context, v) for v in versions]
    exact = {name: BOTH[0] * one[name] + BOTH[1] * two[name] for name in one}
    assert found.keys() == exact.keys()
    off = sum(float((found[name] - exact[name]).square().sum()) for name in exact)
    return (off / sum(float(tensor.square().sum()) for tensor in exact.values())) ** 0.5


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_merged_version_is_stored_with_what_it_was_made_of(
    sqlite_context: Context, base: BaseModel, versions: list[Adapter], combination: str
) -> None:
    recipe = MergeRecipe(BOTH, combination)
    merged = merge_adapters(sqlite_context, versions, recipe, "both", base, actor="t")
    again = merge_adapters(sqlite_context, versions, recipe, "both", base, actor="t")
    assert merged.digest == again.digest, "the same call gives the same version"
    assert (merged.label, merged.rank) == ("both@v1", RANK * (2 if combination == "cat" else 1))
    sources = merged.card["merged"]["from"]
    assert [(s["digest"], s["weight"]) for s in sources] == [
        (version.digest, weight) for version, weight in zip(versions, BOTH, strict=True)
    ]
    assert merged.gate == "none" and merged.card["fingerprint"]["prompts"]
    limit = {"cat": 0.01, "svd": 0.75}.get(combination)
    if limit is not None:
        off = distance(sqlite_context, merged, versions)
        assert off < limit, "cat is the sum, svd the nearest of half the rank"


def of_rank(context: Context, base: BaseModel, rank: int, name: str) -> Adapter:
    new = NewAdapter(
        name=name,
        weights=weights_for(base, 2, rank=rank),
        config=plain_config(rank, 8.0, TARGETS),
        base_digest=base.digest,
        template_digest=base.template_digest,
        rank=rank,
        card={},
    )
    return publish(context, new)


def test_ranks_may_differ_where_the_combination_takes_them(
    sqlite_context: Context, base: BaseModel, versions: list[Adapter]
) -> None:
    pair = [versions[0], of_rank(sqlite_context, base, 2, "small")]
    merged = merge_adapters(sqlite_context, pair, MergeRecipe(BOTH), "cat", base, actor="t")
    assert merged.rank == RANK + 2
    assert distance(sqlite_context, merged, pair) < 0.01
    with pytest.raises(AdapterError, match="cat and svd take versions of different ranks"):
        merge_adapters(sqlite_context, pair, MergeRecipe(BOTH, "ties"), "x", base, actor="t")


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (MergeRecipe((1.0,)), "1 weights for 2 versions"),
        (MergeRecipe((1.0, 0.0)), "other than zero"),
        (MergeRecipe((1.0, float("nan"))), "other than zero"),
        (MergeRecipe(BOTH, "mean"), "expected one of cat"),
        (MergeRecipe(BOTH, "cat", 0.5), "--density is of combinations"),
        (MergeRecipe(BOTH, "ties", 0.0), "The density is 0.0"),
    ],
)
def test_recipe_that_does_not_fit_is_refused(
    sqlite_context: Context,
    base: BaseModel,
    versions: list[Adapter],
    recipe: MergeRecipe,
    sentence: str,
) -> None:
    with pytest.raises(InputError, match=sentence):
        merge_adapters(sqlite_context, versions, recipe, "x", base, actor="t")


def test_versions_that_do_not_fit_are_refused(
    sqlite_context: Context,
    base: BaseModel,
    bases: dict[str, BaseModel],
    versions: list[Adapter],
) -> None:
    recipe = MergeRecipe(BOTH)
    for some, other, sentence in (
        ([versions[0]], base, "two or more"),
        ([versions[0], versions[0]], base, "named twice"),
        (versions, bases["turns"], "belongs to the base"),
    ):
        with pytest.raises(WhetError, match=sentence):
            merge_adapters(sqlite_context, some, recipe, "x", other, actor="t")
    large = [of_rank(sqlite_context, base, 33, name) for name in ("large", "larger")]
    with pytest.raises(AdapterError, match=r"rank 66 \(33 \+ 33\).*--combination svd"):
        merge_adapters(sqlite_context, large, recipe, "x", base, actor="t")


def test_command_says_what_merging_means(
    sqlite_context: Context,
    base: BaseModel,
    versions: list[Adapter],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setattr(training.commands.adapter_import, "open_base", lambda settings: base)
    labels = [version.label for version in versions]
    command = ["adapters", "merge", *labels, "--name", "both"]
    environment = {"WHET_HOME": str(sqlite_context.settings.home)}
    done = CliRunner().invoke(app, [*command, "--json"], env=environment)
    printed = json.loads(done.stdout)
    assert printed["merged"] == {"support@v1": 0.5, "billing@v1": 0.5}
    assert "evaluated" in printed["notice"] and printed["next"].startswith("whet eval run both@v1")
    wrong = CliRunner().invoke(app, [*command, "--weights", "a,b"], env=environment)
    assert isinstance(wrong.exception, InputError)

    recipe = MergeRecipe((0.5, 0.5))
    merged = merge_adapters(sqlite_context, versions, recipe, "both", base, actor="t")
    assert merged.digest == printed["digest"]
    to = tmp_path_factory.mktemp("out") / "both"
    export_adapter(sqlite_context, merged, to)
    assert "0.5 × support@v1" in (to / CARD_FILE).read_text()
