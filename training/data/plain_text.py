"""Plain texts as tokens, for continued pre-training: every token is learned, and none is lost.

A text is tokenised as the engine tokenises a prompt of the completions route (with the special
tokens that the tokenizer puts before it, if any), and ends with the end-of-text token. What is
longer than a window goes on in the next one, which begins with the last token of the window before
it: there it is only seen, so that each token but the text's first is predicted exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive tokens of a text."""

    start: int  # position in the text's tokens
    ids: tuple[int, ...]
    trained: tuple[bool, ...]  # per token: is it learned here


def windows(tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> list[Window]:
    """Cut a text's tokens into windows of at most `length` tokens (at least 2)."""
    ids = list(tokenizer(text)["input_ids"])
    end = tokenizer.eos_token_id
    if end is not None and ids[-1:] != [end]:
        ids.append(end)
    step = max(length, 2) - 1
    found = []
    for start in range(0, max(len(ids) - 1, 1), step):
        part = ids[start : start + step + 1]
        found.append(Window(start, tuple(part), (start == 0,) + (True,) * (len(part) - 1)))
    return found
