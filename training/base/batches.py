"""From dialogues to padded batches of token ids with a mask of the positions that are learned.

Documents are sorted by length inside a pool and padded to their neighbours, not packed: hardly
any padding is wasted, attention stays short, and no document sees another one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from training.base.corpus import document
from training.base.documents import Messages
from training.base.tokenizer import ASSISTANT, CONTEXT_TOKENS, END

POOL_DOCUMENTS = 4096
# The prompt's own tokens are mostly random names: a tenth of them is enough to keep the language
# of customers fluent, and the projection to the vocabulary is not paid for the others.
PROMPT_SHARE = 0.1

BaseTokenizer = Tokenizer | PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """Token ids of one dialogue and, for each, whether it belongs to an answer (its closing token
    included).
    """

    ids: list[int]
    answer: list[bool]


def encode(tokenizer: BaseTokenizer, messages: Messages) -> Example:
    """Tokenise ``messages`` as the chat template does, marking the answers."""
    ids: list[int] = []
    answer: list[bool] = []
    for message in messages:
        role = f"<|{message['role']}|>"
        piece = tokenizer.encode(role + message["content"] + END, add_special_tokens=False)
        pieces = piece.ids if isinstance(piece, Encoding) else piece
        ids += pieces
        answer += [False] + [role == ASSISTANT] * (len(pieces) - 1)
    return Example(ids[:CONTEXT_TOKENS], answer[:CONTEXT_TOKENS])


def grouped(examples: list[Example], batch_tokens: int) -> list[list[Example]]:
    """Neighbours in length, as many as fit into ``batch_tokens`` padded tokens."""
    groups: list[list[Example]] = []
    current: list[Example] = []
    for example in sorted(examples, key=lambda e: len(e.ids)):
        if current and len(example.ids) * (len(current) + 1) > batch_tokens:
            groups.append(current)
            current = []
        current.append(example)
    if current:
        groups.append(current)
    return groups


def pool(
    tokenizer: BaseTokenizer, seed: str, number: int, batch_tokens: int
) -> list[list[Example]]:
    """The shuffled batches of pool ``number``."""
    start = number * POOL_DOCUMENTS
    examples = [encode(tokenizer, document(seed, n)) for n in range(start, start + POOL_DOCUMENTS)]
    groups = grouped(examples, batch_tokens)
    Random(f"{seed}:pool:{number}").shuffle(groups)
    return groups


def tensors(
    group: list[Example], generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``(ids, answer, learned)``, each ``[documents, tokens]``; the masks mark targets and are one
    shorter in time.
    """

    width = -(-max(len(example.ids) for example in group) // 8) * 8
    ids = torch.zeros(len(group), width, dtype=torch.long)
    answer = torch.zeros(len(group), width, dtype=torch.bool)
    real = torch.zeros(len(group), width, dtype=torch.bool)
    for row, example in enumerate(group):
        size = len(example.ids)
        ids[row, :size] = torch.tensor(example.ids)
        answer[row, :size] = torch.tensor(example.answer)
        real[row, :size] = True
    sampled = torch.rand(ids.shape, generator=generator) < PROMPT_SHARE
    return ids, answer[:, 1:], (answer | (real & sampled))[:, 1:]


def stream(
    tokenizer: BaseTokenizer,
    seed: str,
    batch_tokens: int,
    start_pool: int = 0,
    start_batch: int = 0,
) -> Iterator[tuple[int, int, list[Example]]]:
    """``(pool, batch, documents)`` from a given place on, without end."""
    number = start_pool
    while True:
        groups = pool(tokenizer, seed, number, batch_tokens)
        for batch in range(start_batch, len(groups)):
            yield number, batch, groups[batch]
        number, start_batch = number + 1, 0
