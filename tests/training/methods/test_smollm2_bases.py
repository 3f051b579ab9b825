"""Versions of SmolLM2-135M beside a base that is another one in one part: its chat template, its
tokenizer, a revision of its weights, the weights of another model of the same shape.

Such a base is refused twice. By its digest before anything is loaded, when the installation's base
is the changed one; and by what a real engine answers, when that engine was started with the changed
folder under the name of the right base, as by hand or by an image that was built anew. An engine
takes half a minute to start, so each one has two parts changed, and must be refused for both.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from serving.base import base_of
from serving.processes import engine_process
from tests.engine_fixture import LiveEngine
from tests.serving.conftest import Running, free_port, serve, wait_for
from tests.training.methods.smollm2 import (
    DTYPES,
    LENGTH,
    RANK,
    Trained,
    changed_base,
    new_version,
)
from training.models.base_model import BaseModel
from training.store.adapter_publish import publish
from whet.access import engine_key
from whet.context import Context, open_context
from whet.database import reading
from whet.settings import load_settings
from whet.tables import replicas

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1200)]

# Part → (what its digest says, what an engine's answers say).
CAUSES = {
    "template": (
        "They differ in the chat template.",
        "makes the same of a plain text, so its chat template is another one",
    ),
    "tokenizer": ("They differ in the tokenizer.", "its tokenizer is another one"),
    "revision": (
        "They differ in the weights.",
        "another revision, quantization or fine-tune of the same model",
    ),
    "other model": ("They differ in the weights.", "another model of the same shape"),
}
PAIRS = (("template", "revision"), ("tokenizer", "other model"))


@contextmanager
def _installation(
    home: Path, base: Path, smollm2: BaseModel, trained: dict[str, Trained], dtype: str
) -> Iterator[Context]:
    """An installation on `base` with the versions that were trained on SmolLM2 in both dtypes."""
    context = open_context(
        load_settings(
            home=home,
            base_model=str(base),
            engine_urls=f"http://127.0.0.1:{free_port()}",
            engine_max_model_len=LENGTH,
            engine_max_lora_rank=RANK,
            engine_max_loras=2,
            engine_dtype=dtype,
            rollout_auto=False,
        )
    )
    try:
        for name, version in trained.items():
            publish(context, new_version(smollm2, name, version))
        yield context
    finally:
        context.close()


def _refused(running: Running) -> dict[str, str]:
    """Why each version is refused, once both are."""

    def found() -> dict[str, str] | None:
        with reading(running.context.database) as connection:
            row = connection.execute(replicas.select()).first()
        refused = dict(row.refused) if row else {}
        assert row is None or set(row.ready) <= {"base"}, row.ready
        return refused if len(refused) == len(DTYPES) else None

    refused = wait_for(found, "two refused versions", timeout_s=300)
    assert isinstance(refused, dict)
    return refused


@pytest.mark.parametrize("part", CAUSES)
def test_base_with_another_part_is_refused_by_its_digest(
    smollm2: BaseModel,
    trained: dict[str, Trained],
    tmp_path: Path,
    part: str,
) -> None:
    changed = changed_base(smollm2, [part], tmp_path / "base")
    with _installation(tmp_path / "home", changed, smollm2, trained, "auto") as context:
        for running in serve(context, None, services=None):  # type: ignore[arg-type]
            for reason in _refused(running).values():
                assert CAUSES[part][0] in reason and "was trained on base" in reason


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", PAIRS, ids=" and ".join)
def test_engine_on_a_changed_base_serves_no_version(
    smollm2: BaseModel,
    trained: dict[str, Trained],
    tmp_path: Path,
    parts: tuple[str, str],
    dtype: str,
    record_property: Callable[[str, object], None],
) -> None:
    changed = changed_base(smollm2, parts, tmp_path / "base")
    with _installation(tmp_path / "home", smollm2.folder, smollm2, trained, dtype) as context:
        wrong = replace(base_of(context), source=str(changed), folder=changed)
        port = int(context.settings.replica_urls[0].rpartition(":")[2])
        spec = engine_process(context, wrong, port=port)
        key = engine_key(context.settings.home, "")
        engine = LiveEngine(changed, key, [], spec, tmp_path / "engine.log")
        engine.start()
        try:
            for running in serve(context, engine, services=None):  # type: ignore[arg-type]
                for digest, reason in _refused(running).items():
                    print(parts, dtype, digest[:8], reason)
                    record_property(f"{parts} {dtype} {digest[:8]}", reason)
                    named = {part for part, (_, cause) in CAUSES.items() if cause in reason}
                    assert named == set(parts), reason
        finally:
            engine.kill(signal.SIGTERM)
