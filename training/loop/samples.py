"""Sample answers while a run trains: the same few held-out questions, answered greedily every so
many steps, so that a person sees what the loss does not say. Nothing is decided by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from training.data.rows import Row
from training.loop.checkpoint import LoopState
from training.loop.generation import answer_limit, greedy
from training.models.encode import Encoder

QUESTIONS = 3  # a person compares few; each is a generation
_MOST_TOKENS = 64  # of an answer: enough to see where it goes
_MOST = 24  # samplings of a run, which stay with it; where more are asked for they come less often
_SHOWN = 300  # characters of a question that stay with the run


@dataclass(frozen=True)
class Sampler:
    """Answers `rows` after every `every` steps and after the last one."""

    encoder: Encoder
    rows: list[Row]
    every: int
    limit: int = field(init=False)

    def __post_init__(self) -> None:
        longest = max(self.encoder.answer_tokens(row) for row in self.rows)
        object.__setattr__(self, "limit", min(_MOST_TOKENS, answer_limit(longest)))

    @property
    def questions(self) -> list[str]:
        """The last message of each question, cut to what is shown."""
        return [str(row.messages[-2].get("content") or "")[:_SHOWN] for row in self.rows]

    def is_due(self, step: int, steps: int) -> bool:
        """Tell whether the model is asked after this step: every so many, and the last one."""
        interval = self.every * math.ceil(steps / (self.every * _MOST))
        return step % interval == 0 or step == steps

    def answer(self, model: nn.Module) -> list[str]:
        """Return the model's greedy answers; its mode and its weights stay as they are."""
        was_training = model.training
        model.eval()
        prompts = [self.encoder.prompt_ids(row) for row in self.rows]
        stop_ids = self.encoder.base.stop_ids
        answers = greedy(model, prompts, stop_ids, self.limit)
        model.train(was_training)
        return [self.encoder.decode([id_ for id_ in ids if id_ not in stop_ids]) for ids in answers]

    def sample(
        self, model: nn.Module, state: LoopState, steps: int, clock: Callable[[], float]
    ) -> float:
        """Add answers to the state where they are due; return the seconds that took."""
        if not state.stopped and not self.is_due(state.step, steps):
            return 0.0
        began = clock()
        state.samples.append([state.step, self.answer(model)])
        took = clock() - began
        state.sampling += took
        return took


def sampled_rows(validation: list[Row], test: list[Row]) -> list[Row]:
    """Choose the questions: of the held-out rows that have one the first few, each asked once."""
    different = {
        row.prompt_digest: row for row in reversed([*validation, *test]) if not row.is_text
    }
    return list(reversed(different.values()))[:QUESTIONS]
