"""Pre-train the built-in base: ``python -m training.base.pretrain --out FOLDER --steps 3000``.

Writes ``FOLDER/log.jsonl`` (one line every few steps), ``FOLDER/state.pt`` (to resume) and
``FOLDER/model/`` (the exported model). Creating the file ``FOLDER/decay`` starts the final decay
of the learning rate at once, so a run can be brought to a good end at any time.
"""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaForCausalLM

from training.base import attention, batches
from training.base import tokenizer as tokenizers_of_base
from training.base.corpus import document
from training.base.model import new_model
from training.base.optimise import MasterOptimiser, OptimiserState, schedule
from training.machine.allocator import keep_memory

LOG_EVERY_STEPS = 10
EVALUATE_EVERY_STEPS = 200
# Documents for evaluation come from far beyond what any run can reach.
EVALUATION_START = 10_000_000
EVALUATION_DOCUMENTS = 192


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; the defaults are the recipe of the shipped model."""
    parser = argparse.ArgumentParser(description="Pre-train the built-in base model.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--seed", default="whet-base-1", help="seed of the corpus and of the tokenizer"
    )
    parser.add_argument("--weights-seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000, help="all steps, the decay included")
    parser.add_argument("--decay-steps", type=int, default=700)
    parser.add_argument("--warm-up", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument(
        "--processes", type=int, default=2, help="each takes its share of every batch"
    )
    parser.add_argument(
        "--rank", type=int, default=0, help="set by the command itself for the processes it starts"
    )
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0)
    parser.add_argument(
        "--again",
        action="store_true",
        help="go on from a finished run in --out: its decayed weights, then --steps in all",
    )
    parser.add_argument("--adamw-only", action="store_true")
    return parser.parse_args(argv)


def give_back_memory() -> None:
    """Return freed pages that lie unused between blocks in use; kept memory would grow without end
    otherwise.
    """

    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


class Place(TypedDict):
    """Where the pre-training is."""

    step: int
    tokens: int
    pool: int
    batch: int
    decay_from: int
    seconds: float


class Saved(Place):
    """What `state.pt` holds."""

    optimiser: OptimiserState


Report = Callable[[Mapping[str, object]], None]  # takes a line of the log


def save_state(path: Path, state: Saved) -> None:
    """Write ``state`` so that a half-written file can never be read."""

    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def export(model: LlamaForCausalLM, folder: Path, tokenizer_folder: Path) -> None:
    """Write the model in bf16 with its tokenizer, as transformers and vLLM read it."""

    folder.mkdir(parents=True, exist_ok=True)
    model.config.dtype = "bfloat16"
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer_folder / name, folder / name)
    end, pad = (
        tokenizers_of_base.SPECIAL.index("<|end|>"),
        tokenizers_of_base.SPECIAL.index("<|pad|>"),
    )
    generation = {"do_sample": False, "eos_token_id": end, "pad_token_id": pad}
    (folder / "generation_config.json").write_text(
        json.dumps(generation, indent=2) + "\n", encoding="utf-8"
    )


def loss_of(
    model: LlamaForCausalLM,
    group: list[batches.Example],
    generator: torch.Generator | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> tuple[torch.Tensor, float, int]:
    """``(this rank's share of the loss, loss on answers alone, real tokens of the batch)`` of one
    batch.
    """

    ids, answer, learned = batches.tensors(group, generator)
    learned_in_all = int(learned.sum())
    ids, answer, learned = ids[rank::ranks], answer[rank::ranks], learned[rank::ranks]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][learned]
    losses = torch.nn.functional.cross_entropy(
        model.lm_head(hidden).float(), ids[:, 1:][learned], reduction="none"
    )
    on_answers = answer[learned]
    return (
        losses.sum() / learned_in_all,
        float(losses.detach()[on_answers].mean()),
        sum(len(e.ids) for e in group),
    )


def join_gradients(model: nn.Module, wish: float) -> float:
    """Add up the gradients of all ranks in place; return the sum of the ranks' ``wish`` values."""

    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(g.reshape(-1).float() for g in gradients), torch.tensor([wish])])
    torch.distributed.all_reduce(flat)
    place = 0
    for gradient in gradients:
        gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
        place += gradient.numel()
    return float(flat[-1])


def evaluate(model: nn.Module, groups: dict[str, list[list[batches.Example]]]) -> dict[str, float]:
    """Share of the answer tokens of unseen documents that are predicted right, the true text before
    them, by sort of document.

    It cannot reach 1: which of several wordings an organisation uses is often only known after its
    first answer.
    """

    shares = {}
    with torch.no_grad():
        for name, parts in groups.items():
            right = total = 0
            for group in parts:
                ids, answer, _ = batches.tensors(group)
                predicted = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1)
                right += int(((predicted == ids[:, 1:]) & answer).sum())
                total += int(answer.sum())
            shares[name] = round(right / max(1, total), 4)
    return shares


def evaluation_groups(tokenizer: Tokenizer, seed: str) -> dict[str, list[list[batches.Example]]]:
    """Unseen documents with their facts in the prompt, and about remembered worlds."""
    sorts: dict[str, list[batches.Example]] = {"looked_up": [], "remembered": []}
    number = EVALUATION_START
    while min(len(found) for found in sorts.values()) < EVALUATION_DOCUMENTS:
        messages = document(seed, number)
        told = sum(len(m["content"]) for m in messages if m["role"] == "system")
        first_question = next(m for m in messages if m["role"] == "user")["content"]
        sort = (
            "looked_up"
            if told > 120
            else "remembered"
            if len(first_question) < 160 and told < 60
            else None
        )
        if sort and len(sorts[sort]) < EVALUATION_DOCUMENTS:
            sorts[sort].append(batches.encode(tokenizer, messages))
        number += 1
    return {name: batches.grouped(found, 8192) for name, found in sorts.items()}


def train(args: argparse.Namespace, report: Report) -> None:
    """Run or resume this rank's part of the pre-training; every log line goes to ``report``."""

    if args.processes > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{(args.out / 'rendezvous').resolve()}",
            rank=args.rank,
            world_size=args.processes,
        )

    keep_memory()
    torch.set_num_threads(args.threads)
    out: Path = args.out
    tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
    model = new_model(args.weights_seed).bfloat16().train()
    attention.use(model)
    optimiser = MasterOptimiser(model, args.learning_rate, muon=not args.adamw_only)
    report({"event": "start", **{k: v for k, v in vars(args).items() if k != "out"}})
    run = _Pretraining(args, model, optimiser, tokenizer, _place(args, optimiser), report)
    run.go_on()
    if args.rank:
        return
    run.save()
    report({"event": "end", **run.place, **evaluate(model, run.groups)})


def _place(args: argparse.Namespace, optimiser: MasterOptimiser) -> Place:
    """The beginning, or where the folder's state is; the optimiser goes on from there."""
    begins = args.steps - args.decay_steps
    place: Place = {
        "step": 0,
        "tokens": 0,
        "pool": 0,
        "batch": 0,
        "decay_from": begins,
        "seconds": 0.0,
    }
    if (args.out / "state.pt").exists():
        saved = torch.load(args.out / "state.pt", weights_only=True)
        optimiser.load(saved.pop("optimiser"))
        place = saved
        if args.again and place["step"] < begins:
            place["decay_from"] = begins
    return place


class _Pretraining:
    """The loop of one rank."""

    def __init__(
        self,
        args: argparse.Namespace,
        model: LlamaForCausalLM,
        optimiser: MasterOptimiser,
        tokenizer: Tokenizer,
        place: Place,
        report: Report,
    ) -> None:
        self.args, self.model, self.optimiser = args, model, optimiser
        self.tokenizer, self.place, self.report = tokenizer, place, report
        self.groups = evaluation_groups(tokenizer, args.seed)
        self._last_step = place["decay_from"] + args.decay_steps
        self._before = place["seconds"]
        self._started = self._saved_at = self._logged_at = time.monotonic()
        self._recent: list[float] = []
        self._recent_tokens, self._wish = 0, 0.0

    def go_on(self) -> None:
        """Take every step that is left."""
        args, place = self.args, self.place
        for pool, batch, group in batches.stream(
            self.tokenizer, args.seed, args.batch_tokens, place["pool"], place["batch"]
        ):
            step = place["step"]
            if step >= self._last_step:
                break
            if self._wish and step < place["decay_from"]:
                place["decay_from"], self._last_step = step, step + args.decay_steps
                self.report({"event": "decay", "step": step})
            factor, norm, tokens = self._step(group)
            now = time.monotonic()
            place["step"], place["tokens"] = step + 1, place["tokens"] + tokens
            place["pool"], place["batch"] = pool, batch + 1
            place["seconds"] = self._before + now - self._started
            if (step + 1) % LOG_EVERY_STEPS == 0:
                self._log(factor, norm, now)
            if args.rank == 0 and now - self._saved_at > args.checkpoint_minutes * 60:
                self.save()
                self._saved_at = now

    def _step(self, group: list[batches.Example]) -> tuple[float, float, int]:
        """Take a step; returns (factor of the rate, norm of the gradient, tokens)."""
        args, step = self.args, self.place["step"]
        loss, on_answers, tokens = loss_of(
            self.model, group, torch.Generator().manual_seed(step), args.rank, args.processes
        )
        loss.backward()  # type: ignore[no-untyped-call]
        self._wish = float(args.rank == 0 and (args.out / "decay").exists())
        if args.processes > 1:
            self._wish = join_gradients(self.model, self._wish)
        factor = schedule(step, args.warm_up, self.place["decay_from"], args.decay_steps)
        norm = self.optimiser.step(factor)
        self._recent.append(on_answers)
        self._recent_tokens += tokens
        return factor, norm, tokens

    def _log(self, factor: float, norm: float, now: float) -> None:
        place = self.place
        line: dict[str, object] = {
            "step": place["step"],
            "tokens": place["tokens"],
            "seconds": round(place["seconds"], 1),
            "answer_loss": round(sum(self._recent) / len(self._recent), 4),
            "lr_factor": round(factor, 4),
            "norm": round(norm, 3),
            "tokens_per_second": round(self._recent_tokens / (now - self._logged_at)),
        }
        if place["step"] % EVALUATE_EVERY_STEPS == 0 and self.args.rank == 0:
            line |= evaluate(self.model, self.groups)
        self.report(line)
        give_back_memory()
        self._recent, self._recent_tokens, self._logged_at = [], 0, time.monotonic()

    def save(self) -> None:
        """Write the state and the model as it is."""
        out = self.args.out
        save_state(out / "state.pt", {**self.place, "optimiser": self.optimiser.state()})
        export(self.model, out / "model", out / "tokenizer")


def main(argv: list[str] | None = None) -> int:
    """Command line entry."""
    # Busy waiting between parallel regions costs more than it saves once anything else runs on the
    # machine.
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    args = arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.rank:
        train(args, lambda line: None)
        return 0
    (args.out / "rendezvous").unlink(missing_ok=True)
    if not (args.out / "tokenizer" / "tokenizer.json").exists():
        tokenizers_of_base.build(args.out / "tokenizer", args.seed)
    given = sys.argv[1:] if argv is None else argv
    others = [
        subprocess.Popen(
            [sys.executable, "-m", "training.base.pretrain", *given, "--rank", str(rank)],
            start_new_session=True,
        )
        for rank in range(1, args.processes)
    ]
    try:
        with (args.out / "log.jsonl").open("a", encoding="utf-8") as log:

            def report(line: Mapping[str, object]) -> None:
                log.write(json.dumps(line) + "\n")
                log.flush()

            train(args, report)
        return max((process.wait() for process in others), default=0)
    finally:
        for process in others:
            if process.poll() is None:
                process.terminate()


if __name__ == "__main__":
    raise SystemExit(main())
