"""Rehearse general questions while a narrow task is learned, so that the base's skills stay.

The base answers prompts of everyday life itself, once, and its answers are learned among the run's
rows (J. Huang et al., "Mitigating Catastrophic Forgetting in Large Language Models with
Self-Synthesized Rehearsal", 2024; A. Robins, "Catastrophic forgetting, rehearsal and
pseudorehearsal", 1995).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random

from training.data.general_prompts import GENERAL_PROMPTS
from training.data.rows import Row, read_lines
from training.loop.generation import greedy
from training.machine.device import compute_dtype
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.plan.prepare import Prepared
from whet.context import Context
from whet.store import digest_json

# Tokens of an answer; one that has not ended by then is not learned. A paragraph has some 100.
_MOST_TOKENS = 160
_AT_ONCE = 16  # prompts answered together


def with_rehearsal(
    context: Context, prepared: Prepared, on_answer: Callable[[int, int], None]
) -> Prepared:
    """The run with general questions among its rows, where its recipe asks for them.

    `on_answer` is told answers done and answers in all, while the base gives them for the first
    time, and may raise to stop.
    """
    share = prepared.recipe.rehearsal_share or 0.0
    # Of all rows of a pass, `share` is general: n / (1 - share) rows in all
    wanted = round(share * len(prepared.train) / (1 - share))
    if not wanted or prepared.rehearsed:
        return prepared
    known = _base_answers(context, prepared.base, prepared.recipe.dtype, on_answer)
    rows = [row for row in known if row.prompt_digest not in _asked(prepared)]
    Random(prepared.recipe.seed).shuffle(rows)
    encoded: list[Encoded] = []
    kept: list[Row] = []
    for row in rows:
        found = prepared.encoder.encode(row)
        if isinstance(found, Encoded) and len(kept) < wanted:
            encoded.append(found)
            kept.append(row)
    return replace(
        prepared,
        dataset=replace(prepared.dataset, train=[*prepared.dataset.train, *kept]),
        train=[*prepared.train, *encoded],
        variants=[[*some, *encoded] for some in prepared.variants],
        rehearsed=len(kept),
    )


def _asked(prepared: Prepared) -> frozenset[str]:
    """Questions that the run's own rows answer, or will be asked."""
    parts = (prepared.dataset.train, prepared.dataset.validation, prepared.dataset.test)
    return frozenset(row.prompt_digest for part in parts for row in part)


def _base_answers(
    context: Context, base: BaseModel, dtype: str, on_answer: Callable[[int, int], None]
) -> list[Row]:
    """The prompts that the base answers to an end, as rows; kept in the store for the next run."""
    key = digest_json(
        [base.digest, base.template_digest, list(GENERAL_PROMPTS), _MOST_TOKENS, dtype]
    )
    path = f"rehearsal/{key}.json"
    if not context.store.exists(path):
        context.store.put_json(path, _answered(base, dtype, on_answer))
    found = context.store.read_json(path)
    return read_lines(json.dumps(each).encode() for each in found).rows


def _answered(
    base: BaseModel, dtype: str, on_answer: Callable[[int, int], None]
) -> list[dict[str, str]]:
    encoder = Encoder(base, base.max_positions)
    model = base.load_model(compute_dtype(dtype))
    asked = read_lines(
        json.dumps({"prompt": prompt, "completion": "."}).encode() for prompt in GENERAL_PROMPTS
    ).rows
    found: list[dict[str, str]] = []
    for first in range(0, len(asked), _AT_ONCE):
        some = asked[first : first + _AT_ONCE]
        prompts = [encoder.prompt_ids(row) for row in some]
        written = greedy(model, prompts, base.stop_ids, _MOST_TOKENS)
        for prompt, ids in zip(GENERAL_PROMPTS[first : first + _AT_ONCE], written, strict=True):
            text = encoder.decode(ids[:-1]).strip()
            if ids[-1] in base.stop_ids and text:
                found.append({"prompt": prompt, "completion": text, "origin": "synthetic"})
        on_answer(first + len(some), len(asked))
    return found
