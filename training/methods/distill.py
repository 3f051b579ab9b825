"""Knowledge distillation into a LoRA adapter.

From a model folder: the loss mixes cross-entropy with T² · KL(teacher ‖ student) over the learned
tokens, both softened by the temperature T (Hinton et al. 2015, section 2). From an endpoint, which
shows no probabilities: its answers take the place of the rows' own (Kim and Rush 2016).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from training.ask_together import asked_together
from training.data import datasets
from training.data.message import Message, with_passages, written
from training.data.rows import Row, read_lines
from training.endpoint import Endpoint
from training.loop.batches import IGNORED, Batch
from training.loop.loss import Loss, batch_loss
from training.machine.disk_space import translate_disk_full
from training.methods.loop import run
from training.methods.loop import servable as candidate
from training.models.base_model import BaseModel
from training.models.lora import trainable
from training.plan.prepare import Prepared
from training.plan.reporter import Reporter
from whet.context import Context
from whet.errors import ConfigurationError, EndpointError, InputError, TrainingError
from whet.store import canonical_json, digest_bytes

__all__ = ["build", "candidate", "loss", "rows", "run"]

_KEPT = ("id", "weight", "task", "user", "group", "context", "origin")
_NAME = 64  # characters of a dataset's name
# Environment variable with the endpoint's key; a recipe is stored and shown, so it holds none
KEY = "WHET_TEACHER_KEY"


def build(prepared: Prepared) -> nn.Module:
    return trainable(prepared.base, prepared.recipe)


def loss(prepared: Prepared) -> Loss:
    """With an endpoint plain cross-entropy, on its answers; with a folder the mixture, whose
    teacher is loaded here.
    """
    if prepared.recipe.teacher_address:
        return batch_loss
    teacher, recipe = _teacher_model(prepared), prepared.recipe

    def mixed(student: nn.Module, batch: Batch) -> torch.Tensor:
        return distillation_loss(
            student, teacher, batch, share=recipe.kl_weight, temperature=recipe.temperature
        )

    return mixed


def rows(context: Context, prepared: Prepared, reporter: Reporter, folder: Path) -> Prepared:
    """With an endpoint: its answers to the training questions, stored as a dataset of their own.

    A run that is taken up again with that dataset asks for none: other answers than those it began
    with would be another run's rows. What was answered before an attempt ended is in the run's
    folder, and not asked again.
    """
    address = prepared.recipe.teacher_address
    # By whom: rows that another taught, or that only have such a name, are asked about
    mark = f"-taught-{digest_bytes(address.encode())[:8]}"
    if not address or prepared.dataset.name.endswith(mark):
        return prepared
    url, _, model = address.partition("#")
    kept = folder / "taught.jsonl"
    told = taught(prepared, Endpoint(url, model, os.environ.get(KEY, "")), reporter, kept)
    parts = {part: told.dataset.part(part) for part in datasets.PARTS}
    saved = datasets.save(context.store, prepared.dataset.name[: _NAME - len(mark)] + mark, parts)
    kept.unlink(missing_ok=True)
    return replace(told, dataset=saved)


def distillation_loss(
    student: nn.Module, teacher: nn.Module, batch: Batch, *, share: float, temperature: float
) -> torch.Tensor:
    """(1 - share) · cross-entropy + share · T² · KL(teacher ‖ student), means over the learned
    tokens, each weighted by its row. NllSum.

    T² keeps the size of the second term's gradients as T grows.
    """

    arguments = {
        "input_ids": batch.ids,
        "position_ids": batch.positions,
        "logits_to_keep": batch.columns,
        "use_cache": False,
    }
    learned = batch.targets.flatten() != IGNORED
    ours = student(**arguments).logits.flatten(0, 1)[learned].float()
    with torch.no_grad():
        theirs = teacher(**arguments).logits.flatten(0, 1)[learned].float()
    weights = batch.weights.flatten()[learned]
    hard = cross_entropy(ours, batch.targets.flatten()[learned], reduction="none")
    # Models of one family have one vocabulary, but fill it up to other widths with rows that stand
    # for nothing
    width = min(ours.shape[-1], theirs.shape[-1])
    mine, told = (log_softmax(logits[:, :width] / temperature, -1) for logits in (ours, theirs))
    soft = kl_div(mine, told, reduction="none", log_target=True).sum(-1)
    return (((1 - share) * hard + share * temperature**2 * soft) * weights).sum() / weights.sum()


def taught(prepared: Prepared, endpoint: Endpoint, reporter: Reporter, kept: Path) -> Prepared:
    """The run with the endpoint's answers in its training rows; held-out rows keep theirs.

    Answers are kept in a file as they come, and those that it holds are not asked for. Raises
    TrainingError when nothing usable came back, EndpointError.
    """
    encoded, learned, refused = [], [], []
    rows, known = prepared.dataset.train, _answered(kept)
    ask = list({row.digest: row for row in rows if row.digest not in known}.values())
    with translate_disk_full(kept.parent, "What the teacher answered"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with (
            kept.open("ab") as file,
            asked_together(
                lambda row: endpoint.answer(with_passages(row.messages, row.context)[:-1]),
                ask,
            ) as answers,
        ):
            for number, row in enumerate(rows, start=1):
                if row.digest not in known:
                    with _resumable(kept):
                        known[row.digest] = next(answers)
                    # The line before may be torn, and must not spoil this one
                    file.write(b"\n" + canonical_json([row.digest, known[row.digest]]))
                    file.flush()
                reporter.working("asking the teacher", number, len(rows))
                tokens, kept_rows, bad = prepared.encoder.encode_all(
                    [_told(row, known[row.digest])]
                )
                encoded += tokens
                learned += kept_rows
                refused += [replace(each, line=row.line) for each in bad]
    if not encoded:
        raise TrainingError(
            "Not one of the teacher's answers can be learned; of the first: found"
            f" {refused[0].found}, expected {refused[0].expected}.",
            hint="Ask the endpoint by hand; --max-length says how long an answer may be.",
        )
    return replace(
        prepared,
        train=encoded,
        dataset=replace(prepared.dataset, train=learned),
        left_out=[*prepared.left_out, *refused],
    )


@contextmanager
def _resumable(kept: Path) -> Iterator[None]:
    """Raises an endpoint's error with how to go on: the answers so far may have been paid for."""
    try:
        yield
    except EndpointError as error:
        raise EndpointError(
            error.message,
            hint=(
                f"{error.hint} What was answered so far is kept: `whet train resume"
                f" {kept.parent.name}` asks for the rest."
            ),
        ) from error


def _answered(kept: Path) -> dict[str, str]:
    """Row digest → answer, of attempts before this one. What a kill tore is passed over."""
    found = {}
    for line in kept.read_bytes().split(b"\n") if kept.is_file() else []:
        try:
            digest, answer = json.loads(line)
        except ValueError:
            continue
        found[str(digest)] = str(answer)
    return found


def _told(row: Row, answer: str) -> Row:
    """The row with another answer, as it would have been read from a file.

    Its checks were made for its own answer and go.
    """
    kept = {name: value for name, value in row.raw.items() if name in _KEPT}
    taught: Message = {"role": "assistant", "content": answer}
    raw = {**kept, "messages": [*written([*row.messages[:-1], taught])]}
    return read_lines([json.dumps(raw).encode()], origin=row.origin).rows[0]


def _teacher_model(prepared: Prepared) -> nn.Module:
    """Raises InputError for a folder that is none, or whose tokens are other ones."""
    folder = Path(prepared.recipe.teacher)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"The teacher {folder} is not a model's folder.",
            hint="Name a folder in Hugging Face format, or an http address.",
        )
    teacher = BaseModel(folder.resolve(), folder.name)
    try:
        theirs = teacher.tokenizer.get_vocab()
    except ConfigurationError as error:
        raise InputError(
            f"The teacher's tokenizer cannot be read: {error.message}", hint=error.hint
        ) from error
    if theirs != prepared.base.tokenizer.get_vocab():
        raise InputError(
            f"The teacher {folder.name} has another vocabulary than {prepared.base.name}, so their"
            " probabilities cannot be compared token by token.",
            hint=(
                "Use a larger model of the same family; or serve the teacher and give its http"
                " address, which distils its answers instead."
            ),
        )
    return teacher.load_model(prepared.recipe.dtype)
