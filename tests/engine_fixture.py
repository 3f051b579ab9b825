"""One real vLLM for the whole test session, with a tiny base and adapters whose answers can be told
apart.

The base is a Llama of random weights. Each adapter pushes the last layer's output hard along one
direction, so that at temperature 0 everything it says consists of two tokens of its own: its
markers. No training is needed, and an answer that mixes two versions cannot go unnoticed.

The fixture is `live_engine`, offered to all tests by `tests/conftest.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import insert

from serving.base import base_of
from serving.processes import engine_process
from whet.access import engine_key
from whet.clock import now_ms
from whet.context import Context, open_context
from whet.database import writing
from whet.plugins import ProcessSpec
from whet.registry import adapter_path
from whet.settings import load_settings
from whet.store import digest_files
from whet.tables import adapters

PORT = 18150
# tokens: an engine this small fills 512 within a breath of a busy machine, before a test can do
# anything to the answer
CONTEXT = 8192
_HIDDEN, _LAYERS = 128, 2  # heads of 32: the CPU engine has no attention kernel for smaller ones
_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor"
    " %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass
class MarkerAdapter:
    """An adapter folder, and the only two texts that its answers consist of at temperature 0."""

    folder: Path
    digest: str
    markers: tuple[str, str]
    fingerprint: dict[str, object]

    def spoke(self, text: str) -> bool:
        """True if `text` consists of this adapter's markers alone."""
        rest = text
        for marker in self.markers:
            rest = rest.replace(marker, "")
        return bool(text) and not rest


@dataclass
class LiveEngine:
    """A running engine.

    `kill` and `start` are for tests of its loss; the fixture brings it back for the next test.
    """

    base_folder: Path
    key: str
    adapters: list[MarkerAdapter]
    spec: ProcessSpec
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return self.spec.ready_url.removesuffix("/health")

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.spec.argv,
                env={**os.environ, **self.spec.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + self.spec.ready_within_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(self.spec.ready_url, timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        self.kill()
        raise RuntimeError(
            "The engine did not become ready; the end of its"
            f" log:\n{self.log.read_text(errors='replace')[-4000:]}"
        )

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the API server and everything it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            self.process.wait(30)
            self.process = None

    def context(self, home: Path, **settings: object) -> Context:
        """A context whose gateway uses this engine."""
        return open_context(
            load_settings(
                home=home,
                base_model=str(self.base_folder),
                engine_urls=self.url,
                engine_key=self.key,
                **settings,
            )
        )

    def register(
        self,
        context: Context,
        number: int,
        name: str,
        version: int,
        *,
        gate: str = "pass",
        fingerprint: bool = True,
    ) -> str:
        """Put adapter `number` into the context's store and table, as training does; returns its
        label.
        """
        adapter = self.adapters[number]
        path = context.store.put_folder(
            adapter_path(name, version, adapter.digest),
            lambda folder: _copy(adapter.folder, folder),
        )
        card = {"fingerprint": adapter.fingerprint} if fingerprint else {}
        with writing(context.database) as connection:
            connection.execute(
                insert(adapters).values(
                    digest=adapter.digest, name=name, version=version, path=path, base_digest=base_of(context).digest, template_digest="0" * 64, rank=8,
                    gate=gate, card=card, created_at=now_ms(),
                )
            )  # fmt: skip
        return f"{name}@v{version}"


def _copy(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)


def make_tiny_base(folder: Path, *, max_positions: int = CONTEXT) -> None:
    """A two-layer Llama of random weights with a byte-level tokenizer and a chat template, in
    Hugging Face format.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
    tokenizer.train_from_iterator(
        ["The quick brown fox jumps over the lazy dog."] * 3,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=_HIDDEN, intermediate_size=256, num_hidden_layers=_LAYERS, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=max_positions, tie_word_embeddings=False, bos_token_id=None, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.weight, std=0.3)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=1.0)
    model.save_pretrained(folder, safe_serialization=True)


def make_marker_adapters(base: Path, target: Path, count: int) -> list[MarkerAdapter]:
    """`count` adapters with disjoint markers, each with its fingerprint as the trainer would
    compute it.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    found: list[MarkerAdapter] = []
    used: set[int] = set(tokenizer.all_special_ids)
    head = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).lm_head.weight.detach()
    for token in range(ord("A") - 28, len(tokenizer)):
        if len(found) == count:
            break
        direction = head[token] / head[token].norm()
        scores = head @ direction
        pair = (int(scores.argmax()), int(scores.argmin()))
        texts = tuple(tokenizer.decode([one]) for one in pair)
        if used & set(pair) or not all(
            text.isascii() and text.isprintable() and text.strip() for text in texts
        ):
            continue
        used |= set(pair)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        peft = get_peft_model(
            model,
            LoraConfig(
                r=8,
                lora_alpha=8,
                target_modules=["down_proj"],
                layers_to_transform=[_LAYERS - 1],
                bias="none",
            ),
        )
        torch.manual_seed(token)
        with torch.no_grad():
            for name, weight in peft.named_parameters():
                if "lora_A" in name:
                    torch.nn.init.normal_(weight, std=1.0)
                    weight[1:] = 0
                elif "lora_B" in name:
                    weight.zero_()
                    weight[:, 0] = direction * 1e5
        folder = target / f"adapter{len(found)}"
        peft.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)
        digest = digest_files(folder, ["adapter_config.json", "adapter_model.safetensors"])
        found.append(
            MarkerAdapter(folder, digest, (texts[0], texts[1]), _fingerprint(peft, tokenizer))
        )
    assert len(found) == count, "the tiny base has too few printable markers"
    return found


def _fingerprint(peft: object, tokenizer: object) -> dict[str, object]:
    import torch

    def logprobs(ids: list[int]) -> list[float | None]:
        with torch.inference_mode():
            logits = peft(input_ids=torch.tensor([ids])).logits[0, :-1].float()  # type: ignore[operator]
        return [
            None,
            *torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist(),
        ]

    prompts = []
    for text in ("The quick brown fox", "jumps over the lazy dog, twice."):
        ids = tokenizer.encode(text)  # type: ignore[attr-defined]
        adapter = logprobs(ids)
        with peft.disable_adapter():  # type: ignore[attr-defined]
            base = logprobs(ids)
        prompts.append({"token_ids": ids, "base_logprobs": base, "adapter_logprobs": adapter})
    messages = [
        {"role": "user", "content": "Where is it? "},
        {"role": "assistant", "content": "Here."},
        {"role": "user", "content": "And now?"},
    ]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)  # type: ignore[attr-defined]
    return {
        "prompts": prompts,
        "tolerance": {"mean": 0.05, "max": 0.5},
        "asked": {"messages": messages, "token_ids": asked},
    }


@pytest.fixture(scope="session")
def live_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    """Takes about a minute and 3 GB; every test that uses it is marked `engine`."""
    root = tmp_path_factory.mktemp("engine")
    make_tiny_base(root / "base")
    made = make_marker_adapters(root / "base", root, 3)
    context = open_context(
        load_settings(
            home=root / "home",
            base_model=str(root / "base"),
            engine_max_model_len=CONTEXT,
            engine_max_lora_rank=8,
            # As many as there are adapters, so that tests have every slot of the engine filled
            engine_max_loras=3,
            engine_max_cpu_loras=16,
            engine_start_timeout_s=900,
        )
    )
    spec = engine_process(context, base_of(context), port=PORT)
    engine = LiveEngine(
        root / "base", engine_key(context.settings.home, ""), made, spec, root / "engine.log"
    )
    (root / "markers.json").write_text(json.dumps([adapter.markers for adapter in made]))
    engine.start()
    try:
        yield engine
    finally:
        engine.kill(signal.SIGTERM)
        context.close()
