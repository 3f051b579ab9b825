"""What is imported and said before the first step: libraries left out, devices, lengths, a method
that starts from nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from training.loop.faults import require_device
from training.plan.notices import _NEEDS_ANSWERS, length_notices
from training.recipes.methods import METHODS
from whet.errors import ConfigurationError

IMPORTS = """
import sys
from training.imports import load
from training.machine.bitsandbytes_import import show_bitsandbytes
load("training.runs.child_run:run")
heavy = [name for name in ("bitsandbytes", "sklearn", "pandas", "torch._inductor.compile_fx") if sys.modules.get(name)]
assert not heavy, heavy
from peft.import_utils import is_bnb_available
assert not is_bnb_available()
show_bitsandbytes()
assert is_bnb_available()
import bitsandbytes
"""


@pytest.mark.seconds
def test_a_run_imports_no_library_that_it_does_not_use_and_qlora_gets_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("asked", "positions", "said"),
    [
        (0, 4096, ""),
        (512, 4096, ""),
        (1024, 4096, ""),
        (
            4096,
            8192,
            (
                "max_length 4096 is bounded to 1024: the engine serves 1024 tokens"
                " (WHET_ENGINE_MAX_MODEL_LEN)"
            ),
        ),
        (4096, 512, "max_length 4096 is bounded to 512: the base has 512 positions."),
    ],
)
def test_a_length_that_is_not_had_says_what_bounds_it(
    asked: int, positions: int, said: str
) -> None:
    context: Any = SimpleNamespace(settings=SimpleNamespace(engine_max_model_len=1024))
    base: Any = SimpleNamespace(max_positions=positions)
    found = length_notices(context, asked, min(1024, positions), base)
    assert " ".join(found).startswith(said) and bool(found) == bool(said)


def test_methods_that_teach_preferences_alone_need_a_version_that_knows_the_answers() -> None:
    assert set(METHODS) >= _NEEDS_ANSWERS == {"dpo", "kto", "simpo", "rlhf"}


def test_device_cpu_hides_gpus_and_refuses_once_one_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    require_device("cpu", 1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigurationError, match="uses a GPU already"):
        require_device("cpu", 1)
