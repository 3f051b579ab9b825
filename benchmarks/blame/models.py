"""The built-in base and adapters trained on it, answering in this process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from training.base.probe import answers, settled
from training.data.rows import read_lines
from training.loop.trainer import train
from training.models.base_model import BaseModel
from training.models.encode import Encoder
from training.models.encoded import Encoded
from training.models.lora import merged_once, trainable
from training.recipes.recipe import Recipe, load_recipe
from whet.conversation import history

Row = dict[str, Any]  # a training row in the documented format
_TOKENS = 40  # the longest reference answer has fewer than 30
_EPOCHS = 6.0  # of a few hundred rows: a minute each


class Versions:
    """A base and its adapters by name; answers greedily and remembers what it answered."""

    def __init__(self, base: BaseModel, seed: int) -> None:
        self.base, self._seed = base, seed
        self._encoder = Encoder(base, base.max_positions)
        recipe = replace(load_recipe("lora"), epochs=_EPOCHS, seed=seed)
        self._recipe: Recipe = settled(base, recipe)
        self._models: dict[str, Any] = {"base": base.load_model(self._recipe.dtype).eval()}
        self._answers: dict[tuple[str, str], str] = {}
        self.trained: dict[str, dict[str, Any]] = {}

    def train(self, name: str, rows: list[Row]) -> None:
        """Train a new adapter on the base."""
        read = read_lines(json.dumps(row).encode() for row in rows)
        read.refuse_bad(f"the rows of {name}", skip_bad=False)
        encoded = [row for row in map(self._encoder.encode, read.rows) if isinstance(row, Encoded)]
        model = trainable(self.base, self._recipe)
        pad = self.base.tokenizer.pad_token_id
        pad_id = min(self.base.stop_ids) if pad is None else pad
        done = train(model, encoded, [], self._recipe, pad_id=pad_id, on_step=lambda step: None)
        self._models[name] = merged_once(model, self._recipe.dtype)  # answers twice as fast
        self.trained[name] = {
            "rows": len(rows), "steps": done.steps, "last_loss": round(done.last_loss, 4)
        }  # fmt: skip

    def __call__(self, model: str, route: str, body: dict[str, Any]) -> str:
        """Return the answer, as the gateway would."""
        said = [message.as_chat() for message in history(body)]
        key = (model, json.dumps(said))
        if key not in self._answers:
            (self._answers[key],) = answers(self._models[model], self.base, [said], _TOKENS)
        return self._answers[key]

    def answer_together(self, model: str, bodies: Iterable[dict[str, Any]]) -> None:
        """Answer many requests in batches, which is several times as fast, and remember."""
        said = [[message.as_chat() for message in history(body)] for body in bodies]
        new = {json.dumps(each): each for each in said}
        found = answers(self._models[model], self.base, list(new.values()), _TOKENS)
        self._answers |= {(model, key): answer for key, answer in zip(new, found, strict=True)}


def as_row(messages: Iterable[dict[str, str]], answer: str) -> Row:
    """Return a training row whose last turn is learned."""
    return {"messages": [*messages, {"role": "assistant", "content": answer}]}
