"""Put a finished pre-training run into the product: ``python -m training.base.ship --run FOLDER
--out whet/assets/base``.

Copies the exported model, drops what is not needed to load it, and writes ``card.json``: what the
model is, the recipe and seeds, the figures of its last evaluation and of the probes, and the hash
of every file.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from training.base import corpus
from training.base.model import SHAPE
from whet.lines import read_jsonl

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
LARGEST_BYTES = 15 * 1024 * 1024


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def commands(log: list[dict[str, Any]], seed: str) -> list[str]:
    """One command per stage of the run: a finished run may have been taken up again."""
    start = next(line for line in log if line.get("event") == "start")
    made: list[str] = []
    for end in (line for line in log if line.get("event") == "end"):
        made.append(
            f"python -m training.base.pretrain --out FOLDER --seed {seed} --steps"
            f" {end['step']} --decay-steps {end['step'] - end['decay_from']} --batch-tokens"
            f" {start['batch_tokens']} --learning-rate {start['learning_rate']} --processes"
            f" {start['processes']}" + (" --again" if made else "")
        )
    return made


def recipe(log: list[dict[str, Any]], seed: str) -> dict[str, Any]:
    """What reproduces the run, read from its log."""
    start = next(line for line in log if line.get("event") == "start")
    end = next(line for line in reversed(log) if line.get("event") == "end")
    steps = end["step"]
    return {
        "commands": commands(log, seed),
        "corpus_seed": seed,
        "weights_seed": start["weights_seed"],
        "steps": steps,
        "decay_from_step": end["decay_from"],
        "tokens": end["tokens"],
        "seconds": round(end["seconds"]),
        "optimiser": (
            "Muon for the matrices of the layers, AdamW for the rest; fp32 copies of bf16 weights;"
            " warm-up, constant, straight line to zero"
        ),
        "mixture": {
            maker.__name__ if maker else "memory_document": share for share, maker in corpus.MIXTURE
        },
        "figures": {name: end[name] for name in ("looked_up", "remembered")},
    }


def card(folder: Path, run: dict[str, Any], probes: list[dict[str, Any]]) -> dict[str, Any]:
    """The model's card."""
    return {
        "name": "whet-base",
        "what": (
            "A small Llama trained from scratch on generated dialogues of invented organisations."
            " It follows customer-service English, looks facts up in its prompt and learns new ones"
            " quickly. It knows nothing about the world and nothing of Zenith."
        ),
        "licence": "Apache-2.0",
        "architecture": "LlamaForCausalLM",
        "shape": SHAPE,
        "recipe": run,
        "probes": probes,
        "files": {
            name: {"sha256": digest(folder / name), "bytes": (folder / name).stat().st_size}
            for name in FILES
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        description="Put a finished pre-training run into the product."
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="the --out folder of training.base.pretrain"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--probes", type=Path, default=None, help="JSON lines written by training.base.probe --log"
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(args.run / "model" / name, args.out / name)
    if (args.out / "model.safetensors").stat().st_size > LARGEST_BYTES:
        raise SystemExit(
            f"model.safetensors is larger than {LARGEST_BYTES} bytes: train a smaller shape"
        )
    log = read_jsonl((args.run / "log.jsonl").read_bytes())
    start = next(line for line in log if line.get("event") == "start")
    probes = read_jsonl(args.probes.read_bytes()) if args.probes else []
    text = json.dumps(
        card(args.out, recipe(log, start["seed"]), probes), indent=2, ensure_ascii=False
    )
    (args.out / "card.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
