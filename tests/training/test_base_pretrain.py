"""Pre-training: resumable, the same as without an interruption, and its export loads where it must."""

import argparse
import shutil
from pathlib import Path
from typing import Any

import pytest

from training.base import batches, pretrain
from training.base.corpus import document
from training.base.optimise import schedule
from training.base.tokenizer import prompt_text
from whet.settings import BUILTIN_BASE

SEED = "whet-base-1"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(BUILTIN_BASE / "tokenizer.json"))


def arguments(out: Path, steps: int, decay_steps: int) -> argparse.Namespace:
    out.mkdir()
    shutil.copytree(BUILTIN_BASE, out / "tokenizer")
    options = [
        "--steps",
        str(steps),
        "--decay-steps",
        str(decay_steps),
        "--batch-tokens",
        "512",
        "--processes",
        "1",
    ]
    return pretrain.arguments(["--out", str(out), *options])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape and pools that train in a second."""
    from training.base import model

    monkeypatch.setattr(
        model,
        "SHAPE",
        model.SHAPE
        | {
            "num_hidden_layers": 1,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
    )
    monkeypatch.setattr(batches, "POOL_DOCUMENTS", 32)
    monkeypatch.setattr(pretrain, "EVALUATION_DOCUMENTS", 4)


def test_warm_up_constant_and_decay() -> None:
    factors = [schedule(step, 10, 50, 20) for step in range(71)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9:50] == [1.0] * 41
    assert factors[60] == pytest.approx(0.5)
    assert factors[70] == 0.0


def test_only_answers_and_their_ends_are_marked_as_answers(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "Hi 12"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"},
    ]
    example = batches.encode(tokenizer, messages)
    marked = tokenizer.decode(
        [i for i, on in zip(example.ids, example.answer, strict=True) if on],
        skip_special_tokens=False,
    )
    assert marked == "Hello<|end|>y<|end|>"


def test_batches_hold_every_document_of_the_pool_once_and_stay_within_budget(
    tokenizer: Any,
) -> None:
    examples = [batches.encode(tokenizer, document(SEED, n)) for n in range(200)]
    groups = batches.grouped(examples, 2048)
    assert sum(len(group) for group in groups) == 200
    assert all(
        len(group) * max(len(e.ids) for e in group) <= 2048 or len(group) == 1 for group in groups
    )


@pytest.mark.seconds
def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path, small: None) -> None:
    import torch

    straight = arguments(tmp_path / "straight", 6, 2)
    pretrain.train(straight, lambda line: None)
    stopped = arguments(tmp_path / "stopped", 6, 2)
    stopped.checkpoint_minutes = 0.0

    class Killed(Exception):
        pass

    def die(line: dict[str, Any]) -> None:
        if line.get("step") == 3:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "LOG_EVERY_STEPS", 1)
        with pytest.raises(Killed):
            pretrain.train(stopped, die)
    pretrain.train(stopped, lambda line: None)
    first, second = (
        torch.load(args.out / "state.pt", weights_only=True) for args in (straight, stopped)
    )
    assert first["step"] == second["step"] == 6
    for one, other in zip(
        first["optimiser"]["masters"], second["optimiser"]["masters"], strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_decay_file_brings_a_run_to_its_end(tmp_path: Path, small: None) -> None:
    args = arguments(tmp_path / "run", 1000, 3)
    (args.out / "decay").touch()
    lines: list[dict[str, Any]] = []
    pretrain.train(args, lines.append)
    end = lines[-1]
    assert end["event"] == "end"
    assert end["step"] == end["decay_from"] + 3 < 10


def test_a_finished_run_can_be_taken_up_again(tmp_path: Path, small: None) -> None:
    args = arguments(tmp_path / "run", 4, 2)
    pretrain.train(args, lambda line: None)
    args.again, args.steps = True, 7
    lines: list[dict[str, Any]] = []
    pretrain.train(args, lines.append)
    assert (lines[-1]["step"], lines[-1]["decay_from"]) == (7, 5)


def test_the_exported_model_loads_and_answers_the_same(tmp_path: Path, small: None) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    args = arguments(tmp_path / "run", 2, 1)
    pretrain.train(args, lambda line: None)
    model = AutoModelForCausalLM.from_pretrained(args.out / "model")
    assert model.dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(args.out / "model")
    assert tokenizer.eos_token == "<|end|>"
    made = model.generate(torch.tensor([tokenizer("Hello")["input_ids"]]), max_new_tokens=3)
    assert made.shape[1] >= 2


def test_plain_attention_computes_what_transformers_computes() -> None:
    import torch

    from training.base import attention
    from training.base.model import new_model

    model = new_model(0).eval()
    ids = torch.randint(0, 2048, (2, 33), generator=torch.Generator().manual_seed(0))
    expected = model(input_ids=ids).logits
    attention.use(model)
    torch.testing.assert_close(model(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_the_chat_template_and_the_trainers_text_agree() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BUILTIN_BASE)
    for number in range(50):
        messages = document(SEED, number)
        assert tokenizer.apply_chat_template(messages, tokenize=False) == prompt_text(messages)
    opened = tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert opened == "<|user|>Hi<|end|><|assistant|>"
