"""What a log says about why a process ended; excerpts are vLLM 0.32's own, shortened."""

from __future__ import annotations

import pytest

from serving.processes import _REMEDIES
from whet.up.failures import Failure, find_failure

POSITIONS = """\
(APIServer pid=13795) INFO 11-30 23:03:29 [model.py:733] Resolved architecture: LlamaForCausalLM
Traceback (most recent call last):
  File "/site-packages/pydantic/_internal/_dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (1024) is greater than the derived max_model_len (512). [type=value_error, input_value=ArgsKwargs(...), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
CORE = """\
(EngineCore pid=71) ERROR 11-30 22:00:01 [core.py:1100] EngineCore failed to start.
(EngineCore pid=71) ERROR 11-30 22:00:01 [core.py:1100] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-30 22:00:01 [core.py:1100]   File "loader.py", line 9, in load
(EngineCore pid=71) ERROR 11-30 22:00:01 [core.py:1100] safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata
(EngineCore pid=71) Process EngineCore:
Traceback (most recent call last):
  File "entry.py", line 232, in main
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects
"""
KILLED = """\
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}
"""
FIELD = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for LoRAConfig
max_lora_rank
  Input should be 1, 8, 16, 32, 64, 128, 256, 320 or 512 [type=literal_error, input_value=9, input_type=int]
    For further information visit https://errors.pydantic.dev/2.14/v/literal_error
"""
USAGE = "usage: api_server.py [-h]\napi_server.py: error: argument --port: invalid int value: 'x'\n"
PORT = "Traceback (most recent call last):\nOSError: [Errno 98] Address already in use\n"
MEMORY = (
    "Traceback (most recent call last):\nValueError: No available memory for the cache blocks. Try"
    " increasing it.\n"
)
ARRAY = "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 4.00 GiB for an array\n"
DATABASE = (
    "sqlalchemy.exc.OperationalError: (psycopg.OperationalError) connection failed: Connection"
    " refused\n"
)
OURS = "whet: The database is at schema 9; this version knows 8.\nRun that newer version.\n"
MOOD = "RuntimeError: CUDA error: unspecified launch failure\n"
UNKNOWN_KIND = "RuntimeError: start (0) + length (256) exceeds dimension size (64).\n"


def failure(text: str) -> Failure:
    return find_failure(text.split("\n"), _REMEDIES)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            POSITIONS,
            "User-specified max_model_len (1024) is greater than the derived max_model_len (512).",
        ),
        (CORE, "SafetensorError: Error while deserializing header: incomplete metadata"),
        (FIELD, "max_lora_rank: Input should be 1, 8, 16, 32, 64, 128, 256, 320 or 512."),
        (USAGE, "argument --port: invalid int value: 'x'"),
        (OURS, "The database is at schema 9; this version knows 8."),
        (PORT, "OSError: [Errno 98] Address already in use"),
        ("INFO all is well\nlistening\n", ""),
        ("", ""),
    ],
)
def test_the_line_that_holds_the_error_is_quoted_not_the_last_one(log: str, reason: str) -> None:
    assert failure(log).reason == reason


@pytest.mark.parametrize("log", [POSITIONS, CORE, FIELD, USAGE, OURS])
def test_errors_of_values_and_files_are_lasting(log: str) -> None:
    assert failure(log).lasting and not failure(log).transient


@pytest.mark.parametrize("log", [PORT, MEMORY, ARRAY, DATABASE, KILLED, MOOD])
def test_what_another_moment_can_cure_is_transient(log: str) -> None:
    assert failure(log).transient and not failure(log).lasting


def test_an_error_of_no_known_kind_is_neither() -> None:
    assert not failure(UNKNOWN_KIND).transient and not failure(UNKNOWN_KIND).lasting


def test_the_same_reason_with_other_figures_is_the_same() -> None:
    later = MEMORY.replace("blocks", "blocks of 12 GiB")
    assert failure(CORE).is_same(failure(CORE.replace("71", "99")))
    assert failure(UNKNOWN_KIND).is_same(failure(UNKNOWN_KIND.replace("256", "512")))
    assert not failure(MEMORY).is_same(failure(later))
    assert not failure("").is_same(failure(""))


@pytest.mark.parametrize(
    ("log", "todo"),
    [
        (POSITIONS, "WHET_ENGINE_MAX_MODEL_LEN"),
        (CORE, "download the base model again"),
        (MEMORY, "WHET_ENGINE_KV_CACHE_GIB"),
        (FIELD, "WHET_ENGINE_MAX_LORA_RANK"),
        (
            "ValueError: Couldn't instantiate the backend tokenizer from one of:",
            "the tokenizer that belongs",
        ),
        (
            "ValueError: model type `nosuch` is not recognized, this architecture …",
            "WHET_BASE_MODEL",
        ),
    ],
)
def test_each_cause_says_what_to_do(log: str, todo: str) -> None:
    assert todo in failure(log).todo
