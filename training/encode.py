"""Rows to tokens with a loss mask, through the base's own chat template.

What the engine sees before it answers is `render(messages before the turn, add_generation_prompt=True)`. So the mask is not
searched for in the text: the prompt is rendered that way, the whole conversation is rendered, and only when the first is
exactly the beginning of the second, as text and as tokens, is the remainder learned: the answer and its end-of-turn token.
Placeholders of removed personal data (a row's `scrubbed`) are taken out of it again: every token that shares a character with one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from training.base_model import BaseModel
from training.rows import BadLine, Row
from whet.control_tokens import ControlTokens, ordered, read_control_tokens
from whet.errors import ConfigurationError
from whet.grounding import with_context

# What is found of an answer of which nothing but its end is learned. `whet data check` tells such rows from the others that are refused.
NOTHING_TO_LEARN = "no token to learn: all of the answer is placeholders of removed data"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as tokens."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]  # per token: does it count in the loss
    prompt_tokens: int  # tokens before the last answer: what the engine is given
    weight: float

    @property
    def trained_tokens(self) -> int:
        return sum(self.trained)


class _Refused(Exception):
    """One row cannot be encoded; the arguments are what was found and what is expected."""


class Encoder:
    """Encodes rows for one base model. Raises ConfigurationError at once for a template that no row could pass."""

    def __init__(self, base: BaseModel, max_length: int) -> None:
        self.base, self.max_length = base, max_length
        self._tokenizer = base.tokenizer
        # In a row's text they mean that somebody rendered it before, or forged a turn. Review and
        # dataset builds read the folder's files alone, so what those name counts here as well.
        special = [str(t) for t in self._tokenizer.added_tokens_decoder.values() if t.special]
        self._control = ControlTokens(ordered([*special, *read_control_tokens(base.folder)]))
        self._prove_template()

    def encode(self, row: Row) -> Encoded | BadLine:
        """Tokens and mask of a row, or why it cannot be learned from."""
        try:
            return self._encode(row)
        except _Refused as refused:
            return BadLine(row.line, *refused.args)

    def encode_all(self, rows: list[Row]) -> tuple[list[Encoded], list[Row], list[BadLine]]:
        """(encoded rows, the rows they came from, refused rows)."""
        encoded, kept, bad = [], [], []
        for row in rows:
            result = self.encode(row)
            if isinstance(result, BadLine):
                bad.append(result)
            else:
                encoded.append(result)
                kept.append(row)
        return encoded, kept, bad

    def takes(self, row: Row) -> bool:
        """Whether the row can be learned from, and so be asked."""
        return isinstance(self.encode(row), Encoded)

    def unseen(self, row: Row) -> list[str]:
        """What of a row that can be learned from the template leaves out without a word, so that no model sees it: "a call of NAME", "the text of message N"."""
        if len(row.messages) == 2 and row.messages[0]["role"] == "user" and not row.context and not any(message.get("tool_calls") for message in row.messages):
            return []  # most rows are a question and an answer, which no template leaves out
        messages = self._conversation(row)
        text = self._render(messages, opened=False)
        missing = [f"a call of {name}" for message in messages for name in _called(message) if name not in text]
        return missing + [f"the text of message {at}" for at, message in enumerate(messages, start=1) if message["content"].strip() not in text]

    def prompt_ids(self, row: Row) -> list[int]:
        """The tokens that the engine is given to answer this row."""
        return self.asked_ids(self._conversation(row)[:-1])

    def asked_ids(self, messages: list[dict[str, Any]]) -> list[int]:
        """The tokens of a conversation that waits for an answer."""
        return self._tokens(self._render(messages, opened=True))

    def answer_tokens(self, row: Row) -> int:
        """Length of the reference answer."""
        return len(self._tokens(row.answer))

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _conversation(self, row: Row) -> list[dict[str, Any]]:
        return with_context([_as_engines_render(message) for message in row.messages], row.context)

    def _encode(self, row: Row) -> Encoded:
        messages = self._conversation(row)
        self._refuse_control_tokens(messages)
        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        turns = [
            at
            for number, at in enumerate(answers)
            if messages[at]["content"] and number not in row.unlearned
        ]
        turns = turns if row.mode == "all" else turns[-1:]
        text = self._render(messages, opened=False)
        ids = self._tokens(text)
        trained = [False] * len(ids)
        prompt_tokens = end = 0
        for turn in turns:
            prompt_tokens, end = self._span(messages, turn, ids)
            trained[prompt_tokens:end] = [True] * (end - prompt_tokens)
        for position in self._touching(text, row.scrubbed):
            trained[position] = False
        if row.scrubbed and not self.decode([ids[at] for at in range(end) if trained[at] and ids[at] not in self.base.stop_ids]).strip():
            raise _Refused(NOTHING_TO_LEARN, "an answer with words of its own")
        if end > self.max_length:
            raise _Refused(f"{end} tokens", f"at most {self.max_length}, which is what the base and the engine take")
        return Encoded(tuple(ids[:end]), tuple(trained[:end]), prompt_tokens, row.weight)

    def _touching(self, text: str, placeholders: tuple[str, ...]) -> list[int]:
        """Positions of the tokens that share a character with a placeholder."""
        spans = [match.span() for match in re.finditer("|".join(map(re.escape, placeholders)), text)] if placeholders else []
        if not spans:
            return []
        if not self._tokenizer.is_fast:
            raise _Refused("removed personal data, and a tokenizer that cannot say where its tokens lie", "a base with a fast tokenizer (tokenizer.json)")
        places = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [position for position, (start, end) in enumerate(places) if any(start < last and first < end for first, last in spans)]

    def _span(self, messages: list[dict[str, Any]], turn: int, whole: list[int]) -> tuple[int, int]:
        """[start, end) of the tokens of one assistant turn, its end-of-turn token included."""
        before = self._render(messages[:turn], opened=True)
        through = self._render(messages[: turn + 1], opened=False)
        if not through.startswith(before):
            raise _Refused(
                "a chat template that renders the conversation before the answer differently once the answer is there",
                "a template whose prompt is the beginning of the whole (with train: all, for every turn)",
            )
        if messages[turn]["content"].strip() not in through[len(before) :]:
            raise _Refused("a chat template that changes or drops the answer's text", "the answer as it was written")
        start_ids, through_ids = self._tokens(before), self._tokens(through)
        if through_ids[: len(start_ids)] != start_ids:
            raise _Refused("an answer whose first characters melt into a token of the prompt", "an answer that starts with a token of its own")
        stops = [position for position in range(len(start_ids), len(through_ids)) if through_ids[position] in self.base.stop_ids]
        if not stops:
            raise _Refused(
                "no end-of-turn token after the answer: the model would never learn to stop",
                "a template that closes the assistant's turn with a token at which the engine stops",
            )
        end = stops[0] + 1
        if whole[:end] != through_ids[:end]:
            raise _Refused("a chat template that renders an earlier answer differently once the conversation goes on", 'one that does not, or "train": "last"')
        return len(start_ids), end

    def _refuse_control_tokens(self, messages: list[dict[str, Any]]) -> None:
        for position, message in enumerate(messages, start=1):
            token = self._control.find_json(message)
            if token is not None:
                raise _Refused(
                    f"the control token {token} in the text of message {position}",
                    "plain text: the chat template adds control tokens itself",
                )

    def _render(self, messages: list[dict[str, Any]], *, opened: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened))
        except (TemplateError, TypeError, KeyError) as error:
            raise _Refused(f"a conversation that the base's chat template refuses ({error})", "the roles and order that the template knows") from error

    def _tokens(self, text: str) -> list[int]:
        # The engine adds no special tokens to a rendered conversation: the template has written them all.
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _prove_template(self) -> None:
        """Refuse a template that fails on the simplest conversation: then no row is at fault."""
        simple = Row(
            0,
            "",
            "",
            "",
            ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}),
            "messages",
            "last",
            1.0,
            "",
            None,
            None,
            (),
            (),
            "seed",
            {},
        )
        limit, self.max_length = self.max_length, 1 << 30
        result = self.encode(simple)
        self.max_length = limit
        if isinstance(result, BadLine):
            raise ConfigurationError(
                f"The chat template of {self.base.name} cannot be trained with: found {result.found}; expected {result.expected}.",
                hint="Correct chat_template.jinja (and the end-of-turn token in generation_config.json) in the model's folder.",
            )


def _as_engines_render(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its tool calls as objects.

    Engines decode them for chat templates, and put an empty object where they are no object.
    """
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return message
    return {**message, "tool_calls": [_with_decoded_arguments(call) for call in calls]}


def _with_decoded_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = {}
    arguments = arguments if isinstance(arguments, dict) else {}
    return {**call, "function": {**function, "arguments": arguments}}


def _called(message: dict[str, Any]) -> list[str]:
    """Names of the tools that a message calls, in whatever form it says so."""
    calls = message.get("tool_calls")
    functions = [call.get("function", call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [str(function.get("name") or "?") for function in functions if isinstance(function, dict)]
