"""The adapter store: whole versions, unique numbers, and imports that are checked like input from a
stranger.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from training.adapters import imports as adapter_import
from training.adapters.copies import export_adapter
from training.adapters.imports import import_adapter, read_adapter
from training.models.base_model import BaseModel
from training.models.lora import plain_config
from training.store import adapter_store
from training.store.adapter_publish import NewAdapter, publish
from training.store.adapter_store import CONFIG, WEIGHTS
from whet.context import Context
from whet.database import reading, writing
from whet.errors import AdapterError, ConflictError, InputError, StoreError
from whet.registry import Adapter, find_adapter, list_adapters
from whet.tables import adapters, audit, evaluations, replicas, rollouts

RANK = 4
TARGETS = ["q_proj", "v_proj"]


def weights_for(base: BaseModel, seed: int = 0, rank: int = RANK) -> dict[str, Any]:
    """Random LoRA matrices for two layer kinds of a base."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, (outputs, inputs) in base.linear_shapes.items():
        if name.rsplit(".", 1)[-1] in TARGETS:
            made[f"base_model.model.{name}.lora_A.weight"] = torch.randn(
                rank, inputs, generator=generator
            ).to(torch.bfloat16)
            made[f"base_model.model.{name}.lora_B.weight"] = (
                torch.randn(outputs, rank, generator=generator).to(torch.bfloat16) * 0.1
            )
    return made


def new_adapter(base: BaseModel, name: str = "support", seed: int = 0, **fields: Any) -> NewAdapter:
    return NewAdapter(
        name=name,
        weights=weights_for(base, seed),
        config=plain_config(RANK, 8.0, TARGETS),
        base_digest=base.digest,
        template_digest=base.template_digest,
        rank=RANK,
        card={},
        **fields,
    )


def test_a_version_is_its_weights_and_configuration(context: Context, base: BaseModel) -> None:
    first = publish(context, new_adapter(base))
    assert first.path == f"adapters/support/v1--{first.digest[:8]}"
    assert publish(context, new_adapter(base, seed=1)).version == 2
    assert publish(context, new_adapter(base)).label == "support@v1", (
        "the same weights are the same version"
    )
    other = publish(context, new_adapter(base, name="billing"))
    assert (other.version, other.digest != first.digest) == (1, True), (
        "equal weights under two names are two adapters"
    )
    adapter_store.verify(context, first)
    card = context.store.read_json(f"{first.path}/card.json")
    assert card["base_digest"] == base.digest and card["files"].keys() == {CONFIG, WEIGHTS}
    assert str(base.folder) not in context.store.read_bytes(f"{first.path}/{CONFIG}").decode()


def test_twelve_publishers_at_once_get_twelve_numbers(context: Context, base: BaseModel) -> None:
    made = [new_adapter(base, seed=seed) for seed in range(12)]
    threads = [threading.Thread(target=publish, args=(context, new)) for new in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(context.database) as connection:
        assert sorted(adapter.version for adapter in list_adapters(connection)) == list(
            range(1, 13)
        )


def test_row_evaluation_and_run_stand_or_fall_together(context: Context, base: BaseModel) -> None:
    evaluation = {
        "run_id": "run_1",
        "against_digest": None,
        "dataset_digest": "d",
        "metrics": {},
        "verdict": "pass",
        "reason": "r",
        "thresholds": {},
        "samples_path": None,
    }

    def fails(connection: object, adapter: Adapter) -> None:
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        publish(context, new_adapter(base, evaluation=evaluation, also=fails))
    with reading(context.database) as connection:
        assert [
            connection.execute(select(func.count()).select_from(table)).scalar()
            for table in (adapters, evaluations, audit)
        ] == [0, 0, 0]
    left_behind = list((Path(context.store.root) / "adapters" / "support").iterdir())
    stored = publish(context, new_adapter(base, evaluation=evaluation, gate="pass"))
    assert left_behind == list((Path(context.store.root) / "adapters" / "support").iterdir()), (
        "the folder without a row was taken up again"
    )
    assert (stored.version, stored.gate) == (1, "pass")
    with reading(context.database) as connection:
        assert connection.execute(select(evaluations.c.adapter_digest)).scalar() == stored.digest


def test_changed_files_are_found(sqlite_context: Context, base: BaseModel) -> None:
    stored = publish(sqlite_context, new_adapter(base))
    file = sqlite_context.store.local_folder(stored.path) / WEIGHTS
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match="changed after it was stored"):
        adapter_store.verify(sqlite_context, stored)


def test_a_live_version_cannot_be_removed_and_files_outlive_the_engines_use(
    context: Context, base: BaseModel
) -> None:
    live, idle = publish(context, new_adapter(base)), publish(context, new_adapter(base, seed=1))
    values = {
        "alias": "support",
        "generation": 1,
        "candidate_digest": None,
        "candidate_share": 0.0,
        "previous_digest": None,
        "pinned": False,
        "state": "live",
        "reason": "",
        "actor": "t",
        "created_at": 1,
    }
    with writing(context.database) as connection:
        connection.execute(insert(rollouts).values(id="rol_1", stable_digest=live.digest, **values))
        connection.execute(
            insert(replicas).values(
                url="u", state="ready", ready={idle.digest: {}}, refused={}, seen_at=1
            )
        )
    with pytest.raises(ConflictError, match="answers under 'support'"):
        adapter_store.remove(context, "support@v1", actor="t", now=10)
    adapter_store.remove(context, "support@v2", actor="t", now=10)
    hour = 3_600_000
    assert adapter_store.sweep(context, 10 + 2 * hour) == [], "an engine still holds it"
    with writing(context.database) as connection:
        connection.execute(replicas.update().values(ready={}))
    assert adapter_store.sweep(context, 10 + hour // 2) == []
    assert adapter_store.sweep(context, 10 + 2 * hour) == [idle.path]
    again = publish(context, new_adapter(base, seed=1))
    assert (again.label, again.removed_at) == ("support@v2", None), (
        "numbers are not given to other content"
    )
    assert publish(context, new_adapter(base, seed=2)).version == 3


@pytest.fixture
def exported(sqlite_context: Context, base: BaseModel, tmp_path: Path) -> Path:
    """A folder in PEFT's format, as somebody else might send it."""
    from safetensors.torch import save_file

    folder = tmp_path / "peft"
    folder.mkdir()
    save_file(weights_for(base), str(folder / WEIGHTS))
    (folder / CONFIG).write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": RANK,
                "lora_alpha": 8,
                "target_modules": TARGETS,
                "base_model_name_or_path": "/somewhere/else",
                "bias": "none",
                "new_field": [1],
            }
        )
    )
    return folder


def test_a_good_folder_is_imported_and_its_configuration_rewritten(
    sqlite_context: Context, base: BaseModel, exported: Path
) -> None:
    stored, _ = import_adapter(sqlite_context, exported, "support", base, actor="t")
    config = sqlite_context.store.read_json(f"{stored.path}/{CONFIG}")
    assert config == plain_config(RANK, 8.0, TARGETS)
    assert stored.gate == "none" and stored.dataset_digest is None
    prompts = stored.card["fingerprint"]["prompts"]
    assert prompts and all(
        len(prompt["token_ids"]) == len(prompt["adapter_logprobs"]) == len(prompt["base_logprobs"])
        for prompt in prompts
    )
    assert (
        prompts[0]["adapter_logprobs"][0] is None
        and prompts[0]["adapter_logprobs"] != prompts[0]["base_logprobs"]
    )


@pytest.mark.parametrize("computed", ["bfloat16", "float32"])
def test_an_exported_adapter_is_the_same_version_on_a_machine_without_bfloat16(
    sqlite_context: Context,
    base: BaseModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    computed: str,
) -> None:
    monkeypatch.setattr(adapter_import, "stored_dtype", lambda: computed)
    stored = publish(sqlite_context, new_adapter(base))
    export_adapter(sqlite_context, stored, tmp_path / "out")
    assert (
        import_adapter(sqlite_context, tmp_path / "out", "support", base, actor="t")[0].label
        == "support@v1"
    )


def test_what_was_exported_can_be_imported(
    sqlite_context: Context, base: BaseModel, tmp_path: Path
) -> None:
    stored = publish(sqlite_context, new_adapter(base))
    export_adapter(sqlite_context, stored, tmp_path / "out")
    assert (
        import_adapter(sqlite_context, tmp_path / "out", "support", base, actor="t")[0].label
        == "support@v1"
    )
    with pytest.raises(InputError, match="exists already"):
        export_adapter(sqlite_context, stored, tmp_path / "out")


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / CONFIG
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(str(folder / WEIGHTS))
        change(tensors)
        save_file(tensors, str(folder / WEIGHTS))

    return rewrite


def _first(tensors: dict[str, Any]) -> str:
    return sorted(tensors)[0]


def _poison(value: float) -> Callable[[dict[str, Any]], None]:
    def change(tensors: dict[str, Any]) -> None:
        tensors[_first(tensors)][0, 0] = value

    return change


def _rename(tensors: dict[str, Any], to: str) -> None:
    tensors[to] = tensors.pop(_first(tensors))


def _widen(tensors: dict[str, Any]) -> None:
    import torch

    name = _first(tensors)
    tensors[name] = torch.zeros(RANK, tensors[name].shape[1] + 1, dtype=torch.bfloat16)


def _header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Rewrites the header of the weights as no library would."""

    def rewrite(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (folder / WEIGHTS).write_bytes(
            len(text).to_bytes(8, "little") + text + content[8 + length :]
        )

    return rewrite


def _in_dtype(name: str, value: float = 0.0) -> Callable[[dict[str, Any]], None]:
    def change(tensors: dict[str, Any]) -> None:
        import torch

        first = _first(tensors)
        tensors[first] = torch.full(tensors[first].shape, value, dtype=torch.float64).to(
            getattr(torch, name)
        )

    return change


def _huge_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def _link(folder: Path) -> None:
    target = folder.parent / "elsewhere"
    shutil.move(folder / WEIGHTS, target)
    (folder / WEIGHTS).symlink_to(target)


def _evil_pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"x": 1}))


def _hidden_pickle(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "adapter.pt").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_evil_pickle, "is a pickle"),
        (_hidden_pickle, "is a pickle"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"has no file {WEIGHTS}"),
        (lambda folder: (folder / CONFIG).unlink(), f"has no file {CONFIG}"),
        (_link, "is a link"),
        (lambda folder: (folder / CONFIG).write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "does not hold a JSON object"),
        (
            lambda folder: (folder / WEIGHTS).write_bytes(b"\x80\x04K\x01."),
            "not a whole safetensors file",
        ),
        (
            lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100]),
            "not a whole safetensors file",
        ),
        (_config(peft_type="IA3"), "serves LORA"),
        (_config(use_dora=True), "DoRA"),
        (_config(modules_to_save=["lm_head"]), "modules_to_save"),
        (_config(bias="all"), "trains biases"),
        (_config(lora_bias=True), "lora_bias"),
        (_config(rank_pattern={"q_proj": 8}), "rank_pattern"),
        (_config(init_lora_weights="pissa"), "'pissa'"),
        (_config(r=0), "rank is 0"),
        (_config(r="4"), "rank is '4'"),
        (_config(r=128), "the engine accepts up to 64"),
        (_config(r=8), "with rank 8"),
        (_config(lora_alpha=None), "lora_alpha is None"),
        (_tensors(_poison(float("nan"))), "NaN or Infinity"),
        (_tensors(_poison(float("inf"))), "NaN or Infinity"),
        (_tensors(_widen), "has the shape"),
        (_tensors(_in_dtype("float64", 1e300)), "NaN or Infinity"),
        (_tensors(_in_dtype("int8")), "stored as I8"),
        (_tensors(_in_dtype("float8_e4m3fn")), "stored as F8_E4M3"),
        (_huge_header, "not a whole safetensors file"),
        (
            _header(
                lambda header: header[
                    _first({k: v for k, v in header.items() if k != "__metadata__"})
                ].update(shape=[-4, 64])
            ),
            "not a whole safetensors file",
        ),
        (
            _header(
                lambda header: header[
                    _first({k: v for k, v in header.items() if k != "__metadata__"})
                ].update(data_offsets=[0, 1 << 50])
            ),
            "not a whole",
        ),
        (
            lambda folder: (folder / CONFIG).write_text(
                '{"peft_type": "LORA", "r": ' + "9" * 5000 + "}"
            ),
            "cannot be read as JSON",
        ),
        (lambda folder: (folder / CONFIG).write_text("[" * 100_000), "cannot be read as JSON"),
        (
            lambda folder: (folder / "card.json").write_bytes(b"\xff\xfe"),
            "card.json cannot be read as JSON",
        ),
        (
            _tensors(lambda tensors: tensors.__delitem__(_first(tensors))),
            "only one of lora_A and lora_B",
        ),
        (
            _tensors(
                lambda tensors: _rename(
                    tensors, "base_model.model.model.layers.99.self_attn.q_proj.lora_A.weight"
                )
            ),
            "belongs to another base",
        ),
        (
            _tensors(
                lambda tensors: _rename(tensors, "base_model.model.../../etc/passwd.lora_A.weight")
            ),
            "not a LoRA matrix",
        ),
        (
            _tensors(lambda tensors: _rename(tensors, "model.embed_tokens.lora_embedding_A")),
            "LoRA on the embeddings",
        ),
        (
            _tensors(lambda tensors: _rename(tensors, "base_model.model.lm_head.lora_A.weight")),
            "does not open to adapters",
        ),
        (_tensors(lambda tensors: tensors.clear()), "holds no tensor"),
        (
            lambda folder: (folder / "card.json").write_text(json.dumps({"base_digest": "0" * 64})),
            "belongs to the base 00000000",
        ),
        (
            lambda folder: (folder / "card.json").write_text(
                json.dumps({"template_digest": "0" * 64})
            ),
            "another chat template",
        ),
    ],
)
def test_a_folder_that_cannot_be_served_is_refused_with_its_reason(
    base: BaseModel, exported: Path, spoil: Callable[[Path], Any], sentence: str
) -> None:
    spoil(exported)
    with pytest.raises(AdapterError, match=re.escape(sentence)):
        read_adapter(exported, base, 64)


def test_a_linked_folder_and_a_file_are_refused(
    base: BaseModel, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(exported)
    for path in (tmp_path / "link", exported / CONFIG, tmp_path / "none"):
        with pytest.raises(AdapterError, match=r"link|not a folder"):
            read_adapter(path, base, 64)


def test_an_adapter_of_another_base_is_refused(
    bases: dict[str, BaseModel], sqlite_context: Context, base: BaseModel
) -> None:
    stored = publish(sqlite_context, new_adapter(base))
    with reading(sqlite_context.database) as connection:
        adapter = find_adapter(connection, stored.label)
    with pytest.raises(AdapterError, match="belongs to the base"):
        adapter_store.require_base(adapter, bases["turns"].digest, "another")
