"""Rows to tokens with a loss mask, through the base's own chat template.

What the engine sees before it answers is `render(messages before the turn,
add_generation_prompt=True)`. So the mask is not searched for in the text: the prompt is rendered
that way, the whole conversation is rendered, and only when the first is exactly the beginning of
the second, as text and as tokens, is the remainder learned: the answer (its words and the calls of
tools that the template writes) and its end-of-turn token. Placeholders of removed personal data (a
row's `scrubbed`) are taken out of it again: every token that shares a character with one.

A plain text (`training/data/plain_text.py`) passes no template, and may become several windows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from jinja2 import TemplateError

from training.data.message import Messages, with_passages
from training.data.plain_text import windows
from training.data.rows import BadLine, Row
from training.data.tools import calls_of, find_calls, for_template, same_calls
from training.models.base_model import BaseModel
from training.models.encoded import Encoded
from training.models.tool_calls import called_tools, with_call
from whet.control_tokens import ControlTokens, ordered, read_control_tokens
from whet.errors import ConfigurationError
from whet.json_types import JsonObject

# What is found of an answer of which nothing but its end is learned. `whet data check` tells such
# rows from the others that are refused.
NOTHING_TO_LEARN = "no token to learn: all of the answer is placeholders of removed data"


class _Refused(Exception):
    """One row cannot be encoded; the arguments are what was found and what is expected."""


class _CallLeftOut(_Refused):
    """The chat template leaves out a call of a tool, so what would be learned is not the answer."""


class Encoder:
    """Encodes rows for one base model.

    Raises ConfigurationError at once for a template that no row could pass.
    """

    def __init__(self, base: BaseModel, max_length: int) -> None:
        self.base, self.max_length = base, max_length
        self._tokenizer = base.tokenizer
        # In a row's text they mean that somebody rendered it before, or forged a turn. Review and
        # dataset builds read the folder's files alone, so what those name counts here as well.
        special = [str(t) for t in self._tokenizer.added_tokens_decoder.values() if t.special]
        self._control = ControlTokens(ordered([*special, *read_control_tokens(base.folder)]))
        self._prove_template()

    def encode(self, row: Row) -> Encoded | BadLine:
        """Tokens and mask of a row (of a long text: its first window), or why it is refused."""
        found = self.encode_windows(row)
        return found if isinstance(found, BadLine) else found[0]

    def encode_windows(self, row: Row) -> list[Encoded] | BadLine:
        """All that is learned of a row: one entry, or several for a text above `max_length`."""
        try:
            return self._text_windows(row) if row.is_text else [self._encode(row)]
        except _Refused as refused:
            return BadLine(row.line, *refused.args)

    def encode_all(self, rows: list[Row]) -> tuple[list[Encoded], list[Row], list[BadLine]]:
        """(encoded rows, the rows they came from, refused rows). A long text is several entries
        of the first list, and one of the second."""
        encoded, kept, bad = [], [], []
        for row in rows:
            result = self.encode_windows(row)
            if isinstance(result, BadLine):
                bad.append(result)
            else:
                encoded += result
                kept.append(row)
        return encoded, kept, bad

    def takes(self, row: Row) -> bool:
        """Whether the row can be learned from, and so be asked."""
        return isinstance(self.encode(row), Encoded)

    def unseen(self, row: Row) -> list[str]:
        """What of a row that can be learned from the template leaves out without a word, so that
        no model sees it: "a call of NAME", "the text of message N", "the tools"."""
        if row.is_text or (
            len(row.messages) == 2
            and row.messages[0]["role"] == "user"
            and not (row.context or row.tools or row.calls)
        ):
            return []  # most rows are a question and an answer, which no template leaves out
        messages = self._conversation(row)
        text = self._render(messages, row.tools, opened=False)
        missing = [
            f"a call of {name}"
            for at, message in enumerate(messages)
            for name in called_tools(message)
            if self._without_calls(messages, at, row.tools) == text
        ]
        missing += [
            f"the text of message {at}"
            for at, message in enumerate(messages, start=1)
            if message["content"].strip() not in text
        ]
        return missing + (
            ["the tools"] if row.tools and self._render(messages, (), opened=False) == text else []
        )

    def _without_calls(self, messages: Messages, at: int, tools: Sequence[JsonObject]) -> str:
        """The conversation as rendered when message `at` made no call; empty where the template
        refuses that.
        """
        silent = messages[at].copy()
        silent.pop("tool_calls", None)
        try:
            return self._render([*messages[:at], silent, *messages[at + 1 :]], tools, opened=False)
        except _Refused:
            return ""

    def prompt_ids(self, row: Row) -> list[int]:
        """The tokens that the engine is given to answer this row."""
        return self.asked_ids(self._conversation(row)[:-1], row.tools)

    def asked_ids(self, messages: Messages, tools: Sequence[JsonObject] = ()) -> list[int]:
        """The tokens of a conversation that waits for an answer."""
        return self._tokens(self._render(messages, tools, opened=True))

    def text_ids(self, text: str) -> list[int]:
        """The tokens of a plain text, without a template."""
        return self._tokens(text)

    def answer_tokens(self, row: Row) -> int:
        """Length of the reference answer."""
        return len(self._tokens(self.rendered_answer(row) if row.calls else row.answer))

    def rendered_answer(self, row: Row) -> str:
        """The answer of a row that can be learned from, as the template writes it: what a model has
        to produce, without the end-of-turn token."""
        encoded = self._encode(row)
        return self.decode_whole(list(encoded.ids[encoded.prompt_tokens : -1]))

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def decode_whole(self, ids: list[int]) -> str:
        """Text of the tokens with control tokens, which some templates mark calls with."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def _conversation(self, row: Row) -> Messages:
        return with_passages([for_template(message) for message in row.messages], row.context)

    def _text_windows(self, row: Row) -> list[Encoded]:
        self._refuse_control_tokens(list(row.messages))
        found = windows(self._tokenizer, row.answer, self.max_length)
        hidden = set(self._touching(row.answer, row.scrubbed, special=True))
        return [
            Encoded(
                part.ids,
                tuple(
                    at not in hidden and learned
                    for at, learned in enumerate(part.trained, start=part.start)
                ),
                0,
                row.weight,
                row.line,
            )
            for part in found
        ]

    def _encode(self, row: Row) -> Encoded:
        messages = self._conversation(row)
        self._refuse_control_tokens([*messages, *row.tools])
        answers = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        turns = [
            at
            for number, at in enumerate(answers)
            if number not in row.unlearned and (messages[at]["content"] or calls_of(messages[at]))
        ]
        turns = turns if row.mode == "all" else turns[-1:]
        text = self._render(messages, row.tools, opened=False)
        ids = self._tokens(text)
        trained = [False] * len(ids)
        prompt_tokens = end = 0
        for turn in turns:
            try:
                prompt_tokens, end = self._span(messages, turn, ids, row.tools)
            except _CallLeftOut:
                if turn == turns[-1]:
                    raise
                continue  # of an earlier turn nothing is learned then; `unseen` says so
            trained[prompt_tokens:end] = [True] * (end - prompt_tokens)
        for position in self._touching(text, row.scrubbed):
            trained[position] = False
        if (
            row.scrubbed
            and not self.decode(
                [ids[at] for at in range(end) if trained[at] and ids[at] not in self.base.stop_ids]
            ).strip()
        ):
            raise _Refused(NOTHING_TO_LEARN, "an answer with words of its own")
        if end > self.max_length:
            raise _Refused(
                f"{end} tokens",
                f"at most {self.max_length}, which is what the base and the engine take",
            )
        return Encoded(tuple(ids[:end]), tuple(trained[:end]), prompt_tokens, row.weight, row.line)

    def _touching(
        self, text: str, placeholders: tuple[str, ...], *, special: bool = False
    ) -> list[int]:
        """Positions of the tokens that share a character with a placeholder."""
        spans = (
            [match.span() for match in re.finditer("|".join(map(re.escape, placeholders)), text)]
            if placeholders
            else []
        )
        if not spans:
            return []
        if not self._tokenizer.is_fast:
            raise _Refused(
                "removed personal data, and a tokenizer that cannot say where its tokens lie",
                "a base with a fast tokenizer (tokenizer.json)",
            )
        places = self._tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        return [
            position
            for position, (start, end) in enumerate(places)
            if any(start < last and first < end for first, last in spans)
        ]

    def _span(
        self,
        messages: Messages,
        turn: int,
        whole: list[int],
        tools: Sequence[JsonObject],
    ) -> tuple[int, int]:
        """[start, end) of the tokens of one assistant turn, its end-of-turn token included."""
        before = self._render(messages[:turn], tools, opened=True)
        through = self._render(messages[: turn + 1], tools, opened=False)
        if not through.startswith(before):
            raise _Refused(
                "a chat template that renders the conversation before the answer differently once"
                " the answer is there",
                "a template whose prompt is the beginning of the whole (with train: all, for every"
                " turn)",
            )
        if calls_of(messages[turn]):
            self._require_calls(messages[: turn + 1], through, through[len(before) :], tools)
        elif messages[turn]["content"].strip() not in through[len(before) :]:
            raise _Refused(
                "a chat template that changes or drops the answer's text",
                "the answer as it was written",
            )
        start_ids, through_ids = self._tokens(before), self._tokens(through)
        if through_ids[: len(start_ids)] != start_ids:
            raise _Refused(
                "an answer whose first characters melt into a token of the prompt",
                "an answer that starts with a token of its own",
            )
        stops = [
            position
            for position in range(len(start_ids), len(through_ids))
            if through_ids[position] in self.base.stop_ids
        ]
        if not stops:
            raise _Refused(
                "no end-of-turn token after the answer: the model would never learn to stop",
                "a template that closes the assistant's turn with a token at which the engine"
                " stops",
            )
        end = stops[0] + 1
        if whole[:end] != through_ids[:end]:
            raise _Refused(
                "a chat template that renders an earlier answer differently once the conversation"
                " goes on",
                'one that does not, or "train": "last"',
            )
        return len(start_ids), end

    def _require_calls(
        self,
        messages: Messages,
        through: str,
        answer: str,
        tools: Sequence[JsonObject],
    ) -> None:
        """Raise _CallLeftOut unless the `answer`, rendered at the end of `through`, holds every
        call of the last message with its arguments."""
        calls = calls_of(messages[-1])
        if same_calls(calls, [found.call for found in find_calls(answer)]):
            return
        # A form of the template's own: what it writes must depend on what is called
        for at, call in enumerate(calls):
            named = self._render(
                [*messages[:-1], with_call(messages[-1], at, name=f"{call.name}_")],
                tools,
                opened=False,
            )
            given = self._render(
                [
                    *messages[:-1],
                    with_call(messages[-1], at, arguments={**call.arguments, "_": "_"}),
                ],
                tools,
                opened=False,
            )
            if through in (named, given):
                part = "the arguments of the call" if through != named else "the call"
                raise _CallLeftOut(
                    f"{part} of {call.name} as the answer, which the base's chat template"
                    " leaves out",
                    "an answer in words, or a base whose template writes calls of tools",
                )

    def _refuse_control_tokens(self, messages: Sequence[Mapping[str, object]]) -> None:
        for position, message in enumerate(messages, start=1):
            token = self._control.find_json(message)
            if token is not None:
                raise _Refused(
                    f"the control token {token} in the text of message {position}",
                    "plain text: the chat template adds control tokens itself",
                )

    def _render(self, messages: Messages, tools: Sequence[JsonObject], *, opened: bool) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    # Templates take every field of a message, more than their annotation says.
                    cast(list[dict[str, str]], messages),
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=opened,
                )
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise _Refused(
                f"a conversation that the base's chat template refuses ({error})",
                "the roles and order that the template knows",
            ) from error

    def _tokens(self, text: str) -> list[int]:
        # The engine adds no special tokens to a rendered conversation: the template has written
        # them all.
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
                f"The chat template of {self.base.name} cannot be trained with: found"
                f" {result.found}; expected {result.expected}.",
                hint=(
                    "Correct chat_template.jinja (and the end-of-turn token in"
                    " generation_config.json) in the model's folder."
                ),
            )
