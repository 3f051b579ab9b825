"""How fast does a base learn new facts? ``python -m training.base.probe --base FOLDER``.

Trains a LoRA adapter on 500 examples of a scenario the base has never seen, answers held-out
questions greedily and prints one JSON line: the share of answers with all facts right, the share
per fact, seconds, tokens. ``--change`` goes on to the second half of the Zenith story.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from training.base import attention, other
from training.base.batches import Example, encode, tensors
from training.base.pretrain import keep_memory

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Scorer = Callable[[dict[str, Any], str], dict[str, bool]]


def load(folder: Path) -> tuple[Any, Any]:
    """``(model in bf16, fast tokenizer)`` of a base folder."""
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def with_lora(model: Any, rank: int, alpha: int, seed: int, fp32_adapter: bool) -> Any:
    """Wrap ``model`` with a fresh adapter on every linear layer."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS, task_type="CAUSAL_LM")
    return get_peft_model(model, config, autocast_adapter_dtype=fp32_adapter)


def finetune(model: Any, examples: list[Example], args: argparse.Namespace, epochs: float, learning_rate: float, batch: int) -> dict[str, Any]:
    """Train the adapter in place on the answers of ``examples``: cosine to a tenth, after a short warm-up."""
    import math

    import torch

    attention.use(model.base_model.model)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().clone().float() for p in parameters]
    optimiser = torch.optim.AdamW(masters, lr=learning_rate, betas=(0.9, args.beta2), weight_decay=0.0, foreach=True)
    rng = Random(args.seed)
    plan: list[list[Example]] = []
    while len(plan) < epochs * len(examples) / batch:
        order = rng.sample(examples, len(examples))
        plan += [order[n : n + batch] for n in range(0, len(order) - batch + 1, batch)]
    plan = plan[: max(1, round(epochs * len(examples) / batch))]
    started, tokens = time.monotonic(), 0
    last: list[float] = []
    for step, group in enumerate(plan):
        ids, answer, _ = tensors(group)
        hidden = model.base_model.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][answer]
        logits = model.base_model.model.lm_head(hidden).float()
        loss: Any = torch.nn.functional.cross_entropy(logits, ids[:, 1:][answer])
        loss.backward()
        progress = step / len(plan)
        factor = min(1.0, (step + 1) / args.warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group_ in optimiser.param_groups:
            group_["lr"] = learning_rate * factor
        for parameter, master in zip(parameters, masters, strict=True):
            master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimiser.step()
        with torch.no_grad():
            for parameter, master in zip(parameters, masters, strict=True):
                parameter.copy_(master)
        tokens += sum(len(e.ids) for e in group)
        last = [*last[-9:], float(loss.detach())]
    return {"seconds": round(time.monotonic() - started, 1), "steps": len(plan), "tokens": tokens, "last_loss": round(sum(last) / len(last), 4)}


def answers(model: Any, tokenizer: Any, rows: list[dict[str, Any]], batch: int = 50, new_tokens: int = 90) -> list[str]:
    """Greedy answers to the prompts of ``rows``."""
    import torch

    model.eval()
    inner = model.base_model.model if hasattr(model, "base_model") and hasattr(model, "peft_config") else model
    inner.config._attn_implementation = "eager"
    prompts = [[*encode(tokenizer, row["messages"]).ids, tokenizer.token_to_id("<|assistant|>")] for row in rows]
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    found = [""] * len(rows)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        width = max(len(prompts[n]) for n in part)
        ids = torch.tensor([[0] * (width - len(prompts[n])) + prompts[n] for n in part])
        seen = torch.tensor([[0] * (width - len(prompts[n])) + [1] * len(prompts[n]) for n in part])
        with torch.no_grad():
            made = model.generate(input_ids=ids, attention_mask=seen, max_new_tokens=new_tokens, do_sample=False, eos_token_id=1, pad_token_id=0)
        for n, row in zip(part, made[:, width:].tolist(), strict=True):
            found[n] = tokenizer.decode(row[: row.index(1)] if 1 in row else row, skip_special_tokens=True)
    return found


def judge(scorer: Scorer, rows: list[dict[str, Any]], given: list[str], wrong: list[str] | None = None) -> dict[str, Any]:
    """Share of answers with all facts right, and per fact."""
    counts: dict[str, list[bool]] = {}
    right = 0
    for row, answer in zip(rows, given, strict=True):
        facts = scorer(row["expected"], answer)
        right += all(facts.values())
        if wrong is not None and not all(facts.values()):
            wrong.append(f"{row['messages'][-1]['content']} => {answer}")
        for name, ok in facts.items():
            counts.setdefault(name, []).append(ok)
    return {"right": round(right / len(rows), 4), "facts": {name: round(sum(oks) / len(oks), 3) for name, oks in counts.items()}}


def scenario(name: str, args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Scorer]:
    """``(training rows, held-out rows, scorer)``."""
    if name == "other":
        return other.training_rows(args.examples, args.seed), other.held_out_rows(args.questions, args.seed), other.facts_right
    from examples.zenith import scenario as zenith

    rows = zenith.training_examples(zenith.old_world(), args.examples, args.seed)
    return rows, zenith.held_out("old", args.questions, args.seed), lambda expected, answer: zenith.score(expected, answer).facts


def changed_world(model: Any, tokenizer: Any, args: argparse.Namespace, rows: list[dict[str, Any]], scorer: Scorer) -> dict[str, Any]:
    """v1 in the changed world, then v2: from the base again, on new examples and the old ones that are still true."""
    from examples.zenith import scenario as zenith

    new_held_out = zenith.held_out("new", args.questions, args.seed)
    found: dict[str, Any] = {"v1_new": judge(scorer, new_held_out, answers(model, tokenizer, new_held_out))}
    current = [row for row in rows if zenith.is_current(row, zenith.new_world())]
    examples = [encode(tokenizer, row["messages"]) for row in [*zenith.new_examples(args.new_examples, args.seed), *current]]
    model = with_lora(load(args.base)[0], args.rank, args.alpha, args.seed, args.fp32_adapter)
    found["v2_training"] = finetune(model, examples, args, args.v2_epochs, args.learning_rate, args.batch)
    found["v2_new"] = judge(scorer, new_held_out, answers(model, tokenizer, new_held_out))
    old_held_out = zenith.held_out("old", args.questions, args.seed)
    found["v2_old"] = judge(scorer, old_held_out, answers(model, tokenizer, old_held_out))
    return found


def run(args: argparse.Namespace) -> dict[str, Any]:
    """One probe."""
    import torch

    keep_memory()
    torch.set_num_threads(args.threads)
    model, tokenizer = load(args.base)
    rows, held_out_rows, scorer = scenario(args.scenario, args)
    found: dict[str, Any] = {"base": str(args.base), "scenario": args.scenario}
    found |= {k: getattr(args, k) for k in ("rank", "alpha", "learning_rate", "batch", "epochs", "examples", "seed", "threads")}
    if args.base_score:
        found["base_old"] = judge(scorer, held_out_rows, answers(model, tokenizer, held_out_rows))
    model = with_lora(model, args.rank, args.alpha, args.seed, args.fp32_adapter)
    examples = [encode(tokenizer, row["messages"]) for row in rows]
    found["training"] = finetune(model, examples, args, args.epochs, args.learning_rate, args.batch)
    wrong: list[str] = []
    found["v1_old"] = judge(scorer, held_out_rows, answers(model, tokenizer, held_out_rows), wrong)
    if args.change and args.scenario == "zenith":
        found |= changed_world(model, tokenizer, args, rows, scorer)
    for line in wrong[: args.show]:
        sys.stderr.write(line + "\n")
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    parser = argparse.ArgumentParser(description="Measure how fast a base learns new facts.")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--scenario", choices=("zenith", "other"), default="zenith")
    parser.add_argument("--change", action="store_true", help="also train v2 after the change of the world (zenith)")
    parser.add_argument("--base-score", action="store_true", help="also score the base without an adapter")
    for name, default in (("examples", 500), ("questions", 200), ("seed", 1), ("rank", 32), ("alpha", 64), ("batch", 8), ("warm-up", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("threads", 2), ("new-examples", 300), ("show", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, value in (("epochs", 6.0), ("learning-rate", 3e-3), ("v2-epochs", 6.0), ("beta2", 0.99)):
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--fp32-adapter", action="store_true")
    parser.add_argument("--log", type=Path, default=None, help="append the result to this file")
    args = parser.parse_args(argv)
    line = json.dumps(run(args))
    sys.stdout.write(line + "\n")
    if args.log:
        with args.log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
