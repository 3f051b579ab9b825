"""Control tokens of a base model: texts that its tokenizer turns into special tokens anywhere.

A chat template separates turns with control tokens such as `<|end|>`. The same characters in a
person's text become the same token, so a text can forge a turn. What each part of Whet does about
it is in docs/decisions/0010-control-tokens.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from whet.base_folder import local_base_folder
from whet.context import Context
from whet.json_types import JsonObject

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# Single keys (`bos_token`, `image_token`, …) and lists (`additional_special_tokens`, …).
_TOKEN_KEY = re.compile(r".*_tokens?")
# Where the text of a control token is replaced instead of split: the first of these characters
# that no control token contains.
_REPLACEMENTS = "\ufffd\u25a1\u2588\u00b7?_"
_LONGEST_COMMON_TEXT = 2  # characters
_ARGUMENTS = "arguments"  # of a tool call: JSON in a string, in chat and in Responses
_SURROGATES = r"[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"\\(?:u(?P<code>{_SURROGATES}|[0-9a-fA-F]{{4}})|(?P<plain>.))", re.DOTALL)
# Characters that a JSON string cannot hold as they are, and what a lone surrogate decodes to.
_MUST_STAY = frozenset([*map(chr, range(32)), '"', "\\", "\ufffd"])


def is_control_text(text: str) -> bool:
    """Tell whether a special token's text counts as a control token.

    White space, and one or two ASCII characters (some tokenizers pad with "!"), are ordinary
    text: a tokenizer that calls them special cannot tell text from control by them.
    """
    return bool(text.strip()) and not (len(text) <= _LONGEST_COMMON_TEXT and text.isascii())


def read_control_tokens(folder: Path) -> tuple[str, ...]:
    """Read the control tokens of the tokenizer in `folder`, longest first.

    Only JSON files are read. A folder without them, or with files that are not JSON, has none.
    """
    tokenizer, config, names = (_read_object(folder / file) for file in _FILES)
    found = {*_special(tokenizer.get("added_tokens"))}
    found.update(_special(config.get("added_tokens_decoder")))
    for values in (config, names):
        for key, value in values.items():
            if _TOKEN_KEY.fullmatch(key):
                found.update(_contents(value))
    return ordered(found)


def ordered(tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the control tokens among `tokens`, each once, longest first."""
    kept = filter(is_control_text, set(tokens))
    return tuple(sorted(kept, key=lambda token: (-len(token), token)))


def _read_object(file: Path) -> JsonObject:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _special(tokens: Any) -> Iterator[str]:
    """Texts of the added tokens that are special: from a list, or a dict by token id."""
    values = tokens.values() if isinstance(tokens, dict) else tokens
    for token in values if isinstance(tokens, dict | list) else ():
        if isinstance(token, dict) and token.get("special"):
            yield from _contents(token)


def _contents(value: Any) -> Iterator[str]:
    """Texts of tokens given as a string, as `{"content": …}`, or as a list or dict of these."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and isinstance(value.get("content"), str):
        yield value["content"]
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _contents(part)


def control_tokens_of(context: Context) -> tuple[str, ...]:
    """Return the control tokens of the installation's base model, longest first.

    Empty while a hub model's files are not on this machine.
    """
    folder = local_base_folder(context.settings.resolved_base_model)
    if folder is None:
        return ()
    stamps = tuple(_stamp(folder / file) for file in _FILES)
    return _read_cached(folder, stamps)


def _stamp(file: Path) -> tuple[int, int]:
    try:
        stat = file.stat()
    except OSError:
        return (0, 0)
    return (stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_cached(folder: Path, stamps: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    return read_control_tokens(folder)


def load_control_tokens(context: Context) -> ControlTokens:
    """Return what finds the control tokens of the installation's base model in texts."""
    return _compiled(control_tokens_of(context))


@lru_cache(maxsize=16)
def _compiled(tokens: tuple[str, ...]) -> ControlTokens:
    return ControlTokens(tokens)


class ControlTokens:
    """Finds control tokens in texts and takes their effect away."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(sorted({token for token in tokens if token}, key=len, reverse=True))
        self._pattern = re.compile("|".join(map(re.escape, self.tokens))) if self.tokens else None
        self._filler = next(
            (c for c in _REPLACEMENTS if not any(c in token for token in self.tokens)), ""
        )
        self._harmless = {token: self._split(token) for token in self.tokens}
        self.pattern = self._encoded_pattern()

    def _split(self, token: str) -> str:
        split = f"{token[0]} {token[1:]}"
        return self._filler if any(other in split for other in self.tokens) else split

    def _encoded_pattern(self) -> re.Pattern[bytes] | None:
        """Pattern over an encoded body (`msgspec.json.encode`).

        A match is a reason to look at the strings; no match means that no string in it has a
        control token. JSON inside a string (a tool call's arguments) can hide one behind escapes
        of its own, so a backslash in a text matches as well.
        """
        if not self.tokens:
            return None
        inside = [re.escape(msgspec.json.encode(token)[1:-1]) for token in self.tokens]
        return re.compile(b"|".join([*inside, re.escape(b"\\\\")]))

    def find(self, text: str) -> str | None:
        """Return the first control token in `text`, the longest where several begin."""
        match = self._pattern.search(text) if self._pattern else None
        return match.group() if match else None

    def neutralise(self, text: str) -> str:
        """Return `text` with a space after the first character of each control token.

        The result contains no control token. One that no space can split (a single character)
        is replaced by U+FFFD. The same object is returned when there is nothing to do.
        """
        # Ends: a pass either replaces characters, or widens a gap that a token spans exactly.
        while self.find(text) is not None:
            assert self._pattern is not None
            text = self._pattern.sub(lambda match: self._harmless[match.group()], text)
        return text

    def separate(self, texts: Sequence[str]) -> list[str]:
        """Return neutralised `texts` such that joining them makes no control token either.

        Some chat templates write the parts of a message one after the other. A space goes before a
        text that would complete a token.
        """
        found = [self.neutralise(text) for text in texts]
        if self.find("".join(found)) is None:
            return found
        reach = max(map(len, self.tokens)) - 1
        before = ""
        for number, text in enumerate(found):
            for gap in (" ", self._filler):
                if self.find(before + found[number][:reach]) is None:
                    break
                found[number] = gap + text
            before = (before + found[number])[-reach:] if reach else ""
        return found

    def find_json(self, value: Any) -> str | None:
        """Return a control token in any string of a JSON value, keys of objects included.

        Strings under the key `arguments` (of a tool call) are JSON that engines decode, so a token
        written with JSON escapes is found in them as well.
        """
        waiting: list[tuple[Any, Any]] = [("", value)]
        while waiting:
            place, part = waiting.pop()
            if isinstance(part, str):
                found = self.find(part)
                if found is None and place == _ARGUMENTS:
                    found = self.find(_unescape(part))
                if found is not None:
                    return found
            elif isinstance(part, Mapping):
                waiting.extend(part.items())
                waiting.extend(("", key) for key in part)
            elif isinstance(part, list | tuple):
                waiting.extend(enumerate(part))
        return None

    def neutralise_json(self, value: Any) -> Any:
        """Return a JSON value with all strings neutralised, keys of objects included.

        Returns the same object when nothing changes; never changes the one it was given.
        """
        if self.find_json(value) is None:
            return value
        root = [value]
        waiting: list[Any] = [root]
        while waiting:
            container = waiting.pop()
            places = container.items() if isinstance(container, dict) else enumerate(container)
            for place, part in list(places):
                if isinstance(part, str):
                    container[place] = self._neutralise_at(place, part)
                elif isinstance(part, Mapping):
                    container[place] = self._with_neutral_keys(part)
                    waiting.append(container[place])
                elif isinstance(part, list | tuple):
                    container[place] = list(part)
                    waiting.append(container[place])
        return root[0]

    def _neutralise_at(self, place: Any, text: str) -> str:
        if place == _ARGUMENTS and self.find(plain := _unescape(text)) is not None:
            text = plain
        return self.neutralise(text)

    def _with_neutral_keys(self, value: Mapping[str, Any]) -> dict[str, Any]:
        renamed: dict[str, Any] = {}
        for key, part in value.items():
            name = self.neutralise(key)
            while name in renamed and self._filler:
                name += self._filler  # two keys stay two
            renamed[name] = part
        return renamed


def _unescape(text: str) -> str:
    """Return JSON text with each escape that its string can do without written as the character."""
    return _ESCAPE.sub(_unescaped, text) if "\\" in text else text


def _unescaped(match: re.Match[str]) -> str:
    code = match["code"]
    if code is None:
        return "/" if match["plain"] == "/" else match.group()
    character = bytes.fromhex(code.replace("\\u", "")).decode("utf-16-be", "replace")
    return match.group() if character in _MUST_STAY else character
